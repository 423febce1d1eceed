/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_products_zones.h: products of edgec_products.h with biases that depend on the place. */
/* Included for edgec_rows3_zones. */
#ifndef EDGEC_PRODUCTS_ZONES_H
#define EDGEC_PRODUCTS_ZONES_H

#include "edgec_products.h"
#include "edgec_zones.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows `place`, place + 1, place + 2 of an image; the deltas of the pairs begin at number `first`
 * of each zone. */
#define EDGEC_ROWS3_ZONES(suffix, bits)                                                            \
    EDGEC_INLINE void edgec_rows3_zones##bits##_##suffix(                                          \
        const int32_t *w, const int32_t *x, int32_t quads, int32_t pairs, void *y, int32_t stride, \
        const int##bits##_t *deltas, const int16_t *map, int32_t first, int32_t place) {           \
        const int##bits##_t *at[3];                                                                \
        int32_t other = 0;                                                                         \
        for (int32_t k = 0; k < 3; ++k) {                                                          \
            const int32_t behind = edgec_zones_at(map, place + k);                                 \
            other |= behind;                                                                       \
            at[k] = deltas + behind + first;                                                       \
        }                                                                                          \
        if (other == 0)                                                                            \
            edgec_rows3_##suffix(w, x, quads, pairs, y, stride);                                   \
        else                                                                                       \
            edgec_rows3_##suffix##_zoned##bits(w, x, quads, pairs, y, stride, at);                 \
    }
#define EDGEC_ROWS3_ALL(suffix)                                                                    \
    EDGEC_ROWS3_ZONES(suffix, 16)                                                                  \
    EDGEC_ROWS3_ZONES(suffix, 32)                                                                  \
    EDGEC_ROWS3_ZONES(suffix##_apart, 16)                                                          \
    EDGEC_ROWS3_ZONES(suffix##_apart, 32)
EDGEC_ROWS3_ALL(i32)
EDGEC_ROWS3_ALL(i8)
EDGEC_ROWS3_ALL(i8_lift)
EDGEC_ROWS3_ALL(i16_lift)
EDGEC_ROWS3_ALL(i8_tflite)
#undef EDGEC_ROWS3_ALL
#undef EDGEC_ROWS3_ZONES

#ifdef __cplusplus
}
#endif

#endif
