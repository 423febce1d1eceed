/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_packed.h: products of few bits, four to a multiplication, on cores with DSP instructions;
 * the portable twins give the same bytes.
 *
 * A word of two activations a + b * 2^14 times a word of two weights u + v * 2^28 is, in 64 bits,
 * a * u + b * u * 2^14 + a * v * 2^28 + b * v * 2^42. Sums start at 2^13 in each of the four fields
 * and are exact while all of them end within 2^13 of where they started: which sums may be taken in
 * one run is proven from the weights. */
/* Included for edgec_packed_. */
#ifndef EDGEC_PACKED_H
#define EDGEC_PACKED_H

#include "edgec_dense.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEC_PACKED_FIELD 14
#define EDGEC_PACKED_SHIFT 17 /* of the levels' table */

/* ---- activations: four rows side by side, for each input the words of rows (0, 1) and (2, 3) ----
 */

#if EDGEC_HAS_DSP
/* clang-format off */
#define EDGEC_PACKED_INPUT(turn)            \
    "sxtb r8, r4" turn "\n\t"               \
    "sxtb r10, r5" turn "\n\t"              \
    "add r8, r8, r10, lsl #14\n\t"          \
    "sxtb r9, r6" turn "\n\t"               \
    "sxtb r10, r7" turn "\n\t"              \
    "add r9, r9, r10, lsl #14\n\t"          \
    "strd r8, r9, [r12], #8\n\t"
/* `quads` (not 0) times four inputs of each row; returns the end of what was written. */
EDGEC_ASM_FUNCTION int32_t *edgec_packed_quads(
    const int8_t *a EDGEC_UNUSED, const int8_t *b EDGEC_UNUSED, const int8_t *c EDGEC_UNUSED,
    const int8_t *d EDGEC_UNUSED, int32_t quads EDGEC_UNUSED, int32_t *to EDGEC_UNUSED) {
    __asm__("push {r4, r5, r6, r7, r8, r9, r10, lr}\n\t"
            "ldrd lr, r12, [sp, #32]\n"
            "1:\n\t"
            "ldr r4, [r0], #4\n\t"
            "ldr r5, [r1], #4\n\t"
            "ldr r6, [r2], #4\n\t"
            "ldr r7, [r3], #4\n\t"
            EDGEC_PACKED_INPUT("")
            EDGEC_PACKED_INPUT(", ror #8")
            EDGEC_PACKED_INPUT(", ror #16")
            EDGEC_PACKED_INPUT(", ror #24")
            "subs lr, lr, #1\n\t"
            "bne 1b\n\t"
            "mov r0, r12\n\t"
            "pop {r4, r5, r6, r7, r8, r9, r10, pc}\n\t");
}
/* clang-format on */
#undef EDGEC_PACKED_INPUT
#else
EDGEC_INLINE int32_t *edgec_packed_quads(const int8_t *a, const int8_t *b, const int8_t *c,
                                         const int8_t *d, int32_t quads, int32_t *to) {
    for (int32_t k = 0; k < 4 * quads; ++k, to += 2) {
        to[0] = a[k] + b[k] * (1 << EDGEC_PACKED_FIELD);
        to[1] = c[k] + d[k] * (1 << EDGEC_PACKED_FIELD);
    }
    return to;
}
#endif

/* n inputs of each of four rows, zeros up to a multiple of 4. */
EDGEC_INLINE void edgec_packed_rows(const void *first, const void *second, const void *third,
                                    const void *fourth, int32_t n, int32_t *to) {
    const int8_t *a = (const int8_t *)first, *b = (const int8_t *)second;
    const int8_t *c = (const int8_t *)third, *d = (const int8_t *)fourth;
    int32_t whole = n - n % 4;
    if (whole != 0)
        to = edgec_packed_quads(a, b, c, d, whole / 4, to);
    for (int32_t k = whole; k < n || k % 4 != 0; ++k, to += 2) {
        to[0] = k < n ? a[k] + b[k] * (1 << EDGEC_PACKED_FIELD) : 0;
        to[1] = k < n ? c[k] + d[k] * (1 << EDGEC_PACKED_FIELD) : 0;
    }
}

/* The window of an image around one output pixel, line after line; h, w, c, kh, kw, strides,
 * dilations, padding at the top and left and the output's width are in `table`. */
