/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_mve_rows.h: matrix products of int8 and int16 rows with int8 weights on cores with Helium
 * (MVE); the portable twins give the same bytes. */
/* Included for edgec_mve_. */
#ifndef EDGEC_MVE_ROWS_H
#define EDGEC_MVE_ROWS_H

#include "edgec_simd.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1) && !defined(EDGEC_SIMD_PORTABLE)
#define EDGEC_HAS_MVE 1
#include <arm_mve.h>
#else
#define EDGEC_HAS_MVE 0
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what every block shares ----
 * Weights are one stream, for every block of outputs: for each 16 bytes of a row the weights of one
 * output after the other (16 for int8 inputs, 8 for int16; zeros beyond the row); the biases; and,
 * where sums are requantised, the multipliers, then the right shifts as negative numbers. A block
 * has four outputs of two rows, or eight of one.
 *
 * x_step: bytes between rows; vectors: 16 bytes each, of a row; blocks: of outputs; y_step:
 * elements from the first four results of a block to the other four; pairs: of rows; zero: added to
 * a result; lift: left shift of the sums before they are multiplied (some kernels). */
typedef struct {
    int32_t x_step, vectors, blocks, y_step, pairs, zero, lift;
} edgec_mve_rows;

/* One pair of rows whose biases have more than those of the stream (edgec_zones.h). */
typedef struct {
    edgec_mve_rows rows;
    const int16_t *deltas[2];
} edgec_mve_zoned16;

typedef struct {
    edgec_mve_rows rows;
    const int32_t *deltas[2];
} edgec_mve_zoned32;

#if EDGEC_HAS_MVE
/* clang-format off */
/* 16 bytes of two rows and four outputs, 8 products of vectors in 14 instructions. Sums: r0 r2 r4 r6 of the first row,
 * r8 r10 r12 lr of the second. Then of one row and eight outputs. `a` accumulates. */
#define EDGEC_MVE_STEP_2X4(a, ldx, ldw, bytes, mla)  \
    ldx " q0, [r1], #16\n\t"                         \
    ldw " q2, [r5], #" bytes "\n\t"                  \
    ldx " q1, [r3], #16\n\t"                         \
    "vmladav" a mla " r0, q0, q2\n\t"                \
    ldw " q3, [r5], #" bytes "\n\t"                  \
    "vmladav" a mla " r8, q1, q2\n\t"                \
    "vmladav" a mla " r2, q0, q3\n\t"                \
    ldw " q2, [r5], #" bytes "\n\t"                  \
    "vmladav" a mla " r10, q1, q3\n\t"               \
    "vmladav" a mla " r4, q0, q2\n\t"                \
    ldw " q3, [r5], #" bytes "\n\t"                  \
    "vmladav" a mla " r12, q1, q2\n\t"               \
    "vmladav" a mla " r6, q0, q3\n\t"                \
    "vmladav" a mla " lr, q1, q3\n\t"
#define EDGEC_MVE_STEP_1X8(a, ldx, ldw, bytes, mla)  \
    ldx " q0, [r1], #16\n\t"                         \
    ldw " q2, [r5], #" bytes "\n\t"                  \
    ldw " q3, [r5], #" bytes "\n\t"                  \
    "vmladav" a mla " r0, q0, q2\n\t"                \
    ldw " q2, [r5], #" bytes "\n\t"                  \
    "vmladav" a mla " r2, q0, q3\n\t"                \
    ldw " q3, [r5], #" bytes "\n\t"                  \
    "vmladav" a mla " r4, q0, q2\n\t"                \
    ldw " q2, [r5], #" bytes "\n\t"                  \
    "vmladav" a mla " r6, q0, q3\n\t"                \
    ldw " q3, [r5], #" bytes "\n\t"                  \
    "vmladav" a mla " r8, q0, q2\n\t"                \
    ldw " q2, [r5], #" bytes "\n\t"                  \
    "vmladav" a mla " r10, q0, q3\n\t"               \
    ldw " q3, [r5], #" bytes "\n\t"                  \
    "vmladav" a mla " r12, q0, q2\n\t"               \
    "vmladav" a mla " lr, q0, q3\n\t"
