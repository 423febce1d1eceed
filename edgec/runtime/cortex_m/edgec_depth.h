/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_depth.h: one filter of 3 x 3 per channel on int8 images, on cores with DSP instructions;
 * the portable twins give the same bytes. */
/* Included for edgec_depth_. */
#ifndef EDGEC_DEPTH_H
#define EDGEC_DEPTH_H

#include "edgec_dense.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Four channels at a time: each line of the image (a row, or a column of a narrow image) becomes
 * four lines of int16 with its padding, of which three are kept. An output line is then the sum of
 * three lines, four outputs at a time, and may lie where the middle one came from. */
typedef struct {
    int32_t lines, length, line_step, step;                 /* input, steps in bytes */
    int32_t out_lines, out_length, out_line_step, out_step; /* output */
    int32_t before, left, stride, channels, room;           /* room: int16 of a line, even */
} edgec_depth_shape;

/* What the inner loop reads for each channel: for each line of the filter the lanes (w0, w1) and
 * (w1, w2); bias, multiplier, addend, shift. */
#define EDGEC_DEPTH_ROW 10

/* In constants: for each line of the filter the bytes w0, w1, w2 (and in the first a left shift
 * of the weights); bias, multiplier, addend, shift. */
EDGEC_INLINE void edgec_depth_row(const int32_t *packed, int32_t *row) {
    int32_t lift = packed[0] >> 24;
    for (int32_t k = 0; k < 3; ++k) {
        int32_t even = edgec_sxtb16(packed[k]), odd = edgec_sxtb16_ror8(packed[k]);
        for (int32_t times = lift; times > 0; --times) {
            even = edgec_sadd16(even, even);
            odd = edgec_sadd16(odd, odd);
        }
        row[2 * k] = edgec_pack(even, odd);
        row[2 * k + 1] = edgec_pack(odd, edgec_hi16(even));
    }
    for (int32_t k = 3; k < 7; ++k)
        row[k + 3] = packed[k];
}

/* Two pixels of four channels `step` apart, `pairs` (not 0) times, to four lines `room` apart. */
#if EDGEC_HAS_DSP
/* clang-format off */
EDGEC_ASM_FUNCTION void edgec_depth_pairs(
    const int8_t *x EDGEC_UNUSED, int32_t step EDGEC_UNUSED, int32_t pairs EDGEC_UNUSED,
    int16_t *to EDGEC_UNUSED, int32_t room EDGEC_UNUSED) {
    __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11}\n\t"
            "ldr r12, [sp, #32]\n\t"
            "lsl r12, r12, #1\n\t"
            "add r11, r12, r12, lsl #1\n\t"
            "sub r11, r11, #4\n\t"
            "lsl r10, r12, #1\n\t"
            "sub r10, r10, #4\n\t"
            "sub r12, r12, #4\n"
            "1:\n\t"
            "ldr r4, [r0]\n\t"
            "ldr r5, [r0, r1]\n\t"
            "add r0, r0, r1, lsl #1\n\t"
            "sxtb16 r6, r4\n\t"
            "sxtb16 r7, r5\n\t"
            "sxtb16 r4, r4, ror #8\n\t"
            "sxtb16 r5, r5, ror #8\n\t"
            "pkhbt r8, r6, r7, lsl #16\n\t"
            "pkhtb r9, r7, r6, asr #16\n\t"
            "pkhbt r6, r4, r5, lsl #16\n\t"
            "pkhtb r7, r5, r4, asr #16\n\t"
            "subs r2, r2, #1\n\t"
            "str r8, [r3], #4\n\t"
            "str r6, [r3, r12]\n\t"
            "str r9, [r3, r10]\n\t"
            "str r7, [r3, r11]\n\t"
            "bne 1b\n\t"
            "pop {r4, r5, r6, r7, r8, r9, r10, r11}\n\t"
            "bx lr\n\t");
}
/* clang-format on */
#else
EDGEC_INLINE void edgec_depth_pairs(const int8_t *x, int32_t step, int32_t pairs, int16_t *to,
                                    int32_t room) {
    for (int32_t k = 0; k < 2 * pairs; ++k, x += step) {
        for (int32_t c = 0; c < 4; ++c)
            to[c * room + k] = x[c];
    }
}
#endif

