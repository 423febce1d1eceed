/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_softmax.h: softmax of integer rows, two elements at a time on cores with DSP instructions;
 * the portable twins give the same bytes. */
/* Included for edgec_softmax_, edgec_mve_softmax_. */
#ifndef EDGEC_SOFTMAX_H
#define EDGEC_SOFTMAX_H

#include "edgec_simd.h"

#ifdef __cplusplus
extern "C" {
#endif

/* n elements to a row. z = (min(top - x, limit) << left) * multiplier >> 32 has 25 fraction bits,
 * `terms` are those of the polynomial for 2**-z, the highest power first. */
typedef struct {
    int32_t n, limit, left, multiplier, terms[5];
} edgec_softmax;

/* 2**-z with 29 fraction bits, for below = top - x. */
EDGEC_INLINE int32_t edgec_softmax_power(int32_t below, const edgec_softmax *g) {
    const uint32_t least = (uint32_t)(below < g->limit ? below : g->limit);
    const uint64_t scaled = (uint64_t)(least << g->left) * (uint32_t)g->multiplier;
    const uint32_t z = (uint32_t)(scaled >> 32);
    const int32_t f = (int32_t)((z << 7) >> 1);
    int32_t p = g->terms[0];
    for (int32_t i = 1; i < 5; ++i)
        p = edgec_c_smmla(p, f, g->terms[i], 0u);
    return (z >> 25) < 31u ? p >> (z >> 25) : 0;
}

/* The factor of a row whose powers have this sum, for a right shift by 16 + bits. */
EDGEC_INLINE uint32_t edgec_softmax_factor(uint64_t sum, int32_t *bits) {
    const uint32_t total = (uint32_t)((sum + (1u << 13)) >> 14);
    const int32_t zeros = edgec_clz32((int32_t)total);
    *bits = zeros < 16 ? 16 - zeros : 0;
    const uint32_t divisor = (total + ((1u << *bits) >> 1)) >> *bits;
    return ((32767u << 16) + (divisor >> 1)) / divisor;
}

#if EDGEC_HAS_DSP
/* r6, r9: z of two elements, r7, r10: their parts below 1 with 31 fraction bits, r8, r11: 2**-z,
 * r4, r5: the sum, r12, lr: top and limit, left and multiplier, the terms in turn. */
/* clang-format off */
#define EDGEC_SOFTMAX_PAIRS(name, in, load)                                 \
    EDGEC_ASM_FUNCTION uint64_t name(                                       \
        const in *x EDGEC_UNUSED, int16_t *y EDGEC_UNUSED,                  \
        const in *end EDGEC_UNUSED, const int32_t *table EDGEC_UNUSED) {    \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"           \
                "mov r4, #0\n\t"                                            \
                "mov r5, #0\n"                                              \
                "1:\n\t"                                                    \
                load                                                        \
                "ldrd r12, lr, [r3]\n\t"                                    \
                "sub r6, r12, r6\n\t"                                       \
                "sub r9, r12, r9\n\t"                                       \
                "cmp r6, lr\n\t"                                            \
                "it gt\n\t"                                                 \
                "movgt r6, lr\n\t"                                          \
                "cmp r9, lr\n\t"                                            \
                "it gt\n\t"                                                 \
                "movgt r9, lr\n\t"                                          \
                "ldrd r12, lr, [r3, #8]\n\t"                                \
                "lsl r6, r6, r12\n\t"                                       \
                "lsl r9, r9, r12\n\t"                                       \
                "umull r8, r6, r6, lr\n\t"                                  \
                "umull r11, r9, r9, lr\n\t"                                 \
                "ldrd r12, lr, [r3, #16]\n\t"                               \
                "lsl r7, r6, #7\n\t"                                        \
                "lsl r10, r9, #7\n\t"                                       \
                "lsr r7, r7, #1\n\t"                                        \
                "lsr r10, r10, #1\n\t"                                      \
                "smmla r8, r12, r7, lr\n\t"                                 \
                "smmla r11, r12, r10, lr\n\t"                               \
                "ldrd r12, lr, [r3, #24]\n\t"                               \
                "lsr r6, r6, #25\n\t"                                       \
                "smmla r8, r8, r7, r12\n\t"                                 \
                "smmla r11, r11, r10, r12\n\t"                              \
                "ldr r12, [r3, #32]\n\t"                                    \
                "smmla r8, r8, r7, lr\n\t"                                  \
                "smmla r11, r11, r10, lr\n\t"                               \
                "lsr r9, r9, #25\n\t"                                       \
                "smmla r8, r8, r7, r12\n\t"                                 \
                "smmla r11, r11, r10, r12\n\t"                              \
                "lsr r8, r8, r6\n\t"                                        \
                "lsr r11, r11, r9\n\t"                                      \
                "add r12, r8, r11\n\t"                                      \
                "adds r4, r4, r12\n\t"                                      \
                "adc r5, r5, #0\n\t"                                        \
                "add r8, r8, #8192\n\t"                                     \
                "add r11, r11, #8192\n\t"                                   \
                "lsr r8, r8, #14\n\t"                                       \
                "pkhbt r8, r8, r11, lsl #2\n\t"                             \
                "str r8, [r1], #4\n\t"                                      \
                "cmp r0, r2\n\t"                                            \
                "bne 1b\n\t"                                                \
                "mov r0, r4\n\t"                                            \
                "mov r1, r5\n\t"                                            \
                "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");          \
    }
