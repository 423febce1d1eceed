/* edgec_conv.h: convolutions of int8 images with the rounding of TFLite's reference kernels, on cores with DSP
 * instructions; the portable twins give the same bytes. */
#ifndef EDGEC_CONV_H
#define EDGEC_CONV_H

#include "edgec_dense.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- requantisation, rounding `tflite` ----
 * One table row per channel: multiplier and right shift less one. |x| < 2^30, so that the rounding high word of 2x *
 * multiplier is the rounding doubling high multiply; adding the sign before the shift rounds halves away from zero.
 * `offset` is 1 + 2 * zero point. */
EDGEC_INLINE int32_t edgec_requantize_twice(int32_t x, const int32_t *row, int32_t offset) {
    int32_t high = edgec_smmulr(2 * x, row[0]);
    return ((high + (high >> 31)) >> row[1]) + offset;
}

EDGEC_INLINE void edgec_requantize_tflite(const int32_t *x, const int32_t *table, int8_t *y, int32_t count,
                                          int32_t offset, int32_t low, int32_t high) {
    if (low == -128 && high == 127) {
        for (int32_t k = 0; k < count; ++k, table += 2)
            y[k] = (int8_t)edgec_clamp_s8(edgec_requantize_twice(x[k], table, offset) >> 1);
    } else {
        for (int32_t k = 0; k < count; ++k, table += 2)
            y[k] = (int8_t)edgec_c_clamp(edgec_requantize_twice(x[k], table, offset) >> 1, low, high);
    }
}

/* ---- where a window lies ----
 * h, w: image; kh, kw: window; sh, sw: stride; dh, dw: dilation; top, left: padding. */
typedef struct {
    int32_t h, w, c, kh, kw, sh, sw, dh, dw, top, left;
} edgec_window;

/* The window of output (i, j) as bytes in the order of the weights, then as lanes of int16 (see edgec_expand_s8). A row
 * of neighbours that lies inside the image is one run of bytes. */
EDGEC_INLINE void edgec_gather_s8(const int8_t *x, const edgec_window *g, int32_t i, int32_t j, int32_t pad,
                                  int8_t *bytes, int32_t *wide) {
    int32_t run = g->kw * g->c, first = j * g->sw - g->left, at = 0;
    int32_t whole = g->dw == 1 && first >= 0 && first + g->kw <= g->w;
    for (int32_t p = 0; p < g->kh; ++p) {
        int32_t row = i * g->sh + p * g->dh - g->top;
        int32_t inside = row >= 0 && row < g->h;
        if (inside && whole && run % 4 == 0) {
            const int8_t *from = x + (row * g->w + first) * g->c;
            for (int32_t k = 0; k < run; k += 4)
                edgec_write_s8x4(bytes + at + k, edgec_read_s8x4(from + k));
            at += run;
            continue;
        }
        for (int32_t q = 0; q < g->kw; ++q) {
            int32_t col = first + q * g->dw;
            const int8_t *from = x + (row * g->w + col) * g->c;
            int32_t real = inside && col >= 0 && col < g->w;
            for (int32_t k = 0; k < g->c; ++k)
                bytes[at++] = (int8_t)(real ? from[k] : pad);
        }
    }
    edgec_expand_s8(bytes, at, wide);
}

/* ---- depthwise, one filter per channel, channels a multiple of 4 ----
 * w: bytes [tap][channel]; edge: `c` bytes of padding. */
#define EDGEC_MAX_TAPS 49

EDGEC_INLINE void edgec_depthwise_s8(const int8_t *x, const int8_t *edge, const edgec_window *g, int32_t i, int32_t j,
                                     const int8_t *w, const int32_t *bias, int32_t *out, int32_t taps) {
    const int8_t *tap[EDGEC_MAX_TAPS];
    int32_t n = 0;
    for (int32_t p = 0; p < g->kh; ++p) {
        int32_t row = i * g->sh + p * g->dh - g->top, col = j * g->sw - g->left;
        for (int32_t q = 0; q < g->kw; ++q, col += g->dw)
            tap[n++] = row >= 0 && row < g->h && col >= 0 && col < g->w ? x + (row * g->w + col) * g->c : edge;
    }
    for (int32_t c = 0; c < g->c; c += 4) {
        int32_t a0 = bias[c], a1 = bias[c + 1], a2 = bias[c + 2], a3 = bias[c + 3];
        for (int32_t t = 0; t < taps; ++t) {
            int32_t xs = edgec_read_s8x4(tap[t] + c), ws = edgec_read_s8x4(w + t * g->c + c);
            int32_t xe = edgec_sxtb16(xs), xo = edgec_sxtb16_ror8(xs);
            int32_t we = edgec_sxtb16(ws), wo = edgec_sxtb16_ror8(ws);
            a0 += edgec_lo16(xe) * edgec_lo16(we);
            a1 += edgec_lo16(xo) * edgec_lo16(wo);
            a2 += edgec_hi16(xe) * edgec_hi16(we);
            a3 += edgec_hi16(xo) * edgec_hi16(wo);
        }
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
