/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_neon_rows.h: matrix products of int8 rows with int8 weights on 64-bit ARM cores without dot
 * products; the portable twins give the same bytes. */
/* Included for edgec_neon_. */
#ifndef EDGEC_NEON_ROWS_H
#define EDGEC_NEON_ROWS_H

#include "edgec_simd.h"

#if defined(__aarch64__) && defined(__ARM_NEON) && !defined(EDGEC_SIMD_PORTABLE)
#define EDGEC_HAS_NEON 1
#include <arm_neon.h>
#else
#define EDGEC_HAS_NEON 0
#endif

/* What has parameters that are constant where it is called. */
#if defined(__GNUC__) || defined(__clang__)
#define EDGEC_NEON_INLINE static inline EDGEC_UNUSED __attribute__((always_inline))
#else
#define EDGEC_NEON_INLINE static inline
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Weights are one stream, for every block of four outputs: where `half` is set, the weights of the
 * first 8 bytes of a row, one output after the other; the same for each 16 bytes that follow (zeros
 * beyond the row); the four biases; and, where sums are requantised, four multipliers, then right
 * shifts as negative numbers. A layer whose outputs are no multiple of four computes its last four
 * again, at word `last` of the stream.
 *
 * x_step: bytes between rows; y_step: elements between their outputs; blocks: of outputs; rest: the
 * first of the last four outputs, 0 where there are none; zero, low, high: what is added to a
 * result, and its bounds; lift: left shift of the sums before they are multiplied (some kernels).
 */
typedef struct {
    int32_t x_step, y_step, vectors, half, blocks, rest, last, zero, low, high, lift;
} edgec_neon_layer;

/* High word of 2 * x * multiplier, rounded half up or down. */
EDGEC_INLINE int32_t edgec_neon_high(int32_t x, int32_t multiplier, int32_t round) {
    int64_t product = 2 * ((int64_t)x * multiplier);
    return (int32_t)(uint32_t)(((uint64_t)product + ((uint64_t)round << 31)) >> 32);
}

/* Half up; `by` is at most 0. */
EDGEC_INLINE int32_t edgec_neon_shift(int32_t x, int32_t by) {
    return by == 0 ? x : (int32_t)((x + ((int64_t)1 << (-by - 1))) >> -by);
}

#if EDGEC_HAS_NEON
/* Unrolling by the compiler would need more registers than there are. */
#if defined(__clang__)
#define EDGEC_NEON_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define EDGEC_NEON_ROLLED
#endif

/* Products of 8 and 8 bytes are added in 16 bits before they are added to the sums: kernels `rows`.
 * Only two products of -128 by -128 would not fit: kernels `least` add each half to the sums. Four
 * rows are assembly because compilers begin so many products at once that the sums leave their
 * registers; the first products become the sums. */
#define EDGEC_NEON_EACH(text)                                                                      \
    text("4", "0", "9") text("5", "1", "10") text("6", "2", "11") text("7", "3", "12")
#define EDGEC_NEON_LOW(t, a, x) "smull %" t ".8h, %" x ".8b, %8.8b\n\t"
#define EDGEC_NEON_HIGH(t, a, x) "smull2 %" t ".8h, %" x ".16b, %8.16b\n\t"
#define EDGEC_NEON_BOTH(t, a, x) "smlal2 %" t ".8h, %" x ".16b, %8.16b\n\t"
#define EDGEC_NEON_ADD(t, a, x) "sadalp %" a ".4s, %" t ".8h\n\t"
#define EDGEC_NEON_SET(t, a, x) "saddlp %" a ".4s, %" t ".8h\n\t"
#define EDGEC_NEON_ASM(out, ...)                                                                   \
    __asm__(__VA_ARGS__                                                                            \
            : out(sum[0]), out(sum[4]), out(sum[8]), out(sum[12]), "=&w"(t0), "=&w"(t1),           \
              "=&w"(t2), "=&w"(t3)                                                                 \
            : "w"(w), "w"(x[0]), "w"(x[1]), "w"(x[2]), "w"(x[3]))

/* The products of one output with four rows, added to every fourth sum. */
EDGEC_NEON_INLINE void edgec_neon_mla(int32x4_t *sum, const int8x16_t *x, int8x16_t w, int pairs) {
    int16x8_t t0, t1, t2, t3;
    if (pairs)
        EDGEC_NEON_ASM("+&w", EDGEC_NEON_EACH(EDGEC_NEON_LOW) EDGEC_NEON_EACH(EDGEC_NEON_BOTH)
                                  EDGEC_NEON_EACH(EDGEC_NEON_ADD));
    else
        EDGEC_NEON_ASM("+&w", EDGEC_NEON_EACH(EDGEC_NEON_LOW) EDGEC_NEON_EACH(EDGEC_NEON_ADD)
                                  EDGEC_NEON_EACH(EDGEC_NEON_HIGH) EDGEC_NEON_EACH(EDGEC_NEON_ADD));
}

