/* edgec_rows.h: the same int8 weights for many rows of int8 (tokens, pixels), on cores with DSP
 * instructions; the portable twins give the same bytes. */
#ifndef EDGEC_ROWS_H
#define EDGEC_ROWS_H

#include "edgec_dense.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- three rows side by side ----
 * As lanes of int16: for inputs 4q..4q+3 the words (0, 2) of the three rows, then their words
 * (1, 3). */

#if EDGEC_HAS_DSP
/* clang-format off */
/* `quads` (not 0) times four inputs of each row; returns the end of what was written. */
EDGEC_ASM_FUNCTION int32_t *edgec_rows_quads(
    const int8_t *a EDGEC_UNUSED, const int8_t *b EDGEC_UNUSED, const int8_t *c EDGEC_UNUSED,
    int32_t quads EDGEC_UNUSED, int32_t *to EDGEC_UNUSED) {
    __asm__("push {r4, r5, r6, r7, r8, r9, r10, lr}\n\t"
            "ldr r12, [sp, #32]\n"
            "1:\n\t"
            "ldr r7, [r0], #4\n\t"
            "ldr r8, [r1], #4\n\t"
            "ldr r9, [r2], #4\n\t"
            "sxtb16 r4, r7\n\t"
            "sxtb16 r5, r8\n\t"
            "sxtb16 r6, r9\n\t"
            "sxtb16 r7, r7, ror #8\n\t"
            "sxtb16 r8, r8, ror #8\n\t"
            "sxtb16 r9, r9, ror #8\n\t"
            "subs r3, r3, #1\n\t"
            "stm r12!, {r4, r5, r6, r7, r8, r9}\n\t"
            "bne 1b\n\t"
            "mov r0, r12\n\t"
            "pop {r4, r5, r6, r7, r8, r9, r10, pc}\n\t");
}
/* clang-format on */
#else
EDGEC_INLINE int32_t *edgec_rows_quads(const int8_t *a, const int8_t *b, const int8_t *c,
                                       int32_t quads, int32_t *to) {
    const int8_t *row[3] = {a, b, c};
    for (int32_t q = 0; q < quads; ++q, to += 6) {
        for (int32_t k = 0; k < 3; ++k) {
            int32_t word = edgec_read_s8x4(row[k] + 4 * q);
            to[k] = edgec_sxtb16(word);
            to[k + 3] = edgec_sxtb16_ror8(word);
        }
    }
    return to;
}
#endif

/* n inputs of each row, zeros up to a multiple of 4. */
EDGEC_INLINE void edgec_rows_expand(const int8_t *a, const int8_t *b, const int8_t *c, int32_t n,
                                    int32_t *to) {
    int32_t whole = n - n % 4;
    if (whole != 0)
        to = edgec_rows_quads(a, b, c, whole / 4, to);
    if (n % 4 != 0) {
        const int8_t *row[3] = {a + whole, b + whole, c + whole};
        for (int32_t k = 0; k < 3; ++k) {
            to[k] = edgec_pack(row[k][0], n % 4 > 2 ? row[k][2] : 0);
            to[k + 3] = edgec_pack(n % 4 > 1 ? row[k][1] : 0, 0);
        }
    }
}

/* ---- three rows times all outputs ----
 * Weights are one stream, for every pair of outputs a, b: the biases 256 * a + b and b; for inputs
 * 4q..4q+3 the words (0, 2) and (1, 3) with the lanes 256 * a + b; and, where the sums are
 * requantised, multiplier, addend and shift of a, then of b. The biases are in the sums of SMLAD:
 * 256 * a + b on the words as they are, b on their low bytes. All sums of a fit 24 bits.
 * `rows3` computes 2 * pairs outputs of three rows, `stride` bytes apart. */

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
#define EDGEC_ROWS_SUMS                       \
    "asr r2, r2, #8\n\t"                      \
    "asr r3, r3, #8\n\t"                      \
    "asr r4, r4, #8\n\t"                      \
    EDGEC_ROWS_STORE("str", "4")
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
#define EDGEC_ROWS_LIFT                       \
    "lsl r5, r5, #8\n\t"                      \
    "lsl r6, r6, #8\n\t"                      \
    "lsl r7, r7, #8\n\t"
