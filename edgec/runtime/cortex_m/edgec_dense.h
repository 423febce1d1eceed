/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_dense.h: layers whose input is int8, and requantisation, on cores with DSP instructions;
 * the portable twins give the same bytes. */
/* Included always. */
#ifndef EDGEC_DENSE_H
#define EDGEC_DENSE_H

#include "edgec_simd.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- int8 matrix times vector ----
 * Weights are packed for blocks of four outputs a, b, c, d: for inputs 4q..4q+3 the words ab(0, 2),
 * cd(0, 2), ab(1, 3), cd(1, 3), where ab(i, j) has the lanes 256 * a[i] + b[i] and 256 * a[j] +
 * b[j]. One SMLAD on the word gives 256 * a + b, one on its sign-extended low bytes gives b: a =
 * (first - second) / 256, exact while the sum of a fits 24 bits. */

/* n int8 to lanes of int16, in the order (0, 2), (1, 3) of each four, zeros to a multiple of 8. */
EDGEC_INLINE void edgec_expand_s8(const int8_t *x, int32_t n, int32_t *to) {
    int32_t k = 0;
    for (; k + 4 <= n; k += 4, to += 2) {
        int32_t word = edgec_read_s8x4(x + k);
        to[0] = edgec_sxtb16(word);
        to[1] = edgec_sxtb16_ror8(word);
    }
    for (; k < n || k % 8 != 0; k += 4, to += 2) {
        to[0] = edgec_pack(k < n ? x[k] : 0, k + 2 < n ? x[k + 2] : 0);
        to[1] = edgec_pack(k + 1 < n ? x[k + 1] : 0, 0);
    }
}

#if EDGEC_HAS_DSP
/* clang-format off */
/* Four inputs of four outputs: 16 products in 14 instructions. Sums: r4 256a+b, r5 b, r6 256c+d, r7 d. */
#define EDGEC_DENSE_QUAD               \
    "ldm r0!, {r8, r9, r10, r11}\n\t"  \
    "ldrd r12, lr, [r1], #8\n\t"       \
    "smlad r4, r8, r12, r4\n\t"        \
    "sxtb16 r8, r8\n\t"                \
    "smlad r6, r9, r12, r6\n\t"        \
    "sxtb16 r9, r9\n\t"                \
    "smlad r5, r8, r12, r5\n\t"        \
    "smlad r4, r10, lr, r4\n\t"        \
    "sxtb16 r10, r10\n\t"              \
    "smlad r7, r9, r12, r7\n\t"        \
    "smlad r6, r11, lr, r6\n\t"        \
    "sxtb16 r11, r11\n\t"              \
    "smlad r5, r10, lr, r5\n\t"        \
    "smlad r7, r11, lr, r7\n\t"

/* out[0..3] = bias[0..3] + weights times `inputs` (a multiple of 8, not 0) expanded inputs. */
EDGEC_ASM_FUNCTION void edgec_dense_rows4(
    const int32_t *w EDGEC_UNUSED, const int32_t *x EDGEC_UNUSED, int32_t inputs EDGEC_UNUSED,
    const int32_t *bias EDGEC_UNUSED, int32_t *out EDGEC_UNUSED) {
    __asm__("push {r3, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
            "add r2, r1, r2, lsl #1\n\t"
            "mov r4, #0\n\t"
            "mov r5, #0\n\t"
            "mov r6, #0\n\t"
            "mov r7, #0\n"
            "1:\n\t"
            EDGEC_DENSE_QUAD
            EDGEC_DENSE_QUAD
            "cmp r1, r2\n\t"
            "bne 1b\n\t"
            "ldr r0, [sp]\n\t"
            "ldr r1, [sp, #40]\n\t"
            "sub r4, r4, r5\n\t"
            "sub r6, r6, r7\n\t"
            "ldm r0, {r8, r9, r10, r11}\n\t"
            "add r8, r8, r4, asr #8\n\t"
            "add r9, r9, r5\n\t"
            "add r10, r10, r6, asr #8\n\t"
            "add r11, r11, r7\n\t"
            "stm r1, {r8, r9, r10, r11}\n\t"
            "pop {r3, r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");
}
/* clang-format on */
#undef EDGEC_DENSE_QUAD
#else
EDGEC_INLINE void edgec_dense_rows4(const int32_t *w, const int32_t *x, int32_t inputs,
                                    const int32_t *bias, int32_t *out) {
    uint32_t sum[4] = {0};
    for (int32_t k = 0; k < inputs; k += 2, ++x) {
        for (int32_t j = 0; j < 4; j += 2, ++w) {
            sum[j] += (uint32_t)edgec_smlad(*w, *x, 0);
            sum[j + 1] += (uint32_t)edgec_smlad(edgec_sxtb16(*w), *x, 0);
        }
    }
    for (int32_t j = 0; j < 4; j += 2) {
        out[j] = bias[j] + ((int32_t)(sum[j] - sum[j + 1]) >> 8);
        out[j + 1] = bias[j + 1] + (int32_t)sum[j + 1];
    }
}
#endif

