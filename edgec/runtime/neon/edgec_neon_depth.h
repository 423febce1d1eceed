/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_neon_depth.h: depthwise convolutions of int8 images on 64-bit ARM cores without dot
 * products. */
/* Included for edgec_neon_depth_. */
#ifndef EDGEC_NEON_DEPTH_H
#define EDGEC_NEON_DEPTH_H

#include "edgec_neon_image.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Sixteen channels at a time; where their number is no multiple of it, the last sixteen lie over
 * some before. A block of the stream, `words` long: the weights of each tap, then 16 biases, 16
 * multipliers, 16 right shifts as negative numbers. Taps in a line: `taps`; `batch` images. */
typedef struct {
    edgec_neon_layer levels; /* zero, low and high of it are read */
    edgec_neon_lines lines;
    int32_t channels, taps, words, batch;
} edgec_neon_depth;

#if EDGEC_HAS_NEON
/* x times w for 16 channels, added to the sums. */
EDGEC_NEON_INLINE void edgec_neon_depth_one(int32x4_t *sum, int8x16_t x, int8x16_t w) {
    const int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(w)), high = vmull_high_s8(x, w);
    sum[0] = vaddw_s16(sum[0], vget_low_s16(low));
    sum[1] = vaddw_high_s16(sum[1], low);
    sum[2] = vaddw_s16(sum[2], vget_low_s16(high));
    sum[3] = vaddw_high_s16(sum[3], high);
}

/* The same for two taps, whose products are added in 16 bits first (see edgec_neon_rows.h). */
EDGEC_NEON_INLINE void edgec_neon_depth_two(int32x4_t *sum, int8x16_t x, int8x16_t w, int8x16_t x2,
                                            int8x16_t w2) {
    int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(w)), high = vmull_high_s8(x, w);
    low = vmlal_s8(low, vget_low_s8(x2), vget_low_s8(w2));
    high = vmlal_high_s8(high, x2, w2);
    sum[0] = vaddw_s16(sum[0], vget_low_s16(low));
    sum[1] = vaddw_high_s16(sum[1], low);
    sum[2] = vaddw_s16(sum[2], vget_low_s16(high));
    sum[3] = vaddw_high_s16(sum[3], high);
}

/* Sixteen levels to their places. */
#define EDGEC_NEON_DEPTH_STORE(level)                                                              \
    for (int k = 0; k < 4; ++k)                                                                    \
        sum[k] = level(sum[k], vld1q_s32(tables + 16 + 4 * k), vld1q_s32(tables + 32 + 4 * k));    \
    const int16x8_t a = vqmovn_high_s32(vqmovn_s32(sum[0]), sum[1]);                               \
    const int16x8_t b = vqmovn_high_s32(vqmovn_s32(sum[2]), sum[3]);                               \
    const int8x16_t v = vqmovn_high_s16(vqmovn_s16(vqaddq_s16(a, zero)), vqaddq_s16(b, zero));     \
    vst1q_s8(y, vminq_s8(vmaxq_s8(v, low), high));

/* One line of the output for 16 channels: three lines of three taps, or any. */
#define EDGEC_NEON_DEPTH_LINES(suffix, level)                                                      \
    EDGEC_NOINLINE static EDGEC_UNUSED void edgec_neon_depth_three_##suffix(                       \
        const int8_t *const *lines, const int32_t *stream, int8_t *y, const edgec_neon_depth *g) { \
        const int8_t *w = (const int8_t *)stream;                                                  \
        const int8_t *x0 = lines[0], *x1 = lines[1], *x2 = lines[2];                               \
        const int32_t *tables = stream + 36, c = g->channels, step = g->lines.step;                \
        const int16x8_t zero = vdupq_n_s16((int16_t)g->levels.zero);                               \
        const int8x16_t low = vdupq_n_s8((int8_t)g->levels.low);                                   \
        const int8x16_t high = vdupq_n_s8((int8_t)g->levels.high);                                 \
        int8x16_t of[9];                                                                           \
        for (int k = 0; k < 9; ++k)                                                                \
            of[k] = vld1q_s8(w + 16 * k);                                                          \
        EDGEC_NEON_ROLLED                                                                          \
        for (int32_t j = g->lines.out_length; j > 0; --j) {                                        \
            int32x4_t sum[4];                                                                      \
            for (int k = 0; k < 4; ++k)                                                            \
                sum[k] = vld1q_s32(tables + 4 * k);                                                \
            edgec_neon_depth_two(sum, vld1q_s8(x0), of[0], vld1q_s8(x0 + c), of[1]);               \
            edgec_neon_depth_two(sum, vld1q_s8(x0 + 2 * c), of[2], vld1q_s8(x1), of[3]);           \
            edgec_neon_depth_two(sum, vld1q_s8(x1 + c), of[4], vld1q_s8(x1 + 2 * c), of[5]);       \
            edgec_neon_depth_two(sum, vld1q_s8(x2), of[6], vld1q_s8(x2 + c), of[7]);               \
            edgec_neon_depth_one(sum, vld1q_s8(x2 + 2 * c), of[8]);                                \
            EDGEC_NEON_DEPTH_STORE(level)                                                          \
            x0 += step, x1 += step, x2 += step, y += c;                                            \
        }                                                                                          \
    }                                                                                              \
    EDGEC_NOINLINE static EDGEC_UNUSED void edgec_neon_depth_any_##suffix(                         \
        const int8_t *const *lines, const int32_t *stream, int8_t *y, const edgec_neon_depth *g) { \
        const int32_t *tables = stream + 4 * g->lines.size * g->taps;                              \
        const int16x8_t zero = vdupq_n_s16((int16_t)g->levels.zero);                               \
        const int8x16_t low = vdupq_n_s8((int8_t)g->levels.low);                                   \
        const int8x16_t high = vdupq_n_s8((int8_t)g->levels.high);                                 \
        for (int32_t j = 0; j < g->lines.out_length; ++j, y += g->channels) {                      \
            const int8_t *w = (const int8_t *)stream;                                              \
            int32x4_t sum[4];                                                                      \
            for (int k = 0; k < 4; ++k)                                                            \
                sum[k] = vld1q_s32(tables + 4 * k);                                                \
            for (int32_t p = 0; p < g->lines.size; ++p) {                                          \
                const int8_t *x = lines[p] + j * g->lines.step;                                    \
                for (int32_t q = 0; q < g->taps; ++q, x += g->channels, w += 16)                   \
                    edgec_neon_depth_one(sum, vld1q_s8(x), vld1q_s8(w));                           \
            }                                                                                      \
            EDGEC_NEON_DEPTH_STORE(level)                                                          \
        }                                                                                          \
    }
