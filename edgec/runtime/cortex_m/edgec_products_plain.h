/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_products_plain.h: edgec_products.h on cores without DSP instructions, and anywhere. */
/* Included for edgec_rows3_. */
#ifndef EDGEC_PRODUCTS_PLAIN_H
#define EDGEC_PRODUCTS_PLAIN_H

#include "edgec_dense.h"

#if !EDGEC_HAS_DSP

#ifdef __cplusplus
extern "C" {
#endif

/* The sums of one pair for three rows, a times 256; returns the end of its weights. */
#if EDGEC_HAS_ONLY_THUMB1
/* clang-format off */
/* One row: its word of x against 256a+b of two inputs (r2, r4) and b of both (r3, r5). */
#define EDGEC_ROWS_WORD(at, a, b)             \
    "ldr r6, [r1, #" at "]\n\t"               \
    "sxth r7, r6\n\t"                         \
    "muls r7, r2, r7\n\t"                     \
    "add " a ", r7\n\t"                       \
    "asrs r7, r6, #16\n\t"                    \
    "muls r7, r4, r7\n\t"                     \
    "add " a ", r7\n\t"                       \
    "sxth r7, r6\n\t"                         \
    "muls r7, r3, r7\n\t"                     \
    "add " b ", r7\n\t"                       \
    "asrs r6, r6, #16\n\t"                    \
    "muls r6, r5, r6\n\t"                     \
    "add " b ", r6\n\t"
#define EDGEC_ROWS_STORE(a, b, at)            \
    "mov r3, " b "\n\t"                       \
    "str r3, [r2, #" at "]\n\t"               \
    "mov r4, " a "\n\t"                       \
    "subs r4, r4, r3\n\t"                     \
    "str r4, [r1, #" at "]\n\t"
/* Sums in the high registers: r8 r9 r10 of 256a+b, r11 r12 lr of b; only moves and additions reach them. */
EDGEC_ASM_FUNCTION const int32_t *edgec_rows_sums(
    const int32_t *w EDGEC_UNUSED, const int32_t *x EDGEC_UNUSED, int32_t quads EDGEC_UNUSED,
    int32_t *a EDGEC_UNUSED, int32_t *b EDGEC_UNUSED) {
    __asm__(".syntax unified\n\t" /* gcc's own for these cores is the older one */
            "push {r3, r4, r5, r6, r7, lr}\n\t"
            "mov r4, r8\n\t"
            "mov r5, r9\n\t"
            "mov r6, r10\n\t"
            "mov r7, r11\n\t"
            "push {r4, r5, r6, r7}\n\t"
            "lsls r2, r2, #3\n\t"
            "adds r2, r2, r0\n\t"
            "adds r2, #8\n\t"
            "push {r2}\n\t"
            "ldm r0!, {r4, r5}\n\t"
            "mov r8, r4\n\t"
            "mov r9, r4\n\t"
            "mov r10, r4\n\t"
            "mov r11, r5\n\t"
            "mov r12, r5\n\t"
            "mov lr, r5\n"
            "1:\n\t"
            "ldm r0!, {r3}\n\t"
            "sxth r2, r3\n\t"
            "asrs r4, r3, #16\n\t"
            "sxtb r3, r3\n\t"
            "sxtb r5, r4\n\t"
            EDGEC_ROWS_WORD("0", "r8", "r11")
            EDGEC_ROWS_WORD("4", "r9", "r12")
            EDGEC_ROWS_WORD("8", "r10", "lr")
            "adds r1, #12\n\t"
            "ldr r7, [sp]\n\t"
            "cmp r0, r7\n\t"
            "bne 1b\n\t"
            "add sp, #4\n\t"
            "ldr r1, [sp, #16]\n\t"
            "ldr r2, [sp, #40]\n\t"
            EDGEC_ROWS_STORE("r8", "r11", "0")
            EDGEC_ROWS_STORE("r9", "r12", "4")
            EDGEC_ROWS_STORE("r10", "lr", "8")
            "pop {r4, r5, r6, r7}\n\t"
            "mov r8, r4\n\t"
            "mov r9, r5\n\t"
            "mov r10, r6\n\t"
            "mov r11, r7\n\t"
            "pop {r3, r4, r5, r6, r7, pc}\n\t");
}
/* clang-format on */
#undef EDGEC_ROWS_STORE
#undef EDGEC_ROWS_WORD
#elif EDGEC_HAS_PLAIN_THUMB2
/* clang-format off */
/* One lane of x for three rows times one of w: 256a+b in r4 r5 r6, b in r7 r8 r9. Read as halves, no lane has to be
 * taken apart, which is what counts without DSP instructions. The first lane comes last and moves on. */
#define EDGEC_ROWS_LANE(w, x, y, z)           \
    "ldrsh r10, [r0" w "\n\t"                 \
    "ldrsh r12, [r1, #" y "]\n\t"             \
    "ldrsh lr, [r1, #" z "]\n\t"              \
    "ldrsh r11, [r1" x "\n\t"                 \
    "mla r5, r10, r12, r5\n\t"                \
    "mla r6, r10, lr, r6\n\t"                 \
    "mla r4, r10, r11, r4\n\t"                \
    "sxtb r10, r10\n\t"                       \
    "mla r7, r10, r11, r7\n\t"                \
    "mla r8, r10, r12, r8\n\t"                \
    "mla r9, r10, lr, r9\n\t"
EDGEC_ASM_FUNCTION const int32_t *edgec_rows_sums(
    const int32_t *w EDGEC_UNUSED, const int32_t *x EDGEC_UNUSED, int32_t quads EDGEC_UNUSED,
    int32_t *a EDGEC_UNUSED, int32_t *b EDGEC_UNUSED) {
    __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
            "ldrd r4, r7, [r0], #8\n\t"
            "add r2, r0, r2, lsl #3\n\t"
            "mov r5, r4\n\t"
            "mov r6, r4\n\t"
            "mov r8, r7\n\t"
            "mov r9, r7\n"
            "1:\n\t"
            EDGEC_ROWS_LANE(", #2]", ", #2]", "6", "10")
            EDGEC_ROWS_LANE(", #4]", ", #12]", "16", "20")
            EDGEC_ROWS_LANE(", #6]", ", #14]", "18", "22")
            EDGEC_ROWS_LANE("], #8", "], #24", "4", "8")
            "cmp r0, r2\n\t"
            "bne.w 1b\n\t"
            "sub r4, r4, r7\n\t"
            "sub r5, r5, r8\n\t"
            "sub r6, r6, r9\n\t"
            "ldr r10, [sp, #36]\n\t"
            "stm r3, {r4, r5, r6}\n\t"
            "stm r10, {r7, r8, r9}\n\t"
            "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");
}
/* clang-format on */
#undef EDGEC_ROWS_LANE
#else
/* One lane of x for three rows times one of w. */
#define EDGEC_ROWS_LANE(at)                                                                        \
    do {                                                                                           \
        int32_t both = edgec_read_s16(weights + (at)), low = (int8_t)weights[at];                  \
        for (int32_t k = 0; k < 3; ++k) {                                                          \
            int32_t value = edgec_read_s16(rows + (at) + 4 * k);                                   \
            sum_a[k] += (uint32_t)(value * both);                                                  \
            sum_b[k] += (uint32_t)(value * low);                                                   \
        }                                                                                          \
    } while (0)

