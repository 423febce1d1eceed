/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_rows.h: rows of int8 (tokens, pixels, windows of images) made ready for edgec_products.h,
 * on cores with DSP instructions; the portable twins give the same bytes. */
/* Included for edgec_rows_. */
#ifndef EDGEC_ROWS_H
#define EDGEC_ROWS_H

#include "edgec_dense.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- three rows side by side ----
 * As lanes of int16: for inputs 4q..4q+3 the words (0, 2) of the three rows, then their words
 * (1, 3). */

#if EDGEC_HAS_DSP
/* clang-format off */
/* `quads` (not 0) times four inputs of each row; returns the end of what was written. */
EDGEC_ASM_FUNCTION int32_t *edgec_rows_quads(
    const int8_t *a EDGEC_UNUSED, const int8_t *b EDGEC_UNUSED, const int8_t *c EDGEC_UNUSED,
    int32_t quads EDGEC_UNUSED, int32_t *to EDGEC_UNUSED) {
    __asm__("push {r4, r5, r6, r7, r8, r9, r10, lr}\n\t"
            "ldr r12, [sp, #32]\n"
            "1:\n\t"
            "ldr r7, [r0], #4\n\t"
            "ldr r8, [r1], #4\n\t"
            "ldr r9, [r2], #4\n\t"
            "sxtb16 r4, r7\n\t"
            "sxtb16 r5, r8\n\t"
            "sxtb16 r6, r9\n\t"
            "sxtb16 r7, r7, ror #8\n\t"
            "sxtb16 r8, r8, ror #8\n\t"
            "sxtb16 r9, r9, ror #8\n\t"
            "subs r3, r3, #1\n\t"
            "stm r12!, {r4, r5, r6, r7, r8, r9}\n\t"
            "bne 1b\n\t"
            "mov r0, r12\n\t"
            "pop {r4, r5, r6, r7, r8, r9, r10, pc}\n\t");
}
/* clang-format on */
#else
EDGEC_INLINE int32_t *edgec_rows_quads(const int8_t *a, const int8_t *b, const int8_t *c,
                                       int32_t quads, int32_t *to) {
    const int8_t *row[3] = {a, b, c};
    for (int32_t q = 0; q < quads; ++q, to += 6) {
        for (int32_t k = 0; k < 3; ++k) {
            int32_t word = edgec_read_s8x4(row[k] + 4 * q);
            to[k] = edgec_sxtb16(word);
            to[k + 3] = edgec_sxtb16_ror8(word);
        }
    }
    return to;
}
#endif

/* n inputs of each row, zeros up to a multiple of 4. */
EDGEC_INLINE void edgec_rows_expand(const int8_t *a, const int8_t *b, const int8_t *c, int32_t n,
                                    int32_t *to) {
    int32_t whole = n - n % 4;
    if (whole != 0)
        to = edgec_rows_quads(a, b, c, whole / 4, to);
    if (n % 4 != 0) {
        const int8_t *row[3] = {a + whole, b + whole, c + whole};
        for (int32_t k = 0; k < 3; ++k) {
            to[k] = edgec_pack(row[k][0], n % 4 > 2 ? row[k][2] : 0);
            to[k + 3] = edgec_pack(n % 4 > 1 ? row[k][1] : 0, 0);
        }
    }
}

/* ---- both factors computed ----
 * The left one's rows as edgec_rows_expand lays them, less a zero point; the right one's columns in
 * pairs: for terms 4q..4q+3 the words (0, 2) of both columns, then (1, 3). `terms` is a multiple of
 * 4. */
EDGEC_INLINE void edgec_rows_left_i8(const int8_t *x, int32_t terms, int32_t zero, int32_t *to) {
    int32_t zeros = edgec_pack(zero, zero);
    for (int32_t t = 0; t < terms; t += 4, to += 6) {
        for (int32_t k = 0; k < 3; ++k) {
            int32_t word = edgec_read_s8x4(x + k * terms + t);
            to[k] = edgec_ssub16(edgec_sxtb16(word), zeros);
            to[k + 3] = edgec_ssub16(edgec_sxtb16_ror8(word), zeros);
        }
    }
}

EDGEC_INLINE void edgec_rows_left_i16(const int16_t *x, int32_t terms, int32_t *to) {
    for (int32_t t = 0; t < terms; t += 4, to += 6) {
        for (int32_t k = 0; k < 3; ++k) {
            int32_t low = edgec_read_s16x2(x + k * terms + t);
            int32_t high = edgec_read_s16x2(x + k * terms + t + 2);
            to[k] = edgec_pack(low, high);
            to[k + 3] = edgec_pack_hi(low, high);
        }
    }
}

/* Columns that lie as rows of `terms`; an even number of them. */
EDGEC_INLINE void edgec_rows_right_turned(const int8_t *x, int32_t terms, int32_t columns,
                                          int32_t zero, int32_t *to) {
    int32_t zeros = edgec_pack(zero, zero);
    for (int32_t c = 0; c < columns; c += 2, x += 2 * terms) {
        for (int32_t t = 0; t < terms; t += 4, to += 4) {
            int32_t first = edgec_read_s8x4(x + t), second = edgec_read_s8x4(x + terms + t);
            to[0] = edgec_ssub16(edgec_sxtb16(first), zeros);
            to[1] = edgec_ssub16(edgec_sxtb16(second), zeros);
            to[2] = edgec_ssub16(edgec_sxtb16_ror8(first), zeros);
            to[3] = edgec_ssub16(edgec_sxtb16_ror8(second), zeros);
        }
    }
}