#define EDGEC_MVE_I8(step, a) step(a, "vldrb.u8", "vldrb.u8", "16", ".s8")
#define EDGEC_MVE_I16(step, a) step(a, "vldrh.u16", "vldrb.s16", "8", ".s16")

/* The first step begins the sums; the rest runs in a loop of four, entered behind as many as lack. On the stack: rows,
 * end of the first row, entry of the loop, weights, pairs, step of a pair in x and in y, the latter less one row of y,
 * lift, bytes from the first four results to the others, and what `frame` and `enter` make room for. q6: zero, q7:
 * places of the eight results. */
#define EDGEC_MVE_ROWS(name, type, g_type, frame, enter, kind, step, bytes, outs, size, finish) \
    EDGEC_ASM_FUNCTION void name(                                           \
        const void *x EDGEC_UNUSED, const int32_t *w EDGEC_UNUSED,          \
        type *y EDGEC_UNUSED, const g_type *g EDGEC_UNUSED) {               \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"           \
                "vpush {d12, d13, d14, d15}\n\t"                            \
                "sub sp, sp, #" frame "\n\t"                                \
                enter                                                       \
                "ldm r3, {r4, r5, r6, r7, r8, r9, r10}\n\t"                 \
                "vdup.16 q6, r9\n\t"                                        \
                "mov r12, #0\n\t"                                           \
                "vidup.u32 q7, r12, #1\n\t"                                 \
                "vshl.i32 q0, q7, #16\n\t"                                  \
                "vorr q7, q7, q0\n\t"                                       \
                "lsl r11, r7, #16\n\t"                                      \
                "vadd.i32 q7, q7, r11\n\t"                                  \
                "lsl r7, r7, #" size "\n\t"                                 \
                "strd r10, r7, [sp, #36]\n\t"                               \
                "add r10, r0, r4\n\t"                                       \
                "add r11, r0, r5, lsl #4\n\t"                               \
                "strd r0, r10, [sp]\n\t"                                    \
                "sub r10, r5, #2\n\t"                                       \
                "and r10, r10, #3\n\t"                                      \
                "rsb r10, r10, #3\n\t"                                      \
                "cmp r5, #1\n\t"                                            \
                "it eq\n\t"                                                 \
                "moveq r10, #4\n\t"                                         \
                "mov r12, #" bytes "\n\t"                                   \
                "mul r10, r10, r12\n\t"                                     \
                "adr.w r12, 3f\n\t"                                         \
                "add r10, r10, r12\n\t"                                     \
                "orr r10, r10, #1\n\t"                                      \
                "strd r11, r10, [sp, #8]\n\t"                               \
                "strd r1, r8, [sp, #16]\n\t"                                \
                "lsl r4, r4, #1\n\t"                                        \
                "lsl r7, r7, #1\n\t"                                        \
                "mov r12, #" outs "\n\t"                                    \
                "mul r6, r6, r12\n\t"                                       \
                "sub r12, r7, r6\n\t"                                       \
                "strd r4, r7, [sp, #24]\n\t"                                \
                "str r12, [sp, #32]\n\t"                                    \
                "mov r9, r2\n\t"                                            \
                "add r11, r9, r6\n"                                         \
                "1:\n\t"                                                    \
                "ldr r5, [sp, #16]\n"                                       \
                "2:\n\t"                                                    \
                "ldm sp, {r1, r3, r7}\n\t"                                  \
                kind(step, "")                                              \
                "ldr pc, [sp, #12]\n\t"                                     \
                ".p2align 2\n"                                              \
                "3:\n\t"                                                    \
                kind(step, "a") kind(step, "a") kind(step, "a") kind(step, "a") \
                "cmp r1, r7\n\t"                                            \
                "bne.w 3b\n\t"                                              \
                finish                                                      \
                "add r9, r9, #" outs "\n\t"                                 \
                "cmp r9, r11\n\t"                                           \
                "bne.w 2b\n\t"                                              \
                "ldm sp, {r1, r3, r7}\n\t"                                  \
                "ldrd r0, r2, [sp, #24]\n\t"                                \
                "add r1, r1, r0\n\t"                                        \
                "add r3, r3, r0\n\t"                                        \
                "add r7, r7, r0\n\t"                                        \
                "stm sp, {r1, r3, r7}\n\t"                                  \
                "ldr r0, [sp, #32]\n\t"                                     \
                "add r11, r11, r2\n\t"                                      \
                "add r9, r9, r0\n\t"                                        \
                "ldr r0, [sp, #20]\n\t"                                     \
                "subs r0, r0, #1\n\t"                                       \
                "str r0, [sp, #20]\n\t"                                     \
                "bne.w 1b\n\t"                                              \
                "add sp, sp, #" frame "\n\t"                                \
                "vpop {d12, d13, d14, d15}\n\t"                             \
                "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");          \
    }
