/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_mve.h: layers on int8 and int16 rows with int8 weights, on cores with Helium (MVE). */
/* Included for edgec_mve_. */
#ifndef EDGEC_MVE_H
#define EDGEC_MVE_H

#include "edgec_mve_rows.h"

#ifdef __cplusplus
extern "C" {
#endif

/* x_step: bytes between rows, y_step: elements between their outputs. A layer whose outputs are no
 * multiple of a block computes its last four (eight) again, at word `last` of the stream. Rows are
 * read from scratch, 16 bytes beyond their end: the output may lie where the input does. */
typedef struct {
    int32_t x_step, y_step, vectors, outputs, last, zero, lift;
} edgec_mve_layer;

/* linear: how many rows, of how many bytes, and how many rows are copied to scratch at a time. */
typedef struct {
    edgec_mve_layer layer;
    int32_t rows, bytes, group;
} edgec_mve_linear;

/* `some`: rows two by two, the last of an odd number twice at a time. `one`: a single row. */
#define EDGEC_MVE_LAYER(some, one, rows2, row, type)                                               \
    EDGEC_INLINE void some(const void *rows, int32_t count, const int32_t *w, type *y,             \
                           const edgec_mve_layer *l) {                                             \
        const int8_t *x = (const int8_t *)rows;                                                    \
        const edgec_mve_rows pairs = {l->x_step, l->vectors, l->outputs / 4, l->y_step,            \
                                      count / 2, l->zero,    l->lift};                             \
        const edgec_mve_rows alone = {0, l->vectors, l->outputs / 4, 0, 1, l->zero, l->lift};      \
        const int32_t end = (count - 1) * l->y_step;                                               \
        if (count > 1)                                                                             \
            rows2(x, w, y, &pairs);                                                                \
        if (count % 2 != 0)                                                                        \
            rows2(x + (count - 1) * l->x_step, w, y + end, &alone);                                \
        if (l->outputs % 4 != 0) {                                                                 \
            edgec_mve_rows pairs_last = pairs, alone_last = alone;                                 \
            pairs_last.blocks = alone_last.blocks = 1;                                             \
            w += l->last;                                                                          \
            y += l->outputs - 4;                                                                   \
            if (count > 1)                                                                         \
                rows2(x, w, y, &pairs_last);                                                       \
            if (count % 2 != 0)                                                                    \
                rows2(x + (count - 1) * l->x_step, w, y + end, &alone_last);                       \
        }                                                                                          \
    }                                                                                              \
    EDGEC_INLINE void one(const void *x, const int32_t *w, type *y, const edgec_mve_layer *l) {    \
        edgec_mve_rows g = {0, l->vectors, l->outputs / 8, 4, 1, l->zero, l->lift};                \
        row(x, w, y, &g);                                                                          \
        g.blocks = 1;                                                                              \
        if (l->outputs % 8 != 0)                                                                   \
            row(x, w + l->last, y + l->outputs - 8, &g);                                           \
    }                                                                                              \
    EDGEC_INLINE void some##_linear(const void *rows, const int32_t *w, type *y,                   \
                                    const int32_t *table, int8_t *scratch) {                       \
        const int8_t *x = (const int8_t *)rows;                                                    \
        edgec_mve_linear g;                                                                        \
        edgec_memcpy(&g, table, sizeof g);                                                         \
        for (int32_t r = 0; r < g.rows; r += g.group) {                                            \
            const int32_t count = g.rows - r < g.group ? g.rows - r : g.group;                     \
            edgec_mve_copy(x + r * g.bytes, scratch, count * g.bytes);                             \
            some(scratch, count, w, y + r * g.layer.outputs, &g.layer);                            \
        }                                                                                          \
    }                                                                                              \
    EDGEC_INLINE void one##_linear(const void *x, const int32_t *w, type *y, const int32_t *table, \
                                   int8_t *scratch) {                                              \
        edgec_mve_linear g;                                                                        \
        edgec_memcpy(&g, table, sizeof g);                                                         \
        edgec_mve_copy(x, scratch, g.bytes);                                                       \
        one(scratch, w, y, &g.layer);                                                              \
    }
#define EDGEC_MVE_LAYERS(suffix, type)                                                             \
    EDGEC_MVE_LAYER(edgec_mve_some_##suffix, edgec_mve_one_##suffix, edgec_mve_rows2_##suffix,     \
                    edgec_mve_row_##suffix, type)                                                  \
    EDGEC_MVE_LAYER(edgec_mve_some_wide_##suffix, edgec_mve_one_wide_##suffix,                     \
                    edgec_mve_wide2_##suffix, edgec_mve_wide_##suffix, type)
EDGEC_MVE_LAYERS(i32, int32_t)
EDGEC_MVE_LAYERS(i16, int16_t)
EDGEC_MVE_LAYERS(i8, int8_t)
EDGEC_MVE_LAYERS(i8_up, int8_t)
EDGEC_MVE_LAYERS(i8_tflite, int8_t)
#undef EDGEC_MVE_LAYERS
#undef EDGEC_MVE_LAYER

#ifdef __cplusplus
}
#endif

#endif