EDGEC_INLINE const int32_t *edgec_rows_sums(const int32_t *w, const int32_t *x, int32_t quads,
                                            int32_t *a, int32_t *b) {
    const uint8_t *weights = (const uint8_t *)(w + 2), *rows = (const uint8_t *)x;
    const uint8_t *end = weights + 8 * quads;
    uint32_t first = (uint32_t)w[0], second = (uint32_t)w[1];
    uint32_t sum_a[3] = {first, first, first}, sum_b[3] = {second, second, second};
    for (; weights != end; weights += 4, rows += 12) {
        EDGEC_ROWS_LANE(0);
        EDGEC_ROWS_LANE(2);
    }
    for (int32_t k = 0; k < 3; ++k) {
        a[k] = (int32_t)(sum_a[k] - sum_b[k]);
        b[k] = (int32_t)sum_b[k];
    }
    return w + 2 + 2 * quads;
}
#undef EDGEC_ROWS_LANE
#endif

/* The same of weights apart, a as it is. */
EDGEC_INLINE const int32_t *edgec_rows_sums_apart(const int32_t *w, const int32_t *x, int32_t quads,
                                                  int32_t *a, int32_t *b) {
    for (int32_t k = 0; k < 3; ++k) {
        a[k] = w[0];
        b[k] = w[1];
    }
    w += 2;
    for (int32_t q = 0; q < 2 * quads; ++q, w += 2, x += 3) {
        for (int32_t k = 0; k < 3; ++k) {
            a[k] = edgec_smlad(x[k], w[0], a[k]);
            b[k] = edgec_smlad(x[k], w[1], b[k]);
        }
    }
    return w;
}

EDGEC_INLINE int32_t edgec_rows_single(int32_t sum, const int32_t *row) {
    return edgec_smmla(sum, row[0], row[1]) >> row[2];
}

