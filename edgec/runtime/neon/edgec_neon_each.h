/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_neon_each.h: layers computed element by element on 64-bit ARM cores. */
/* Included for edgec_neon_each_. */
#ifndef EDGEC_NEON_EACH_H
#define EDGEC_NEON_EACH_H

#include "edgec_neon_rows.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Requantisation, rounded once. A row of `channels` elements with a multiplier each, then a right
 * shift each as a negative number; or one of both for all. lift: left shift before the product;
 * zero, low, high: of the levels. */
typedef struct {
    int32_t channels, lift, zero, low, high;
} edgec_neon_levels;

EDGEC_INLINE int32_t edgec_neon_each_level(int32_t x, int32_t multiplier, int32_t by,
                                           const edgec_neon_levels *g) {
    const int32_t high = edgec_neon_high(x * (1 << g->lift), multiplier, 0);
    const int32_t v = edgec_c_clamp(edgec_neon_shift(high, by), -(1 << 30), 1 << 30) + g->zero;
    return edgec_c_clamp(v, g->low, g->high);
}

#if EDGEC_HAS_NEON
/* Eight elements, wide. */
EDGEC_NEON_INLINE int32x4x2_t edgec_neon_load_int8_t(const int8_t *x) {
    const int16x8_t v = vmovl_s8(vld1_s8(x));
    return (int32x4x2_t){{vmovl_s16(vget_low_s16(v)), vmovl_high_s16(v)}};
}

EDGEC_NEON_INLINE int32x4x2_t edgec_neon_load_int16_t(const int16_t *x) {
    const int16x8_t v = vld1q_s16(x);
    return (int32x4x2_t){{vmovl_s16(vget_low_s16(v)), vmovl_high_s16(v)}};
}

EDGEC_NEON_INLINE int32x4x2_t edgec_neon_load_int32_t(const int32_t *x) {
    return (int32x4x2_t){{vld1q_s32(x), vld1q_s32(x + 4)}};
}

EDGEC_NEON_INLINE void edgec_neon_keep_int8_t(int16x8_t v, int8_t *y) {
    vst1_s8(y, vqmovn_s16(v));
}

EDGEC_NEON_INLINE void edgec_neon_keep_int16_t(int16x8_t v, int16_t *y) {
    vst1q_s16(y, v);
}

EDGEC_NEON_INLINE int16x8_t edgec_neon_eight(int32x4x2_t x, const int32_t *multiplier,
                                             const int32_t *by, const edgec_neon_levels *g,
                                             const int each) {
    const int32x4_t lift = vdupq_n_s32(g->lift);
    int32x4_t v[2];
    for (int k = 0; k < 2; ++k) {
        const int32x4_t m = each ? vld1q_s32(multiplier + 4 * k) : vdupq_n_s32(*multiplier);
        const int32x4_t s = each ? vld1q_s32(by + 4 * k) : vdupq_n_s32(*by);
        v[k] = edgec_neon_level_i8(vshlq_s32(x.val[k], lift), m, s);
        v[k] = vqaddq_s32(v[k], vdupq_n_s32(g->zero));
    }
    const int16x8_t levels = vqmovn_high_s32(vqmovn_s32(v[0]), v[1]);
    return vminq_s16(vmaxq_s16(levels, vdupq_n_s16((int16_t)g->low)),
                     vdupq_n_s16((int16_t)g->high));
}
#define EDGEC_NEON_EIGHT(xtype, ytype, each)                                                       \
    for (; k + 8 <= g.channels; k += 8)                                                            \
        edgec_neon_keep_##ytype(edgec_neon_eight(edgec_neon_load_##xtype(x + k), table + each * k, \
                                                 by + each * k, &g, each),                         \
                                y + k);
#else
#define EDGEC_NEON_EIGHT(xtype, ytype, each)
#endif

#define EDGEC_NEON_EACH(name, xtype, ytype, each)                                                  \
    EDGEC_INLINE void name(const xtype *x, const int32_t *table, ytype *y,                         \
                           const int32_t *levels) {                                                \
        edgec_neon_levels g;                                                                       \
        edgec_memcpy(&g, levels, sizeof g);                                                        \
        const int32_t *by = table + (each ? g.channels : 1);                                       \
        int32_t k = 0;                                                                             \
        EDGEC_NEON_EIGHT(xtype, ytype, each)                                                       \
        for (; k < g.channels; ++k)                                                                \
            y[k] = (ytype)edgec_neon_each_level(x[k], table[each * k], by[each * k], &g);          \
    }
#define EDGEC_NEON_EACH_BOTH(kinds, xtype, ytype)                                                  \
    EDGEC_NEON_EACH(edgec_neon_each_##kinds, xtype, ytype, 1)                                      \
    EDGEC_NEON_EACH(edgec_neon_each_all_##kinds, xtype, ytype, 0)
EDGEC_NEON_EACH_BOTH(i32_to_i8, int32_t, int8_t)
EDGEC_NEON_EACH_BOTH(i32_to_i16, int32_t, int16_t)
EDGEC_NEON_EACH_BOTH(i16_to_i8, int16_t, int8_t)
EDGEC_NEON_EACH_BOTH(i16_to_i16, int16_t, int16_t)
EDGEC_NEON_EACH_BOTH(i8_to_i8, int8_t, int8_t)
EDGEC_NEON_EACH_BOTH(i8_to_i16, int8_t, int16_t)
#undef EDGEC_NEON_EACH_BOTH
#undef EDGEC_NEON_EACH
#undef EDGEC_NEON_EIGHT

#ifdef __cplusplus
}
#endif

#endif