#define EDGEC_ROWS_TFLITE_LEVEL(sum, multiplier, addend, shift)             \
    "smmlar r1, " sum ", " multiplier ", " addend "\n\t"                    \
    "add r1, r1, " sum ", asr #31\n\t"                                      \
    "asr r1, r1, " shift "\n\t"                                             \
    "ssat " sum ", #8, r1, asr #1\n\t"
#define EDGEC_ROWS_TFLITES                                                  \
    EDGEC_ROWS_TABLE                                                        \
    "asr r2, r2, #7\n\t"                                                    \
    "asr r3, r3, #7\n\t"                                                    \
    "asr r4, r4, #7\n\t"                                                    \
    "lsl r5, r5, #1\n\t"                                                    \
    "lsl r6, r6, #1\n\t"                                                    \
    "lsl r7, r7, #1\n\t"                                                    \
    EDGEC_ROWS_TFLITE_LEVEL("r2", "r8", "r9", "r10")                        \
    EDGEC_ROWS_TFLITE_LEVEL("r3", "r8", "r9", "r10")                        \
    EDGEC_ROWS_TFLITE_LEVEL("r4", "r8", "r9", "r10")                        \
    EDGEC_ROWS_TFLITE_LEVEL("r5", "r11", "r12", "lr")                       \
    EDGEC_ROWS_TFLITE_LEVEL("r6", "r11", "r12", "lr")                       \
    EDGEC_ROWS_TFLITE_LEVEL("r7", "r11", "r12", "lr")
#define EDGEC_ROWS_LAYER(name, type, shift, finish) \
    EDGEC_ROWS3(name, type, shift, EDGEC_ROWS_BIASES, EDGEC_ROWS_QUAD, "68", EDGEC_ROWS_SPLIT finish)
EDGEC_ROWS_LAYER(edgec_rows3_i32, int32_t, "3", EDGEC_ROWS_SUMS)
EDGEC_ROWS_LAYER(edgec_rows3_i8, int8_t, "1", EDGEC_ROWS_SINGLES("8") EDGEC_ROWS_STORE("strb", "1"))
EDGEC_ROWS_LAYER(edgec_rows3_i8_lift, int8_t, "1",
                 EDGEC_ROWS_LIFT EDGEC_ROWS_SINGLES("8") EDGEC_ROWS_STORE("strb", "1"))
EDGEC_ROWS_LAYER(edgec_rows3_i16_lift, int16_t, "2",
                 EDGEC_ROWS_LIFT EDGEC_ROWS_SINGLES("16") EDGEC_ROWS_STORE("strh", "2"))
EDGEC_ROWS_LAYER(edgec_rows3_i8_tflite, int8_t, "1", EDGEC_ROWS_TFLITES EDGEC_ROWS_STORE("strb", "1"))
/* Products of computed tensors: both outputs of a pair have words of their own, and no bias. */
#define EDGEC_ROWS_ZEROS                      \
    "mov r2, #0\n\t"                          \
    "mov r3, #0\n\t"                          \
    "mov r4, #0\n\t"                          \
    "mov r5, #0\n\t"                          \
    "mov r6, #0\n\t"                          \
    "mov r7, #0\n\t"
#define EDGEC_ROWS_BOTH                       \
    "ldrd r8, r9, [r0], #8\n\t"               \
    "ldm r1!, {r10, r11, r12}\n\t"            \
    "smlad r2, r10, r8, r2\n\t"               \
    "smlad r3, r11, r8, r3\n\t"               \
    "smlad r4, r12, r8, r4\n\t"               \
    "smlad r5, r10, r9, r5\n\t"               \
    "smlad r6, r11, r9, r6\n\t"               \
    "smlad r7, r12, r9, r7\n\t"
