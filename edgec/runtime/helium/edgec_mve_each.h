/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_mve_each.h: what is computed element by element, on cores with Helium (MVE). */
/* Included for edgec_mve_each_. */
#ifndef EDGEC_MVE_EACH_H
#define EDGEC_MVE_EACH_H

#include "edgec_mve.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- TFLite's add ----
 * (x << 20) - zero << 20, multiplier and right shift (at most 0) of both operands and of the sum,
 * whose zero point is added last. */
typedef struct {
    int32_t a_offset, a_multiplier, a_shift, b_offset, b_multiplier, b_shift;
    int32_t multiplier, shift, zero, low, high;
} edgec_mve_each_terms;

#if EDGEC_HAS_MVE
/* clang-format off */
#define EDGEC_MVE_EACH_AWAY(q, shift)            \
    "vdup.32 q3, " shift "\n\t"                  \
    "vand q3, q3, " q "\n\t"                     \
    "vshr.s32 q3, q3, #31\n\t"                   \
    "vqadd.s32 " q ", " q ", q3\n\t"
#define EDGEC_MVE_EACH_UP(q, shift) ""
/* q0 and q1: the operands, q2: 2**20, q4 and q5: bounds. */
#define EDGEC_MVE_EACH_ADD(name, add, round)                                \
    EDGEC_ASM_FUNCTION void name(                                           \
        const int8_t *a EDGEC_UNUSED, const int8_t *b EDGEC_UNUSED,         \
        int8_t *y EDGEC_UNUSED, int32_t n EDGEC_UNUSED,                     \
        const int32_t *terms EDGEC_UNUSED) {                                \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"           \
                "ldr r12, [sp, #36]\n\t"                                    \
                "vpush {d8, d9, d10, d11}\n\t"                              \
                "ldrd r4, r5, [r12, #36]\n\t"                               \
                "vdup.32 q4, r4\n\t"                                        \
                "vdup.32 q5, r5\n\t"                                        \
                "mov r4, #0x100000\n\t"                                     \
                "vdup.32 q2, r4\n\t"                                        \
                "wlstp.32 lr, r3, 2f\n\t"                                   \
                "ldm r12, {r3, r4, r5, r6, r7, r8, r9, r10, r11}\n"         \
                "1:\n\t"                                                    \
                "vldrb.s32 q0, [r0], #4\n\t"                                \
                "vldrb.s32 q1, [r1], #4\n\t"                                \
                "vmlas.s32 q0, q2, r3\n\t"                                  \
                "vmlas.s32 q1, q2, r6\n\t"                                  \
                "vqrdmulh.s32 q0, q0, r4\n\t"                               \
                "vqrdmulh.s32 q1, q1, r7\n\t"                               \
                round("q0", "r5")                                           \
                "vrshl.s32 q0, r5\n\t"                                      \
                round("q1", "r8")                                           \
                "vrshl.s32 q1, r8\n\t"                                      \
                add " q0, q0, q1\n\t"                                       \
                "vqrdmulh.s32 q0, q0, r9\n\t"                               \
                round("q0", "r10")                                          \
                "vrshl.s32 q0, r10\n\t"                                     \
                "vadd.i32 q0, q0, r11\n\t"                                  \
                "vmax.s32 q0, q0, q4\n\t"                                   \
                "vmin.s32 q0, q0, q5\n\t"                                   \
                "vstrb.32 q0, [r2], #4\n\t"                                 \
                "letp lr, 1b\n"                                             \
                "2:\n\t"                                                    \
                "vpop {d8, d9, d10, d11}\n\t"                               \
                "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");          \
    }
EDGEC_MVE_EACH_ADD(edgec_mve_each_add, "vadd.i32", EDGEC_MVE_EACH_AWAY)
EDGEC_MVE_EACH_ADD(edgec_mve_each_sub, "vsub.i32", EDGEC_MVE_EACH_AWAY)
EDGEC_MVE_EACH_ADD(edgec_mve_each_add_up, "vadd.i32", EDGEC_MVE_EACH_UP)
EDGEC_MVE_EACH_ADD(edgec_mve_each_sub_up, "vsub.i32", EDGEC_MVE_EACH_UP)
/* clang-format on */
#undef EDGEC_MVE_EACH_ADD
#else
EDGEC_INLINE int32_t edgec_mve_each_scale(int32_t x, int32_t multiplier, int32_t shift,
                                          int32_t away) {
    int32_t high = edgec_mve_high(x, multiplier, 1);
    return edgec_mve_shift(high - (away && high < 0 && shift < 0), shift);
}

