/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_mve_norm.h: layer norm of integer rows on cores with Helium (MVE); the portable twins give
 * the same bytes. */
/* Included for edgec_mve_norm_. */
#ifndef EDGEC_MVE_NORM_H
#define EDGEC_MVE_NORM_H

#include "edgec_mve_rows.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of n channels; `up` is the left shift of deviations for m * 4**t with t 0, `near` and
 * `slope` are of the line that approximates the inverse root, `shift` the right shift of a level.
 */
typedef struct {
    int32_t n, up, near, slope, shift, low, high;
    uint32_t eps[2];
} edgec_mve_norm;

typedef struct {
    int64_t squares;
    int32_t total;
} edgec_mve_norm_sums;

/* A row's deviations n * x + start are shifted left by `up`, multiplied by inverse / 2**32, then by
 * a channel's multiplier / 2**32; with its offset they are shifted left by `shift` and bounded. */
typedef struct {
    int32_t n, start, up, inverse, shift, low, high;
} edgec_mve_norm_row;

#if EDGEC_HAS_MVE
/* clang-format off */
#define EDGEC_MVE_NORM_SUMS(name, in, load)                                 \
    EDGEC_ASM_FUNCTION void name(                                           \
        const in *x EDGEC_UNUSED, int32_t n EDGEC_UNUSED,                   \
        edgec_mve_norm_sums *sums EDGEC_UNUSED) {                           \
        __asm__("push {r4, r5, r6, lr}\n\t"                                 \
                "mov r4, #0\n\t"                                            \
                "mov r5, #0\n\t"                                            \
                "mov r6, #0\n\t"                                            \
                "wlstp.16 lr, r1, 2f\n"                                     \
                "1:\n\t"                                                    \
                load "\n\t"                                                 \
                "vaddva.s16 r6, q0\n\t"                                     \
                "vmlalva.s16 r4, r5, q0, q0\n\t"                            \
                "letp lr, 1b\n"                                             \
                "2:\n\t"                                                    \
                "strd r4, r5, [r2]\n\t"                                     \
                "str r6, [r2, #8]\n\t"                                      \
                "pop {r4, r5, r6, pc}\n\t");                                \
    }
/* q0: four levels, q1: n, q2: the inverse, q3 and q4: bounds, q5: multipliers, then offsets. */
#define EDGEC_MVE_NORM_LEVELS(name, in, out, load, store)                   \
    EDGEC_ASM_FUNCTION void name(                                           \
        const in *x EDGEC_UNUSED, const int32_t *multiplier EDGEC_UNUSED,   \
        const int32_t *offset EDGEC_UNUSED, out *y EDGEC_UNUSED,            \
        const edgec_mve_norm_row *row EDGEC_UNUSED) {                       \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, lr}\n\t"                \
                "ldr r12, [sp, #32]\n\t"                                    \
                "vpush {d8, d9, d10, d11}\n\t"                              \
                "ldm r12, {r4, r5, r6, r7, r8, r9, r10}\n\t"                \
                "vdup.32 q1, r4\n\t"                                        \
                "vdup.32 q2, r7\n\t"                                        \
                "vdup.32 q3, r9\n\t"                                        \
                "vdup.32 q4, r10\n\t"                                       \
                "wlstp.32 lr, r4, 2f\n"                                     \
                "1:\n\t"                                                    \
                load "\n\t"                                                 \
                "vmlas.s32 q0, q1, r5\n\t"                                  \
                "vldrw.u32 q5, [r1], #16\n\t"                               \
                "vshl.s32 q0, r6\n\t"                                       \
                "vmulh.s32 q0, q0, q2\n\t"                                  \
                "vmulh.s32 q0, q0, q5\n\t"                                  \
                "vldrw.u32 q5, [r2], #16\n\t"                               \
                "vadd.i32 q0, q0, q5\n\t"                                   \
                "vshl.s32 q0, r8\n\t"                                       \
                "vmax.s32 q0, q0, q3\n\t"                                   \
                "vmin.s32 q0, q0, q4\n\t"                                   \
                store "\n\t"                                                \
                "letp lr, 1b\n"                                             \
                "2:\n\t"                                                    \
                "vpop {d8, d9, d10, d11}\n\t"                               \
                "pop {r4, r5, r6, r7, r8, r9, r10, pc}\n\t");               \
    }
