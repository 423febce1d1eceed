/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_mve_depth.h: depthwise convolutions of int8 images on cores with Helium (MVE). */
/* Included for edgec_mve_depth_. */
#ifndef EDGEC_MVE_DEPTH_H
#define EDGEC_MVE_DEPTH_H

#include "edgec_mve.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- planes ----
 * Eight channels at a time are turned into planes in scratch. Pixel (line r, place p) of a padded
 * plane lies at byte r + p * kernel: every window is one run of at most 16 bytes, as in
 * edgec_mve_image.h. The stream has for each channel 16 weights (zeros beyond the window), bias,
 * multiplier and negative right shift.
 *
 * plane: bytes from one to the next; step: between windows; whole, rest: blocks of eight outputs,
 * and what is left of a line; y_step: bytes between outputs. */
typedef struct {
    int32_t plane, step, channels, whole, rest, y_step, zero;
} edgec_mve_depth;

#if EDGEC_HAS_MVE
/* clang-format off */
/* Eight outputs of one line from the last to the first, sums in r0 r2 .. r12 lr; a line's rest enters behind as many as
 * lack. r1: window, r3: step, r5: stream, r7: end of the whole blocks, r9: y, r11: step of a block. On the stack:
 * window, y, length of the whole blocks, entry, windows that lack, plane, channels left. */
#define EDGEC_MVE_DEPTH_SUMS(load)                                                              \
    load("q0") "vmladav.s8 lr, q0, q3\n\t" load("q1") "vmladav.s8 r12, q1, q3\n\t"              \
    load("q0") "vmladav.s8 r10, q0, q3\n\t" load("q1") "vmladav.s8 r8, q1, q3\n\t"              \
    load("q0") "vmladav.s8 r6, q0, q3\n\t" load("q1") "vmladav.s8 r4, q1, q3\n\t"               \
    load("q0") "vmladav.s8 r2, q0, q3\n\t" load("q1") "vmladav.s8 r0, q1, q3\n\t"
#define EDGEC_MVE_DEPTH_LEVELS(high, away)       \
    "vmov q0[2], q0[0], r0, r8\n\t"              \
    "vmov q0[3], q0[1], r4, r12\n\t"             \
    "vmov q1[2], q1[0], r2, r10\n\t"             \
    "vmov q1[3], q1[1], r6, lr\n\t"              \
    "ldm r5, {r0, r2, r4}\n\t"                   \
    "vadd.i32 q0, q0, r0\n\t"                    \
    "vadd.i32 q1, q1, r0\n\t"                    \
    high " q0, q0, r2\n\t"                       \
    high " q1, q1, r2\n\t"                       \
    away                                         \
    "vrshl.s32 q0, r4\n\t"                       \
    "vrshl.s32 q1, r4\n\t"                       \
    "vqmovnb.s32 q0, q0\n\t"                     \
    "vqmovnt.s32 q0, q1\n\t"                     \
    "vqadd.s16 q0, q0, q6\n\t"                   \
    "vqmovnb.s16 q0, q0\n\t"