/* `op` with the next four words of the stream on both halves; `again` reads the second half's own. */
#define EDGEC_MVE_NEXT "vldrw.u32 q2, [r5], #16\n\t"
#define EDGEC_MVE_SUMS(again)                    \
    "vmov q0[2], q0[0], r0, r4\n\t"              \
    "vmov q0[3], q0[1], r2, r6\n\t"              \
    EDGEC_MVE_NEXT                               \
    "vmov q1[2], q1[0], r8, r12\n\t"             \
    "vmov q1[3], q1[1], r10, lr\n\t"             \
    "vadd.i32 q0, q0, q2\n\t"                    \
    again                                        \
    "vadd.i32 q1, q1, q2\n\t"
#define EDGEC_MVE_SCALE(again, high, first, second)  \
    EDGEC_MVE_NEXT                                   \
    high " q0, q0, q2\n\t"                           \
    again                                            \
    high " q1, q1, q2\n\t"                           \
    EDGEC_MVE_NEXT                                   \
    first                                            \
    "vrshl.s32 q0, q0, q2\n\t"                       \
    again                                            \
    second                                           \
    "vrshl.s32 q1, q1, q2\n\t"                       \
    "vqmovnb.s32 q0, q0\n\t"                         \
    "vqmovnt.s32 q0, q1\n\t"                         \
    "vqadd.s16 q0, q0, q6\n\t"
/* Half away from zero: one less below zero, where there is a shift. */
#define EDGEC_MVE_AWAY(q)                        \
    "vand q3, " q ", q2\n\t"                     \
    "vshr.s32 q3, q3, #31\n\t"                   \
    "vqadd.s32 " q ", " q ", q3\n\t"
#define EDGEC_MVE_LIFT                           \
    "ldr r0, [sp, #36]\n\t"                      \
    "vshl.s32 q0, r0\n\t"                        \
    "vshl.s32 q1, r0\n\t"
#define EDGEC_MVE_OUT_I8 "vqmovnb.s16 q0, q0\n\tvstrb.16 q0, [r9, q7]\n\t"
#define EDGEC_MVE_OUT_I16 "vstrh.16 q0, [r9, q7, uxtw #1]\n\t"
#define EDGEC_MVE_OUT_I32 "ldr r0, [sp, #40]\n\tvstrw.32 q0, [r9]\n\tadd r0, r0, r9\n\tvstrw.32 q1, [r0]\n\t"
#define EDGEC_MVE_FINISH_I32(again, more) EDGEC_MVE_SUMS(again) more EDGEC_MVE_OUT_I32
#define EDGEC_MVE_FINISH_I8(again, more) \
    EDGEC_MVE_SUMS(again) more EDGEC_MVE_SCALE(again, "vqdmulh.s32", "", "") EDGEC_MVE_OUT_I8
#define EDGEC_MVE_FINISH_I16(again, more) \
    EDGEC_MVE_SUMS(again) more EDGEC_MVE_LIFT EDGEC_MVE_SCALE(again, "vqdmulh.s32", "", "") EDGEC_MVE_OUT_I16
#define EDGEC_MVE_FINISH_UP(again, more) \
    EDGEC_MVE_SUMS(again) more EDGEC_MVE_SCALE(again, "vqrdmulh.s32", "", "") EDGEC_MVE_OUT_I8
