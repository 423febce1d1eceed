/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_mve_zones.h: layers of edgec_mve.h and edgec_mve_image.h whose biases depend on the place.
 */
/* Included for edgec_mve_zones. */
#ifndef EDGEC_MVE_ZONES_H
#define EDGEC_MVE_ZONES_H

#include "edgec_mve_image.h"
#include "edgec_zones.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows two by two, the first of them number `place` of the image; runs of rows of the first zone as
 * without zones. */
#define EDGEC_MVE_ZONES(suffix, type, bits)                                                        \
    EDGEC_INLINE void edgec_mve_zones##bits##_pair_##suffix(const int8_t *x, const int32_t *w,     \
                                                            type *y, edgec_mve_zoned##bits *g,     \
                                                            const edgec_mve_layer *l) {            \
        g->rows.blocks = l->outputs / 4;                                                           \
        edgec_mve_two_zoned##bits##_##suffix(x, w, y, g);                                          \
        if (l->outputs % 4 != 0) {                                                                 \
            g->rows.blocks = 1;                                                                    \
            g->deltas[0] += l->outputs - 4;                                                        \
            g->deltas[1] += l->outputs - 4;                                                        \
            edgec_mve_two_zoned##bits##_##suffix(x, w + l->last, y + l->outputs - 4, g);           \
        }                                                                                          \
    }                                                                                              \
    EDGEC_INLINE void edgec_mve_zones##bits##_some_##suffix(                                       \
        const int8_t *x, int32_t count, const int32_t *w, type *y, const edgec_mve_layer *l,       \
        const int##bits##_t *deltas, const int16_t *map, int32_t place) {                          \
        for (int32_t k = 0; k < count;) {                                                          \
            int32_t plain = 0;                                                                     \
            while (k + plain < count && edgec_zones_at(map, place + k + plain) == 0)               \
                ++plain;                                                                           \
            plain -= plain % 2;                                                                    \
            if (plain != 0)                                                                        \
                edgec_mve_some_##suffix(x + k * l->x_step, plain, w, y + k * l->y_step, l);        \
            k += plain;                                                                            \
            if (k == count)                                                                        \
                break;                                                                             \
            const int32_t two = k + 1 < count;                                                     \
            edgec_mve_zoned##bits g = {                                                            \
                {two * l->x_step, l->vectors, 0, two * l->y_step, 1, l->zero, l->lift},            \
                {deltas + edgec_zones_at(map, place + k),                                          \
                 deltas + edgec_zones_at(map, place + k + two)}};                                  \
            edgec_mve_zones##bits##_pair_##suffix(x + k * l->x_step, w, y + k * l->y_step, &g, l); \
            k += 1 + two;                                                                          \
        }                                                                                          \
    }                                                                                              \
    EDGEC_INLINE void edgec_mve_zones##bits##_linear_##suffix(                                     \
        const int8_t *x, const int32_t *w, type *y, const int32_t *table,                          \
        const int##bits##_t *deltas, const int16_t *map, int8_t *scratch) {                        \
        edgec_mve_linear g;                                                                        \
        edgec_memcpy(&g, table, sizeof g);                                                         \
        for (int32_t r = 0; r < g.rows; r += g.group) {                                            \
            const int32_t count = g.rows - r < g.group ? g.rows - r : g.group;                     \
            edgec_mve_copy(x + r * g.bytes, scratch, count * g.bytes);                             \
            edgec_mve_zones##bits##_some_##suffix(scratch, count, w, y + r * g.layer.outputs,      \
                                                  &g.layer, deltas, map, r);                       \
        }                                                                                          \
    }                                                                                              \
    EDGEC_INLINE void edgec_mve_zones##bits##_image_##suffix(                                      \
        const int8_t *x, const int32_t *w, type *y, const int32_t *table,                          \
        const int##bits##_t *deltas, const int16_t *map, int32_t pad, int8_t *scratch) {           \
        edgec_mve_image t;                                                                         \
        edgec_memcpy(&t, table, sizeof t);                                                         \
        const edgec_mve_window *g = &t.window;                                                     \
        const int8_t *buffer = edgec_mve_begin(g, pad, scratch);                                   \
        for (int32_t i = 0, next = 0; i < g->out_lines; ++i, y += g->out_line_step) {              \
            next = edgec_mve_lines(x, g, i, next, scratch);                                        \
            edgec_mve_zones##bits##_some_##suffix(buffer + i * g->stride * g->pixel,               \
                                                  g->out_length, w, y, &t.layer, deltas, map,      \
                                                  i * g->out_length);                              \
        }                                                                                          \
    }
#define EDGEC_MVE_BOTH(suffix, type)                                                               \
    EDGEC_MVE_ZONES(suffix, type, 16)                                                              \
    EDGEC_MVE_ZONES(suffix, type, 32)
EDGEC_MVE_BOTH(i32, int32_t)
EDGEC_MVE_BOTH(i16, int16_t)
EDGEC_MVE_BOTH(i8, int8_t)
EDGEC_MVE_BOTH(i8_up, int8_t)
EDGEC_MVE_BOTH(i8_tflite, int8_t)
#undef EDGEC_MVE_BOTH
#undef EDGEC_MVE_ZONES

#ifdef __cplusplus
}
#endif

#endif
