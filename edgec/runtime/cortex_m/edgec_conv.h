/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_conv.h: convolutions of int8 images with the rounding of TFLite's reference kernels, on
 * cores with DSP instructions; the portable twins give the same bytes. */
/* Included for edgec_conv_. */
#ifndef EDGEC_CONV_H
#define EDGEC_CONV_H

#include "edgec_dense.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- requantisation, rounding `tflite` ----
 * One table row per channel: multiplier and right shift less one. |x| < 2^30, so the rounding high
 * word of 2x * multiplier is the rounding doubling high multiply; adding the sign before the shift
 * rounds halves away from zero. `offset` is 1 + 2 * zero point. */
EDGEC_INLINE int32_t edgec_conv_level(int32_t x, const int32_t *row, int32_t offset) {
    int32_t high = edgec_smmulr(2 * x, row[0]);
    return (((high + (high >> 31)) >> row[1]) + offset) >> 1;
}

EDGEC_INLINE void edgec_conv_requantize(const int32_t *x, const int32_t *table, int8_t *y,
                                        int32_t count, int32_t offset, int32_t low, int32_t high) {
    for (int32_t k = 0; k < count; ++k, table += 2)
        y[k] = (int8_t)edgec_c_clamp(edgec_conv_level(x[k], table, offset), low, high);
}

/* The whole range of int8, count a multiple of 4 and not 0. */
#if EDGEC_HAS_DSP
/* clang-format off */
#define EDGEC_CONV_LEVELS                        \
    "ldm r1!, {r4, r5, r6, r7}\n\t"              \
    "ldrd r8, r9, [r0], #8\n\t"                  \
    "lsl r8, r8, #1\n\t"                         \
    "lsl r9, r9, #1\n\t"                         \
    "smmulr r8, r8, r4\n\t"                      \
    "smmulr r9, r9, r6\n\t"                      \
    "add r8, r8, r8, asr #31\n\t"                \
    "add r9, r9, r9, asr #31\n\t"                \
    "asr r8, r8, r5\n\t"                         \
    "asr r9, r9, r7\n\t"                         \
    "add r8, r8, r10\n\t"                        \
    "add r9, r9, r10\n\t"                        \
    "ssat r8, #8, r8, asr #1\n\t"                \
    "ssat r9, #8, r9, asr #1\n\t"                \
    "strb r8, [r2], #1\n\t"                      \
    "strb r9, [r2], #1\n\t"
EDGEC_ASM_FUNCTION void edgec_conv_requantize4(
    const int32_t *x EDGEC_UNUSED, const int32_t *table EDGEC_UNUSED, int8_t *y EDGEC_UNUSED,
    int32_t count EDGEC_UNUSED, int32_t offset EDGEC_UNUSED) {
    __asm__("push {r4, r5, r6, r7, r8, r9, r10, lr}\n\t"
            "ldr r10, [sp, #32]\n"
            "1:\n\t"
            EDGEC_CONV_LEVELS
            EDGEC_CONV_LEVELS
            "subs r3, r3, #4\n\t"
            "bne 1b\n\t"
            "pop {r4, r5, r6, r7, r8, r9, r10, pc}\n\t");
}
#undef EDGEC_CONV_LEVELS
/* clang-format on */
#else
EDGEC_INLINE void edgec_conv_requantize4(const int32_t *x, const int32_t *table, int8_t *y,
                                         int32_t count, int32_t offset) {
    edgec_conv_requantize(x, table, y, count, offset, -128, 127);
}
#endif

/* ---- where the window of output (i, j) lies ----
 * Read from 11 words: image, window, stride, dilation, padding before. */
typedef struct {
    int32_t h, w, c, kh, kw, sh, sw, dh, dw, top, left;
} edgec_window;

/* `count` bytes (a multiple of 4) as lanes of int16 in the order of edgec_expand_s8; without `x`
 * every one is `pad`. */
EDGEC_INLINE int32_t *edgec_conv_expand(const int8_t *x, int32_t count, int32_t pad, int32_t *to) {
    int32_t lanes = edgec_pack(pad, pad);
    for (int32_t k = 0; k < count; k += 4, to += 2) {
        int32_t word = x != NULL ? edgec_read_s8x4(x + k) : 0;
        to[0] = x != NULL ? edgec_sxtb16(word) : lanes;
        to[1] = x != NULL ? edgec_sxtb16_ror8(word) : lanes;
    }
    return to;
}

/* The window in the order of the weights, as lanes of int16, zeros up to a multiple of 8. `bytes`
 * has room for the window; it is used where the channels are no multiple of 4. */
