/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_mve_softmax.h: softmax of integer rows on cores with Helium (MVE); the portable twins give
 * the same bytes. */
/* Included for edgec_mve_softmax_. */
#ifndef EDGEC_MVE_SOFTMAX_H
#define EDGEC_MVE_SOFTMAX_H

#include "edgec_mve_rows.h"
#include "edgec_softmax.h"

#ifdef __cplusplus
extern "C" {
#endif

#if EDGEC_HAS_MVE
/* clang-format off */
#define EDGEC_MVE_SOFTMAX_TOP(name, in, lanes, least, load)                 \
    EDGEC_ASM_FUNCTION int32_t name(                                        \
        const in *x EDGEC_UNUSED, int32_t n EDGEC_UNUSED) {                 \
        __asm__("push {r7, lr}\n\t"                                         \
                "mov r2, #" least "\n\t"                                    \
                "vdup.32 q1, r2\n\t"                                        \
                "wlstp." lanes " lr, r1, 2f\n"                              \
                "1:\n\t"                                                    \
                load " q0, [r0], #16\n\t"                                   \
                "vmax.s" lanes " q1, q1, q0\n\t"                            \
                "letp lr, 1b\n"                                             \
                "2:\n\t"                                                    \
                "vmaxv.s" lanes " r2, q1\n\t"                               \
                "mov r0, r2\n\t"                                            \
                "pop {r7, pc}\n\t");                                        \
    }
/* q0: z, q1: its part below 1 with 31 fraction bits, q2: 2**-z, q3: top, q4 to q6: limit,
 * multiplier, the first term. The sum of 2**-z, with 29 fraction bits, is returned. */
#define EDGEC_MVE_SOFTMAX_POWERS(name, in, load, step)                      \
    EDGEC_ASM_FUNCTION uint64_t name(                                       \
        const in *x EDGEC_UNUSED, int16_t *y EDGEC_UNUSED,                  \
        int32_t top EDGEC_UNUSED, const int32_t *table EDGEC_UNUSED) {      \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, r12, lr}\n\t"      \
                "vpush {d8, d9, d10, d11, d12, d13}\n\t"                    \
                "vdup.32 q3, r2\n\t"                                        \
                "ldm r3, {r4, r5, r6, r7, r8, r9, r10, r11, r12}\n\t"       \
                "vdup.32 q4, r5\n\t"                                        \
                "vdup.32 q5, r7\n\t"                                        \
                "vdup.32 q6, r8\n\t"                                        \
                "mov r2, #0\n\t"                                            \
                "mov r3, #0\n\t"                                            \
                "wlstp.32 lr, r4, 2f\n"                                     \
                "1:\n\t"                                                    \
                load " q0, [r0], #" step "\n\t"                             \
                "vsub.i32 q0, q3, q0\n\t"                                   \
                "vmin.s32 q0, q0, q4\n\t"                                   \
                "vshl.u32 q0, r6\n\t"                                       \
                "vmulh.u32 q0, q0, q5\n\t"                                  \
                "vshl.i32 q1, q0, #7\n\t"                                   \
                "vshr.u32 q1, q1, #1\n\t"                                   \
                "vmulh.s32 q2, q1, q6\n\t"                                  \
                "vadd.i32 q2, q2, r9\n\t"                                   \
                "vmulh.s32 q2, q2, q1\n\t"                                  \
                "vadd.i32 q2, q2, r10\n\t"                                  \
                "vmulh.s32 q2, q2, q1\n\t"                                  \
                "vshr.u32 q0, q0, #25\n\t"                                  \
                "vadd.i32 q2, q2, r11\n\t"                                  \
                "vmulh.s32 q2, q2, q1\n\t"                                  \
                "vneg.s32 q0, q0\n\t"                                       \
                "vadd.i32 q2, q2, r12\n\t"                                  \
                "vshl.s32 q2, q2, q0\n\t"                                   \
                "vaddlva.u32 r2, r3, q2\n\t"                                \
                "vrshr.s32 q2, q2, #14\n\t"                                 \
                "vstrh.32 q2, [r1], #8\n\t"                                 \
                "letp lr, 1b\n"                                             \
                "2:\n\t"                                                    \
                "mov r0, r2\n\t"                                            \
                "mov r1, r3\n\t"                                            \
                "vpop {d8, d9, d10, d11, d12, d13}\n\t"                     \
                "pop {r4, r5, r6, r7, r8, r9, r10, r11, r12, pc}\n\t");     \
    }