/* A block of `count` <= 4 outputs. */
EDGEC_INLINE void edgec_dense_block4(const int32_t *w, const int32_t *x, int32_t inputs,
                                     int32_t count, const int32_t *bias, int32_t *out) {
    int32_t part[4];
    edgec_dense_rows4(w, x, inputs, bias, count == 4 ? out : part);
    for (int32_t j = 0; count != 4 && j < count; ++j)
        out[j] = part[j];
}

/* The same added to `count` outputs, behind which nothing need lie. */
EDGEC_INLINE void edgec_dense_add4(const int32_t *w, const int32_t *x, int32_t inputs,
                                   int32_t count, int32_t *out) {
    int32_t part[4] = {0};
    for (int32_t j = 0; j < count; ++j)
        part[j] = out[j];
    edgec_dense_rows4(w, x, inputs, part, part);
    for (int32_t j = 0; j < count; ++j)
        out[j] = part[j];
}

/* ---- int16 matrix times vector ----
 * The same words for inputs in their own order: ab(0, 1), cd(0, 1), ab(2, 3), cd(2, 3). The sums of
 * 256 * a + b take 64 bits. */
#if EDGEC_HAS_DSP
/* clang-format off */
/* Two inputs of four outputs. Sums: r3 r4 256a+b, r5 b, r6 r7 256c+d, r8 d. */
#define EDGEC_DENSE_WIDE(ab, cd)          \
    "ldr lr, [r1], #4\n\t"                \
    "smlald r3, r4, " ab ", lr\n\t"       \
    "sxtb16 " ab ", " ab "\n\t"           \
    "smlald r6, r7, " cd ", lr\n\t"       \
    "sxtb16 " cd ", " cd "\n\t"           \
    "smlad r5, " ab ", lr, r5\n\t"        \
    "smlad r8, " cd ", lr, r8\n\t"
#define EDGEC_DENSE_WIDE_QUAD "ldm r0!, {r9, r10, r11, r12}\n\t" \
    EDGEC_DENSE_WIDE("r9", "r10") EDGEC_DENSE_WIDE("r11", "r12")

/* out[0..3] = bias[0..3] + weights times `inputs` (a multiple of 8, not 0) int16. */
EDGEC_ASM_FUNCTION void edgec_dense_wide4(
    const int32_t *w EDGEC_UNUSED, const int16_t *x EDGEC_UNUSED, int32_t inputs EDGEC_UNUSED,
    const int32_t *bias EDGEC_UNUSED, int32_t *out EDGEC_UNUSED) {
    __asm__("push {r3, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
            "add r2, r1, r2, lsl #1\n\t"
            "mov r3, #0\n\t"
            "mov r4, #0\n\t"
            "mov r5, #0\n\t"
            "mov r6, #0\n\t"
            "mov r7, #0\n\t"
            "mov r8, #0\n"
            "1:\n\t"
            EDGEC_DENSE_WIDE_QUAD
            EDGEC_DENSE_WIDE_QUAD
            "cmp r1, r2\n\t"
            "bne 1b\n\t"
            "ldr r0, [sp]\n\t"
            "ldr r1, [sp, #40]\n\t"
            "subs r3, r3, r5\n\t"
            "sbc r4, r4, r5, asr #31\n\t"
            "subs r6, r6, r8\n\t"
            "sbc r7, r7, r8, asr #31\n\t"
            "ldm r0, {r9, r10, r11, r12}\n\t"
            "lsr r3, r3, #8\n\t"
            "lsr r6, r6, #8\n\t"
            "orr r3, r3, r4, lsl #24\n\t"
            "orr r6, r6, r7, lsl #24\n\t"
            "add r9, r9, r3\n\t"
            "add r10, r10, r5\n\t"
            "add r11, r11, r6\n\t"
            "add r12, r12, r8\n\t"
            "stm r1, {r9, r10, r11, r12}\n\t"
            "pop {r3, r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");
}
/* clang-format on */
#undef EDGEC_DENSE_WIDE_QUAD
#undef EDGEC_DENSE_WIDE
#else
EDGEC_INLINE void edgec_dense_wide4(const int32_t *w, const int16_t *x, int32_t inputs,
                                    const int32_t *bias, int32_t *out) {
    int32_t sum[4] = {0};
    for (int32_t k = 0; k < inputs; k += 2, x += 2) {
        for (int32_t j = 0; j < 4; j += 2, ++w) {
            int32_t low = edgec_sxtb16(*w);
            int32_t high = edgec_sxtb16_ror8(edgec_ssub16(*w, low));
            sum[j] += edgec_lo16(high) * x[0] + edgec_hi16(high) * x[1];
            sum[j + 1] += edgec_lo16(low) * x[0] + edgec_hi16(low) * x[1];
        }
    }
    for (int32_t j = 0; j < 4; ++j)
        out[j] = bias[j] + sum[j];
}
#endif