EDGEC_INLINE void edgec_packed_window(const int8_t *x, const int32_t *table, int32_t pad,
                                      int32_t pixel, int32_t *to) {
    int32_t h = table[0], w = table[1], c = table[2];
    int32_t top = pixel / table[11] * table[5] - table[9];
    int32_t left = pixel % table[11] * table[6] - table[10];
    int8_t *y = (int8_t *)to;
    for (int32_t p = 0; p < table[3]; ++p) {
        int32_t row = top + p * table[7];
        for (int32_t q = 0; q < table[4]; ++q, y += c) {
            int32_t col = left + q * table[8];
            if (row >= 0 && row < h && col >= 0 && col < w)
                edgec_memcpy(y, x + (row * w + col) * c, (size_t)c);
            else
                edgec_memset(y, pad, (size_t)c);
        }
    }
}

/* ---- weights of four outputs: for each input the words of outputs (0, 1) and (2, 3) ----
 * In a packed word the two weights of a word lie 28 bits apart once it is rotated; they count from
 * the least value. `tail` words follow as they are. */

#if EDGEC_HAS_DSP
/* clang-format off */
#define EDGEC_PACKED_FOUR(first, second, third, fourth)  \
    "and r5, r10, r4" first "\n\t"                  \
    "and r6, r10, r4, ror #" second "\n\t"          \
    "and r7, r10, r4, ror #" third "\n\t"           \
    "and r8, r10, r4, ror #" fourth "\n\t"          \
    "sub r5, r5, r11\n\t"                           \
    "sub r6, r6, r11\n\t"                           \
    "sub r7, r7, r11\n\t"                           \
    "sub r8, r8, r11\n\t"                           \
    "stm r3!, {r5, r6, r7, r8}\n\t"
#define EDGEC_PACKED_WEIGHTS(name, mask, least, words)            \
    EDGEC_ASM_FUNCTION void name(                                           \
        const int32_t *w EDGEC_UNUSED, int32_t count EDGEC_UNUSED,          \
        int32_t tail EDGEC_UNUSED, int32_t *to EDGEC_UNUSED) {              \
        __asm__("push {r4, r5, r6, r7, r8, r10, r11, lr}\n\t"               \
                "mov r10, #" mask "\n\t"                                    \
                "movt r10, #" mask "000\n\t"                                \
                "mov r11, #" least "\n\t"                                   \
                "movt r11, #" least "000\n"                                 \
                "1:\n\t"                                                    \
                "ldr r4, [r0], #4\n\t"                                      \
                words                                                       \
                "subs r1, r1, #1\n\t"                                       \
                "bne 1b\n\t"                                                \
                "cbz r2, 3f\n"                                              \
                "2:\n\t"                                                    \
                "ldr r4, [r0], #4\n\t"                                      \
                "str r4, [r3], #4\n\t"                                      \
                "subs r2, r2, #1\n\t"                                       \
                "bne 2b\n"                                                  \
                "3:\n\t"                                                    \
                "pop {r4, r5, r6, r7, r8, r10, r11, pc}\n\t");              \
    }
EDGEC_PACKED_WEIGHTS(edgec_packed_weights4, "0xf", "0x8", EDGEC_PACKED_FOUR("", "8", "16", "24"))
EDGEC_PACKED_WEIGHTS(edgec_packed_weights2, "0x3", "0x2",
                     EDGEC_PACKED_FOUR(", ror #4", "6", "12", "14") EDGEC_PACKED_FOUR(", ror #20", "22", "28", "30"))
/* clang-format on */
#undef EDGEC_PACKED_WEIGHTS
#undef EDGEC_PACKED_FOUR
#else
EDGEC_INLINE int32_t edgec_packed_word(int32_t word, int32_t turn, uint32_t mask, int32_t least) {
    uint32_t u = (uint32_t)word, turned = turn == 0 ? u : (u >> turn | u << (32 - turn));
    int32_t low = (int32_t)(turned & mask) - least;
    int32_t high = (int32_t)(turned >> 28 & mask) - least;
    return low + high * (1 << 28);
}

EDGEC_INLINE void edgec_packed_weights4(const int32_t *w, int32_t count, int32_t tail,
                                        int32_t *to) {
    for (; count > 0; --count, ++w)
        for (int32_t turn = 0; turn < 32; turn += 8, ++to)
            *to = edgec_packed_word(*w, turn, 15u, 8);
    for (; tail > 0; --tail, ++w, ++to)
        *to = *w;
}

