/* edgec_products.h: the same int8 weights for many rows of int8 as edgec_rows.h lays them out, on
 * cores with DSP instructions, on those with 16-bit Thumb alone, and anywhere, with the same bytes.
 */
#ifndef EDGEC_PRODUCTS_H
#define EDGEC_PRODUCTS_H

#include "edgec_dense.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- three rows times all outputs ----
 * Weights are one stream, for every pair of outputs a, b: the biases 256 * a + b and b; for inputs
 * 4q..4q+3 the words (0, 2) and (1, 3) with the lanes 256 * a + b; and, where the sums are
 * requantised, multiplier, addend and shift of a, then of b. The biases are in the sums of SMLAD:
 * 256 * a + b on the words as they are, b on their low bytes. All sums of a fit 24 bits.
 * `rows3` computes 2 * pairs outputs of three rows, `stride` bytes apart.
 * `apart`: biases a and b; for the same inputs the word (0, 2) of a, that of b, (1, 3) of a, that
 * of b, with one weight to a lane, for those of which 256 * a + b takes more than 16 bits. */

#if EDGEC_HAS_DSP
/* clang-format off */
/* Four inputs of two outputs and three rows: 24 products in 17 instructions. Sums: r2 r3 r4 256a+b, r5 r6 r7 b. */
#define EDGEC_ROWS_WORD(w)              \
    "ldm r1!, {r10, r11, r12}\n\t"      \
    "smlad r2, r10, " w ", r2\n\t"      \
    "smlad r3, r11, " w ", r3\n\t"      \
    "smlad r4, r12, " w ", r4\n\t"      \
    "sxtb16 " w ", " w "\n\t"           \
    "smlad r5, r10, " w ", r5\n\t"      \
    "smlad r6, r11, " w ", r6\n\t"      \
    "smlad r7, r12, " w ", r7\n\t"
#define EDGEC_ROWS_QUAD "ldrd r8, r9, [r0], #8\n\t" EDGEC_ROWS_WORD("r8") EDGEC_ROWS_WORD("r9")
/* Four quads of `bytes` each: a number of quads that is no multiple of four enters the loop behind as many as lack. On
 * the stack: first and last word of x, entry of the loop, y, stride, last y. */
#define EDGEC_ROWS3(name, type, shift, start, quad, bytes, finish)                              \
    EDGEC_ASM_FUNCTION void name(                                           \
        const int32_t *w EDGEC_UNUSED, const int32_t *x EDGEC_UNUSED,       \
        int32_t quads EDGEC_UNUSED, int32_t pairs EDGEC_UNUSED,             \
        void *y EDGEC_UNUSED, int32_t stride EDGEC_UNUSED) {                \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"           \
                "ldrd r8, r9, [sp, #36]\n\t"                                \
                "sub sp, sp, #24\n\t"                                       \
                "add r4, r2, r2, lsl #1\n\t"                                \
                "add r4, r1, r4, lsl #3\n\t"                                \
                "strd r1, r4, [sp]\n\t"                                     \
                "rsb r5, r2, #0\n\t"                                        \
                "and r5, r5, #3\n\t"                                        \
                "mov r6, #" bytes "\n\t"                                           \
                "mul r5, r5, r6\n\t"                                        \
                "adr.w r6, 2f\n\t"                                          \
                "add r5, r5, r6\n\t"                                        \
                "orr r5, r5, #1\n\t"                                        \
                "strd r5, r8, [sp, #8]\n\t"                                 \
                "add r10, r8, r3, lsl #" shift "\n\t"                       \
                "strd r9, r10, [sp, #16]\n"                                 \
                "1:\n\t"                                                    \
                "ldrd r1, lr, [sp]\n\t"                                     \
                start                                                       \
                "ldr pc, [sp, #8]\n\t"                                      \
                ".p2align 2\n"                                              \
                "2:\n\t"                                                    \
                quad quad quad quad                                         \
                "cmp r1, lr\n\t"                                            \
                "bne.w 2b\n\t"                                              \
                finish                                                      \
                "ldr r8, [sp, #20]\n\t"                                     \
                "str r1, [sp, #12]\n\t"                                     \
                "cmp r1, r8\n\t"                                            \
                "bne.w 1b\n\t"                                              \
                "add sp, sp, #24\n\t"                                       \
                "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");          \
    }
#define EDGEC_ROWS_BIASES                     \
    "ldrd r2, r5, [r0], #8\n\t"               \
    "mov r3, r2\n\t"                          \
    "mov r4, r2\n\t"                          \
    "mov r6, r5\n\t"                          \
    "mov r7, r5\n\t"