EDGEC_MVE_SOFTMAX_TOP(edgec_mve_softmax_top_i8, int8_t, "8", "0x80808080", "vldrb.u8")
EDGEC_MVE_SOFTMAX_TOP(edgec_mve_softmax_top_i16, int16_t, "16", "0x80008000", "vldrh.u16")
EDGEC_MVE_SOFTMAX_TOP(edgec_mve_softmax_top_i32, int32_t, "32", "0x80000000", "vldrw.u32")
EDGEC_MVE_SOFTMAX_POWERS(edgec_mve_softmax_powers_i8, int8_t, "vldrb.s32", "4")
EDGEC_MVE_SOFTMAX_POWERS(edgec_mve_softmax_powers_i16, int16_t, "vldrh.s32", "8")
EDGEC_MVE_SOFTMAX_POWERS(edgec_mve_softmax_powers_i32, int32_t, "vldrw.u32", "16")
/* clang-format on */
#undef EDGEC_MVE_SOFTMAX_TOP
#undef EDGEC_MVE_SOFTMAX_POWERS

/* y = y * share / 2**(15 - shift), rounded; shift is at most -1. */
EDGEC_ASM_FUNCTION void edgec_mve_softmax_share(int16_t *y EDGEC_UNUSED, int32_t n EDGEC_UNUSED,
                                                int32_t share EDGEC_UNUSED,
                                                int32_t shift EDGEC_UNUSED) {
    __asm__("push {r7, lr}\n\t"
            "vdup.16 q1, r2\n\t"
            "wlstp.16 lr, r1, 2f\n"
            "1:\n\t"
            "vldrh.u16 q0, [r0]\n\t"
            "vadd.i16 q0, q0, q0\n\t"
            "vmulh.u16 q0, q0, q1\n\t"
            "vrshl.u16 q0, r3\n\t"
            "vstrh.16 q0, [r0], #16\n\t"
            "letp lr, 1b\n"
            "2:\n\t"
            "pop {r7, pc}\n\t");
}
#else
#define EDGEC_MVE_SOFTMAX_TWINS(kind, in)                                                          \
    EDGEC_INLINE int32_t edgec_mve_softmax_top_##kind(const in *x, int32_t n) {                    \
        int32_t top = x[0];                                                                        \
        for (int32_t k = 1; k < n; ++k)                                                            \
            top = x[k] > top ? x[k] : top;                                                         \
        return top;                                                                                \
    }                                                                                              \
    EDGEC_INLINE uint64_t edgec_mve_softmax_powers_##kind(const in *x, int16_t *y, int32_t top,    \
                                                          const int32_t *table) {                  \
        edgec_softmax g;                                                                           \
        uint64_t sum = 0u;                                                                         \
        edgec_memcpy(&g, table, sizeof g);                                                         \
        for (int32_t k = 0; k < g.n; ++k) {                                                        \
            const int32_t p = edgec_softmax_power(top - x[k], &g);                                 \
            sum += (uint32_t)p;                                                                    \
            y[k] = (int16_t)((p + (1 << 13)) >> 14);                                               \
        }                                                                                          \
        return sum;                                                                                \
    }
EDGEC_MVE_SOFTMAX_TWINS(i8, int8_t)
EDGEC_MVE_SOFTMAX_TWINS(i16, int16_t)
EDGEC_MVE_SOFTMAX_TWINS(i32, int32_t)
#undef EDGEC_MVE_SOFTMAX_TWINS

EDGEC_INLINE void edgec_mve_softmax_share(int16_t *y, int32_t n, int32_t share, int32_t shift) {
    for (int32_t k = 0; k < n; ++k) {
        const uint32_t twice = 2u * (uint32_t)y[k] * (uint32_t)share;
        y[k] = (int16_t)(((twice >> 16) + (1u << (-shift - 1))) >> -shift);
    }
}
#endif

/* A factor of 2**16, which only a row with one element above 0 has, gives what 2**16 - 1 gives. */
#define EDGEC_MVE_SOFTMAX(kind, in)                                                                \
    EDGEC_INLINE void edgec_mve_softmax_##kind(const in *x, int16_t *y, int32_t rows,              \
                                               const int32_t *table) {                             \
        const int32_t n = table[0];                                                                \
        for (int32_t r = 0; r < rows; ++r, x += n, y += n) {                                       \
            const int32_t top = edgec_mve_softmax_top_##kind(x, n);                                \
            const uint64_t sum = edgec_mve_softmax_powers_##kind(x, y, top, table);                \
            int32_t bits;                                                                          \
            const uint32_t factor = edgec_softmax_factor(sum, &bits);                              \
            edgec_mve_softmax_share(y, n, factor < 65536u ? (int32_t)factor : 65535, -1 - bits);   \
        }                                                                                          \
    }
EDGEC_MVE_SOFTMAX(i8, int8_t)
EDGEC_MVE_SOFTMAX(i16, int16_t)
EDGEC_MVE_SOFTMAX(i32, int32_t)
#undef EDGEC_MVE_SOFTMAX

#ifdef __cplusplus
}
#endif

#endif