#define EDGEC_MVE_EACH_ADD(name, sign, away)                                                       \
    EDGEC_INLINE void name(const int8_t *a, const int8_t *b, int8_t *y, int32_t n,                 \
                           const int32_t *terms) {                                                 \
        edgec_mve_each_terms t;                                                                    \
        edgec_memcpy(&t, terms, sizeof t);                                                         \
        for (int32_t k = 0; k < n; ++k) {                                                          \
            int32_t p = edgec_mve_each_scale(a[k] * (1 << 20) + t.a_offset, t.a_multiplier,        \
                                             t.a_shift, away);                                     \
            int32_t q = edgec_mve_each_scale(b[k] * (1 << 20) + t.b_offset, t.b_multiplier,        \
                                             t.b_shift, away);                                     \
            p = edgec_mve_each_scale(p sign q, t.multiplier, t.shift, away) + t.zero;              \
            y[k] = (int8_t)edgec_c_clamp(p, t.low, t.high);                                        \
        }                                                                                          \
    }
EDGEC_MVE_EACH_ADD(edgec_mve_each_add, +, 1)
EDGEC_MVE_EACH_ADD(edgec_mve_each_sub, -, 1)
EDGEC_MVE_EACH_ADD(edgec_mve_each_add_up, +, 0)
EDGEC_MVE_EACH_ADD(edgec_mve_each_sub_up, -, 0)
#undef EDGEC_MVE_EACH_ADD
#endif

/* ---- products ----
 * y = (a - zero) * (b - zero) * multiplier / 2**shift + zero, bounded; the product is shifted left
 * by `lift` first, `shift` is a right shift as a negative number. Rounded once, or as TFLite does.
 * */
typedef struct {
    int32_t a_offset, b_offset, lift, multiplier, shift, zero, low, high;
} edgec_mve_each_factors;

#if EDGEC_HAS_MVE
/* clang-format off */
#define EDGEC_MVE_EACH_MUL(name, left, right, out, load_a, load_b, store, high, round) \
    EDGEC_ASM_FUNCTION void name(                                           \
        const left *a EDGEC_UNUSED, const right *b EDGEC_UNUSED,            \
        out *y EDGEC_UNUSED, int32_t n EDGEC_UNUSED,                        \
        const int32_t *factors EDGEC_UNUSED) {                              \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"           \
                "ldr r12, [sp, #36]\n\t"                                    \
                "vpush {d8, d9}\n\t"                                        \
                "ldm r12, {r4, r5, r6, r7, r8, r9, r10, r11}\n\t"           \
                "vdup.32 q2, r10\n\t"                                       \
                "vdup.32 q4, r11\n\t"                                       \
                "wlstp.32 lr, r3, 2f\n"                                     \
                "1:\n\t"                                                    \
                load_a                                                      \
                load_b                                                      \
                "vadd.i32 q0, q0, r4\n\t"                                   \
                "vadd.i32 q1, q1, r5\n\t"                                   \
                "vmul.i32 q0, q0, q1\n\t"                                   \
                "vshl.s32 q0, r6\n\t"                                       \
                high " q0, q0, r7\n\t"                                      \
                round("q0", "r8")                                           \
                "vrshl.s32 q0, r8\n\t"                                      \
                "vadd.i32 q0, q0, r9\n\t"                                   \
                "vmax.s32 q0, q0, q2\n\t"                                   \
                "vmin.s32 q0, q0, q4\n\t"                                   \
                store                                                       \
                "letp lr, 1b\n"                                             \
                "2:\n\t"                                                    \
                "vpop {d8, d9}\n\t"                                         \
                "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");          \
    }