#else
#define EDGEC_NEON_DEPTH_LINES(suffix, level)                                                      \
    EDGEC_INLINE void edgec_neon_depth_any_##suffix(                                               \
        const int8_t *const *lines, const int32_t *stream, int8_t *y, const edgec_neon_depth *g) { \
        const int32_t taps = g->taps, all = g->lines.size * taps;                                  \
        const int8_t *w = (const int8_t *)stream;                                                  \
        const int32_t *tables = stream + 4 * all;                                                  \
        for (int32_t k = 0; k < 16 * g->lines.out_length; ++k) {                                   \
            const int32_t at = k / 16 * g->lines.step, c = k % 16;                                 \
            int32_t sum = tables[c];                                                               \
            for (int32_t t = 0; t < all; ++t)                                                      \
                sum += lines[t / taps][at + t % taps * g->channels + c] * w[16 * t + c];           \
            y[k / 16 * g->channels + c] = (int8_t)edgec_neon_clamp_i8(                             \
                level(sum, tables[16 + c], tables[32 + c]), &g->levels);                           \
        }                                                                                          \
    }                                                                                              \
    EDGEC_INLINE void edgec_neon_depth_three_##suffix(                                             \
        const int8_t *const *lines, const int32_t *stream, int8_t *y, const edgec_neon_depth *g) { \
        edgec_neon_depth_any_##suffix(lines, stream, y, g);                                        \
    }
#endif

/* scratch: the places of the lines. At most 16 lines. */
#define EDGEC_NEON_DEPTH(name, suffix)                                                             \
    EDGEC_INLINE void edgec_neon_depth_image_##name##_##suffix(const int8_t *x, const int32_t *w,  \
                                                               int8_t *y, const int32_t *table,    \
                                                               int32_t pad, int8_t *scratch) {     \
        edgec_neon_depth g;                                                                        \
        edgec_memcpy(&g, table, sizeof g);                                                         \
        const edgec_neon_lines *l = &g.lines;                                                      \
        for (int32_t n = 0; n < g.batch; ++n, x += l->lines * l->line_bytes) {                     \
            edgec_neon_begin(l, pad, scratch);                                                     \
            for (int32_t i = 0, next = 0; i < l->out_lines; ++i) {                                 \
                const int8_t *lines[16];                                                           \
                const int32_t *of = w;                                                             \
                next = edgec_neon_fetch(x, l, i, next, pad, scratch);                              \
                for (int32_t c = 0; c < g.channels; c += 16, of += g.words) {                      \
                    const int32_t first = c < g.channels - 16 ? c : g.channels - 16;               \
                    for (int32_t p = 0; p < l->size; ++p)                                          \
                        lines[p] = scratch + (i * l->stride + p) % l->size * l->place + first;     \
                    edgec_neon_depth_##name##_##suffix(lines, of, y + first, &g);                  \
                }                                                                                  \
                y += l->out_length * g.channels;                                                   \
            }                                                                                      \
        }                                                                                          \
    }
#define EDGEC_NEON_DEPTHS(suffix)                                                                  \
    EDGEC_NEON_DEPTH_LINES(suffix, edgec_neon_level_##suffix)                                      \
    EDGEC_NEON_DEPTH(three, suffix)                                                                \
    EDGEC_NEON_DEPTH(any, suffix)
EDGEC_NEON_DEPTHS(i8)
EDGEC_NEON_DEPTHS(i8_up)
EDGEC_NEON_DEPTHS(i8_tflite)
#undef EDGEC_NEON_DEPTHS
#undef EDGEC_NEON_DEPTH
#undef EDGEC_NEON_DEPTH_LINES
#if EDGEC_HAS_NEON
#undef EDGEC_NEON_DEPTH_STORE
#endif

#ifdef __cplusplus
}
#endif

#endif
