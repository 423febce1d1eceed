/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_products.h: the same int8 weights for many rows of int8 as edgec_rows.h lays them out, on
 * cores with DSP instructions, on those with 16-bit Thumb alone, and anywhere, with the same bytes.
 */
/* Included for edgec_rows3_. */
#ifndef EDGEC_PRODUCTS_H
#define EDGEC_PRODUCTS_H

#include "edgec_products_plain.h"

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
 * of b, with one weight to a lane, for those of which 256 * a + b takes more than 16 bits.
 * `zoned`: for each row a pointer to what the biases of the outputs have more, in 16 or 32 bits
 * (edgec_zones.h). */

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
 * the stack: first and last word of x, entry of the loop, y, stride, last y, and what `frame` and `enter` make room
 * for. */
#define EDGEC_ROWS3(name, type, more, frame, enter, shift, start, quad, bytes, finish)          \
    EDGEC_ASM_FUNCTION void name(                                           \
        const int32_t *w EDGEC_UNUSED, const int32_t *x EDGEC_UNUSED,       \
        int32_t quads EDGEC_UNUSED, int32_t pairs EDGEC_UNUSED,             \
        void *y EDGEC_UNUSED, int32_t stride EDGEC_UNUSED more()) {         \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"           \
                "ldrd r8, r9, [sp, #36]\n\t"                                \
                "sub sp, sp, #" frame "\n\t"                                \
                enter                                                       \
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
                "add sp, sp, #" frame "\n\t"                                \
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
/* As functions, whose comma does not part the arguments of the macros that they go through. */
#define EDGEC_ROWS_NO_MORE()
#define EDGEC_ROWS_MORE_16() , const int16_t *const *zones EDGEC_UNUSED
#define EDGEC_ROWS_MORE_32() , const int32_t *const *zones EDGEC_UNUSED
#define EDGEC_ROWS_ENTER                      \
    "ldr r10, [sp, #84]\n\t"                  \
    "ldm r10, {r10, r11, r12}\n\t"            \
    "strd r10, r11, [sp, #24]\n\t"            \
    "str r12, [sp, #32]\n\t"
#define EDGEC_ROWS_LOAD_16(r, from) "ldrsh " r ", [" from "], #2\n\t"
#define EDGEC_ROWS_LOAD_32(r, from) "ldr " r ", [" from "], #4\n\t"
#define EDGEC_ROWS_DELTA(load, from, a, b, lift) \
    load("r11", from) load("r12", from)       \
    "add " a ", " a ", r11" lift "\n\t"       \
    "add " b ", " b ", r12\n\t"
#define EDGEC_ROWS_DELTAS(load, lift)         \
    "ldrd r8, r9, [sp, #24]\n\t"              \
    "ldr r10, [sp, #32]\n\t"                  \
    EDGEC_ROWS_DELTA(load, "r8", "r2", "r5", lift)  \
    EDGEC_ROWS_DELTA(load, "r9", "r3", "r6", lift)  \
    EDGEC_ROWS_DELTA(load, "r10", "r4", "r7", lift) \
    "strd r8, r9, [sp, #24]\n\t"              \
    "str r10, [sp, #32]\n\t"
#define EDGEC_ROWS_TOGETHER(name, type, more, frame, enter, shift, finish)                      \
    EDGEC_ROWS3(name, type, more, frame, enter, shift, EDGEC_ROWS_BIASES, EDGEC_ROWS_QUAD, "68", \
                EDGEC_ROWS_SPLIT finish)
#define EDGEC_ROWS_APART(name, type, more, frame, enter, shift, finish)                         \
    EDGEC_ROWS3(name, type, more, frame, enter, shift, EDGEC_ROWS_BIASES, EDGEC_ROWS_BOTH EDGEC_ROWS_BOTH, "64", finish)
#define EDGEC_ROWS_ZONED(name, bits, type, shift, first, alone, second, finish)                 \
    EDGEC_ROWS_TOGETHER(name##_zoned##bits, type, EDGEC_ROWS_MORE_##bits, "40", EDGEC_ROWS_ENTER, shift, \
                        EDGEC_ROWS_DELTAS(EDGEC_ROWS_LOAD_##bits, ", lsl #8") first second finish) \
    EDGEC_ROWS_APART(name##_apart_zoned##bits, type, EDGEC_ROWS_MORE_##bits, "40", EDGEC_ROWS_ENTER, shift, \
                     EDGEC_ROWS_DELTAS(EDGEC_ROWS_LOAD_##bits, "") alone second finish)
#define EDGEC_ROWS_LAYER(name, type, shift, first, alone, second, finish)                       \
    EDGEC_ROWS_TOGETHER(name, type, EDGEC_ROWS_NO_MORE, "24", "", shift, first second finish)   \
    EDGEC_ROWS_APART(name##_apart, type, EDGEC_ROWS_NO_MORE, "24", "", shift, alone second finish) \
    EDGEC_ROWS_ZONED(name, 16, type, shift, first, alone, second, finish)                       \
    EDGEC_ROWS_ZONED(name, 32, type, shift, first, alone, second, finish)
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
EDGEC_ROWS3(edgec_rows3_product, int32_t, EDGEC_ROWS_NO_MORE, "24", "", "3", EDGEC_ROWS_ZEROS,
            EDGEC_ROWS_BOTH EDGEC_ROWS_BOTH, "64", EDGEC_ROWS_STORE("str", "4"))
/* clang-format on */
#undef EDGEC_ROWS_ZEROS
#undef EDGEC_ROWS_LAYER
#undef EDGEC_ROWS_ZONED
#undef EDGEC_ROWS_APART
#undef EDGEC_ROWS_TOGETHER
#undef EDGEC_ROWS_DELTAS
#undef EDGEC_ROWS_DELTA
#undef EDGEC_ROWS_ENTER
#undef EDGEC_ROWS_LOAD_32
#undef EDGEC_ROWS_LOAD_16
#undef EDGEC_ROWS_MORE_32
#undef EDGEC_ROWS_MORE_16
#undef EDGEC_ROWS_NO_MORE
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
#endif

#ifdef __cplusplus
}
#endif

#endif