#define EDGEC_MVE_EACH_PAIR(kinds, left, right, load_a, load_b)             \
    EDGEC_MVE_EACH_MUL(edgec_mve_each_mul_##kinds##_to_i8, left, right, int8_t, load_a, load_b, \
                       "vstrb.32 q0, [r2], #4\n\t", "vqdmulh.s32", EDGEC_MVE_EACH_UP) \
    EDGEC_MVE_EACH_MUL(edgec_mve_each_mul_##kinds##_to_i16, left, right, int16_t, load_a, load_b, \
                       "vstrh.32 q0, [r2], #8\n\t", "vqdmulh.s32", EDGEC_MVE_EACH_UP)
EDGEC_MVE_EACH_PAIR(i8_i8, int8_t, int8_t, "vldrb.s32 q0, [r0], #4\n\t", "vldrb.s32 q1, [r1], #4\n\t")
EDGEC_MVE_EACH_PAIR(i8_i16, int8_t, int16_t, "vldrb.s32 q0, [r0], #4\n\t", "vldrh.s32 q1, [r1], #8\n\t")
EDGEC_MVE_EACH_PAIR(i16_i8, int16_t, int8_t, "vldrh.s32 q0, [r0], #8\n\t", "vldrb.s32 q1, [r1], #4\n\t")
EDGEC_MVE_EACH_PAIR(i16_i16, int16_t, int16_t, "vldrh.s32 q0, [r0], #8\n\t", "vldrh.s32 q1, [r1], #8\n\t")
EDGEC_MVE_EACH_MUL(edgec_mve_each_mul_tflite, int8_t, int8_t, int8_t, "vldrb.s32 q0, [r0], #4\n\t",
                   "vldrb.s32 q1, [r1], #4\n\t", "vstrb.32 q0, [r2], #4\n\t", "vqrdmulh.s32", EDGEC_MVE_EACH_AWAY)
/* clang-format on */
#undef EDGEC_MVE_EACH_PAIR
#undef EDGEC_MVE_EACH_MUL
#undef EDGEC_MVE_EACH_UP
#undef EDGEC_MVE_EACH_AWAY

/* int16 without zero points, lift and bounds, eight at a time; only multiplier and shift count. */
EDGEC_ASM_FUNCTION void edgec_mve_each_mul_plain(const int16_t *a EDGEC_UNUSED,
                                                 const int16_t *b EDGEC_UNUSED,
                                                 int16_t *y EDGEC_UNUSED, int32_t n EDGEC_UNUSED,
                                                 const int32_t *factors EDGEC_UNUSED) {
    __asm__("push {r4, r5, r6, lr}\n\t"
            "ldr r12, [sp, #16]\n\t"
            "ldrd r4, r5, [r12, #12]\n\t"
            "wlstp.16 lr, r3, 2f\n"
            "1:\n\t"
            "vldrh.u16 q0, [r0], #16\n\t"
            "vldrh.u16 q1, [r1], #16\n\t"
            "vmullb.s16 q2, q0, q1\n\t"
            "vmullt.s16 q0, q0, q1\n\t"
            "vqdmulh.s32 q2, q2, r4\n\t"
            "vqdmulh.s32 q0, q0, r4\n\t"
            "vrshl.s32 q2, r5\n\t"
            "vrshl.s32 q0, r5\n\t"
            "vqmovnb.s32 q2, q2\n\t"
            "vqmovnt.s32 q2, q0\n\t"
            "vstrh.16 q2, [r2], #16\n\t"
            "letp lr, 1b\n"
            "2:\n\t"
            "pop {r4, r5, r6, pc}\n\t");
}
#else
#define EDGEC_MVE_EACH_MUL(name, left, right, out, round)                                          \
    EDGEC_INLINE void name(const left *a, const right *b, out *y, int32_t n,                       \
                           const int32_t *factors) {                                               \
        edgec_mve_each_factors g;                                                                  \
        edgec_memcpy(&g, factors, sizeof g);                                                       \
        for (int32_t k = 0; k < n; ++k) {                                                          \
            const int32_t product = (a[k] + g.a_offset) * (b[k] + g.b_offset) * (1 << g.lift);     \
            const int32_t high = edgec_mve_high(product, g.multiplier, round);                     \
            const int32_t away = (round) != 0 && high < 0 && g.shift < 0;                          \
            const int32_t v = edgec_mve_shift(high - away, g.shift) + g.zero;                      \
            y[k] = (out)edgec_c_clamp(v, g.low, g.high);                                           \
        }                                                                                          \
    }