/* The pixels of one line of four channels; the padding around them stays as it is. */
EDGEC_INLINE void edgec_depth_fill(const int8_t *x, const edgec_depth_shape *g, int16_t *to) {
    int32_t room = g->room, have = room - g->left;
    if (have > g->length)
        have = g->length;
    to += g->left;
    if (have > 1)
        edgec_depth_pairs(x, g->step, have / 2, to, room);
    if (have % 2 != 0) {
        x += (have - 1) * g->step;
        for (int32_t c = 0; c < 4; ++c)
            to[c * room + have - 1] = x[c];
    }
}

#if EDGEC_HAS_DSP
/* clang-format off */
/* Four outputs of one line of the filter, words of x in r8 r9 r10, sums in r4..r7. */
#define EDGEC_DEPTH_LINE_1(p, at)             \
    "ldr r8, [" p "], #4\n\t"                 \
    "ldr r9, [" p "], #4\n\t"                 \
    "ldr r10, [" p "]\n\t"                    \
    "ldrd r11, r12, [r3, #" at "]\n\t"        \
    "smlad r4, r8, r11, r4\n\t"               \
    "smlatb r5, r8, r11, r5\n\t"              \
    "smlabt r4, r9, r12, r4\n\t"              \
    "smlad r5, r9, r12, r5\n\t"               \
    "smlad r6, r9, r11, r6\n\t"               \
    "smlatb r7, r9, r11, r7\n\t"              \
    "smlabt r6, r10, r12, r6\n\t"             \
    "smlad r7, r10, r12, r7\n\t"
#define EDGEC_DEPTH_LINE_2(p, at)             \
    "ldrd r8, r9, [" p "], #8\n\t"            \
    "ldrd r11, r12, [r3, #" at "]\n\t"        \
    "smlad r4, r8, r11, r4\n\t"               \
    "ldrd r10, r8, [" p "], #8\n\t"           \
    "smlabt r4, r9, r12, r4\n\t"              \
    "smlad r5, r9, r11, r5\n\t"               \
    "ldr r9, [" p "]\n\t"                     \
    "smlabt r5, r10, r12, r5\n\t"             \
    "smlad r6, r10, r11, r6\n\t"              \
    "smlabt r6, r8, r12, r6\n\t"              \
    "smlad r7, r8, r11, r7\n\t"               \
    "smlabt r7, r9, r12, r7\n\t"
#define EDGEC_DEPTH_SINGLE(sum)               \
    "smmla " sum ", " sum ", r8, r9\n\t"      \
    "asr " sum ", " sum ", r10\n\t"           \
    "ssat " sum ", #8, " sum "\n\t"
#define EDGEC_DEPTH_TFLITE(sum)               \
    "smmlar r11, " sum ", r8, r9\n\t"         \
    "add r11, r11, " sum ", asr #31\n\t"      \
    "asr r11, r11, r10\n\t"                   \
    "ssat " sum ", #8, r11, asr #1\n\t"
/* Four channels. `jump`: step of the outputs, bytes of x of all groups, then from the end of a channel to the start
 * of the next in y and in x. The stack holds the same, the channels left and the end of the line. */
