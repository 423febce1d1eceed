/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_neon_image.h: convolutions of int8 images on 64-bit ARM cores without dot products. */
/* Included for edgec_neon_rows_image_, edgec_neon_least_image_, edgec_neon_depth_. */
#ifndef EDGEC_NEON_IMAGE_H
#define EDGEC_NEON_IMAGE_H

#include "edgec_neon_rows.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Lines of the padded image pass through `size` places in scratch, line r at place r % size; each
 * is copied once. Lines of the input and their bytes, bytes of a pixel, size and stride of the
 * kernel across lines, padding above; bytes before the first pixel of a padded line, bytes of a
 * place; lines of the output, their length, and bytes between windows. */
typedef struct {
    int32_t lines, line_bytes, pixel, size, stride, above, before, place;
    int32_t out_lines, out_length, step;
} edgec_neon_lines;

/* A window is a run of `run` bytes of each line; `batch` images. */
typedef struct {
    edgec_neon_layer layer;
    edgec_neon_lines lines;
    int32_t run, batch;
} edgec_neon_image;

/* Places filled with padding. */
EDGEC_INLINE void edgec_neon_begin(const edgec_neon_lines *g, int32_t pad, int8_t *scratch) {
    edgec_memset(scratch, pad, (size_t)(g->size * g->place));
}

/* What line i of the output reads and no line before it did; returns the next line of the padded
 * image. */
EDGEC_INLINE int32_t edgec_neon_fetch(const int8_t *x, const edgec_neon_lines *g, int32_t i,
                                      int32_t next, int32_t pad, int8_t *scratch) {
    const int32_t first = i * g->stride;
    for (next = next < first ? first : next; next < first + g->size; ++next) {
        int8_t *to = scratch + next % g->size * g->place;
        const int32_t line = next - g->above;
        if (line >= 0 && line < g->lines)
            edgec_neon_copy(x + line * g->line_bytes, to + g->before, g->line_bytes);
        else
            edgec_memset(to, pad, (size_t)g->place);
    }
    return next;
}

/* Window j of line i as a row. */
EDGEC_INLINE void edgec_neon_window(const edgec_neon_image *g, int32_t i, int32_t j,
                                    const int8_t *scratch, int8_t *row) {
    const edgec_neon_lines *l = &g->lines;
    const int8_t *place = scratch + j * l->step, *end = place + l->size * l->place;
    const int8_t *from = place + i * l->stride % l->size * l->place;
    for (int32_t p = 0; p < l->size; ++p, row += g->run) {
        edgec_neon_copy(from, row, g->run);
        from = from + l->place == end ? place : from + l->place;
    }
}

/* scratch: the places, then four rows, which may be of two lines. */
#define EDGEC_NEON_IMAGE(name, suffix, type)                                                       \
    EDGEC_INLINE void edgec_neon_##name##_image_##suffix(const int8_t *x, const int32_t *w,        \
                                                         type *y, const int32_t *table,            \
                                                         int32_t pad, int8_t *scratch) {           \
        edgec_neon_image g;                                                                        \
        edgec_memcpy(&g, table, sizeof g);                                                         \
        const edgec_neon_lines *l = &g.lines;                                                      \
        int8_t *rows = scratch + l->size * l->place;                                               \
        int32_t filled = 0;                                                                        \
        for (int32_t n = 0; n < g.batch; ++n, x += l->lines * l->line_bytes) {                     \
            edgec_neon_begin(l, pad, scratch);                                                     \
            for (int32_t i = 0, next = 0; i < l->out_lines; ++i) {                                 \
                next = edgec_neon_fetch(x, l, i, next, pad, scratch);                              \
                for (int32_t j = 0; j < l->out_length; ++j) {                                      \
                    edgec_neon_window(&g, i, j, scratch, rows + filled * g.layer.x_step);          \
                    if (++filled == 4) {                                                           \
                        edgec_neon_##name##_4_##suffix(rows, w, y, &g.layer);                      \
                        y += 4 * g.layer.y_step;                                                   \
                        filled = 0;                                                                \
                    }                                                                              \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        edgec_neon_##name##_some_##suffix(rows, filled, w, y, &g.layer);                           \
    }
#define EDGEC_NEON_IMAGES(suffix, type)                                                            \
    EDGEC_NEON_IMAGE(rows, suffix, type)                                                           \
    EDGEC_NEON_IMAGE(least, suffix, type)
EDGEC_NEON_IMAGES(i32, int32_t)
EDGEC_NEON_IMAGES(i16, int16_t)
EDGEC_NEON_IMAGES(i8, int8_t)
EDGEC_NEON_IMAGES(i8_up, int8_t)
EDGEC_NEON_IMAGES(i8_tflite, int8_t)
#undef EDGEC_NEON_IMAGES
#undef EDGEC_NEON_IMAGE

#ifdef __cplusplus
}
#endif

#endif
