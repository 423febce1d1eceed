/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_mve_product.h: products of two computed tensors on cores with Helium (MVE). */
/* Included for edgec_mve_product_. */
#ifndef EDGEC_MVE_PRODUCT_H
#define EDGEC_MVE_PRODUCT_H

#include "edgec_mve.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The right factor is laid as the stream of edgec_mve_rows.h (blocks of four columns, no
 * requantisation) and multiplied as constant weights are. sum (a - za) (b - zb) = sum a b - za sum
 * (b - zb) - zb sum a: the second term is the column's bias, the third is subtracted from the row's
 * results.
 *
 * rows of b, each of `length` bytes; `places` says where a row's elements go, row r * inner + k
 * begins at r * major + k * minor bytes. block: words. */
typedef struct {
    edgec_mve_layer layer;
    int32_t rows, terms, za, zb, b_rows, length, inner, major, minor, block;
} edgec_mve_product;

#if EDGEC_HAS_MVE
/* n bytes to their places. */
EDGEC_ASM_FUNCTION void edgec_mve_product_lay(const int8_t *x EDGEC_UNUSED, int32_t n EDGEC_UNUSED,
                                              const int16_t *places EDGEC_UNUSED,
                                              int8_t *to EDGEC_UNUSED) {
    __asm__("push {r7, lr}\n\t"
            "wlstp.16 lr, r1, 2f\n"
            "1:\n\t"
            "vldrh.u16 q1, [r2], #16\n\t"
            "vldrb.u16 q0, [r0], #8\n\t"
            "vstrb.16 q0, [r3, q1]\n\t"
            "letp lr, 1b\n"
            "2:\n\t"
            "pop {r7, pc}\n\t");
}

#define EDGEC_MVE_PRODUCT_SUM(name, type, lanes, load, sum)                                        \
    EDGEC_ASM_FUNCTION int32_t name(const type *x EDGEC_UNUSED, int32_t n EDGEC_UNUSED) {          \
        __asm__("push {r7, lr}\n\t"                                                                \
                "mov r2, #0\n\t"                                                                   \
                "wlstp." lanes " lr, r1, 2f\n"                                                     \
                "1:\n\t" load " q0, [r0], #16\n\t" sum " r2, q0\n\t"                               \
                "letp lr, 1b\n"                                                                    \
                "2:\n\t"                                                                           \
                "mov r0, r2\n\t"                                                                   \
                "pop {r7, pc}\n\t");                                                               \
    }
EDGEC_MVE_PRODUCT_SUM(edgec_mve_product_sum_i8, int8_t, "8", "vldrb.u8", "vaddva.s8")
EDGEC_MVE_PRODUCT_SUM(edgec_mve_product_sum_i16, int16_t, "16", "vldrh.u16", "vaddva.s16")
#undef EDGEC_MVE_PRODUCT_SUM

/* y += value, n times. */
EDGEC_ASM_FUNCTION void edgec_mve_product_add(int32_t *y EDGEC_UNUSED, int32_t n EDGEC_UNUSED,
                                              int32_t value EDGEC_UNUSED) {
    __asm__("push {r7, lr}\n\t"
            "wlstp.32 lr, r1, 2f\n"
            "1:\n\t"
            "vldrw.u32 q0, [r0]\n\t"
            "vadd.i32 q0, q0, r2\n\t"
            "vstrw.32 q0, [r0], #16\n\t"
            "letp lr, 1b\n"
            "2:\n\t"
            "pop {r7, pc}\n\t");
}
#else
EDGEC_INLINE void edgec_mve_product_lay(const int8_t *x, int32_t n, const int16_t *places,
                                        int8_t *to) {
    for (int32_t k = 0; k < n; ++k)
        to[(uint16_t)places[k]] = x[k];
}

EDGEC_INLINE int32_t edgec_mve_product_sum_i8(const int8_t *x, int32_t n) {
    int32_t sum = 0;
    for (int32_t k = 0; k < n; ++k)
        sum += x[k];
    return sum;
}

EDGEC_INLINE int32_t edgec_mve_product_sum_i16(const int16_t *x, int32_t n) {
    int32_t sum = 0;
    for (int32_t k = 0; k < n; ++k)
        sum += x[k];
    return sum;
}

EDGEC_INLINE void edgec_mve_product_add(int32_t *y, int32_t n, int32_t value) {
    for (int32_t k = 0; k < n; ++k)
        y[k] = (int32_t)((uint32_t)y[k] + (uint32_t)value);
}
#endif

/* b's rows are columns of the product where za is not 0. scratch: the stream. */
#define EDGEC_MVE_PRODUCT(kind, type, some)                                                        \
    EDGEC_INLINE void edgec_mve_product_##kind(const type *a, const int8_t *b, int32_t *y,         \
                                               const int32_t *table, const int16_t *places,        \
                                               int32_t *scratch) {                                 \
        edgec_mve_product g;                                                                       \
        edgec_memcpy(&g, table, sizeof g);                                                         \
        const int32_t columns = g.layer.outputs;                                                   \
        for (int32_t r = 0, k = 0, start = 0; r < g.b_rows; ++r) {                                 \
            edgec_mve_product_lay(b + r * g.length, g.length, places,                              \
                                  (int8_t *)scratch + start + k * g.minor);                        \
            if (++k == g.inner) {                                                                  \
                k = 0;                                                                             \
                start += g.major;                                                                  \
            }                                                                                      \
        }                                                                                          \
        for (int32_t c = 0; c < columns; ++c) {                                                    \
            int32_t *bias = scratch + (c / 4 + 1) * g.block - 4 + c % 4;                           \
            *bias = g.za == 0 ? 0                                                                  \
                              : g.za * (g.terms * g.zb -                                           \
                                        edgec_mve_product_sum_i8(b + c * g.length, g.length));     \
        }                                                                                          \
        some(a, g.rows, scratch, y, &g.layer);                                                     \
        for (int32_t r = 0; r < g.rows && g.zb != 0; ++r)                                          \
            edgec_mve_product_add(y + r * columns, columns,                                        \
                                  -g.zb * edgec_mve_product_sum_##kind(a + r * g.terms, g.terms)); \
    }
EDGEC_MVE_PRODUCT(i8, int8_t, edgec_mve_some_i32)
EDGEC_MVE_PRODUCT(i16, int16_t, edgec_mve_some_wide_i32)
#undef EDGEC_MVE_PRODUCT

#ifdef __cplusplus
}
#endif

#endif
