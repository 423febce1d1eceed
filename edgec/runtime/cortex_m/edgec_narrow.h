/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_narrow.h: int4 weights times int8, on cores with DSP instructions; the portable twins give
 * the same bytes. */
/* Included for edgec_narrow_. */
#ifndef EDGEC_NARROW_H
#define EDGEC_NARROW_H

#include "edgec_dense.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- three rows and more: weights are expanded once for many rows ----
 * The stream of edgec_products.h with one word for its words (0, 2) and (1, 3): byte j holds byte j
 * of the first in its low half, of the second in its high half, nibbles counted from -8. `tail`
 * words follow each pair. */

#if EDGEC_HAS_DSP
/* clang-format off */
EDGEC_ASM_FUNCTION void edgec_narrow_pairs(
    const int32_t *w EDGEC_UNUSED, int32_t quads EDGEC_UNUSED, int32_t pairs EDGEC_UNUSED,
    int32_t tail EDGEC_UNUSED, int32_t *to EDGEC_UNUSED) {
    __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
            "ldr r12, [sp, #36]\n\t"
            "mov r10, #0x0f0f0f0f\n\t"
            "mov r11, #0x08080808\n"
            "1:\n\t"
            "ldrd r4, r5, [r0], #8\n\t"
            "strd r4, r5, [r12], #8\n\t"
            "mov lr, r1\n"
            "2:\n\t"
            "ldr r4, [r0], #4\n\t"
            "and r6, r10, r4, lsr #4\n\t"
            "and r5, r10, r4\n\t"
            "ssub16 r6, r6, r11\n\t"
            "ssub16 r5, r5, r11\n\t"
            "subs lr, lr, #1\n\t"
            "strd r5, r6, [r12], #8\n\t"
            "bne 2b\n\t"
            "cbz r3, 3f\n\t"
            "ldm r0!, {r4, r5, r6, r7, r8, r9}\n\t"
            "stm r12!, {r4, r5, r6, r7, r8, r9}\n"
            "3:\n\t"
            "subs r2, r2, #1\n\t"
            "bne 1b\n\t"
            "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");
}
/* clang-format on */
#else
EDGEC_INLINE void edgec_narrow_pairs(const int32_t *w, int32_t quads, int32_t pairs, int32_t tail,
                                     int32_t *to) {
    for (; pairs > 0; --pairs) {
        to[0] = w[0];
        to[1] = w[1];
        w += 2;
        to += 2;
        for (int32_t q = 0; q < quads; ++q, ++w, to += 2) {
            to[0] = edgec_ssub16((int32_t)((uint32_t)*w & 0x0f0f0f0fu), 0x08080808);
            to[1] = edgec_ssub16((int32_t)(((uint32_t)*w >> 4) & 0x0f0f0f0fu), 0x08080808);
        }
        for (int32_t k = 0; k < tail; ++k, ++w, ++to)
            *to = *w;
    }
}
#endif

/* ---- a single row ----
 * For blocks of four outputs a, b, c, d and inputs 4q..4q+3 the words of inputs (0, 2) and (1, 3),
 * lanes 4096 * a + 256 * (b + 8) + 16 * (c + 8) + d + 8. SMLAD on the words, on their low 12, 8 and
 * 4 bits gives sums of which neighbours differ by one output's. */

/* 8 times the sum of n int8. */
EDGEC_INLINE int32_t edgec_narrow_offset(const int8_t *x, int32_t n) {
    int32_t total = 0;
    for (int32_t k = 0; k < n; ++k)
        total += x[k];
    return 8 * total;
}

#if EDGEC_HAS_DSP
/* clang-format off */
/* Two inputs of four outputs: sums r4 of all 16 bits, r5 of 12, r6 of 8, r7 of 4. */
#define EDGEC_NARROW_WORD(w, x)          \
    "smlad r4, " w ", " x ", r4\n\t"     \
    "and r3, r12, " w "\n\t"             \
    "smlad r5, r3, " x ", r5\n\t"        \
    "uxtb16 r3, " w "\n\t"               \
    "smlad r6, r3, " x ", r6\n\t"        \
    "and r3, lr, " w "\n\t"              \
    "smlad r7, r3, " x ", r7\n\t"