#define EDGEC_DEPTH_3X3(name, line, level)                                  \
    EDGEC_ASM_FUNCTION void name(                                           \
        const int16_t *a EDGEC_UNUSED, const int16_t *b EDGEC_UNUSED,       \
        const int16_t *c EDGEC_UNUSED, const int32_t *row EDGEC_UNUSED,     \
        int8_t *y EDGEC_UNUSED, const int32_t *jump EDGEC_UNUSED) {         \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"           \
                "ldrd lr, r12, [sp, #36]\n\t"                               \
                "ldm r12, {r4, r5, r6, r7}\n\t"                             \
                "mov r8, #4\n\t"                                            \
                "add r9, r0, r5\n\t"                                        \
                "push {r4, r5, r6, r7, r8, r9}\n"                           \
                "1:\n\t"                                                    \
                "ldr r4, [r3, #24]\n\t"                                     \
                "mov r5, r4\n\t"                                            \
                "mov r6, r4\n\t"                                            \
                "mov r7, r4\n\t"                                            \
                line("r0", "0")                                             \
                line("r1", "8")                                             \
                line("r2", "16")                                            \
                "ldrd r8, r9, [r3, #28]\n\t"                                \
                "ldr r10, [r3, #36]\n\t"                                    \
                level("r4")                                                 \
                level("r5")                                                 \
                level("r6")                                                 \
                level("r7")                                                 \
                "ldr r8, [sp]\n\t"                                          \
                "ldr r9, [sp, #20]\n\t"                                     \
                "strb r4, [lr]\n\t"                                         \
                "strb r5, [lr, r8]\n\t"                                     \
                "add lr, lr, r8, lsl #1\n\t"                                \
                "cmp r0, r9\n\t"                                            \
                "strb r6, [lr]\n\t"                                         \
                "strb r7, [lr, r8]\n\t"                                     \
                "add lr, lr, r8, lsl #1\n\t"                                \
                "bne.w 1b\n\t"                                              \
                "ldrd r8, r9, [sp, #8]\n\t"                                 \
                "ldrd r10, r11, [sp, #16]\n\t"                              \
                "ldr r12, [sp, #4]\n\t"                                     \
                "add lr, lr, r8\n\t"                                        \
                "add r0, r0, r9\n\t"                                        \
                "add r1, r1, r9\n\t"                                        \
                "add r2, r2, r9\n\t"                                        \
                "add r3, r3, #40\n\t"                                       \
                "add r11, r0, r12\n\t"                                      \
                "subs r10, r10, #1\n\t"                                     \
                "strd r10, r11, [sp, #16]\n\t"                              \
                "bne.w 1b\n\t"                                              \
                "add sp, sp, #24\n\t"                                       \
                "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");          \
    }
EDGEC_DEPTH_3X3(edgec_depth_line_1, EDGEC_DEPTH_LINE_1, EDGEC_DEPTH_SINGLE)
EDGEC_DEPTH_3X3(edgec_depth_line_2, EDGEC_DEPTH_LINE_2, EDGEC_DEPTH_SINGLE)
EDGEC_DEPTH_3X3(edgec_depth_line_1_tflite, EDGEC_DEPTH_LINE_1, EDGEC_DEPTH_TFLITE)
EDGEC_DEPTH_3X3(edgec_depth_line_2_tflite, EDGEC_DEPTH_LINE_2, EDGEC_DEPTH_TFLITE)
/* clang-format on */
#undef EDGEC_DEPTH_3X3
#undef EDGEC_DEPTH_TFLITE
#undef EDGEC_DEPTH_SINGLE
#undef EDGEC_DEPTH_LINE_2
#undef EDGEC_DEPTH_LINE_1
#else
/* Rounding `single`; `tflite` as edgec_rows_double of edgec_products.h. */
EDGEC_INLINE int32_t edgec_depth_single(int32_t sum, const int32_t *row) {
    return edgec_smmla(sum, row[7], row[8]) >> row[9];
}

EDGEC_INLINE int32_t edgec_depth_double(int32_t sum, const int32_t *row) {
    return ((edgec_smmlar(sum, row[7], row[8]) + (sum >> 31)) >> row[9]) >> 1;
}

/* Two neighbouring outputs share the filter that was taken apart. */
#define EDGEC_DEPTH_3X3(name, stride, level)                                                       \
    EDGEC_INLINE void name(const int16_t *a, const int16_t *b, const int16_t *c,                   \
                           const int32_t *row, int8_t *y, const int32_t *jump) {                   \
        const int16_t *line[3] = {a, b, c};                                                        \
        int32_t room = (jump[1] + jump[3]) / 2;                                                    \
        for (int32_t ch = 0; ch < 4; ++ch, row += EDGEC_DEPTH_ROW) {                               \
            int8_t *to = y + ch;                                                                   \
            int32_t end = ch * room + jump[1] / 2;                                                 \
            for (int32_t at = ch * room; at < end; at += 2 * (stride), to += 2 * jump[0]) {        \
                int32_t sum = row[6], next = row[6];                                               \
                for (int32_t k = 0; k < 3; ++k) {                                                  \
                    const int16_t *x = line[k] + at;                                               \
                    int32_t w0 = edgec_lo16(row[2 * k]), w1 = edgec_hi16(row[2 * k]);              \
                    int32_t w2 = edgec_hi16(row[2 * k + 1]);                                       \
                    sum += x[0] * w0 + x[1] * w1 + x[2] * w2;                                      \
                    next += x[stride] * w0 + x[(stride) + 1] * w1 + x[(stride) + 2] * w2;          \
                }                                                                                  \
                to[0] = (int8_t)edgec_c_clamp(level(sum, row), -128, 127);                         \
                to[jump[0]] = (int8_t)edgec_c_clamp(level(next, row), -128, 127);                  \
            }                                                                                      \
        }                                                                                          \
    }