#define EDGEC_ROWS_SPLIT                      \
    "sub r2, r2, r5\n\t"                      \
    "sub r3, r3, r6\n\t"                      \
    "sub r4, r4, r7\n\t"
#define EDGEC_ROWS_STORE(store, size)         \
    "ldrd r1, r8, [sp, #12]\n\t"              \
    store " r2, [r1]\n\t"                     \
    store " r3, [r1, r8]\n\t"                 \
    store " r4, [r1, r8, lsl #1]\n\t"         \
    store " r5, [r1, #" size "]!\n\t"         \
    store " r6, [r1, r8]\n\t"                 \
    store " r7, [r1, r8, lsl #1]\n\t"         \
    "add r1, r1, #" size "\n\t"
/* Both outputs of a pair have words of their own. */
#define EDGEC_ROWS_BOTH                       \
    "ldrd r8, r9, [r0], #8\n\t"               \
    "ldm r1!, {r10, r11, r12}\n\t"            \
    "smlad r2, r10, r8, r2\n\t"               \
    "smlad r3, r11, r8, r3\n\t"               \
    "smlad r4, r12, r8, r4\n\t"               \
    "smlad r5, r10, r9, r5\n\t"               \
    "smlad r6, r11, r9, r6\n\t"               \
    "smlad r7, r12, r9, r7\n\t"
#define EDGEC_ROWS_AS_IS ""
#define EDGEC_ROWS_FIRST(shift, bits)         \
    shift " r2, r2, #" bits "\n\t"            \
    shift " r3, r3, #" bits "\n\t"            \
    shift " r4, r4, #" bits "\n\t"
#define EDGEC_ROWS_SECOND(shift, bits)        \
    shift " r5, r5, #" bits "\n\t"            \
    shift " r6, r6, #" bits "\n\t"            \
    shift " r7, r7, #" bits "\n\t"
#define EDGEC_ROWS_TABLE "ldm r0!, {r8, r9, r10, r11, r12, lr}\n\t"
#define EDGEC_ROWS_SINGLE(bits, sum, multiplier, addend, shift)             \
    "smmla " sum ", " sum ", " multiplier ", " addend "\n\t"                \
    "asr " sum ", " sum ", " shift "\n\t"                                   \
    "ssat " sum ", #" bits ", " sum "\n\t"
#define EDGEC_ROWS_SINGLES(bits)                                            \
    EDGEC_ROWS_TABLE                                                        \
    EDGEC_ROWS_SINGLE(bits, "r2", "r8", "r9", "r10")                        \
    EDGEC_ROWS_SINGLE(bits, "r3", "r8", "r9", "r10")                        \
    EDGEC_ROWS_SINGLE(bits, "r4", "r8", "r9", "r10")                        \
    EDGEC_ROWS_SINGLE(bits, "r5", "r11", "r12", "lr")                       \
    EDGEC_ROWS_SINGLE(bits, "r6", "r11", "r12", "lr")                       \
    EDGEC_ROWS_SINGLE(bits, "r7", "r11", "r12", "lr")
#define EDGEC_ROWS_TFLITE_LEVEL(sum, multiplier, addend, shift)             \
    "smmlar r1, " sum ", " multiplier ", " addend "\n\t"                    \
    "add r1, r1, " sum ", asr #31\n\t"                                      \
    "asr r1, r1, " shift "\n\t"                                             \
    "ssat " sum ", #8, r1, asr #1\n\t"
#define EDGEC_ROWS_TFLITES                                                  \
    EDGEC_ROWS_TABLE                                                        \
    EDGEC_ROWS_TFLITE_LEVEL("r2", "r8", "r9", "r10")                        \
    EDGEC_ROWS_TFLITE_LEVEL("r3", "r8", "r9", "r10")                        \
    EDGEC_ROWS_TFLITE_LEVEL("r4", "r8", "r9", "r10")                        \
    EDGEC_ROWS_TFLITE_LEVEL("r5", "r11", "r12", "lr")                       \
    EDGEC_ROWS_TFLITE_LEVEL("r6", "r11", "r12", "lr")                       \
    EDGEC_ROWS_TFLITE_LEVEL("r7", "r11", "r12", "lr")
/* `first` moves the sums of a where they are 256 times too high, `alone` where they are not, `second` those of b. */
#define EDGEC_ROWS_LAYER(name, type, shift, first, alone, second, finish)                       \
    EDGEC_ROWS3(name, type, shift, EDGEC_ROWS_BIASES, EDGEC_ROWS_QUAD, "68",                    \
                EDGEC_ROWS_SPLIT first second finish)                                           \
    EDGEC_ROWS3(name##_apart, type, shift, EDGEC_ROWS_BIASES, EDGEC_ROWS_BOTH EDGEC_ROWS_BOTH, "64", \
                alone second finish)