/* A multiple of 4 columns. */
EDGEC_INLINE void edgec_rows_right(const int8_t *x, int32_t terms, int32_t columns, int32_t zero,
                                   int32_t *to) {
    int32_t zeros = edgec_pack(zero, zero);
    for (int32_t c = 0; c < columns; c += 4, to += terms) {
        for (int32_t t = 0; t < terms; t += 4, to += 4) {
            for (int32_t k = 0; k < 2; ++k) { /* terms t + k and t + k + 2 */
                int32_t top = edgec_read_s8x4(x + (t + k) * columns + c);
                int32_t low = edgec_read_s8x4(x + (t + k + 2) * columns + c);
                int32_t top02 = edgec_ssub16(edgec_sxtb16(top), zeros);
                int32_t low02 = edgec_ssub16(edgec_sxtb16(low), zeros);
                int32_t top13 = edgec_ssub16(edgec_sxtb16_ror8(top), zeros);
                int32_t low13 = edgec_ssub16(edgec_sxtb16_ror8(low), zeros);
                to[2 * k] = edgec_pack(top02, low02);
                to[2 * k + 1] = edgec_pack(top13, low13);
                to[terms + 2 * k] = edgec_pack_hi(top02, low02);
                to[terms + 2 * k + 1] = edgec_pack_hi(top13, low13);
            }
        }
    }
}

/* ---- windows of images ----
 * Read from 12 words: image, window, stride, dilation, padding before, width of the output. */
typedef struct {
    int32_t h, w, c, kh, kw, sh, sw, dh, dw, top, left, out;
} edgec_rows_window;

/* The windows of the outputs first, first + 1 and first + 2, in the order of the weights. `edge` is
 * a pixel of padding. Channels that are no multiple of 4 come from a padded copy (edgec_rows_pad):
 * a row of the window then is read to the next multiple of 4, for which the weights are 0. */
EDGEC_INLINE void edgec_rows_gather(const void *image, const int8_t *edge, const int32_t *table,
                                    int32_t first, int32_t *wide) {
    const int8_t *x = (const int8_t *)image;
    edgec_rows_window g;
    edgec_memcpy(&g, table, sizeof g);
    int32_t start[3], row[3], col[3], cut = g.dw != 1, outside = 0;
    int32_t i = first / g.out, j = first - i * g.out;
    for (int32_t k = 0; k < 3; ++k) {
        row[k] = i * g.sh - g.top;
        col[k] = j * g.sw - g.left;
        start[k] = (row[k] * g.w + col[k]) * g.c;
        cut |= col[k] < 0 || col[k] + g.kw > g.w;
        outside |= row[k] < 0 || row[k] + (g.kh - 1) * g.dh >= g.h;
        if (++j == g.out) {
            j = 0;
            ++i;
        }
    }
    int32_t run = cut ? 1 : g.kw, quads = (run * g.c + 3) / 4, line = g.dh * g.w * g.c;
    for (int32_t p = 0; p < g.kh && !cut && !outside; ++p, x += line)
        wide = edgec_rows_quads(x + start[0], x + start[1], x + start[2], quads, wide);
    for (int32_t p = 0; p < g.kh && (cut || outside); ++p) {
        for (int32_t q = 0; q < g.kw; q += run) {
            const int8_t *from[3];
            for (int32_t k = 0; k < 3; ++k) {
                int32_t y = row[k] + p * g.dh, at = col[k] + q * g.dw;
                int32_t inside = y >= 0 && y < g.h && (!cut || (at >= 0 && at < g.w));
                from[k] = inside ? x + (y * g.w + at) * g.c : edge;
            }
            wide = edgec_rows_quads(from[0], from[1], from[2], quads, wide);
        }
    }
}

/* `h` rows of `row` bytes with padding around them: top, bottom, left and right in bytes. Three
 * bytes more follow. */
EDGEC_INLINE void edgec_rows_pad(const int8_t *x, const int32_t *table, int32_t pad, int32_t *to) {
    int32_t h = table[0], row = table[1], top = table[2], left = table[3], width = table[4];
    int8_t *y = (int8_t *)to;
    edgec_memset(y, pad, (size_t)table[5]);
    y += top * width + left;
    for (int32_t i = 0; i < h; ++i, x += row, y += width)
        edgec_memcpy(y, x, (size_t)row);
}

/* Where the output lies in the input's memory, blocks of it wait until nothing reads that any more.
 */
EDGEC_INLINE void edgec_rows_settle(const int32_t *block, int8_t *y, int32_t count) {
    edgec_memcpy(y, block, (size_t)count);
}

/* ---- a narrower range than the type's ---- */

EDGEC_INLINE void edgec_rows_clamp(int8_t *y, int32_t n, int32_t low, int32_t high) {
    for (int32_t k = 0; k < n; ++k)
        y[k] = (int8_t)edgec_c_clamp(y[k], low, high);
}

#ifdef __cplusplus
}
#endif

#endif