EDGEC_NEON_INLINE void edgec_neon_mul(int32x4_t *sum, const int8x16_t *x, int8x16_t w, int pairs) {
    int16x8_t t0, t1, t2, t3;
    if (pairs)
        EDGEC_NEON_ASM("=&w", EDGEC_NEON_EACH(EDGEC_NEON_LOW) EDGEC_NEON_EACH(EDGEC_NEON_BOTH)
                                  EDGEC_NEON_EACH(EDGEC_NEON_SET));
    else
        EDGEC_NEON_ASM("=&w", EDGEC_NEON_EACH(EDGEC_NEON_LOW) EDGEC_NEON_EACH(EDGEC_NEON_SET)
                                  EDGEC_NEON_EACH(EDGEC_NEON_HIGH) EDGEC_NEON_EACH(EDGEC_NEON_ADD));
}
#undef EDGEC_NEON_ASM
#undef EDGEC_NEON_SET
#undef EDGEC_NEON_ADD
#undef EDGEC_NEON_BOTH
#undef EDGEC_NEON_HIGH
#undef EDGEC_NEON_LOW
#undef EDGEC_NEON_EACH

/* The same for one row. */
EDGEC_NEON_INLINE int32x4_t edgec_neon_mla1(int32x4_t sum, int8x16_t x, int8x16_t w, int pairs) {
    int16x8_t product = vmull_s8(vget_low_s8(x), vget_low_s8(w));
    if (pairs)
        return vpadalq_s16(sum, vmlal_high_s8(product, x, w));
    return vpadalq_s16(vpadalq_s16(sum, product), vmull_high_s8(x, w));
}

/* The sums of a block, for `rows` rows (1 or 4): one vector of four outputs per row. Returns the
 * rest of the stream. Everything stays in registers once the constant loops are unrolled. */
EDGEC_NEON_INLINE const int32_t *edgec_neon_block(const int8_t *x, const int32_t *stream,
                                                  const edgec_neon_layer *g, int32x4_t *sums,
                                                  const int rows, const int pairs) {
    const int8_t *w = (const int8_t *)stream, *at[4];
    int32x4_t total[16];
    int8x16_t line[4];
    int32_t n = g->vectors;
    for (int r = 0; r < rows; ++r)
        at[r] = x + r * g->x_step;
    if (g->half) {
        for (int o = 0; o < 4; ++o)
            for (int r = 0; r < rows; ++r)
                total[4 * r + o] = vpaddlq_s16(vmull_s8(vld1_s8(at[r]), vld1_s8(w + 8 * o)));
        for (int r = 0; r < rows; ++r)
            at[r] += 8;
        w += 32;
    } else {
        for (int r = 0; r < rows; ++r) {
            line[r] = vld1q_s8(at[r]);
            at[r] += 16;
        }
        for (int o = 0; o < 4; ++o) {
            const int8x16_t weights = vld1q_s8(w + 16 * o);
            if (rows == 4)
                edgec_neon_mul(total + o, line, weights, pairs);
            else
                total[o] = edgec_neon_mla1(vdupq_n_s32(0), line[0], weights, pairs);
        }
        w += 64;
        --n;
    }
    EDGEC_NEON_ROLLED
    for (; n > 0; --n, w += 64) {
        for (int r = 0; r < rows; ++r) {
            line[r] = vld1q_s8(at[r]);
            at[r] += 16;
        }
        for (int o = 0; o < 4; ++o) {
            const int8x16_t weights = vld1q_s8(w + 16 * o);
            if (rows == 4)
                edgec_neon_mla(total + o, line, weights, pairs);
            else
                total[o] = edgec_neon_mla1(total[o], line[0], weights, pairs);
        }
    }
    const int32x4_t bias = vld1q_s32((const int32_t *)w);
    for (int r = 0; r < rows; ++r) {
        const int32x4_t low = vpaddq_s32(total[4 * r], total[4 * r + 1]);
        const int32x4_t high = vpaddq_s32(total[4 * r + 2], total[4 * r + 3]);
        sums[r] = vaddq_s32(vpaddq_s32(low, high), bias);
    }
    return (const int32_t *)w + 4;
}

