/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_mve_image.h: convolutions of int8 images on cores with Helium (MVE). */
/* Included for edgec_mve_image_, edgec_mve_zones. */
#ifndef EDGEC_MVE_IMAGE_H
#define EDGEC_MVE_IMAGE_H

#include "edgec_mve.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- lines of an image as columns ----
 * Pixel (r, c) of the padded image lies at (r + c * size) pixels of a buffer: every window is one
 * run of columns of `size` pixels each, a step down moves all windows by one pixel, and a new line
 * takes the places of the pixels that left the windows. So a line of the input is read once, before
 * the output line that may lie in its place is written.
 *
 * Lines may be rows or columns of the image: their number, step in bytes, length in pixels and
 * step between pixels; bytes of a pixel; size and stride of the kernel across lines; padding before
 * the first line and ahead of a line; columns that windows reach; lines of the output, their length
 * and step in elements; bytes of the buffer, which begins behind a pixel of padding rounded up to
 * 16 bytes. */
typedef struct {
    int32_t lines, line_step, length, length_step, pixel, size, stride, before, ahead, columns;
    int32_t out_lines, out_length, out_line_step, bytes;
} edgec_mve_window;

typedef struct {
    edgec_mve_layer layer;
    edgec_mve_window window;
} edgec_mve_image;

/* `count` times n bytes, `step` bytes apart. */
EDGEC_INLINE void edgec_mve_spread(const int8_t *x, int32_t x_step, int32_t n, int32_t count,
                                   int8_t *to, int32_t step) {
#if EDGEC_HAS_MVE
    for (; n > 0; n -= 16, x += 16, to += 16) {
        const mve_pred16_t lanes = vctp8q((uint32_t)n);
        const int8_t *from = x;
        int8_t *at = to;
        for (int32_t k = 0; k < count; ++k, from += x_step, at += step)
            vstrbq_p_s8(at, vldrbq_z_s8(from, lanes), lanes);
    }
#else
    for (int32_t k = 0; k < count; ++k, x += x_step, to += step)
        edgec_memcpy(to, x, (size_t)n);
#endif
}

/* Line r of the padded image. Padding behind a line stays as the buffer was filled. */
EDGEC_INLINE void edgec_mve_line(const int8_t *x, const edgec_mve_window *g, int32_t r,
                                 const int8_t *edge, int8_t *buffer) {
    const int32_t at = r - g->before, inside = at >= 0 && at < g->lines, step = g->size * g->pixel;
    const int32_t room = g->columns - g->ahead, width = room < g->length ? room : g->length;
    int8_t *to = buffer + r * g->pixel;
    edgec_mve_spread(edge, 0, g->pixel, g->ahead, to, step);
    edgec_mve_spread(inside ? x + at * g->line_step : edge, inside ? g->length_step : 0, g->pixel,
                     width, to + g->ahead * step, step);
}

/* scratch: the pixel of padding, the buffer, 16 bytes. Returns the buffer, filled with padding. */
EDGEC_INLINE int8_t *edgec_mve_begin(const edgec_mve_window *g, int32_t pad, int8_t *scratch) {
    const int32_t edge = (g->pixel + 15) / 16 * 16;
    edgec_mve_fill(scratch, pad, edge + g->bytes);
    return scratch + edge;
}

/* What line i of the output reads and no line before it did; returns the next line of the padded
 * image. */
EDGEC_INLINE int32_t edgec_mve_lines(const int8_t *x, const edgec_mve_window *g, int32_t i,
                                     int32_t next, int8_t *scratch) {
    const int32_t first = i * g->stride;
    for (next = next < first ? first : next; next < first + g->size; ++next)
        edgec_mve_line(x, g, next, scratch, scratch + (g->pixel + 15) / 16 * 16);
    return next;
}

#define EDGEC_MVE_IMAGE(suffix, type)                                                              \
    EDGEC_INLINE void edgec_mve_image_##suffix(const int8_t *x, const int32_t *w, type *y,         \
                                               const int32_t *table, int32_t pad,                  \
                                               int8_t *scratch) {                                  \
        edgec_mve_image t;                                                                         \
        edgec_memcpy(&t, table, sizeof t);                                                         \
        const edgec_mve_window *g = &t.window;                                                     \
        const int8_t *buffer = edgec_mve_begin(g, pad, scratch);                                   \
        for (int32_t i = 0, next = 0; i < g->out_lines; ++i, y += g->out_line_step) {              \
            next = edgec_mve_lines(x, g, i, next, scratch);                                        \
            edgec_mve_some_##suffix(buffer + i * g->stride * g->pixel, g->out_length, w, y,        \
                                    &t.layer);                                                     \
        }                                                                                          \
    }
EDGEC_MVE_IMAGE(i32, int32_t)
EDGEC_MVE_IMAGE(i16, int16_t)
EDGEC_MVE_IMAGE(i8, int8_t)
EDGEC_MVE_IMAGE(i8_up, int8_t)
EDGEC_MVE_IMAGE(i8_tflite, int8_t)
#undef EDGEC_MVE_IMAGE

#ifdef __cplusplus
}
#endif

#endif