#define EDGEC_MVE_DEPTH_LINE(name, load, bytes, high, away)                 \
    EDGEC_ASM_FUNCTION void name(                                           \
        const int8_t *x EDGEC_UNUSED, const int32_t *w EDGEC_UNUSED,        \
        int8_t *y EDGEC_UNUSED, const edgec_mve_depth *g EDGEC_UNUSED) {    \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"           \
                "vpush {d12, d13, d14, d15}\n\t"                            \
                "sub sp, sp, #28\n\t"                                       \
                "mov r5, r1\n\t"                                            \
                "mov r9, r2\n\t"                                            \
                "ldm r3, {r2, r3, r4, r6, r7, r8, r10}\n\t"                 \
                "vdup.16 q6, r10\n\t"                                       \
                "vctp.16 r7\n\t"                                            \
                "mov r12, #0\n\t"                                           \
                "vidup.u16 q7, r12, #1\n\t"                                 \
                "vmul.i16 q7, q7, r8\n\t"                                   \
                "rsb r1, r3, r3, lsl #3\n\t"                                \
                "add r1, r1, r0\n\t"                                        \
                "lsl r11, r8, #3\n\t"                                       \
                "mul r6, r6, r11\n\t"                                       \
                "rsb r10, r7, #8\n\t"                                       \
                "mul r8, r10, r3\n\t"                                       \
                "mov r12, #" bytes "\n\t"                                   \
                "mul r10, r10, r12\n\t"                                     \
                "adr.w r12, 4f\n\t"                                         \
                "add r10, r10, r12\n\t"                                     \
                "orr r10, r10, #1\n\t"                                      \
                "cmp r7, #0\n\t"                                            \
                "it eq\n\t"                                                 \
                "moveq r10, #0\n\t"                                         \
                "strd r1, r9, [sp]\n\t"                                     \
                "strd r6, r10, [sp, #8]\n\t"                                \
                "strd r8, r2, [sp, #16]\n\t"                                \
                "str r4, [sp, #24]\n"                                       \
                "1:\n\t"                                                    \
                "ldr r7, [sp, #8]\n\t"                                      \
                "vldrb.u8 q3, [r5], #16\n\t"                                \
                "adds r7, r7, r9\n\t"                                       \
                "cmp r7, r9\n\t"                                            \
                "beq.w 3f\n"                                                \
                "2:\n\t"                                                    \
                EDGEC_MVE_DEPTH_SUMS(load)                                  \
                EDGEC_MVE_DEPTH_LEVELS(high, away)                          \
                "vstrb.16 q0, [r9, q7]\n\t"                                 \
                "add r9, r9, r11\n\t"                                       \
                "add r1, r1, r3, lsl #4\n\t"                                \
                "cmp r9, r7\n\t"                                            \
                "bne.w 2b\n"                                                \
                "3:\n\t"                                                    \
                "ldrd r0, r2, [sp, #12]\n\t"                                \
                "cmp r0, #0\n\t"                                            \
                "beq.w 5f\n\t"                                              \
                "sub r1, r1, r2\n\t"                                        \
                "bx r0\n\t"                                                 \
                ".p2align 2\n"                                              \
                "4:\n\t"                                                    \
                EDGEC_MVE_DEPTH_SUMS(load)                                  \
                EDGEC_MVE_DEPTH_LEVELS(high, away)                          \
                "vpst\n\t"                                                  \
                "vstrbt.16 q0, [r9, q7]\n"                                  \
                "5:\n\t"                                                    \
                "ldrd r1, r9, [sp]\n\t"                                     \
                "ldrd r0, r2, [sp, #20]\n\t"                                \
                "add r5, r5, #12\n\t"                                       \
                "add r1, r1, r0\n\t"                                        \
                "add r9, r9, #1\n\t"                                        \
                "strd r1, r9, [sp]\n\t"                                     \
                "subs r2, r2, #1\n\t"                                       \
                "str r2, [sp, #24]\n\t"                                     \
                "bne.w 1b\n\t"                                              \
                "add sp, sp, #28\n\t"                                       \
                "vpop {d12, d13, d14, d15}\n\t"                             \
                "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");          \
    }
#define EDGEC_MVE_LOAD_3(q) "vldrb.u8 " q ", [r1], #-3\n\t"
#define EDGEC_MVE_LOAD_6(q) "vldrb.u8 " q ", [r1], #-6\n\t"
#define EDGEC_MVE_LOAD_ANY(q) "vldrb.u8 " q ", [r1]\n\tsub.w r1, r1, r3\n\t"
/* Half away from zero, as in edgec_mve_rows.h. */
#define EDGEC_MVE_DEPTH_AWAY(q)                  \
    "vand q2, q2, " q "\n\t"                     \
    "vshr.s32 q2, q2, #31\n\t"                   \
    "vqadd.s32 " q ", " q ", q2\n\t"