/* ---- requantisation, rounding `single` ----
 * One table row per channel: multiplier, addend, shift. With addend = 2^(shift - 1) + zero point *
 * 2^shift, (high word of x * multiplier + addend) >> shift is the rounded value plus the zero
 * point: floors nest. */
EDGEC_PICK_3(edgec_smmla, edgec_c_smmla(x, y, acc, 0u), "smmla %0, %1, %2, %3")

/* Ratios of a quarter and more: x as 24 bits, beyond which the result saturates, 8 bits higher. */
EDGEC_INLINE int32_t edgec_requantize_raise(int32_t x) {
    return edgec_c_clamp(x, -(1 << 23), (1 << 23) - 1) * 256;
}

/* Stored integers are read into the high bits of a word. */
EDGEC_INLINE int32_t edgec_requantize_high8(int32_t x) {
    return x * (1 << 24);
}

EDGEC_INLINE int32_t edgec_requantize_high16(int32_t x) {
    return x * (1 << 16);
}

#define EDGEC_REQUANTIZE_LOOP(name, from, type, raise)                                             \
    EDGEC_INLINE void name(const from *x, const int32_t *table, type *y, int32_t count,            \
                           int32_t step, int32_t low, int32_t high) {                              \
        for (int32_t k = 0; k < count; ++k, table += step) {                                       \
            int32_t value = edgec_smmla(raise(x[k]), table[0], table[1]) >> table[2];              \
            y[k] = (type)edgec_c_clamp(value, low, high);                                          \
        }                                                                                          \
    }
EDGEC_REQUANTIZE_LOOP(edgec_requantize_loop_i8, int32_t, int8_t, )
EDGEC_REQUANTIZE_LOOP(edgec_requantize_loop_i16, int32_t, int16_t, )
EDGEC_REQUANTIZE_LOOP(edgec_requantize_loop_i8_raised, int32_t, int8_t, edgec_requantize_raise)
EDGEC_REQUANTIZE_LOOP(edgec_requantize_loop_i16_raised, int32_t, int16_t, edgec_requantize_raise)
EDGEC_REQUANTIZE_LOOP(edgec_requantize_i8_to_i8, int8_t, int8_t, edgec_requantize_high8)
EDGEC_REQUANTIZE_LOOP(edgec_requantize_i8_to_i16, int8_t, int16_t, edgec_requantize_high8)
EDGEC_REQUANTIZE_LOOP(edgec_requantize_i16_to_i8, int16_t, int8_t, edgec_requantize_high16)
EDGEC_REQUANTIZE_LOOP(edgec_requantize_i16_to_i16, int16_t, int16_t, edgec_requantize_high16)
#undef EDGEC_REQUANTIZE_LOOP
/* The same where only those channels are raised whose shift carries a mark, 256. */
#define EDGEC_REQUANTIZE_LOOP(name, type)                                                          \
    EDGEC_INLINE void name(const int32_t *x, const int32_t *table, type *y, int32_t count,         \
                           int32_t step, int32_t low, int32_t high) {                              \
        for (int32_t k = 0; k < count; ++k, table += step) {                                       \
            int32_t from = table[2] < 256 ? x[k] : edgec_requantize_raise(x[k]);                   \
            int32_t value = edgec_smmla(from, table[0], table[1]) >> (table[2] & 31);              \
            y[k] = (type)edgec_c_clamp(value, low, high);                                          \
        }                                                                                          \
    }