EDGEC_ROWS3(edgec_rows3_product, int32_t, "3", EDGEC_ROWS_ZEROS, EDGEC_ROWS_BOTH EDGEC_ROWS_BOTH, "64",
            EDGEC_ROWS_STORE("str", "4"))
/* clang-format on */
#undef EDGEC_ROWS_BOTH
#undef EDGEC_ROWS_ZEROS
#undef EDGEC_ROWS_LAYER
#undef EDGEC_ROWS3
#undef EDGEC_ROWS_SPLIT
#undef EDGEC_ROWS_BIASES
#undef EDGEC_ROWS_TFLITES
#undef EDGEC_ROWS_TFLITE_LEVEL
#undef EDGEC_ROWS_LIFT
#undef EDGEC_ROWS_SINGLES
#undef EDGEC_ROWS_SINGLE
#undef EDGEC_ROWS_TABLE
#undef EDGEC_ROWS_SUMS
#undef EDGEC_ROWS_STORE
#undef EDGEC_ROWS_QUAD
#undef EDGEC_ROWS_WORD
#else
/* The sums of one pair for three rows, a times 256; returns the end of its weights. */
EDGEC_INLINE const int32_t *edgec_rows_sums(const int32_t *w, const int32_t *x, int32_t quads,
                                            int32_t *a, int32_t *b) {
    for (int32_t k = 0; k < 3; ++k) {
        a[k] = w[0];
        b[k] = w[1];
    }
    w += 2;
    for (int32_t q = 0; q < 2 * quads; ++q, ++w, x += 3) {
        int32_t low = edgec_sxtb16(*w);
        for (int32_t k = 0; k < 3; ++k) {
            a[k] = edgec_smlad(x[k], *w, a[k]);
            b[k] = edgec_smlad(x[k], low, b[k]);
        }
    }
    for (int32_t k = 0; k < 3; ++k)
        a[k] = (int32_t)((uint32_t)a[k] - (uint32_t)b[k]);
    return w;
}

EDGEC_INLINE int32_t edgec_rows_single(int32_t sum, const int32_t *row) {
    return edgec_smmla(sum, row[0], row[1]) >> row[2];
}

EDGEC_INLINE int32_t edgec_rows_double(int32_t sum, const int32_t *row) {
    return ((edgec_smmlar(sum, row[0], row[1]) + (sum >> 31)) >> row[2]) >> 1;
}

#define EDGEC_ROWS3(name, type, words, level_a, level_b, low, high)                                \
    EDGEC_INLINE void name(const int32_t *w, const int32_t *x, int32_t quads, int32_t pairs,       \
                           void *out, int32_t stride) {                                            \
        type *y = (type *)out;                                                                     \
        int32_t step = stride / (int32_t)sizeof(type);                                             \
        for (; pairs > 0; --pairs, w += words, y += 2) {                                           \
            int32_t a[3], b[3];                                                                    \
            w = edgec_rows_sums(w, x, quads, a, b);                                                \
            for (int32_t k = 0; k < 3; ++k) {                                                      \
                y[k * step] = (type)edgec_c_clamp(level_a, low, high);                             \
                y[k * step + 1] = (type)edgec_c_clamp(level_b, low, high);                         \
            }                                                                                      \
        }                                                                                          \
    }
EDGEC_ROWS3(edgec_rows3_i32, int32_t, 0, a[k] >> 8, b[k], INT32_MIN, INT32_MAX)
EDGEC_ROWS3(edgec_rows3_i8, int8_t, 6, edgec_rows_single(a[k], w), edgec_rows_single(b[k], w + 3),
            -128, 127)
