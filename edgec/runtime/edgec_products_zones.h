/* edgec_products_zones.h: products of edgec_products.h with biases that depend on the place. */
#ifndef EDGEC_PRODUCTS_ZONES_H
#define EDGEC_PRODUCTS_ZONES_H

#include "edgec_products.h"
#include "edgec_zones.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows `place`, place + 1, place + 2 of an image; the deltas of the pairs begin at number `first`
 * of each zone. */
#define EDGEC_ROWS3_ZONES(suffix)                                                                  \
    EDGEC_INLINE void edgec_rows3_zones_##suffix(                                                  \
        const int32_t *w, const int32_t *x, int32_t quads, int32_t pairs, void *y, int32_t stride, \
        const int16_t *deltas, const int16_t *map, int32_t first, int32_t place) {                 \
        const int16_t *at[3];                                                                      \
        int32_t plain = 1;                                                                         \
        for (int32_t k = 0; k < 3; ++k) {                                                          \
            at[k] = edgec_zones_at(deltas, map, place + k);                                        \
            plain = plain && at[k] == deltas;                                                      \
            at[k] += first;                                                                        \
        }                                                                                          \
        if (plain)                                                                                 \
            edgec_rows3_##suffix(w, x, quads, pairs, y, stride);                                   \
        else                                                                                       \
            edgec_rows3_##suffix##_zoned(w, x, quads, pairs, y, stride, at);                       \
    }
#define EDGEC_ROWS3_BOTH(suffix) EDGEC_ROWS3_ZONES(suffix) EDGEC_ROWS3_ZONES(suffix##_apart)
EDGEC_ROWS3_BOTH(i32)
EDGEC_ROWS3_BOTH(i8)
EDGEC_ROWS3_BOTH(i8_lift)
EDGEC_ROWS3_BOTH(i16_lift)
EDGEC_ROWS3_BOTH(i8_tflite)
#undef EDGEC_ROWS3_BOTH
#undef EDGEC_ROWS3_ZONES

#ifdef __cplusplus
}
#endif

#endif
