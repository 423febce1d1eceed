/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_mve_fft.h: stages of the integer FFT on cores with Helium (MVE); the portable twins give
 * the same bytes. */
/* Included for edgec_mve_fft_. */
#ifndef EDGEC_MVE_FFT_H
#define EDGEC_MVE_FFT_H

#include "edgec_mve_rows.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A radix-4 stage in place, as `QLogMel` has it: `groups` of four parts of `sub` complex numbers, a
 * multiple of four. For every four numbers of a part, `turns` has cosines, then sines, of the
 * second, fourth and third part. */
#if EDGEC_HAS_MVE
/* clang-format off */
#define EDGEC_MVE_FFT_LOAD(re, im, from)           \
    "vld20.32 {" re ", " im "}, [" from "]\n\t"    \
    "vld21.32 {" re ", " im "}, [" from "]\n\t"
#define EDGEC_MVE_FFT_STORE(re, im, to)            \
    "vst20.32 {" re ", " im "}, [" to "]\n\t"      \
    "vst21.32 {" re ", " im "}, [" to "]!\n\t"
/* Parts at r0, r5, r6, r7; bytes of a part in r3, of three in r9. */
EDGEC_ASM_FUNCTION void edgec_mve_fft_stage4(int32_t *z EDGEC_UNUSED, const int32_t *turns EDGEC_UNUSED,
                                             int32_t groups EDGEC_UNUSED, int32_t sub EDGEC_UNUSED) {
    __asm__("push {r4, r5, r6, r7, r8, r9, r10, lr}\n\t"
            "vpush {d8, d9, d10, d11, d12, d13, d14, d15}\n\t"
            "sub sp, sp, #16\n\t"
            "lsr r8, r3, #2\n\t"
            "lsl r3, r3, #3\n\t"
            "mov r4, r1\n\t"
            "add r5, r0, r3\n\t"
            "add r6, r5, r3\n\t"
            "add r7, r6, r3\n\t"
            "add r9, r3, r3, lsl #1\n"
            "1:\n\t"
            "mov r1, r4\n\t"
            "dls lr, r8\n"
            "2:\n\t"
            EDGEC_MVE_FFT_LOAD("q0", "q1", "r5")
            "vldrw.u32 q2, [r1], #16\n\t"
            "vldrw.u32 q3, [r1], #16\n\t"
            "vrmulh.s32 q4, q0, q2\n\t"
            "vrmulh.s32 q5, q1, q3\n\t"
            "vadd.i32 q4, q4, q5\n\t"
            "vrmulh.s32 q5, q1, q2\n\t"
            "vrmulh.s32 q6, q0, q3\n\t"
            "vsub.i32 q5, q5, q6\n\t"
            EDGEC_MVE_FFT_LOAD("q0", "q1", "r7")
            "vldrw.u32 q2, [r1], #16\n\t"
            "vldrw.u32 q3, [r1], #16\n\t"
            "vrmulh.s32 q6, q0, q2\n\t"
            "vrmulh.s32 q7, q1, q3\n\t"
            "vadd.i32 q6, q6, q7\n\t"
            "vrmulh.s32 q7, q1, q2\n\t"
            "vrmulh.s32 q0, q0, q3\n\t"
            "vsub.i32 q7, q7, q0\n\t"
            /* twice the sums and differences of second and fourth part: q0, q1, q2 and the stack */
            "vsub.i32 q3, q5, q7\n\t"
            "vadd.i32 q0, q4, q6\n\t"
            "vadd.i32 q3, q3, q3\n\t"
            "vadd.i32 q1, q5, q7\n\t"
            "vstrw.32 q3, [sp]\n\t"
            "vsub.i32 q2, q4, q6\n\t"
            "vadd.i32 q0, q0, q0\n\t"
            "vadd.i32 q1, q1, q1\n\t"
            "vadd.i32 q2, q2, q2\n\t"
            /* twice the third part: q3, q6 */
            EDGEC_MVE_FFT_LOAD("q4", "q5", "r6")
            "vldrw.u32 q6, [r1], #16\n\t"
            "vldrw.u32 q7, [r1], #16\n\t"
            "vrmulh.s32 q3, q4, q6\n\t"
            "vrmulh.s32 q6, q5, q6\n\t"
            "vrmulh.s32 q5, q5, q7\n\t"
            "vrmulh.s32 q4, q4, q7\n\t"
            "vadd.i32 q3, q3, q5\n\t"
            "vsub.i32 q6, q6, q4\n\t"
            "vadd.i32 q3, q3, q3\n\t"
            "vadd.i32 q6, q6, q6\n\t"
            /* the first part plus that: q7, q4, less that: q3, q6 */
            EDGEC_MVE_FFT_LOAD("q4", "q5", "r0")
            "vadd.i32 q7, q4, q3\n\t"
            "vsub.i32 q3, q4, q3\n\t"
            "vadd.i32 q4, q5, q6\n\t"
            "vsub.i32 q6, q5, q6\n\t"
            "vsub.i32 q5, q4, q1\n\t"
            "vadd.i32 q1, q4, q1\n\t"
            "vsub.i32 q4, q7, q0\n\t"
            "vadd.i32 q0, q7, q0\n\t"
            "vldrw.u32 q7, [sp]\n\t"
            EDGEC_MVE_FFT_STORE("q4", "q5", "r6")
            EDGEC_MVE_FFT_STORE("q0", "q1", "r0")
            "vadd.i32 q4, q3, q7\n\t"
            "vsub.i32 q5, q6, q2\n\t"
            "vsub.i32 q0, q3, q7\n\t"
            "vadd.i32 q1, q6, q2\n\t"
            EDGEC_MVE_FFT_STORE("q4", "q5", "r5")
            EDGEC_MVE_FFT_STORE("q0", "q1", "r7")
            "le lr, 2b\n\t"
            "add r0, r0, r9\n\t"
            "add r5, r5, r9\n\t"
            "add r6, r6, r9\n\t"
            "add r7, r7, r9\n\t"
            "subs r2, r2, #1\n\t"
            "bne.w 1b\n\t"
            "add sp, sp, #16\n\t"
            "vpop {d8, d9, d10, d11, d12, d13, d14, d15}\n\t"
            "pop {r4, r5, r6, r7, r8, r9, r10, pc}\n\t");
}
/* clang-format on */
#undef EDGEC_MVE_FFT_STORE
#undef EDGEC_MVE_FFT_LOAD
#else
/* y = x * (cosine - i sine) halved, then doubled; the sine lies four words behind. */
EDGEC_INLINE void edgec_mve_fft_turn(const int32_t *x, const int32_t *turn, int32_t *y) {
    y[0] =
        2 * edgec_c_smmla(x[1], turn[4], edgec_c_smmla(x[0], turn[0], 0, 0x80000000u), 0x80000000u);
    y[1] = 2 * (edgec_c_smmla(x[1], turn[0], 0, 0x80000000u) -
                edgec_c_smmla(x[0], turn[4], 0, 0x80000000u));
}