/* Rounded once: the quotient's floor, then half up. `by` are negative numbers. */
EDGEC_NEON_INLINE int32x4_t edgec_neon_level_i8(int32x4_t sum, int32x4_t multiplier, int32x4_t by) {
    return vrshlq_s32(vqdmulhq_s32(sum, multiplier), by);
}

EDGEC_NEON_INLINE int32x4_t edgec_neon_level_i8_up(int32x4_t sum, int32x4_t multiplier,
                                                   int32x4_t by) {
    return vrshlq_s32(vqrdmulhq_s32(sum, multiplier), by);
}

/* Half away from zero: one less below zero, where there is a shift. */
EDGEC_NEON_INLINE int32x4_t edgec_neon_level_i8_tflite(int32x4_t sum, int32x4_t multiplier,
                                                       int32x4_t by) {
    const int32x4_t high = vqrdmulhq_s32(sum, multiplier);
    return vrshlq_s32(vqaddq_s32(high, vshrq_n_s32(vandq_s32(high, by), 31)), by);
}

/* Four values of one row, or of four rows, to their places. */
EDGEC_NEON_INLINE void edgec_neon_store_i8(const int32x4_t *v, int8_t *y, const edgec_neon_layer *g,
                                           const int rows) {
    const int16x8_t zero = vdupq_n_s16((int16_t)g->zero);
    const int32x4_t *second = rows == 1 ? v : v + 1, *third = rows == 1 ? v : v + 2;
    const int16x8_t a = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(v[0]), *second), zero);
    const int16x8_t b =
        vqaddq_s16(vqmovn_high_s32(vqmovn_s32(*third), rows == 1 ? v[0] : v[3]), zero);
    int8x16_t bytes = vqmovn_high_s16(vqmovn_s16(a), b);
    bytes = vmaxq_s8(bytes, vdupq_n_s8((int8_t)g->low));
    bytes = vminq_s8(bytes, vdupq_n_s8((int8_t)g->high));
    const int32x4_t words = vreinterpretq_s32_s8(bytes);
    const int32_t of[4] = {vgetq_lane_s32(words, 0), vgetq_lane_s32(words, 1),
                           vgetq_lane_s32(words, 2), vgetq_lane_s32(words, 3)};
    for (int r = 0; r < rows; ++r)
        edgec_write_s8x4(y + r * g->y_step, of[r]);
}

EDGEC_NEON_INLINE void edgec_neon_store_i16(const int32x4_t *v, int16_t *y,
                                            const edgec_neon_layer *g, const int rows) {
    for (int r = 0; r < rows; ++r)
        vst1_s16(y + r * g->y_step, vqadd_s16(vqmovn_s32(v[r]), vdup_n_s16((int16_t)g->zero)));
}

/* One block of outputs of `rows` rows. Returns the next block's weights. */
#define EDGEC_NEON_FOUR(suffix, type, level, store, lifted)                                        \
    EDGEC_NEON_INLINE const int32_t *edgec_neon_four_##suffix(const int8_t *x, const int32_t *w,   \
                                                              type *y, const edgec_neon_layer *g,  \
                                                              const int rows, const int pairs) {   \
        int32x4_t v[4];                                                                            \
        w = edgec_neon_block(x, w, g, v, rows, pairs);                                             \
        const int32x4_t multiplier = vld1q_s32(w), by = vld1q_s32(w + 4);                          \
        for (int r = 0; r < rows; ++r)                                                             \
            v[r] = level(lifted ? vshlq_s32(v[r], vdupq_n_s32(g->lift)) : v[r], multiplier, by);   \
        store(v, y, g, rows);                                                                      \
        return w + 8;                                                                              \
    }
EDGEC_NEON_FOUR(i8, int8_t, edgec_neon_level_i8, edgec_neon_store_i8, 0)
EDGEC_NEON_FOUR(i8_up, int8_t, edgec_neon_level_i8_up, edgec_neon_store_i8, 0)
EDGEC_NEON_FOUR(i8_tflite, int8_t, edgec_neon_level_i8_tflite, edgec_neon_store_i8, 0)
EDGEC_NEON_FOUR(i16, int16_t, edgec_neon_level_i8, edgec_neon_store_i16, 1)
#undef EDGEC_NEON_FOUR