EDGEC_ROWS3(edgec_rows3_i8_lift, int8_t, 6, edgec_rows_single(a[k], w),
            edgec_rows_single(b[k] * 256, w + 3), -128, 127)
EDGEC_ROWS3(edgec_rows3_i16_lift, int16_t, 6, edgec_rows_single(a[k], w),
            edgec_rows_single(b[k] * 256, w + 3), -32768, 32767)
EDGEC_ROWS3(edgec_rows3_i8_tflite, int8_t, 6, edgec_rows_double(a[k] >> 7, w),
            edgec_rows_double(b[k] * 2, w + 3), -128, 127)
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

/* ---- both factors computed ----
 * The left one's rows as edgec_rows_expand lays them, less a zero point; the right one's columns in
 * pairs: for terms 4q..4q+3 the words (0, 2) of both columns, then (1, 3). `terms` is a multiple of
 * 4. */
EDGEC_INLINE void edgec_rows_left_i8(const int8_t *x, int32_t terms, int32_t zero, int32_t *to) {
    int32_t zeros = edgec_pack(zero, zero);
    for (int32_t t = 0; t < terms; t += 4, to += 6) {
        for (int32_t k = 0; k < 3; ++k) {
            int32_t word = edgec_read_s8x4(x + k * terms + t);
            to[k] = edgec_ssub16(edgec_sxtb16(word), zeros);
            to[k + 3] = edgec_ssub16(edgec_sxtb16_ror8(word), zeros);
        }
    }
}

EDGEC_INLINE void edgec_rows_left_i16(const int16_t *x, int32_t terms, int32_t *to) {
    for (int32_t t = 0; t < terms; t += 4, to += 6) {
        for (int32_t k = 0; k < 3; ++k) {
            int32_t low = edgec_read_s16x2(x + k * terms + t);
            int32_t high = edgec_read_s16x2(x + k * terms + t + 2);
            to[k] = edgec_pack(low, high);
            to[k + 3] = edgec_pack_hi(low, high);
        }
    }
}

/* Columns that lie as rows of `terms`; an even number of them. */
EDGEC_INLINE void edgec_rows_right_turned(const int8_t *x, int32_t terms, int32_t columns,
                                          int32_t zero, int32_t *to) {
    int32_t zeros = edgec_pack(zero, zero);
    for (int32_t c = 0; c < columns; c += 2, x += 2 * terms) {
        for (int32_t t = 0; t < terms; t += 4, to += 4) {
            int32_t first = edgec_read_s8x4(x + t), second = edgec_read_s8x4(x + terms + t);
            to[0] = edgec_ssub16(edgec_sxtb16(first), zeros);
            to[1] = edgec_ssub16(edgec_sxtb16(second), zeros);
            to[2] = edgec_ssub16(edgec_sxtb16_ror8(first), zeros);
            to[3] = edgec_ssub16(edgec_sxtb16_ror8(second), zeros);
        }
    }
}

/* A multiple of 4 columns. */
EDGEC_INLINE void edgec_rows_right(const int8_t *x, int32_t terms, int32_t columns, int32_t zero,
                                   int32_t *to) {
    int32_t zeros = edgec_pack(zero, zero);
    for (int32_t c = 0; c < columns; c += 4, to += terms) {
        for (int32_t t = 0; t < terms; t += 4, to += 4) {
            for (int32_t k = 0; k < 2; ++k) { /* terms t + k and t + k + 2 */
                int32_t top = edgec_read_s8x4(x + (t + k) * columns + c);
                int32_t low = edgec_read_s8x4(x + (t + k + 2) * columns + c);
                int32_t top02 = edgec_ssub16(edgec_sxtb16(top), zeros);
                int32_t low02 = edgec_ssub16(edgec_sxtb16(low), zeros);
                int32_t top13 = edgec_ssub16(edgec_sxtb16_ror8(top), zeros);
                int32_t low13 = edgec_ssub16(edgec_sxtb16_ror8(low), zeros);
                to[2 * k] = edgec_pack(top02, low02);
                to[2 * k + 1] = edgec_pack(top13, low13);
                to[terms + 2 * k] = edgec_pack_hi(top02, low02);
                to[terms + 2 * k + 1] = edgec_pack_hi(top13, low13);
            }
        }
    }
}