#define EDGEC_NARROW_QUAD                \
    "ldrd r8, r9, [r0], #8\n\t"          \
    "ldrd r10, r11, [r1], #8\n\t"        \
    EDGEC_NARROW_WORD("r8", "r10") EDGEC_NARROW_WORD("r9", "r11")

/* out[0..3] = bias[0..3] + weights times `inputs` (a multiple of 8, not 0) expanded inputs, less the `offset` that the
 * nibbles' own adds. */
EDGEC_ASM_FUNCTION void edgec_narrow_rows4(
    const int32_t *w EDGEC_UNUSED, const int32_t *x EDGEC_UNUSED, int32_t inputs EDGEC_UNUSED,
    int32_t offset EDGEC_UNUSED, const int32_t *bias EDGEC_UNUSED, int32_t *out EDGEC_UNUSED) {
    __asm__("push {r3, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
            "add r2, r1, r2, lsl #1\n\t"
            "movw r12, #0x0fff\n\t"
            "movt r12, #0x0fff\n\t"
            "mov lr, #0x000f000f\n\t"
            "mov r4, #0\n\t"
            "mov r5, #0\n\t"
            "mov r6, #0\n\t"
            "mov r7, #0\n"
            "1:\n\t"
            EDGEC_NARROW_QUAD
            EDGEC_NARROW_QUAD
            "cmp r1, r2\n\t"
            "bne 1b\n\t"
            "ldr r12, [sp]\n\t"
            "ldrd r0, r1, [sp, #40]\n\t"
            "sub r4, r4, r5\n\t"
            "sub r5, r5, r6\n\t"
            "sub r6, r6, r7\n\t"
            "rsb r5, r12, r5, asr #8\n\t"
            "rsb r6, r12, r6, asr #4\n\t"
            "sub r7, r7, r12\n\t"
            "ldm r0, {r8, r9, r10, r11}\n\t"
            "add r8, r8, r4, asr #12\n\t"
            "add r9, r9, r5\n\t"
            "add r10, r10, r6\n\t"
            "add r11, r11, r7\n\t"
            "stm r1, {r8, r9, r10, r11}\n\t"
            "pop {r3, r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");
}
/* clang-format on */
#undef EDGEC_NARROW_QUAD
#undef EDGEC_NARROW_WORD
#else
EDGEC_INLINE void edgec_narrow_rows4(const int32_t *w, const int32_t *x, int32_t inputs,
                                     int32_t offset, const int32_t *bias, int32_t *out) {
    static const uint32_t masks[4] = {0xffffffffu, 0x0fff0fffu, 0x00ff00ffu, 0x000f000fu};
    int32_t sum[4] = {0};
    for (int32_t k = 0; k < inputs; k += 2, ++x, ++w) {
        for (int32_t j = 0; j < 4; ++j)
            sum[j] = edgec_smlad((int32_t)((uint32_t)*w & masks[j]), *x, sum[j]);
    }
    for (int32_t j = 0; j < 4; ++j) {
        uint32_t next = j < 3 ? (uint32_t)sum[j + 1] : 0u;
        int32_t value = (int32_t)((uint32_t)sum[j] - next) >> (12 - 4 * j);
        out[j] = bias[j] + value - (j > 0 ? offset : 0);
    }
}
#endif

/* A block of `count` <= 4 outputs. */
EDGEC_INLINE void edgec_narrow_block4(const int32_t *w, const int32_t *x, int32_t inputs,
                                      int32_t count, int32_t offset, const int32_t *bias,
                                      int32_t *out) {
    int32_t part[4];
    edgec_narrow_rows4(w, x, inputs, offset, bias, count == 4 ? out : part);
    for (int32_t j = 0; count != 4 && j < count; ++j)
        out[j] = part[j];
}

#ifdef __cplusplus
}
#endif

#endif