EDGEC_INLINE void edgec_mve_fft_stage4(int32_t *z, const int32_t *turns, int32_t groups,
                                       int32_t sub) {
    for (int32_t g = 0; g < groups; ++g, z += 8 * sub) {
        for (int32_t j = 0; j < sub; ++j) {
            const int32_t *turn = turns + j / 4 * 24 + j % 4;
            int32_t *a = z + 2 * j, *b = a + 2 * sub, *c = b + 2 * sub, *d = c + 2 * sub;
            int32_t p[2], q[2], s[2];
            edgec_mve_fft_turn(b, turn, p);
            edgec_mve_fft_turn(d, turn + 8, q);
            edgec_mve_fft_turn(c, turn + 16, s);
            const int32_t plus[2] = {a[0] + s[0], a[1] + s[1]};
            const int32_t less[2] = {a[0] - s[0], a[1] - s[1]};
            for (int32_t k = 0; k < 2; ++k) {
                a[k] = plus[k] + (p[k] + q[k]);
                c[k] = plus[k] - (p[k] + q[k]);
            }
            b[0] = less[0] + (p[1] - q[1]);
            b[1] = less[1] - (p[0] - q[0]);
            d[0] = less[0] - (p[1] - q[1]);
            d[1] = less[1] + (p[0] - q[0]);
        }
    }
}
#endif

#ifdef __cplusplus
}
#endif

#endif