EDGEC_INLINE void edgec_conv_gather(const int8_t *x, const int32_t *table, int32_t i, int32_t j,
                                    int32_t pad, int32_t *wide, int32_t *bytes) {
    edgec_window g;
    edgec_memcpy(&g, table, sizeof g);
    int32_t size = g.kh * g.kw * g.c, first = j * g.sw - g.left, *to = wide;
    int32_t run = g.dw == 1 && first >= 0 && first + g.kw <= g.w ? g.kw : 1;
    int8_t *copy = (int8_t *)bytes;
    for (int32_t p = 0; p < g.kh; ++p) {
        int32_t row = i * g.sh + p * g.dh - g.top;
        for (int32_t q = 0; q < g.kw; q += run) {
            int32_t col = first + q * g.dw, count = run * g.c;
            int32_t inside = row >= 0 && row < g.h && col >= 0 && col < g.w;
            const int8_t *from = inside ? x + (row * g.w + col) * g.c : NULL;
            if (g.c % 4 == 0) {
                to = edgec_conv_expand(from, count, pad, to);
            } else {
                for (int32_t k = 0; k < count; ++k)
                    *copy++ = (int8_t)(inside ? from[k] : pad);
            }
        }
    }
    if (g.c % 4 != 0) {
        edgec_expand_s8((int8_t *)bytes, size, wide);
    } else if (size % 8 != 0) {
        to[0] = 0;
        to[1] = 0;
    }
}

/* ---- depthwise: one filter per channel, channels a multiple of 4 ----
 * w: words [4 channels][tap]; edge: a pixel of padding. `taps`, at most 51, is the window's size
 * rounded up to a multiple of 3: the taps beyond it have the weight 0. */
#if EDGEC_HAS_DSP
/* clang-format off */
#define EDGEC_CONV_TAP                  \
    "ldr r10, [r8], #4\n\t"             \
    "ldr r11, [r1], #4\n\t"             \
    "ldr r10, [r10, r9]\n\t"            \
    "sxtb16 r12, r10\n\t"               \
    "sxtb16 lr, r11\n\t"                \
    "smlabb r4, r12, lr, r4\n\t"        \
    "smlatt r6, r12, lr, r6\n\t"        \
    "sxtb16 r10, r10, ror #8\n\t"       \
    "sxtb16 r11, r11, ror #8\n\t"       \
    "smlabb r5, r10, r11, r5\n\t"       \
    "smlatt r7, r10, r11, r7\n\t"
EDGEC_ASM_FUNCTION void edgec_conv_filters(
    const int8_t *const *tap EDGEC_UNUSED, const int32_t *w EDGEC_UNUSED,
    const int32_t *bias EDGEC_UNUSED, int32_t *out EDGEC_UNUSED,
    const int8_t *const *end EDGEC_UNUSED, int32_t channels EDGEC_UNUSED) {
    __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, r12, lr}\n\t"
            "mov r9, #0\n"
            "1:\n\t"
            "ldm r2!, {r4, r5, r6, r7}\n\t"
            "mov r8, r0\n"
            "2:\n\t"
            EDGEC_CONV_TAP
            EDGEC_CONV_TAP
            EDGEC_CONV_TAP
            "ldr r12, [sp, #40]\n\t"
            "cmp r8, r12\n\t"
            "bne 2b\n\t"
            "stm r3!, {r4, r5, r6, r7}\n\t"
            "ldr r12, [sp, #44]\n\t"
            "add r9, r9, #4\n\t"
            "cmp r9, r12\n\t"
            "bne 1b\n\t"
            "pop {r4, r5, r6, r7, r8, r9, r10, r11, r12, pc}\n\t");
}
#undef EDGEC_CONV_TAP
/* clang-format on */
#else
EDGEC_INLINE void edgec_conv_filters(const int8_t *const *tap, const int32_t *w,
                                     const int32_t *bias, int32_t *out, const int8_t *const *end,
                                     int32_t channels) {
    for (int32_t c = 0; c < channels; c += 4) {
        for (int32_t k = c; k < c + 4; ++k)
            out[k] = bias[k];
        for (const int8_t *const *at = tap; at != end; ++at, ++w) {
            int32_t even = edgec_sxtb16(*w), odd = edgec_sxtb16_ror8(*w);
            out[c] += (*at)[c] * edgec_lo16(even);
            out[c + 1] += (*at)[c + 1] * edgec_lo16(odd);
            out[c + 2] += (*at)[c + 2] * edgec_hi16(even);
            out[c + 3] += (*at)[c + 3] * edgec_hi16(odd);
        }
    }
}
#endif

EDGEC_INLINE void edgec_conv_depthwise(const int8_t *x, const int8_t *edge, const int32_t *table,
                                       int32_t i, int32_t j, const int32_t *w, const int32_t *bias,
                                       int32_t *out, int32_t taps) {
    const int8_t *tap[51];
    edgec_window g;
    edgec_memcpy(&g, table, sizeof g);
    int32_t n = 0, first = j * g.sw - g.left;
    tap[taps - 2] = edge;
    tap[taps - 1] = edge;
    for (int32_t p = 0; p < g.kh; ++p) {
        int32_t row = i * g.sh + p * g.dh - g.top, col = first;
        for (int32_t q = 0; q < g.kw; ++q, col += g.dw) {
            int32_t inside = row >= 0 && row < g.h && col >= 0 && col < g.w;
            tap[n++] = inside ? x + (row * g.w + col) * g.c : edge;
        }
    }
    edgec_conv_filters(tap, w, bias, out, tap + taps, g.c);
}

#ifdef __cplusplus
}
#endif

#endif