EDGEC_NEON_INLINE const int32_t *edgec_neon_four_i32(const int8_t *x, const int32_t *w, int32_t *y,
                                                     const edgec_neon_layer *g, const int rows,
                                                     const int pairs) {
    int32x4_t v[4];
    w = edgec_neon_block(x, w, g, v, rows, pairs);
    for (int r = 0; r < rows; ++r)
        vst1q_s32(y + r * g->y_step, v[r]);
    return w;
}
#else
EDGEC_INLINE int32_t edgec_neon_level_i8(int32_t sum, int32_t multiplier, int32_t by) {
    return edgec_neon_shift(edgec_neon_high(sum, multiplier, 0), by);
}

EDGEC_INLINE int32_t edgec_neon_level_i8_up(int32_t sum, int32_t multiplier, int32_t by) {
    return edgec_neon_shift(edgec_neon_high(sum, multiplier, 1), by);
}

EDGEC_INLINE int32_t edgec_neon_level_i8_tflite(int32_t sum, int32_t multiplier, int32_t by) {
    const int32_t high = edgec_neon_high(sum, multiplier, 1);
    return edgec_neon_shift(high - (high < 0 && by < 0), by);
}

EDGEC_INLINE int32_t edgec_neon_clamp_i8(int32_t v, const edgec_neon_layer *g) {
    return edgec_c_clamp(edgec_c_clamp(v, -32768, 32767) + g->zero, g->low, g->high);
}

EDGEC_NEON_INLINE const int32_t *edgec_neon_block(const int8_t *x, const int32_t *stream,
                                                  const edgec_neon_layer *g, int32_t *sums,
                                                  const int rows) {
    const int8_t *w = (const int8_t *)stream;
    const int32_t inputs = 16 * g->vectors + 8 * g->half;
    const int32_t *bias = stream + inputs;
    for (int k = 0; k < 4 * rows; ++k) {
        uint32_t sum = (uint32_t)bias[k % 4];
        for (int32_t i = 0; i < inputs; ++i) {
            const int32_t j = i - 8 * g->half, full = 32 * g->half + j / 16 * 64;
            const int32_t lane = j < 0 ? k % 4 * 8 + i : full + k % 4 * 16 + j % 16;
            sum += (uint32_t)(x[k / 4 * g->x_step + i] * w[lane]);
        }
        sums[k] = (int32_t)sum;
    }
    return bias + 4;
}

#define EDGEC_NEON_FOUR(suffix, type, words, value)                                                \
    EDGEC_NEON_INLINE const int32_t *edgec_neon_four_##suffix(const int8_t *x, const int32_t *w,   \
                                                              type *y, const edgec_neon_layer *g,  \
                                                              const int rows, const int pairs) {   \
        int32_t v[16];                                                                             \
        (void)pairs;                                                                               \
        w = edgec_neon_block(x, w, g, v, rows);                                                    \
        for (int k = 0; k < 4 * rows; ++k)                                                         \
            y[k / 4 * g->y_step + k % 4] = (type)(value);                                          \
        return w + (words);                                                                        \
    }
EDGEC_NEON_FOUR(i32, int32_t, 0, v[k])
EDGEC_NEON_FOUR(i16, int16_t, 8,
                edgec_c_clamp(edgec_c_clamp(edgec_neon_level_i8(v[k] * (1 << g->lift), w[k % 4],
                                                                w[4 + k % 4]),
                                            -32768, 32767) +
                                  g->zero,
                              -32768, 32767))
EDGEC_NEON_FOUR(i8, int8_t, 8,
                edgec_neon_clamp_i8(edgec_neon_level_i8(v[k], w[k % 4], w[4 + k % 4]), g))
EDGEC_NEON_FOUR(i8_up, int8_t, 8,
                edgec_neon_clamp_i8(edgec_neon_level_i8_up(v[k], w[k % 4], w[4 + k % 4]), g))
EDGEC_NEON_FOUR(i8_tflite, int8_t, 8,
                edgec_neon_clamp_i8(edgec_neon_level_i8_tflite(v[k], w[k % 4], w[4 + k % 4]), g))
#undef EDGEC_NEON_FOUR
#endif

/* n bytes copied; whole vectors where there are any, the last one overlapping. */
EDGEC_INLINE void edgec_neon_copy(const int8_t *from, int8_t *to, int32_t n) {
    int32_t k = 0;
    if (n >= 16) {
        for (; k < n - 16; k += 16)
            edgec_memcpy(to + k, from + k, 16);
        edgec_memcpy(to + n - 16, from + n - 16, 16);
    } else if (n >= 8) {
        edgec_memcpy(to, from, 8);
        edgec_memcpy(to + n - 8, from + n - 8, 8);
    } else if (n >= 4) {
        edgec_memcpy(to, from, 4);
        edgec_memcpy(to + n - 4, from + n - 4, 4);
    } else {
        for (; k < n; ++k)
            to[k] = from[k];
    }
}