EDGEC_INLINE int32_t edgec_rows_double(int32_t sum, const int32_t *row) {
    return ((edgec_smmlar(sum, row[0], row[1]) + (sum >> 31)) >> row[2]) >> 1;
}

/* `lift` is how much higher than its value the sum of a is. */
#define EDGEC_ROWS3(name, delta, sums, lift, type, words, level_a, level_b, low, high)             \
    EDGEC_INLINE void name(const int32_t *w, const int32_t *x, int32_t quads, int32_t pairs,       \
                           void *out, int32_t stride, const delta *const *zones) {                 \
        type *y = (type *)out;                                                                     \
        int32_t step = stride / (int32_t)sizeof(type);                                             \
        for (int32_t p = 0; p < pairs; ++p, w += words, y += 2) {                                  \
            int32_t a[3], b[3];                                                                    \
            w = sums(w, x, quads, a, b);                                                           \
            for (int32_t k = 0; k < 3; ++k) {                                                      \
                if (zones) {                                                                       \
                    a[k] += lift * zones[k][2 * p];                                                \
                    b[k] += zones[k][2 * p + 1];                                                   \
                }                                                                                  \
                y[k * step] = (type)edgec_c_clamp(level_a, low, high);                             \
                y[k * step + 1] = (type)edgec_c_clamp(level_b, low, high);                         \
            }                                                                                      \
        }                                                                                          \
    }
#define EDGEC_ROWS_ALL(name, sums, lift, type, words, level_a, level_b, low, high)                 \
    EDGEC_ROWS3(name##_zoned16, int16_t, sums, lift, type, words, level_a, level_b, low, high)     \
    EDGEC_ROWS3(name##_zoned32, int32_t, sums, lift, type, words, level_a, level_b, low, high)     \
    EDGEC_INLINE void name(const int32_t *w, const int32_t *x, int32_t quads, int32_t pairs,       \
                           void *out, int32_t stride) {                                            \
        name##_zoned16(w, x, quads, pairs, out, stride, NULL);                                     \
    }
#define EDGEC_ROWS_LAYER(name, type, words, level_a, level_b, alone, low, high)                    \
    EDGEC_ROWS_ALL(name, edgec_rows_sums, 256, type, words, level_a, level_b, low, high)           \
    EDGEC_ROWS_ALL(name##_apart, edgec_rows_sums_apart, 1, type, words, alone, level_b, low, high)
EDGEC_ROWS_LAYER(edgec_rows3_i32, int32_t, 0, a[k] >> 8, b[k], a[k], INT32_MIN, INT32_MAX)
EDGEC_ROWS_LAYER(edgec_rows3_i8, int8_t, 6, edgec_rows_single(a[k], w),
                 edgec_rows_single(b[k], w + 3), edgec_rows_single(a[k], w), -128, 127)
EDGEC_ROWS_LAYER(edgec_rows3_i8_lift, int8_t, 6, edgec_rows_single(a[k], w),
                 edgec_rows_single(b[k] * 256, w + 3), edgec_rows_single(a[k] * 256, w), -128, 127)
EDGEC_ROWS_LAYER(edgec_rows3_i16_lift, int16_t, 6, edgec_rows_single(a[k], w),
                 edgec_rows_single(b[k] * 256, w + 3), edgec_rows_single(a[k] * 256, w), -32768,
                 32767)
EDGEC_ROWS_LAYER(edgec_rows3_i8_tflite, int8_t, 6, edgec_rows_double(a[k] >> 7, w),
                 edgec_rows_double(b[k] * 2, w + 3), edgec_rows_double(a[k] * 2, w), -128, 127)
#undef EDGEC_ROWS_LAYER
#undef EDGEC_ROWS_ALL
#undef EDGEC_ROWS3

EDGEC_INLINE void edgec_rows3_product(const int32_t *w, const int32_t *x, int32_t quads,
                                      int32_t pairs, void *out, int32_t stride) {
    int32_t *y = (int32_t *)out;
    int32_t step = stride / (int32_t)sizeof(int32_t);
    for (; pairs > 0; --pairs, y += 2, w += 4 * quads) {
        for (int32_t k = 0; k < 3; ++k) {
            int32_t a = 0, b = 0;
            for (int32_t q = 0; q < 2 * quads; ++q) {
                a = edgec_smlad(x[3 * q + k], w[2 * q], a);
                b = edgec_smlad(x[3 * q + k], w[2 * q + 1], b);
            }
            y[k * step] = a;
            y[k * step + 1] = b;
        }
    }
}

#ifdef __cplusplus
}
#endif

#endif

#endif