EDGEC_REQUANTIZE_LOOP(edgec_requantize_loop_i8_mixed, int8_t)
EDGEC_REQUANTIZE_LOOP(edgec_requantize_loop_i16_mixed, int16_t)
#undef EDGEC_REQUANTIZE_LOOP

/* Whole range of the type, a table row per element, count a multiple of 4 and not 0. */
#if EDGEC_HAS_DSP
/* clang-format off */
#define EDGEC_REQUANTIZE_AS_IS ""
#define EDGEC_REQUANTIZE_RAISED                   \
    "ssat r10, #24, r10\n\t"                     \
    "ssat r11, #24, r11\n\t"                     \
    "lsl r10, r10, #8\n\t"                       \
    "lsl r11, r11, #8\n\t"
#define EDGEC_REQUANTIZE_PAIR(raise, bits, store, size) \
    "ldm r1!, {r4, r5, r6, r7, r8, r9}\n\t"      \
    "ldrd r10, r11, [r0], #8\n\t"                \
    raise                                         \
    "smmla r5, r10, r4, r5\n\t"                  \
    "smmla r8, r11, r7, r8\n\t"                  \
    "asr r5, r5, r6\n\t"                         \
    "asr r8, r8, r9\n\t"                         \
    "ssat r5, #" bits ", r5\n\t"                 \
    "ssat r8, #" bits ", r8\n\t"                 \
    store " r5, [r2], #" size "\n\t"             \
    store " r8, [r2], #" size "\n\t"
#define EDGEC_REQUANTIZE(name, type, raise, bits, store, size)                     \
    EDGEC_ASM_FUNCTION void name(                                           \
        const int32_t *x EDGEC_UNUSED, const int32_t *table EDGEC_UNUSED,   \
        type *y EDGEC_UNUSED, int32_t count EDGEC_UNUSED) {                 \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, r12, lr}\n"        \
                "1:\n\t"                                                    \
                EDGEC_REQUANTIZE_PAIR(raise, bits, store, size)             \
                EDGEC_REQUANTIZE_PAIR(raise, bits, store, size)             \
                "subs r3, r3, #4\n\t"                                       \
                "bne 1b\n\t"                                                \
                "pop {r4, r5, r6, r7, r8, r9, r10, r11, r12, pc}\n\t");     \
    }
/* clang-format on */
EDGEC_REQUANTIZE(edgec_requantize_i8, int8_t, EDGEC_REQUANTIZE_AS_IS, "8", "strb", "1")
EDGEC_REQUANTIZE(edgec_requantize_i16, int16_t, EDGEC_REQUANTIZE_AS_IS, "16", "strh", "2")
EDGEC_REQUANTIZE(edgec_requantize_i8_raised, int8_t, EDGEC_REQUANTIZE_RAISED, "8", "strb", "1")
EDGEC_REQUANTIZE(edgec_requantize_i16_raised, int16_t, EDGEC_REQUANTIZE_RAISED, "16", "strh", "2")
#undef EDGEC_REQUANTIZE_AS_IS
#undef EDGEC_REQUANTIZE_RAISED
#undef EDGEC_REQUANTIZE_PAIR
#undef EDGEC_REQUANTIZE
#else
#define EDGEC_REQUANTIZE(name, type, loop, low, high)                                              \
    EDGEC_INLINE void name(const int32_t *x, const int32_t *table, type *y, int32_t count) {       \
        loop(x, table, y, count, 3, low, high);                                                    \
    }
EDGEC_REQUANTIZE(edgec_requantize_i8, int8_t, edgec_requantize_loop_i8, -128, 127)
EDGEC_REQUANTIZE(edgec_requantize_i16, int16_t, edgec_requantize_loop_i16, -32768, 32767)
EDGEC_REQUANTIZE(edgec_requantize_i8_raised, int8_t, edgec_requantize_loop_i8_raised, -128, 127)
EDGEC_REQUANTIZE(edgec_requantize_i16_raised, int16_t, edgec_requantize_loop_i16_raised, -32768,
                 32767)
#undef EDGEC_REQUANTIZE
#endif

#ifdef __cplusplus
}
#endif

#endif