#define EDGEC_MVE_EACH_PAIR(kinds, left, right)                                                    \
    EDGEC_MVE_EACH_MUL(edgec_mve_each_mul_##kinds##_to_i8, left, right, int8_t, 0)                 \
    EDGEC_MVE_EACH_MUL(edgec_mve_each_mul_##kinds##_to_i16, left, right, int16_t, 0)
EDGEC_MVE_EACH_PAIR(i8_i8, int8_t, int8_t)
EDGEC_MVE_EACH_PAIR(i8_i16, int8_t, int16_t)
EDGEC_MVE_EACH_PAIR(i16_i8, int16_t, int8_t)
EDGEC_MVE_EACH_PAIR(i16_i16, int16_t, int16_t)
EDGEC_MVE_EACH_MUL(edgec_mve_each_mul_tflite, int8_t, int8_t, int8_t, 1)
#undef EDGEC_MVE_EACH_PAIR
#undef EDGEC_MVE_EACH_MUL

EDGEC_INLINE void edgec_mve_each_mul_plain(const int16_t *a, const int16_t *b, int16_t *y,
                                           int32_t n, const int32_t *factors) {
    edgec_mve_each_mul_i16_i16_to_i16(a, b, y, n, factors);
}
#endif

/* ---- requantisation, rounded once ----
 * y = (x * multiplier + half) / 2**shift + zero, bounded, for n elements. `table` has n
 * multipliers, then n right shifts as negative numbers (`each`); or one of both (`all`). x is
 * shifted left by `lift` first. */
typedef struct {
    int32_t n, lift, zero, low, high;
} edgec_mve_each_levels;

#if EDGEC_HAS_MVE
/* clang-format off */
#define EDGEC_MVE_EACH_LEVELS(name, in, out, load, step, store, to, multiply, shift)      \
    EDGEC_ASM_FUNCTION void name(                                           \
        const in *x EDGEC_UNUSED, const int32_t *table EDGEC_UNUSED,        \
        out *y EDGEC_UNUSED, const int32_t *levels EDGEC_UNUSED) {          \
        __asm__("push {r4, r5, r6, r7, r8, lr}\n\t"                         \
                "ldm r3, {r4, r5, r6, r7, r8}\n\t"                          \
                "vdup.32 q2, r7\n\t"                                        \
                "vdup.32 q3, r8\n\t"                                        \
                "add r3, r1, r4, lsl #2\n\t"                                \
                "ldrd r7, r8, [r1]\n\t"                                     \
                "wlstp.32 lr, r4, 2f\n"                                     \
                "1:\n\t"                                                    \
                load " q0, [r0], #" step "\n\t"                             \
                "vshl.s32 q0, r5\n\t"                                       \
                multiply                                                    \
                shift                                                       \
                "vadd.i32 q0, q0, r6\n\t"                                   \
                "vmax.s32 q0, q0, q2\n\t"                                   \
                "vmin.s32 q0, q0, q3\n\t"                                   \
                store " q0, [r2], #" to "\n\t"                              \
                "letp lr, 1b\n"                                             \
                "2:\n\t"                                                    \
                "pop {r4, r5, r6, r7, r8, pc}\n\t");                        \
    }
#define EDGEC_MVE_EACH_BOTH(kind, in, out, load, step, store, to)                                             \
    EDGEC_MVE_EACH_LEVELS(edgec_mve_each_##kind, in, out, load, step, store, to,                              \
                          "vldrw.u32 q1, [r1], #16\n\tvqdmulh.s32 q0, q0, q1\n\t",                           \
                          "vldrw.u32 q1, [r3], #16\n\tvrshl.s32 q0, q0, q1\n\t")                             \
    EDGEC_MVE_EACH_LEVELS(edgec_mve_each_all_##kind, in, out, load, step, store, to,                          \
                          "vqdmulh.s32 q0, q0, r7\n\t", "vrshl.s32 q0, r8\n\t")
EDGEC_MVE_EACH_BOTH(i32_to_i8, int32_t, int8_t, "vldrw.u32", "16", "vstrb.32", "4")
EDGEC_MVE_EACH_BOTH(i32_to_i16, int32_t, int16_t, "vldrw.u32", "16", "vstrh.32", "8")
EDGEC_MVE_EACH_BOTH(i16_to_i8, int16_t, int8_t, "vldrh.s32", "8", "vstrb.32", "4")
EDGEC_MVE_EACH_BOTH(i16_to_i16, int16_t, int16_t, "vldrh.s32", "8", "vstrh.32", "8")
EDGEC_MVE_EACH_BOTH(i8_to_i8, int8_t, int8_t, "vldrb.s32", "4", "vstrb.32", "4")
EDGEC_MVE_EACH_BOTH(i8_to_i16, int8_t, int16_t, "vldrb.s32", "4", "vstrh.32", "8")
/* clang-format on */
#undef EDGEC_MVE_EACH_BOTH
#undef EDGEC_MVE_EACH_LEVELS
#else
#define EDGEC_MVE_EACH_LEVELS(name, in, out, multiplier, shift)                                    \
    EDGEC_INLINE void name(const in *x, const int32_t *table, out *y, const int32_t *levels) {     \
        edgec_mve_each_levels g;                                                                   \
        edgec_memcpy(&g, levels, sizeof g);                                                        \
        for (int32_t k = 0; k < g.n; ++k) {                                                        \
            int32_t high = edgec_mve_high(x[k] * (1 << g.lift), table[multiplier], 0);             \
            int32_t v = edgec_mve_shift(high, table[shift]) + g.zero;                              \
            y[k] = (out)edgec_c_clamp(v, g.low, g.high);                                           \
        }                                                                                          \
    }
#define EDGEC_MVE_EACH_BOTH(kind, in, out)                                                         \
    EDGEC_MVE_EACH_LEVELS(edgec_mve_each_##kind, in, out, k, g.n + k)                              \
    EDGEC_MVE_EACH_LEVELS(edgec_mve_each_all_##kind, in, out, 0, 1)
EDGEC_MVE_EACH_BOTH(i32_to_i8, int32_t, int8_t)
EDGEC_MVE_EACH_BOTH(i32_to_i16, int32_t, int16_t)
EDGEC_MVE_EACH_BOTH(i16_to_i8, int16_t, int8_t)
EDGEC_MVE_EACH_BOTH(i16_to_i16, int16_t, int16_t)
EDGEC_MVE_EACH_BOTH(i8_to_i8, int8_t, int8_t)
EDGEC_MVE_EACH_BOTH(i8_to_i16, int8_t, int16_t)
#undef EDGEC_MVE_EACH_BOTH
#undef EDGEC_MVE_EACH_LEVELS
#endif

/* ---- any function of a byte ----
 * `table` by the bits of x: of 0 to 127 first, then of -128 to -1. */
#if EDGEC_HAS_MVE
EDGEC_ASM_FUNCTION void edgec_mve_each_lut(const int8_t *x EDGEC_UNUSED,
                                           const int8_t *table EDGEC_UNUSED, int8_t *y EDGEC_UNUSED,
                                           int32_t n EDGEC_UNUSED) {
    __asm__("push {r7, lr}\n\t"
            "wlstp.8 lr, r3, 2f\n"
            "1:\n\t"
            "vldrb.u8 q0, [r0], #16\n\t"
            "vldrb.u8 q1, [r1, q0]\n\t"
            "vstrb.8 q1, [r2], #16\n\t"
            "letp lr, 1b\n"
            "2:\n\t"
            "pop {r7, pc}\n\t");
}
#else
EDGEC_INLINE void edgec_mve_each_lut(const int8_t *x, const int8_t *table, int8_t *y, int32_t n) {
    for (int32_t k = 0; k < n; ++k)
        y[k] = table[(uint8_t)x[k]];
}
#endif

#ifdef __cplusplus
}
#endif

#endif