#define EDGEC_MVE_DEPTH_TFLITE \
    "vdup.32 q2, r4\n\t" EDGEC_MVE_DEPTH_AWAY("q0") "vdup.32 q2, r4\n\t" EDGEC_MVE_DEPTH_AWAY("q1")
#define EDGEC_MVE_DEPTH_ALL(step, load, bytes)                                                                \
    EDGEC_MVE_DEPTH_LINE(edgec_mve_depth_line_##step##_i8, load, bytes, "vqdmulh.s32", "")                    \
    EDGEC_MVE_DEPTH_LINE(edgec_mve_depth_line_##step##_i8_up, load, bytes, "vqrdmulh.s32", "")                \
    EDGEC_MVE_DEPTH_LINE(edgec_mve_depth_line_##step##_i8_tflite, load, bytes, "vqrdmulh.s32", EDGEC_MVE_DEPTH_TFLITE)
EDGEC_MVE_DEPTH_ALL(3, EDGEC_MVE_LOAD_3, "8")
EDGEC_MVE_DEPTH_ALL(6, EDGEC_MVE_LOAD_6, "8")
EDGEC_MVE_DEPTH_ALL(any, EDGEC_MVE_LOAD_ANY, "12")
/* clang-format on */
#undef EDGEC_MVE_DEPTH_ALL
#undef EDGEC_MVE_DEPTH_TFLITE
#undef EDGEC_MVE_DEPTH_AWAY
#undef EDGEC_MVE_LOAD_ANY
#undef EDGEC_MVE_LOAD_6
#undef EDGEC_MVE_LOAD_3
#undef EDGEC_MVE_DEPTH_LINE
#undef EDGEC_MVE_DEPTH_LEVELS
#undef EDGEC_MVE_DEPTH_SUMS

/* `count` pixels, one byte for each of n <= 8 planes. Not assembly: a call costs short lines more
 * than it saves long ones. */
EDGEC_INLINE void edgec_mve_depth_planes(const int8_t *x, int32_t x_step, int32_t count, int32_t n,
                                         int8_t *to, int32_t step, int32_t plane) {
    const mve_pred16_t lanes = vctp16q((uint32_t)n);
    const uint16x8_t places = vmulq_n_u16(vidupq_n_u16(0u, 1), (uint16_t)plane);
    for (int32_t k = 0; k < count; ++k, x += x_step, to += step)
        vstrbq_scatter_offset_p_s16(to, places, vldrbq_z_s16(x, lanes), lanes);
}
#else
#define EDGEC_MVE_DEPTH_LINE(by, suffix)                                                           \
    EDGEC_INLINE void edgec_mve_depth_line_##by##_##suffix(const int8_t *x, const int32_t *w,      \
                                                           int8_t *y, const edgec_mve_depth *g) {  \
        const edgec_mve_rows rows = {0, 1, 1, 0, 1, g->zero, 0};                                   \
        for (int32_t c = 0; c < g->channels; ++c, x += g->plane, w += 7, ++y) {                    \
            const int8_t *v = (const int8_t *)w;                                                   \
            for (int32_t k = 0; k < 8 * g->whole + g->rest; ++k) {                                 \
                int32_t sum = w[4];                                                                \
                for (int32_t j = 0; j < 16; ++j)                                                   \
                    sum += x[k * g->step + j] * v[j];                                              \
                y[k * g->y_step] = (int8_t)edgec_mve_##suffix(sum, w + 5, 1, &rows);               \
            }                                                                                      \
        }                                                                                          \
    }
#define EDGEC_MVE_DEPTH_ALL(by)                                                                    \
    EDGEC_MVE_DEPTH_LINE(by, i8)                                                                   \
    EDGEC_MVE_DEPTH_LINE(by, i8_up)                                                                \
    EDGEC_MVE_DEPTH_LINE(by, i8_tflite)
EDGEC_MVE_DEPTH_ALL(3)
EDGEC_MVE_DEPTH_ALL(6)
EDGEC_MVE_DEPTH_ALL(any)
#undef EDGEC_MVE_DEPTH_ALL
#undef EDGEC_MVE_DEPTH_LINE

EDGEC_INLINE void edgec_mve_depth_planes(const int8_t *x, int32_t x_step, int32_t count, int32_t n,
                                         int8_t *to, int32_t step, int32_t plane) {
    for (int32_t k = 0; k < count; ++k, x += x_step, to += step) {
        for (int32_t c = 0; c < n; ++c)
            to[c * plane] = x[c];
    }
}
#endif

/* ---- what generated kernels call ----
 * Lines may be rows or columns of the image. lines, line_step, length, length_step: of the input;
 * out_...: of the output; before, ahead: padding before the first line and before a line's start;
 * size: of the kernel across lines. scratch: 16 bytes of padding, 8 planes. */
typedef struct {
    int32_t lines, line_step, length, length_step, out_lines, out_length, out_line_step, out_step;
    int32_t before, ahead, stride, channels, size, columns, plane, zero;
} edgec_mve_depth_shape;

#define EDGEC_MVE_DEPTH_IMAGE(suffix)                                                              \
    EDGEC_INLINE void edgec_mve_depth_image_##suffix(const int8_t *x, const int32_t *w, int8_t *y, \
                                                     const int32_t *table, int32_t pad,            \
                                                     int8_t *scratch) {                            \
        edgec_mve_depth_shape s;                                                                   \
        edgec_memcpy(&s, table, sizeof s);                                                         \
        int8_t *planes = scratch + 16;                                                             \
        const int32_t room = s.columns - s.ahead, width = room < s.length ? room : s.length;       \
        edgec_mve_depth g = {s.plane,          s.size * s.stride, 8,     s.out_length / 8,         \
                             s.out_length % 8, s.out_step,        s.zero};                         \
        for (int32_t c = 0; c < s.channels; c += 8, w += 56) {                                     \
            g.channels = s.channels - c < 8 ? s.channels - c : 8;                                  \
            edgec_mve_fill(scratch, pad, 16 + 8 * s.plane);                                        \
            for (int32_t i = 0, next = 0; i < s.out_lines; ++i) {                                  \
                const int32_t first = i * s.stride;                                                \
                for (next = next < first ? first : next; next < first + s.size; ++next) {          \
                    const int32_t at = next - s.before, inside = at >= 0 && at < s.lines;          \
                    const int8_t *from = inside ? x + at * s.line_step + c : scratch;              \
                    edgec_mve_depth_planes(scratch, 0, s.ahead, g.channels, planes + next, s.size, \
                                           s.plane);                                               \
                    edgec_mve_depth_planes(from, inside ? s.length_step : 0, width, g.channels,    \
                                           planes + next + s.ahead * s.size, s.size, s.plane);     \
                }                                                                                  \
                edgec_mve_depth_line_##suffix(planes + first, w, y + i * s.out_line_step + c, &g); \
            }                                                                                      \
        }                                                                                          \
    }
EDGEC_MVE_DEPTH_IMAGE(3_i8)
EDGEC_MVE_DEPTH_IMAGE(3_i8_up)
EDGEC_MVE_DEPTH_IMAGE(3_i8_tflite)
EDGEC_MVE_DEPTH_IMAGE(6_i8)
EDGEC_MVE_DEPTH_IMAGE(6_i8_up)
EDGEC_MVE_DEPTH_IMAGE(6_i8_tflite)
EDGEC_MVE_DEPTH_IMAGE(any_i8)
EDGEC_MVE_DEPTH_IMAGE(any_i8_up)
EDGEC_MVE_DEPTH_IMAGE(any_i8_tflite)
#undef EDGEC_MVE_DEPTH_IMAGE

#ifdef __cplusplus
}
#endif

#endif