EDGEC_INLINE void edgec_packed_weights2(const int32_t *w, int32_t count, int32_t tail,
                                        int32_t *to) {
    for (; count > 0; --count, ++w)
        for (int32_t turn = 4; turn < 32; turn += turn % 8 == 4 ? 2 : 6, ++to)
            *to = edgec_packed_word(*w, turn, 3u, 2);
    for (; tail > 0; --tail, ++w, ++to)
        *to = *w;
}
#endif

/* ---- four rows times four outputs ----
 * `steps` inputs (not 0) in one run. `levels` goes on through `blocks` of four rows, to int8 (or
 * int4 in bytes) `stride` bytes apart; the weights' tail is multiplier and addend for each output,
 * so that (field * multiplier / 2^16 + addend) / 2^17, floors both, is the value with its zero
 * point: compared for every sum that can be. `sums` adds the sums of one block to 4 rows of 4
 * int32. */

#if EDGEC_HAS_DSP
/* clang-format off */
/* One input: 16 products in 6 instructions. Fields of r2 r3: rows 0, 1, outputs 0, 1; r4 r5: rows 2, 3;
 * r6 r7 and r8 r9: outputs 2, 3. */
#define EDGEC_PACKED_STEP                \
    "ldrd r10, r11, [r1], #8\n\t"        \
    "ldrd r12, lr, [r0], #8\n\t"         \
    "smlal r2, r3, r10, r12\n\t"         \
    "smlal r4, r5, r11, r12\n\t"         \
    "smlal r6, r7, r10, lr\n\t"          \
    "smlal r8, r9, r11, lr\n\t"
/* On the stack: first and last word of w, entry of the loop, x, y, stride, last y, a start of sums. */
#define EDGEC_PACKED_PRODUCTS                                   \
        "1:\n\t"                                                \
        "ldrd r2, r3, [sp, #32]\n\t"                            \
        "ldr r1, [sp, #12]\n\t"                                 \
        "ldr r0, [sp]\n\t"                                      \
        "mov r4, r2\n\t"                                        \
        "mov r5, r3\n\t"                                        \
        "mov r6, r2\n\t"                                        \
        "mov r7, r3\n\t"                                        \
        "mov r8, r2\n\t"                                        \
        "mov r9, r3\n\t"                                        \
        "ldr pc, [sp, #8]\n\t"                                  \
        ".p2align 2\n"                                          \
        "2:\n\t"                                                \
        ".rept 16\n\t"                                          \
        EDGEC_PACKED_STEP                                       \
        ".endr\n\t"                                             \
        "ldr r10, [sp, #4]\n\t"                                 \
        "cmp r0, r10\n\t"                                       \
        "bne.w 2b\n\t"                                          \
        "str r1, [sp, #12]\n\t"                                 \
        "ldrd lr, r1, [sp, #16]\n\t"
/* w, x and steps are r0, r1, r2; y, stride and last y r3, r4, r5. */
#define EDGEC_PACKED_START                                      \
        "add r6, r0, r2, lsl #3\n\t"                            \
        "strd r0, r6, [sp]\n\t"                                 \
        "rsb r6, r2, #0\n\t"                                    \
        "and r6, r6, #15\n\t"                                   \
        "add r6, r6, r6, lsl #1\n\t"                            \
        "adr.w r7, 2f\n\t"                                      \
        "add r6, r7, r6, lsl #3\n\t"                            \
        "orr r6, r6, #1\n\t"                                    \
        "strd r6, r1, [sp, #8]\n\t"                             \
        "strd r3, r4, [sp, #16]\n\t"                            \
        "str r5, [sp, #24]\n\t"                                 \
        "movw r6, #0x2000\n\t"                                  \
        "movt r6, #0x0800\n\t"                                  \
        "movw r7, #0x0200\n\t"                                  \
        "movt r7, #0x0080\n\t"                                  \
        "strd r6, r7, [sp, #32]\n"
#define EDGEC_PACKED_HIGH(low, high)                            \
        "lsr r12, " low ", #28\n\t"                             \
        "bfi r12, " high ", #4, #10\n\t"
#define EDGEC_PACKED_LEVEL(bits, where)                         \
        "smlawb r12, r10, r12, r11\n\t"                         \
        "ssat r12, #" bits ", r12, asr #17\n\t"                 \
        "strb r12, " where "\n\t"