/* linear: how many rows, of how many bytes; rows that are no multiple of 8 bytes are copied to
 * scratch four by four. */
typedef struct {
    edgec_neon_layer layer;
    int32_t rows, bytes, copied;
} edgec_neon_linear;

/* `some`: count rows, four by four, the last four overlapping; fewer than four one by one. */
#define EDGEC_NEON_LAYER(name, suffix, type, pairs)                                                \
    EDGEC_NEON_INLINE void edgec_neon_##name##_all_##suffix(                                       \
        const int8_t *x, const int32_t *w, type *y, const edgec_neon_layer *layer,                 \
        const int rows) {                                                                          \
        const edgec_neon_layer g = *layer;                                                         \
        const int32_t *next = w;                                                                   \
        for (int32_t b = 0; b < g.blocks + (g.rest != 0); ++b) {                                   \
            const int32_t again = b == g.blocks;                                                   \
            next = edgec_neon_four_##suffix(x, again ? w + g.last : next,                          \
                                            y + (again ? g.rest : 4 * b), &g, rows, pairs);        \
        }                                                                                          \
    }                                                                                              \
    EDGEC_NOINLINE static EDGEC_UNUSED void edgec_neon_##name##_4_##suffix(                        \
        const int8_t *x, const int32_t *w, type *y, const edgec_neon_layer *g) {                   \
        edgec_neon_##name##_all_##suffix(x, w, y, g, 4);                                           \
    }                                                                                              \
    EDGEC_NOINLINE static EDGEC_UNUSED void edgec_neon_##name##_1_##suffix(                        \
        const int8_t *x, const int32_t *w, type *y, const edgec_neon_layer *g) {                   \
        edgec_neon_##name##_all_##suffix(x, w, y, g, 1);                                           \
    }                                                                                              \
    EDGEC_INLINE void edgec_neon_##name##_some_##suffix(                                           \
        const int8_t *x, int32_t count, const int32_t *w, type *y, const edgec_neon_layer *g) {    \
        for (int32_t r = 0; r < count && count < 4; ++r)                                           \
            edgec_neon_##name##_1_##suffix(x + r * g->x_step, w, y + r * g->y_step, g);            \
        for (int32_t r = 0; r < count && count >= 4; r += 4) {                                     \
            const int32_t first = r < count - 4 ? r : count - 4;                                   \
            edgec_neon_##name##_4_##suffix(x + first * g->x_step, w, y + first * g->y_step, g);    \
        }                                                                                          \
    }                                                                                              \
    EDGEC_INLINE void edgec_neon_##name##_linear_##suffix(                                         \
        const int8_t *x, const int32_t *w, type *y, const int32_t *table, int8_t *scratch) {       \
        edgec_neon_linear g;                                                                       \
        edgec_memcpy(&g, table, sizeof g);                                                         \
        if (!g.copied) {                                                                           \
            edgec_neon_##name##_some_##suffix(x, g.rows, w, y, &g.layer);                          \
            return;                                                                                \
        }                                                                                          \
        for (int32_t r = 0; r < g.rows; r += 4) {                                                  \
            const int32_t count = g.rows < 4 ? g.rows : 4;                                         \
            const int32_t first = r < g.rows - count ? r : g.rows - count;                         \
            for (int32_t k = 0; k < count; ++k)                                                    \
                edgec_neon_copy(x + (first + k) * g.bytes, scratch + k * g.layer.x_step, g.bytes); \
            edgec_neon_##name##_some_##suffix(scratch, count, w, y + first * g.layer.y_step,       \
                                              &g.layer);                                           \
        }                                                                                          \
    }
#define EDGEC_NEON_LAYERS(suffix, type)                                                            \
    EDGEC_NEON_LAYER(rows, suffix, type, 1)                                                        \
    EDGEC_NEON_LAYER(least, suffix, type, 0)
EDGEC_NEON_LAYERS(i32, int32_t)
EDGEC_NEON_LAYERS(i16, int16_t)
EDGEC_NEON_LAYERS(i8, int8_t)
EDGEC_NEON_LAYERS(i8_up, int8_t)
EDGEC_NEON_LAYERS(i8_tflite, int8_t)
#undef EDGEC_NEON_LAYERS
#undef EDGEC_NEON_LAYER

#ifdef __cplusplus
}
#endif

#endif