#define EDGEC_MVE_FINISH_TFLITE(again, more) EDGEC_MVE_SUMS(again) more \
    EDGEC_MVE_SCALE(again, "vqrdmulh.s32", EDGEC_MVE_AWAY("q0"), EDGEC_MVE_AWAY("q1")) EDGEC_MVE_OUT_I8
/* The pointers to the deltas of both rows, and the next four of each. */
#define EDGEC_MVE_ZONED "ldrd r10, r11, [r3, #28]\n\tstrd r10, r11, [sp, #44]\n\t"
#define EDGEC_MVE_DELTAS(load, bytes)            \
    "ldrd r0, r2, [sp, #44]\n\t"                 \
    load " q2, [r0], #" bytes "\n\t"             \
    load " q3, [r2], #" bytes "\n\t"             \
    "strd r0, r2, [sp, #44]\n\t"                 \
    "vadd.i32 q0, q0, q2\n\t"                    \
    "vadd.i32 q1, q1, q3\n\t"
#define EDGEC_MVE_PLAIN(name, type, kind, step, bytes, outs, size, finish) \
    EDGEC_MVE_ROWS(name, type, edgec_mve_rows, "44", "", kind, step, bytes, outs, size, finish)
#define EDGEC_MVE_BOTH(suffix, type, size, four, eight, finish)                                               \
    EDGEC_MVE_PLAIN(edgec_mve_rows2_##suffix, type, EDGEC_MVE_I8, EDGEC_MVE_STEP_2X4, "56", four, size, finish("", "")) \
    EDGEC_MVE_PLAIN(edgec_mve_row_##suffix, type, EDGEC_MVE_I8, EDGEC_MVE_STEP_1X8, "68", eight, size,        \
                    finish(EDGEC_MVE_NEXT, ""))                                                               \
    EDGEC_MVE_PLAIN(edgec_mve_wide2_##suffix, type, EDGEC_MVE_I16, EDGEC_MVE_STEP_2X4, "56", four, size, finish("", "")) \
    EDGEC_MVE_PLAIN(edgec_mve_wide_##suffix, type, EDGEC_MVE_I16, EDGEC_MVE_STEP_1X8, "68", eight, size,      \
                    finish(EDGEC_MVE_NEXT, ""))                                                               \
    EDGEC_MVE_ROWS(edgec_mve_two_zoned16_##suffix, type, edgec_mve_zoned16, "52", EDGEC_MVE_ZONED, EDGEC_MVE_I8, \
                   EDGEC_MVE_STEP_2X4, "56", four, size, finish("", EDGEC_MVE_DELTAS("vldrh.s32", "8")))      \
    EDGEC_MVE_ROWS(edgec_mve_two_zoned32_##suffix, type, edgec_mve_zoned32, "52", EDGEC_MVE_ZONED, EDGEC_MVE_I8, \
                   EDGEC_MVE_STEP_2X4, "56", four, size, finish("", EDGEC_MVE_DELTAS("vldrw.u32", "16")))
EDGEC_MVE_BOTH(i32, int32_t, "2", "16", "32", EDGEC_MVE_FINISH_I32)
EDGEC_MVE_BOTH(i16, int16_t, "1", "8", "16", EDGEC_MVE_FINISH_I16)
EDGEC_MVE_BOTH(i8, int8_t, "0", "4", "8", EDGEC_MVE_FINISH_I8)
EDGEC_MVE_BOTH(i8_up, int8_t, "0", "4", "8", EDGEC_MVE_FINISH_UP)
EDGEC_MVE_BOTH(i8_tflite, int8_t, "0", "4", "8", EDGEC_MVE_FINISH_TFLITE)
/* clang-format on */
#undef EDGEC_MVE_BOTH
#undef EDGEC_MVE_PLAIN
#undef EDGEC_MVE_DELTAS
#undef EDGEC_MVE_ZONED
#undef EDGEC_MVE_FINISH_TFLITE
#undef EDGEC_MVE_FINISH_UP
#undef EDGEC_MVE_FINISH_I16
#undef EDGEC_MVE_FINISH_I8
#undef EDGEC_MVE_FINISH_I32
#undef EDGEC_MVE_OUT_I32
#undef EDGEC_MVE_OUT_I16
#undef EDGEC_MVE_OUT_I8
#undef EDGEC_MVE_LIFT
#undef EDGEC_MVE_AWAY
#undef EDGEC_MVE_SCALE
#undef EDGEC_MVE_SUMS
#undef EDGEC_MVE_NEXT
#undef EDGEC_MVE_ROWS
#undef EDGEC_MVE_I16
#undef EDGEC_MVE_I8
#undef EDGEC_MVE_STEP_1X8
#undef EDGEC_MVE_STEP_2X4

/* n bytes copied, or set. */
EDGEC_ASM_FUNCTION void edgec_mve_copy(const void *from EDGEC_UNUSED, void *to EDGEC_UNUSED,
                                       int32_t n EDGEC_UNUSED) {
    __asm__("push {r7, lr}\n\t"
            "wlstp.8 lr, r2, 2f\n"
            "1:\n\t"
            "vldrb.u8 q0, [r0], #16\n\t"
            "vstrb.8 q0, [r1], #16\n\t"
            "letp lr, 1b\n"
            "2:\n\t"
            "pop {r7, pc}\n\t");
}

EDGEC_ASM_FUNCTION void edgec_mve_fill(void *to EDGEC_UNUSED, int32_t value EDGEC_UNUSED,
                                       int32_t n EDGEC_UNUSED) {
    __asm__("push {r7, lr}\n\t"
            "vdup.8 q0, r1\n\t"
            "wlstp.8 lr, r2, 2f\n"
            "1:\n\t"
            "vstrb.8 q0, [r0], #16\n\t"
            "letp lr, 1b\n"
            "2:\n\t"
            "pop {r7, pc}\n\t");
}
#else
EDGEC_INLINE int32_t edgec_mve_high(int32_t x, int32_t multiplier, int32_t round) {
    int64_t product = 2 * ((int64_t)x * multiplier);
    return (int32_t)(uint32_t)(((uint64_t)product + ((uint64_t)round << 31)) >> 32);
}

/* Half up; `by` is at most 0. */
EDGEC_INLINE int32_t edgec_mve_shift(int32_t x, int32_t by) {
    return by == 0 ? x : (int32_t)((x + ((int64_t)1 << (-by - 1))) >> -by);
}

EDGEC_INLINE int32_t edgec_mve_i32(int32_t sum, const int32_t *m, int32_t n,
                                   const edgec_mve_rows *g) {
    (void)m, (void)n, (void)g;
    return sum;
}

EDGEC_INLINE int32_t edgec_mve_i16(int32_t sum, const int32_t *m, int32_t n,
                                   const edgec_mve_rows *g) {
    int32_t v = edgec_mve_shift(edgec_mve_high(sum * (1 << g->lift), m[0], 0), m[n]);
    return edgec_c_clamp(edgec_c_clamp(v, -32768, 32767) + g->zero, -32768, 32767);
}

EDGEC_INLINE int32_t edgec_mve_i8(int32_t sum, const int32_t *m, int32_t n,
                                  const edgec_mve_rows *g) {
    int32_t v = edgec_mve_shift(edgec_mve_high(sum, m[0], 0), m[n]);
    return edgec_c_clamp(edgec_c_clamp(v, -32768, 32767) + g->zero, -128, 127);
}

EDGEC_INLINE int32_t edgec_mve_i8_up(int32_t sum, const int32_t *m, int32_t n,
                                     const edgec_mve_rows *g) {
    int32_t v = edgec_mve_shift(edgec_mve_high(sum, m[0], 1), m[n]);
    return edgec_c_clamp(edgec_c_clamp(v, -32768, 32767) + g->zero, -128, 127);
}

EDGEC_INLINE int32_t edgec_mve_i8_tflite(int32_t sum, const int32_t *m, int32_t n,
                                         const edgec_mve_rows *g) {
    int32_t high = edgec_mve_high(sum, m[0], 1);
    int32_t v = edgec_mve_shift(high - (high < 0 && m[n] < 0), m[n]);
    return edgec_c_clamp(edgec_c_clamp(v, -32768, 32767) + g->zero, -128, 127);
}

/* `z` points to the rows `g` and, where there are any, to what else the biases have, `more`. */
#define EDGEC_MVE_ROWS(name, type, z_type, g_of_z, xtype, lanes, outs, tables, level, more)        \
    EDGEC_INLINE void name(const void *x, const int32_t *w, type *y, const z_type *z) {            \
        const edgec_mve_rows *g = g_of_z;                                                          \
        const int32_t rows = 8 / (outs), words = (lanes) * (outs) / 4;                             \
        for (int32_t pair = 0; pair < g->pairs; ++pair) {                                          \
            const int32_t *block = w;                                                              \
            for (int32_t b = 0; b < g->blocks; ++b, block += (tables) * (outs)) {                  \
                int32_t sum[8] = {0};                                                              \
                for (int32_t n = 0; n < g->vectors; ++n, block += words) {                         \
                    const int8_t *v = (const int8_t *)block;                                       \
                    for (int32_t k = 0; k < 8; ++k) {                                              \
                        const xtype *from =                                                        \
                            (const xtype *)x +                                                     \
                            (pair * rows + k / (outs)) * (g->x_step / (int32_t)sizeof(xtype)) +    \
                            n * (lanes);                                                           \
                        for (int32_t j = 0; j < (lanes); ++j)                                      \
                            sum[k] = (int32_t)((uint32_t)sum[k] +                                  \
                                               (uint32_t)(from[j] * v[k % (outs) * (lanes) + j])); \
                    }                                                                              \
                }                                                                                  \
                for (int32_t k = 0; k < 8; ++k) {                                                  \
                    const int32_t *of = block + k % (outs);                                        \
                    y[(outs) * b + k / 4 * g->y_step + k % 4] =                                    \
                        (type)level(sum[k] + of[0] + more, of + (outs), outs, g);                  \
                }                                                                                  \
            }                                                                                      \
            y += rows * g->y_step;                                                                 \
        }                                                                                          \
    }
#define EDGEC_MVE_PLAIN(name, type, xtype, lanes, outs, tables, level)                             \
    EDGEC_MVE_ROWS(name, type, edgec_mve_rows, z, xtype, lanes, outs, tables, level, 0)
#define EDGEC_MVE_BOTH(suffix, type, tables)                                                       \
    EDGEC_MVE_PLAIN(edgec_mve_rows2_##suffix, type, int8_t, 16, 4, tables, edgec_mve_##suffix)     \
    EDGEC_MVE_PLAIN(edgec_mve_row_##suffix, type, int8_t, 16, 8, tables, edgec_mve_##suffix)       \
    EDGEC_MVE_PLAIN(edgec_mve_wide2_##suffix, type, int16_t, 8, 4, tables, edgec_mve_##suffix)     \
    EDGEC_MVE_PLAIN(edgec_mve_wide_##suffix, type, int16_t, 8, 8, tables, edgec_mve_##suffix)      \
    EDGEC_MVE_ROWS(edgec_mve_two_zoned16_##suffix, type, edgec_mve_zoned16, &z->rows, int8_t, 16,  \
                   4, tables, edgec_mve_##suffix, z->deltas[k / 4][4 * b + k % 4])                 \
    EDGEC_MVE_ROWS(edgec_mve_two_zoned32_##suffix, type, edgec_mve_zoned32, &z->rows, int8_t, 16,  \
                   4, tables, edgec_mve_##suffix, z->deltas[k / 4][4 * b + k % 4])
EDGEC_MVE_BOTH(i32, int32_t, 1)
EDGEC_MVE_BOTH(i16, int16_t, 3)
EDGEC_MVE_BOTH(i8, int8_t, 3)
EDGEC_MVE_BOTH(i8_up, int8_t, 3)
EDGEC_MVE_BOTH(i8_tflite, int8_t, 3)
#undef EDGEC_MVE_BOTH
#undef EDGEC_MVE_PLAIN
#undef EDGEC_MVE_ROWS

EDGEC_INLINE void edgec_mve_copy(const void *from, void *to, int32_t n) {
    edgec_memcpy(to, from, (size_t)n);
}

EDGEC_INLINE void edgec_mve_fill(void *to, int32_t value, int32_t n) {
    edgec_memset(to, value, (size_t)n);
}
#endif

#ifdef __cplusplus
}
#endif

#endif