/* ---- windows of images ----
 * Read from 12 words: image, window, stride, dilation, padding before, width of the output. */
typedef struct {
    int32_t h, w, c, kh, kw, sh, sw, dh, dw, top, left, out;
} edgec_rows_window;

/* The windows of the outputs first, first + 1 and first + 2, in the order of the weights. `edge` is
 * a pixel of padding. Channels that are no multiple of 4 come from a padded copy (edgec_rows_pad):
 * a row of the window then is read to the next multiple of 4, for which the weights are 0. */
EDGEC_INLINE void edgec_rows_gather(const void *image, const int8_t *edge, const int32_t *table,
                                    int32_t first, int32_t *wide) {
    const int8_t *x = (const int8_t *)image;
    edgec_rows_window g;
    edgec_memcpy(&g, table, sizeof g);
    int32_t start[3], row[3], col[3], cut = g.dw != 1, outside = 0;
    int32_t i = first / g.out, j = first - i * g.out;
    for (int32_t k = 0; k < 3; ++k) {
        row[k] = i * g.sh - g.top;
        col[k] = j * g.sw - g.left;
        start[k] = (row[k] * g.w + col[k]) * g.c;
        cut |= col[k] < 0 || col[k] + g.kw > g.w;
        outside |= row[k] < 0 || row[k] + (g.kh - 1) * g.dh >= g.h;
        if (++j == g.out) {
            j = 0;
            ++i;
        }
    }
    int32_t run = cut ? 1 : g.kw, quads = (run * g.c + 3) / 4, line = g.dh * g.w * g.c;
    for (int32_t p = 0; p < g.kh && !cut && !outside; ++p, x += line)
        wide = edgec_rows_quads(x + start[0], x + start[1], x + start[2], quads, wide);
    for (int32_t p = 0; p < g.kh && (cut || outside); ++p) {
        for (int32_t q = 0; q < g.kw; q += run) {
            const int8_t *from[3];
            for (int32_t k = 0; k < 3; ++k) {
                int32_t y = row[k] + p * g.dh, at = col[k] + q * g.dw;
                int32_t inside = y >= 0 && y < g.h && (!cut || (at >= 0 && at < g.w));
                from[k] = inside ? x + (y * g.w + at) * g.c : edge;
            }
            wide = edgec_rows_quads(from[0], from[1], from[2], quads, wide);
        }
    }
}

/* `h` rows of `row` bytes with padding around them: top, bottom, left and right in bytes. Three
 * bytes more follow. */
EDGEC_INLINE void edgec_rows_pad(const int8_t *x, const int32_t *table, int32_t pad, int32_t *to) {
    int32_t h = table[0], row = table[1], top = table[2], left = table[3], width = table[4];
    int8_t *y = (int8_t *)to;
    edgec_memset(y, pad, (size_t)table[5]);
    y += top * width + left;
    for (int32_t i = 0; i < h; ++i, x += row, y += width)
        edgec_memcpy(y, x, (size_t)row);
}

/* Where the output lies in the input's memory, blocks of it wait until nothing reads that any more.
 */
EDGEC_INLINE void edgec_rows_settle(const int32_t *block, int8_t *y, int32_t count) {
    edgec_memcpy(y, block, (size_t)count);
}

/* ---- a narrower range than the type's ---- */

EDGEC_INLINE void edgec_rows_clamp(int8_t *y, int32_t n, int32_t low, int32_t high) {
    for (int32_t k = 0; k < n; ++k)
        y[k] = (int8_t)edgec_c_clamp(y[k], low, high);
}

#ifdef __cplusplus
}
#endif

#endif