EDGEC_SOFTMAX_PAIRS(edgec_softmax_pairs_i8, int8_t, "ldrsb r6, [r0], #1\n\tldrsb r9, [r0], #1\n\t")
EDGEC_SOFTMAX_PAIRS(edgec_softmax_pairs_i16, int16_t, "ldrsh r6, [r0], #2\n\tldrsh r9, [r0], #2\n\t")
EDGEC_SOFTMAX_PAIRS(edgec_softmax_pairs_i32, int32_t, "ldrd r6, r9, [r0], #8\n\t")
/* clang-format on */
#else
#define EDGEC_SOFTMAX_PAIRS(name, in)                                                              \
    EDGEC_INLINE uint64_t name(const in *x, int16_t *y, const in *end, const int32_t *table) {     \
        edgec_softmax g;                                                                           \
        uint64_t sum = 0u;                                                                         \
        edgec_memcpy(&g, table, sizeof g);                                                         \
        for (; x != end; ++x, ++y) {                                                               \
            const int32_t p = edgec_softmax_power(g.n - *x, &g);                                   \
            sum += (uint32_t)p;                                                                    \
            *y = (int16_t)((p + (1 << 13)) >> 14);                                                 \
        }                                                                                          \
        return sum;                                                                                \
    }
EDGEC_SOFTMAX_PAIRS(edgec_softmax_pairs_i8, int8_t)
EDGEC_SOFTMAX_PAIRS(edgec_softmax_pairs_i16, int16_t)
EDGEC_SOFTMAX_PAIRS(edgec_softmax_pairs_i32, int32_t)
#endif
#undef EDGEC_SOFTMAX_PAIRS

/* The row's table has its top in place of n. */
#define EDGEC_SOFTMAX(kind, in)                                                                    \
    EDGEC_INLINE void edgec_softmax_##kind(const in *x, int16_t *y, int32_t rows,                  \
                                           const int32_t *table) {                                 \
        edgec_softmax g;                                                                           \
        int32_t row[9];                                                                            \
        edgec_memcpy(&g, table, sizeof g);                                                         \
        edgec_memcpy(row, table, sizeof row);                                                      \
        for (int32_t r = 0; r < rows; ++r, x += g.n, y += g.n) {                                   \
            int32_t bits, top = x[0];                                                              \
            uint64_t sum = 0u;                                                                     \
            for (int32_t k = 1; k < g.n; ++k)                                                      \
                top = x[k] > top ? x[k] : top;                                                     \
            row[0] = top;                                                                          \
            if (g.n > 1)                                                                           \
                sum = edgec_softmax_pairs_##kind(x, y, x + g.n / 2 * 2, row);                      \
            if (g.n % 2 != 0) {                                                                    \
                const int32_t p = edgec_softmax_power(top - x[g.n - 1], &g);                       \
                sum += (uint32_t)p;                                                                \
                y[g.n - 1] = (int16_t)((p + (1 << 13)) >> 14);                                     \
            }                                                                                      \
            const uint32_t factor = edgec_softmax_factor(sum, &bits);                              \
            const uint32_t half = 1u << (15 + bits);                                               \
            for (int32_t k = 0; k < g.n; ++k)                                                      \
                y[k] = (int16_t)(((uint32_t)y[k] * factor + half) >> (16 + bits));                 \
        }                                                                                          \
    }
EDGEC_SOFTMAX(i8, int8_t)
EDGEC_SOFTMAX(i16, int16_t)
EDGEC_SOFTMAX(i32, int32_t)
#undef EDGEC_SOFTMAX

#ifdef __cplusplus
}
#endif

#endif