EDGEC_DEPTH_3X3(edgec_depth_line_1, 1, edgec_depth_single)
EDGEC_DEPTH_3X3(edgec_depth_line_2, 2, edgec_depth_single)
EDGEC_DEPTH_3X3(edgec_depth_line_1_tflite, 1, edgec_depth_double)
EDGEC_DEPTH_3X3(edgec_depth_line_2_tflite, 2, edgec_depth_double)
#undef EDGEC_DEPTH_3X3
#endif

/* ---- what generated kernels call ----
 * w: 7 words per channel; channels a multiple of 4; out_length 4 at least, its last outputs are
 * computed with the four that end the line; lines: 16 * room, the first four all padding. */
#define EDGEC_DEPTH_IMAGE(name, line)                                                              \
    EDGEC_INLINE void name(const int8_t *x, const int32_t *table, const int32_t *w, int8_t *y,     \
                           int16_t *lines, int32_t pad) {                                          \
        edgec_depth_shape g;                                                                       \
        edgec_memcpy(&g, table, sizeof g);                                                         \
        int32_t four = 4 * g.room, whole = g.out_length / 4, last = g.out_length - 4;              \
        int32_t all[4] = {g.out_step, 8 * whole * g.stride, 1 - 4 * whole * g.out_step,            \
                          2 * g.room - 8 * whole * g.stride};                                      \
        int32_t end[4] = {g.out_step, 8 * g.stride, 1 - 4 * g.out_step,                            \
                          2 * g.room - 8 * g.stride};                                              \
        for (int32_t k = 0; k < 4 * four; ++k)                                                     \
            lines[k] = (int16_t)pad;                                                               \
        for (int32_t c = 0; c < g.channels; c += 4, w += 28) {                                     \
            const int16_t *ring[3] = {lines, lines, lines};                                        \
            int16_t *slot = lines + four;                                                          \
            int32_t rows[4 * EDGEC_DEPTH_ROW], next = -g.before, until = next + 3;                 \
            for (int32_t k = 0; k < 4; ++k)                                                        \
                edgec_depth_row(w + 7 * k, rows + EDGEC_DEPTH_ROW * k);                            \
            for (int32_t i = 0; i < g.out_lines; ++i, until += g.stride) {                         \
                for (; next < until; ++next) {                                                     \
                    ring[0] = ring[1];                                                             \
                    ring[1] = ring[2];                                                             \
                    ring[2] = lines;                                                               \
                    if (next < 0 || next >= g.lines)                                               \
                        continue;                                                                  \
                    edgec_depth_fill(x + next * g.line_step + c, &g, slot);                        \
                    ring[2] = slot;                                                                \
                    slot = slot == lines + 3 * four ? lines + four : slot + four;                  \
                }                                                                                  \
                int8_t *to = y + i * g.out_line_step + c;                                          \
                line(ring[0], ring[1], ring[2], rows, to, all);                                    \
                int32_t at = last * g.stride;                                                      \
                if (g.out_length % 4 != 0)                                                         \
                    line(ring[0] + at, ring[1] + at, ring[2] + at, rows, to + last * g.out_step,   \
                         end);                                                                     \
            }                                                                                      \
        }                                                                                          \
    }
EDGEC_DEPTH_IMAGE(edgec_depth_image_1, edgec_depth_line_1)
EDGEC_DEPTH_IMAGE(edgec_depth_image_2, edgec_depth_line_2)
EDGEC_DEPTH_IMAGE(edgec_depth_image_1_tflite, edgec_depth_line_1_tflite)
EDGEC_DEPTH_IMAGE(edgec_depth_image_2_tflite, edgec_depth_line_2_tflite)
#undef EDGEC_DEPTH_IMAGE
#undef EDGEC_DEPTH_ROW

#ifdef __cplusplus
}
#endif

#endif