/* Two outputs; y comes to rest one byte on. */
#define EDGEC_PACKED_LEVELS2(bits, first, a, b, c, d)           \
        "ldrd r10, r11, [r0], #8\n\t"                           \
        "ubfx r12, " a ", #0, #14\n\t"                          \
        EDGEC_PACKED_LEVEL(bits, first)                         \
        "ubfx r12, " a ", #14, #14\n\t"                         \
        EDGEC_PACKED_LEVEL(bits, "[lr, r1]")                    \
        "ubfx r12, " c ", #0, #14\n\t"                          \
        EDGEC_PACKED_LEVEL(bits, "[lr, r1, lsl #1]")            \
        "ubfx r12, " c ", #14, #14\n\t"                         \
        "add lr, lr, r1\n\t"                                    \
        EDGEC_PACKED_LEVEL(bits, "[lr, r1, lsl #1]")            \
        "ldrd r10, r11, [r0], #8\n\t"                           \
        "lsr r12, " b ", #10\n\t"                               \
        EDGEC_PACKED_LEVEL(bits, "[lr, #1]!")                   \
        EDGEC_PACKED_HIGH(c, d)                                 \
        EDGEC_PACKED_LEVEL(bits, "[lr, r1]")                    \
        "lsr r12, " d ", #10\n\t"                               \
        EDGEC_PACKED_LEVEL(bits, "[lr, r1, lsl #1]")            \
        EDGEC_PACKED_HIGH(a, b)                                 \
        "sub lr, lr, r1\n\t"                                    \
        EDGEC_PACKED_LEVEL(bits, "[lr]")
#define EDGEC_PACKED_LEVELS(name, bits)                         \
    EDGEC_ASM_FUNCTION void name(                                           \
        const int32_t *w EDGEC_UNUSED, const int32_t *x EDGEC_UNUSED,       \
        int32_t steps EDGEC_UNUSED, int32_t blocks EDGEC_UNUSED,            \
        int8_t *y EDGEC_UNUSED, int32_t stride EDGEC_UNUSED) {              \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"           \
                "mov r6, r3\n\t"                                            \
                "ldrd r3, r4, [sp, #36]\n\t"                                \
                "mul r5, r6, r4\n\t"                                        \
                "add r5, r3, r5, lsl #2\n\t"                                \
                "sub sp, sp, #40\n\t"                                       \
                EDGEC_PACKED_START                                          \
                EDGEC_PACKED_PRODUCTS                                       \
                EDGEC_PACKED_LEVELS2(bits, "[lr]", "r2", "r3", "r4", "r5")  \
                EDGEC_PACKED_LEVELS2(bits, "[lr, #1]!", "r6", "r7", "r8", "r9") \
                "add lr, lr, r1, lsl #2\n\t"                                \
                "sub lr, lr, #3\n\t"                                        \
                "ldr r2, [sp, #24]\n\t"                                     \
                "str lr, [sp, #16]\n\t"                                     \
                "cmp lr, r2\n\t"                                            \
                "bne.w 1b\n\t"                                              \
                "add sp, sp, #40\n\t"                                       \
                "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");          \
    }
EDGEC_PACKED_LEVELS(edgec_packed_levels8, "8")
EDGEC_PACKED_LEVELS(edgec_packed_levels4, "4")
/* Rows (0, 1) or (2, 3) of two outputs, at r0 and 16 bytes further. */
#define EDGEC_PACKED_ADD2(low, high, at, next)                  \
        "ldrd r10, r11, [r0, #" at "]\n\t"                      \
        "ubfx r12, " low ", #0, #14\n\t"                        \
        "sub r12, r12, #8192\n\t"                               \
        "add r10, r10, r12\n\t"                                 \
        EDGEC_PACKED_HIGH(low, high)                            \
        "sub r12, r12, #8192\n\t"                               \
        "add r11, r11, r12\n\t"                                 \
        "strd r10, r11, [r0, #" at "]\n\t"                      \
        "ldrd r10, r11, [r0, #" next "]\n\t"                    \
        "ubfx r12, " low ", #14, #14\n\t"                       \
        "sub r12, r12, #8192\n\t"                               \
        "add r10, r10, r12\n\t"                                 \
        "lsr r12, " high ", #10\n\t"                            \
        "sub r12, r12, #8192\n\t"                               \
        "add r11, r11, r12\n\t"                                 \
        "strd r10, r11, [r0, #" next "]\n\t"