EDGEC_ROWS_LAYER(edgec_rows3_i32, int32_t, "3", EDGEC_ROWS_FIRST("asr", "8"), EDGEC_ROWS_AS_IS, EDGEC_ROWS_AS_IS,
                 EDGEC_ROWS_STORE("str", "4"))
EDGEC_ROWS_LAYER(edgec_rows3_i8, int8_t, "1", EDGEC_ROWS_AS_IS, EDGEC_ROWS_AS_IS, EDGEC_ROWS_AS_IS,
                 EDGEC_ROWS_SINGLES("8") EDGEC_ROWS_STORE("strb", "1"))
EDGEC_ROWS_LAYER(edgec_rows3_i8_lift, int8_t, "1", EDGEC_ROWS_AS_IS, EDGEC_ROWS_FIRST("lsl", "8"),
                 EDGEC_ROWS_SECOND("lsl", "8"), EDGEC_ROWS_SINGLES("8") EDGEC_ROWS_STORE("strb", "1"))
EDGEC_ROWS_LAYER(edgec_rows3_i16_lift, int16_t, "2", EDGEC_ROWS_AS_IS, EDGEC_ROWS_FIRST("lsl", "8"),
                 EDGEC_ROWS_SECOND("lsl", "8"), EDGEC_ROWS_SINGLES("16") EDGEC_ROWS_STORE("strh", "2"))
EDGEC_ROWS_LAYER(edgec_rows3_i8_tflite, int8_t, "1", EDGEC_ROWS_FIRST("asr", "7"), EDGEC_ROWS_FIRST("lsl", "1"),
                 EDGEC_ROWS_SECOND("lsl", "1"), EDGEC_ROWS_TFLITES EDGEC_ROWS_STORE("strb", "1"))
/* Products of computed tensors have no bias. */
#define EDGEC_ROWS_ZEROS                      \
    "mov r2, #0\n\t"                          \
    "mov r3, #0\n\t"                          \
    "mov r4, #0\n\t"                          \
    "mov r5, #0\n\t"                          \
    "mov r6, #0\n\t"                          \
    "mov r7, #0\n\t"
EDGEC_ROWS3(edgec_rows3_product, int32_t, "3", EDGEC_ROWS_ZEROS, EDGEC_ROWS_BOTH EDGEC_ROWS_BOTH, "64",
            EDGEC_ROWS_STORE("str", "4"))
/* clang-format on */
#undef EDGEC_ROWS_ZEROS
#undef EDGEC_ROWS_LAYER
#undef EDGEC_ROWS3
#undef EDGEC_ROWS_SPLIT
#undef EDGEC_ROWS_BIASES
#undef EDGEC_ROWS_TFLITES
#undef EDGEC_ROWS_TFLITE_LEVEL
#undef EDGEC_ROWS_SINGLES
#undef EDGEC_ROWS_SINGLE
#undef EDGEC_ROWS_TABLE
#undef EDGEC_ROWS_SECOND
#undef EDGEC_ROWS_FIRST
#undef EDGEC_ROWS_AS_IS
#undef EDGEC_ROWS_BOTH
#undef EDGEC_ROWS_STORE
#undef EDGEC_ROWS_QUAD
#undef EDGEC_ROWS_WORD
#else
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
#else
/* One lane of x for three rows times one of w. Read as halves and bytes, nothing has to be taken
 * apart, which is what counts on cores without DSP instructions. */
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

#define EDGEC_ROWS3(name, sums, type, words, level_a, level_b, low, high)                          \
    EDGEC_INLINE void name(const int32_t *w, const int32_t *x, int32_t quads, int32_t pairs,       \
                           void *out, int32_t stride) {                                            \
        type *y = (type *)out;                                                                     \
        int32_t step = stride / (int32_t)sizeof(type);                                             \
        for (; pairs > 0; --pairs, w += words, y += 2) {                                           \
            int32_t a[3], b[3];                                                                    \
            w = sums(w, x, quads, a, b);                                                           \
            for (int32_t k = 0; k < 3; ++k) {                                                      \
                y[k * step] = (type)edgec_c_clamp(level_a, low, high);                             \
                y[k * step + 1] = (type)edgec_c_clamp(level_b, low, high);                         \
            }                                                                                      \
        }                                                                                          \
    }
#define EDGEC_ROWS_LAYER(name, type, words, level_a, level_b, alone, low, high)                    \
    EDGEC_ROWS3(name, edgec_rows_sums, type, words, level_a, level_b, low, high)                   \
    EDGEC_ROWS3(name##_apart, edgec_rows_sums_apart, type, words, alone, level_b, low, high)
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
#endif

#ifdef __cplusplus
}
#endif

#endif
