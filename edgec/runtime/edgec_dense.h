/* edgec_dense.h: layers whose input is int8, requantisation and neurons, on cores with DSP instructions;
 * the portable twins give the same bytes. */
#ifndef EDGEC_DENSE_H
#define EDGEC_DENSE_H

#include "edgec_event.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- int8 matrix times vector ----
 * Weights are packed for blocks of four outputs a, b, c, d: for inputs 4q..4q+3 the words ab(0, 2), cd(0, 2),
 * ab(1, 3), cd(1, 3), where ab(i, j) has the lanes 256 * a[i] + b[i] and 256 * a[j] + b[j]. One SMLAD on the
 * word gives 256 * a + b, one on its sign-extended low bytes gives b: a = (first - second) / 256, exact
 * while the sum of a fits 24 bits. */

/* n int8 to lanes of int16, in the order (0, 2), (1, 3) of each four, zeros up to a multiple of 8. */
EDGEC_INLINE void edgec_expand_s8(const int8_t *x, int32_t n, int32_t *to) {
    int32_t k = 0;
    for (; k + 4 <= n; k += 4, to += 2) {
        int32_t word = edgec_read_s8x4(x + k);
        to[0] = edgec_sxtb16(word);
        to[1] = edgec_sxtb16_ror8(word);
    }
    for (; k % 8 != 0; k += 4, to += 2) {
        to[0] = edgec_pack(k < n ? x[k] : 0, k + 2 < n ? x[k + 2] : 0);
        to[1] = edgec_pack(k + 1 < n ? x[k + 1] : 0, 0);
    }
}

#if EDGEC_HAS_DSP
/* Four inputs of four outputs: 16 products in 14 instructions. Sums: r4 256a+b, r5 b, r6 256c+d, r7 d. */
#define EDGEC_DENSE_QUAD                                                                           \
    "ldm r0!, {r8, r9, r10, r11}\n\t"                                                              \
    "ldrd r12, lr, [r1], #8\n\t"                                                                   \
    "smlad r4, r8, r12, r4\n\t"                                                                    \
    "sxtb16 r8, r8\n\t"                                                                            \
    "smlad r6, r9, r12, r6\n\t"                                                                    \
    "sxtb16 r9, r9\n\t"                                                                            \
    "smlad r5, r8, r12, r5\n\t"                                                                    \
    "smlad r4, r10, lr, r4\n\t"                                                                    \
    "sxtb16 r10, r10\n\t"                                                                          \
    "smlad r7, r9, r12, r7\n\t"                                                                    \
    "smlad r6, r11, lr, r6\n\t"                                                                    \
    "sxtb16 r11, r11\n\t"                                                                          \
    "smlad r5, r10, lr, r5\n\t"                                                                    \
    "smlad r7, r11, lr, r7\n\t"

/* out[0..3] = bias[0..3] + weights times `inputs` (a multiple of 8, not 0) expanded inputs. */
EDGEC_ASM_FUNCTION void edgec_dense_rows4(const int32_t *w EDGEC_UNUSED,
                                          const int32_t *x EDGEC_UNUSED,
                                          int32_t inputs EDGEC_UNUSED,
                                          const int32_t *bias EDGEC_UNUSED,
                                          int32_t *out EDGEC_UNUSED) {
    __asm__("push {r3, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
            "add r2, r1, r2, lsl #1\n\t"
            "mov r4, #0\n\t"
            "mov r5, #0\n\t"
            "mov r6, #0\n\t"
            "mov r7, #0\n"
            "1:\n\t" EDGEC_DENSE_QUAD EDGEC_DENSE_QUAD "cmp r1, r2\n\t"
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
#undef EDGEC_DENSE_QUAD
#else
EDGEC_INLINE void edgec_dense_rows4(const int32_t *w, const int32_t *x, int32_t inputs,
                                    const int32_t *bias, int32_t *out) {
    int32_t sum[4] = {0};
    for (int32_t k = 0; k < inputs; k += 2, ++x) {
        for (int32_t j = 0; j < 4; j += 2, ++w) {
            int32_t low = edgec_sxtb16(*w);
            int32_t high = edgec_sxtb16_ror8(edgec_ssub16(*w, low));
            sum[j] += edgec_lo16(high) * edgec_lo16(*x) + edgec_hi16(high) * edgec_hi16(*x);
            sum[j + 1] += edgec_lo16(low) * edgec_lo16(*x) + edgec_hi16(low) * edgec_hi16(*x);
        }
    }
    for (int32_t j = 0; j < 4; ++j)
        out[j] = bias[j] + sum[j];
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

#ifdef __cplusplus
}
#endif

#endif