EDGEC_ASM_FUNCTION void edgec_packed_sums(
    const int32_t *w EDGEC_UNUSED, const int32_t *x EDGEC_UNUSED, int32_t steps EDGEC_UNUSED,
    int32_t *sums EDGEC_UNUSED) {
    __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
            "sub sp, sp, #40\n\t"
            EDGEC_PACKED_START
            EDGEC_PACKED_PRODUCTS
            "mov r0, lr\n\t"
            EDGEC_PACKED_ADD2("r2", "r3", "0", "16")
            EDGEC_PACKED_ADD2("r4", "r5", "32", "48")
            EDGEC_PACKED_ADD2("r6", "r7", "8", "24")
            EDGEC_PACKED_ADD2("r8", "r9", "40", "56")
            "add sp, sp, #40\n\t"
            "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");
}
/* clang-format on */
#undef EDGEC_PACKED_ADD2
#undef EDGEC_PACKED_LEVELS
#undef EDGEC_PACKED_LEVELS2
#undef EDGEC_PACKED_LEVEL
#undef EDGEC_PACKED_HIGH
#undef EDGEC_PACKED_START
#undef EDGEC_PACKED_PRODUCTS
#undef EDGEC_PACKED_STEP
#else
/* The fields, [row][output], of one block. */
EDGEC_INLINE void edgec_packed_fields(const int32_t *w, const int32_t *x, int32_t steps,
                                      int32_t *fields) {
    for (int32_t k = 0; k < 4; ++k) {
        int32_t row = k / 2 * 2, output = k % 2 * 2;
        uint64_t sum = UINT64_C(0x0080020008002000);
        for (int32_t s = 0; s < steps; ++s)
            sum += (uint64_t)((int64_t)x[2 * s + k / 2] * w[2 * s + k % 2]);
        fields[4 * row + output] = (int32_t)(sum & 0x3fffu);
        fields[4 * row + 4 + output] = (int32_t)(sum >> 14 & 0x3fffu);
        fields[4 * row + output + 1] = (int32_t)(sum >> 28 & 0x3fffu);
        fields[4 * row + 4 + output + 1] = (int32_t)(sum >> 42);
    }
}

EDGEC_INLINE void edgec_packed_levels(const int32_t *w, const int32_t *x, int32_t steps,
                                      int32_t blocks, int8_t *y, int32_t stride, int32_t low,
                                      int32_t high) {
    const int32_t *table = w + 2 * steps;
    for (; blocks > 0; --blocks, x += 2 * steps, y += 4 * stride) {
        int32_t fields[16];
        edgec_packed_fields(w, x, steps, fields);
        for (int32_t k = 0; k < 16; ++k) {
            const int32_t *row = table + 2 * (k % 4);
            int64_t product = (int64_t)fields[k] * row[0];
            int32_t sum = (int32_t)(product >> 16) + row[1];
            int32_t level = edgec_c_clamp(sum >> EDGEC_PACKED_SHIFT, low, high);
            y[k / 4 * stride + k % 4] = (int8_t)level;
        }
    }
}

EDGEC_INLINE void edgec_packed_levels8(const int32_t *w, const int32_t *x, int32_t steps,
                                       int32_t blocks, int8_t *y, int32_t stride) {
    edgec_packed_levels(w, x, steps, blocks, y, stride, -128, 127);
}

EDGEC_INLINE void edgec_packed_levels4(const int32_t *w, const int32_t *x, int32_t steps,
                                       int32_t blocks, int8_t *y, int32_t stride) {
    edgec_packed_levels(w, x, steps, blocks, y, stride, -8, 7);
}

EDGEC_INLINE void edgec_packed_sums(const int32_t *w, const int32_t *x, int32_t steps,
                                    int32_t *sums) {
    int32_t fields[16];
    edgec_packed_fields(w, x, steps, fields);
    for (int32_t k = 0; k < 16; ++k)
        sums[k] += fields[k] - (1 << (EDGEC_PACKED_FIELD - 1));
}
#endif

/* Four rows of the same four biases. */
EDGEC_INLINE void edgec_packed_biases(const int32_t *bias, int32_t *sums) {
    for (int32_t k = 0; k < 16; ++k)
        sums[k] = bias[k % 4];
}

#ifdef __cplusplus
}
#endif

#endif