#define EDGEC_MVE_NORM_OF(kind, in, eight, four)                            \
    EDGEC_MVE_NORM_SUMS(edgec_mve_norm_sums_##kind, in, eight)              \
    EDGEC_MVE_NORM_LEVELS(edgec_mve_norm_levels_##kind##_to_i8, in, int8_t, four, "vstrb.32 q0, [r3], #4") \
    EDGEC_MVE_NORM_LEVELS(edgec_mve_norm_levels_##kind##_to_i16, in, int16_t, four, "vstrh.32 q0, [r3], #8")
EDGEC_MVE_NORM_OF(i8, int8_t, "vldrb.s16 q0, [r0], #8", "vldrb.s32 q0, [r0], #4")
EDGEC_MVE_NORM_OF(i16, int16_t, "vldrh.u16 q0, [r0], #16", "vldrh.s32 q0, [r0], #8")
/* clang-format on */
#undef EDGEC_MVE_NORM_OF
#undef EDGEC_MVE_NORM_LEVELS
#undef EDGEC_MVE_NORM_SUMS
#else
#define EDGEC_MVE_NORM_LEVELS(kind, in, out)                                                       \
    EDGEC_INLINE void edgec_mve_norm_levels_##kind(const in *x, const int32_t *multiplier,         \
                                                   const int32_t *offset, out *y,                  \
                                                   const edgec_mve_norm_row *row) {                \
        for (int32_t k = 0; k < row->n; ++k) {                                                     \
            int32_t v = x[k] * row->n + row->start;                                                \
            v = row->up < 0 ? v >> -row->up : v * (1 << row->up);                                  \
            v = edgec_c_smmla(edgec_c_smmla(v, row->inverse, 0, 0u), multiplier[k], offset[k],     \
                              0u);                                                                 \
            y[k] = (out)edgec_c_clamp(v >> -row->shift, row->low, row->high);                      \
        }                                                                                          \
    }
#define EDGEC_MVE_NORM_OF(kind, in)                                                                \
    EDGEC_INLINE void edgec_mve_norm_sums_##kind(const in *x, int32_t n,                           \
                                                 edgec_mve_norm_sums *sums) {                      \
        sums->squares = 0;                                                                         \
        sums->total = 0;                                                                           \
        for (int32_t k = 0; k < n; ++k) {                                                          \
            sums->squares += x[k] * x[k];                                                          \
            sums->total += x[k];                                                                   \
        }                                                                                          \
    }                                                                                              \
    EDGEC_MVE_NORM_LEVELS(kind##_to_i8, in, int8_t)                                                \
    EDGEC_MVE_NORM_LEVELS(kind##_to_i16, in, int16_t)
EDGEC_MVE_NORM_OF(i8, int8_t)
EDGEC_MVE_NORM_OF(i16, int16_t)
#undef EDGEC_MVE_NORM_OF
#undef EDGEC_MVE_NORM_LEVELS
#endif

/* Half of the bits that w >= 1 has beyond 30, and w without them: m in [2**29, 2**31). */
EDGEC_INLINE int32_t edgec_mve_norm_halve(uint64_t w, uint32_t *m) {
    const uint32_t high = (uint32_t)(w >> 32);
    const int32_t zeros =
        high != 0u ? edgec_clz32((int32_t)high) : 32 + edgec_clz32((int32_t)(uint32_t)w);
    const int32_t t = (34 - zeros) >> 1;
    *m = t < 0 ? (uint32_t)w << (-2 * t) : (uint32_t)(w >> (2 * t));
    return t;
}

/* 2**45 / sqrt(m): a line, then four steps of Newton's. */
EDGEC_INLINE int32_t edgec_mve_norm_root(uint32_t m, const edgec_mve_norm *g) {
    uint32_t r = (uint32_t)g->near - (uint32_t)(((uint64_t)m * (uint32_t)g->slope) >> 30);
    for (int32_t k = 0; k < 4; ++k) {
        const uint32_t square = (uint32_t)(((uint64_t)r * r) >> 30);
        const uint32_t step = (3u << 30) - (uint32_t)(((uint64_t)m * square) >> 30);
        r = (uint32_t)(((uint64_t)r * step) >> 31);
    }
    return (int32_t)r;
}

#define EDGEC_MVE_NORM(from, to, in, out)                                                          \
    EDGEC_INLINE void edgec_mve_norm_##from##_to_##to(const in *x, const int32_t *multiplier,      \
                                                      const int32_t *offset, out *y, int32_t rows, \
                                                      const int32_t *table) {                      \
        edgec_mve_norm g;                                                                          \
        edgec_memcpy(&g, table, sizeof g);                                                         \
        edgec_mve_norm_row row = {g.n, 0, 0, 0, -g.shift, g.low, g.high};                          \
        for (int32_t r = 0; r < rows; ++r, x += g.n, y += g.n) {                                   \
            edgec_mve_norm_sums s;                                                                 \
            uint32_t m;                                                                            \
            edgec_mve_norm_sums_##from(x, g.n, &s);                                                \
            const int64_t spread = s.squares * g.n - (int64_t)s.total * s.total;                   \
            const uint64_t eps = ((uint64_t)g.eps[1] << 32) | g.eps[0];                            \
            row.up = g.up - edgec_mve_norm_halve((uint64_t)spread + eps, &m);                      \
            row.inverse = edgec_mve_norm_root(m, &g);                                              \
            row.start = -s.total;                                                                  \
            edgec_mve_norm_levels_##from##_to_##to(x, multiplier, offset, y, &row);                \
        }                                                                                          \
    }
EDGEC_MVE_NORM(i8, i8, int8_t, int8_t)
EDGEC_MVE_NORM(i8, i16, int8_t, int16_t)
EDGEC_MVE_NORM(i16, i8, int16_t, int8_t)
EDGEC_MVE_NORM(i16, i16, int16_t, int16_t)
#undef EDGEC_MVE_NORM

#ifdef __cplusplus
}
#endif

#endif
