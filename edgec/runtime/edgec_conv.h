/* edgec_conv.h: convolutions of int8 images with the rounding of TFLite's reference kernels, on
 * cores with DSP instructions; the portable twins give the same bytes. */
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
    if (low == -128 && high == 127) {
        for (int32_t k = 0; k < count; ++k, table += 2)
            y[k] = (int8_t)edgec_clamp_s8(edgec_conv_level(x[k], table, offset));
    } else {
        for (int32_t k = 0; k < count; ++k, table += 2)
            y[k] = (int8_t)edgec_c_clamp(edgec_conv_level(x[k], table, offset), low, high);
    }
}

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

/* acc plus the product of the low lanes, of the high lanes. */
EDGEC_PICK_3(edgec_conv_low, acc + edgec_lo16(x) * edgec_lo16(y), "smlabb %0, %1, %2, %3")
EDGEC_PICK_3(edgec_conv_high, acc + edgec_hi16(x) * edgec_hi16(y), "smlatt %0, %1, %2, %3")

/* ---- depthwise: one filter per channel, channels a multiple of 4 ----
 * w: bytes [tap][channel]; edge: a pixel of padding. `taps` is the window's size, at most 49. */
EDGEC_INLINE void edgec_conv_depthwise(const int8_t *x, const int8_t *edge, const int32_t *table,
                                       int32_t i, int32_t j, const int8_t *w, const int32_t *bias,
                                       int32_t *out, int32_t taps) {
    const int8_t *tap[49];
    edgec_window g;
    edgec_memcpy(&g, table, sizeof g);
    int32_t n = 0, first = j * g.sw - g.left;
    for (int32_t p = 0; p < g.kh; ++p) {
        int32_t row = i * g.sh + p * g.dh - g.top, col = first;
        for (int32_t q = 0; q < g.kw; ++q, col += g.dw) {
            int32_t inside = row >= 0 && row < g.h && col >= 0 && col < g.w;
            tap[n++] = inside ? x + (row * g.w + col) * g.c : edge;
        }
    }
    for (int32_t c = 0, step = g.c; c < step; c += 4) {
        int32_t a0 = bias[c], a1 = bias[c + 1], a2 = bias[c + 2], a3 = bias[c + 3];
        const int8_t *filter = w + c, *const *at = tap, *const *end = tap + taps;
        do {
            int32_t xs = edgec_read_s8x4(*at++ + c), ws = edgec_read_s8x4(filter);
            int32_t xe = edgec_sxtb16(xs), xo = edgec_sxtb16_ror8(xs);
            int32_t we = edgec_sxtb16(ws), wo = edgec_sxtb16_ror8(ws);
            filter += step;
            a0 = edgec_conv_low(xe, we, a0);
            a1 = edgec_conv_low(xo, wo, a1);
            a2 = edgec_conv_high(xe, we, a2);
            a3 = edgec_conv_high(xo, wo, a3);
        } while (at != end);
        out[c] = a0;
        out[c + 1] = a1;
        out[c + 2] = a2;
        out[c + 3] = a3;
    }
}

#ifdef __cplusplus
}
#endif

#endif
