/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_simd.h: the DSP instructions generated kernels use, each with a portable C twin.
 *
 * Packed operands travel as int32_t: lane 0 is the least significant. EDGEC_SIMD_PORTABLE forces
 * the twins, which give the same bits as the instructions for every input. The ARM versions are
 * inline assembly and not the ACLE intrinsics because the rotated forms (SXTB16 with ROR 8) have
 * none. */
/* Included always. */
#ifndef EDGEC_SIMD_H
#define EDGEC_SIMD_H

#include <stdint.h>

#include "edgec.h"

#if defined(__ARM_FEATURE_DSP) && __ARM_FEATURE_DSP && defined(__thumb2__) &&                      \
    !defined(EDGEC_SIMD_PORTABLE)
#define EDGEC_HAS_DSP 1
#else
#define EDGEC_HAS_DSP 0
#endif
#if defined(__ARM_ARCH_6M__)
#define EDGEC_HAS_ONLY_THUMB1 1
#else
#define EDGEC_HAS_ONLY_THUMB1 0
#endif
#if defined(__ARM_ARCH_7M__) && !defined(EDGEC_SIMD_PORTABLE)
#define EDGEC_HAS_PLAIN_THUMB2 1
#else
#define EDGEC_HAS_PLAIN_THUMB2 0
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEC_INLINE static inline EDGEC_UNUSED

/* A function that is assembly from its first to its last instruction; nothing may change how it is
 * called. */
#if defined(__clang__)
#define EDGEC_ASM_FUNCTION static EDGEC_UNUSED __attribute__((naked, noinline))
#else
#define EDGEC_ASM_FUNCTION static EDGEC_UNUSED __attribute__((naked, noinline, noipa))
#endif

/* ---- lanes and unaligned loads (plain C everywhere: compilers know these idioms) ---- */

EDGEC_INLINE int32_t edgec_lo16(int32_t x) {
    return (int32_t)(int16_t)(uint16_t)((uint32_t)x & 0xffffu);
}

EDGEC_INLINE int32_t edgec_hi16(int32_t x) {
    return (int32_t)(int16_t)(uint16_t)((uint32_t)x >> 16);
}

/* Low halves of two words in one: lane 0 = lo, lane 1 = hi (PKHBT). */
EDGEC_INLINE int32_t edgec_pack(int32_t lo, int32_t hi) {
    return (int32_t)(((uint32_t)lo & 0xffffu) | ((uint32_t)hi << 16));
}

/* High halves of two words in one: lane 0 = high half of lo, lane 1 = high half of hi (PKHTB). */
EDGEC_INLINE int32_t edgec_pack_hi(int32_t lo, int32_t hi) {
    return (int32_t)(((uint32_t)lo >> 16) | ((uint32_t)hi & 0xffff0000u));
}

/* memcpy of 4 bytes compiles to one LDR where the core allows unaligned words, else to byte loads.
 */
EDGEC_INLINE int32_t edgec_read_s8x4(const int8_t *p) {
    int32_t word;
    edgec_memcpy(&word, p, sizeof word);
    return word;
}

EDGEC_INLINE int32_t edgec_read_s16(const uint8_t *p) {
    int16_t half;
    edgec_memcpy(&half, p, sizeof half);
    return half;
}

EDGEC_INLINE int32_t edgec_read_s16x2(const int16_t *p) {
    int32_t word;
    edgec_memcpy(&word, p, sizeof word);
    return word;
}

EDGEC_INLINE void edgec_write_s8x4(int8_t *p, int32_t word) {
    edgec_memcpy(p, &word, sizeof word);
}

EDGEC_INLINE void edgec_write_s16x2(int16_t *p, int32_t word) {
    edgec_memcpy(p, &word, sizeof word);
}

/* ---- portable twins ---- */

EDGEC_INLINE int32_t edgec_c_sxtb(uint32_t byte) {
    return (int32_t)(int8_t)(uint8_t)(byte & 0xffu);
}

EDGEC_INLINE int32_t edgec_c_sxtb16(int32_t x) {
    return edgec_pack(edgec_c_sxtb((uint32_t)x), edgec_c_sxtb((uint32_t)x >> 16));
}

EDGEC_INLINE int32_t edgec_c_sxtb16_ror8(int32_t x) {
    return edgec_pack(edgec_c_sxtb((uint32_t)x >> 8), edgec_c_sxtb((uint32_t)x >> 24));
}

EDGEC_INLINE int32_t edgec_c_sadd16(int32_t x, int32_t y) {
    return edgec_pack((int32_t)((uint32_t)x + (uint32_t)y),
                      (int32_t)(((uint32_t)x >> 16) + ((uint32_t)y >> 16)));
}

EDGEC_INLINE int32_t edgec_c_ssub16(int32_t x, int32_t y) {
    return edgec_pack((int32_t)((uint32_t)x - (uint32_t)y),
                      (int32_t)(((uint32_t)x >> 16) - ((uint32_t)y >> 16)));
}

EDGEC_INLINE int32_t edgec_c_clamp(int32_t x, int32_t low, int32_t high) {
    return x < low ? low : (x > high ? high : x);
}

EDGEC_INLINE int32_t edgec_c_qadd16(int32_t x, int32_t y) {
    int32_t lo = edgec_c_clamp(edgec_lo16(x) + edgec_lo16(y), -32768, 32767);
    int32_t hi = edgec_c_clamp(edgec_hi16(x) + edgec_hi16(y), -32768, 32767);
    return edgec_pack(lo, hi);
}

/* Products fit 31 bits each; their sum and the accumulation wrap like the instruction's. */
EDGEC_INLINE int32_t edgec_c_smlad(int32_t x, int32_t y, int32_t acc) {
    uint32_t lo = (uint32_t)(edgec_lo16(x) * edgec_lo16(y));
    uint32_t hi = (uint32_t)(edgec_hi16(x) * edgec_hi16(y));
    return (int32_t)((uint32_t)acc + lo + hi);
}

/* High word of a 64-bit sum; written on unsigned words because a signed >> is not portable. */
EDGEC_INLINE int32_t edgec_c_smmla(int32_t x, int32_t y, int32_t acc, uint32_t round) {
    uint64_t product = (uint64_t)((int64_t)x * (int64_t)y);
    uint64_t sum = ((uint64_t)(uint32_t)acc << 32) + product + round;
    return (int32_t)(uint32_t)(sum >> 32);
}

/* Compilers turn the builtin into the core's instruction; ARMv6-M has none and would call a
 * library. */
EDGEC_INLINE int32_t edgec_c_clz32(int32_t x) {
    uint32_t v = (uint32_t)x;
    if (v == 0u)
        return 32;
#if (defined(__GNUC__) || defined(__clang__)) && !(defined(__ARM_ARCH) && __ARM_ARCH < 7)
    return __builtin_clz(v);
#else
    int32_t n = 0;
    for (uint32_t step = 16u; step != 0u; step >>= 1) {
        if ((v >> (32u - step)) == 0u) {
            n += (int32_t)step;
            v <<= step;
        }
    }
    return n;
#endif
}

/* The lowest set bit alone has 31 - ctz leading zeros; 0 has none set and gives 32. */
EDGEC_INLINE int32_t edgec_c_ctz32(int32_t x) {
    uint32_t v = (uint32_t)x;
    return v == 0u ? 32 : 31 - edgec_c_clz32((int32_t)(v & (~v + 1u)));
}

/* ---- the names generated code calls ---- */

#if EDGEC_HAS_DSP
#define EDGEC_ASM_1(name, text)                                                                    \
    EDGEC_INLINE int32_t name(int32_t x) {                                                         \
        int32_t d;                                                                                 \
        __asm__(text : "=r"(d) : "r"(x));                                                          \
        return d;                                                                                  \
    }
#define EDGEC_ASM_2(name, text)                                                                    \
    EDGEC_INLINE int32_t name(int32_t x, int32_t y) {                                              \
        int32_t d;                                                                                 \
        __asm__(text : "=r"(d) : "r"(x), "r"(y));                                                  \
        return d;                                                                                  \
    }
#define EDGEC_ASM_3(name, text)                                                                    \
    EDGEC_INLINE int32_t name(int32_t x, int32_t y, int32_t acc) {                                 \
        int32_t d;                                                                                 \
        __asm__(text : "=r"(d) : "r"(x), "r"(y), "r"(acc));                                        \
        return d;                                                                                  \
    }
#define EDGEC_PICK_1(name, twin, text) EDGEC_ASM_1(name, text)
#define EDGEC_PICK_2(name, twin, text) EDGEC_ASM_2(name, text)
#define EDGEC_PICK_3(name, twin, text) EDGEC_ASM_3(name, text)
#else
#define EDGEC_PICK_1(name, twin, text)                                                             \
    EDGEC_INLINE int32_t name(int32_t x) {                                                         \
        return twin;                                                                               \
    }
#define EDGEC_PICK_2(name, twin, text)                                                             \
    EDGEC_INLINE int32_t name(int32_t x, int32_t y) {                                              \
        return twin;                                                                               \
    }
#define EDGEC_PICK_3(name, twin, text)                                                             \
    EDGEC_INLINE int32_t name(int32_t x, int32_t y, int32_t acc) {                                 \
        return twin;                                                                               \
    }
#endif

/* Bytes 0 and 2 (ror8: 1 and 3) sign-extended to the two lanes. */
EDGEC_PICK_1(edgec_sxtb16, edgec_c_sxtb16(x), "sxtb16 %0, %1")
EDGEC_PICK_1(edgec_sxtb16_ror8, edgec_c_sxtb16_ror8(x), "sxtb16 %0, %1, ror #8")

/* x is the accumulator's two lanes, y the bytes: lanes wrap. Call as edgec_sxtab16(acc, bytes). */
EDGEC_PICK_2(edgec_sxtab16, edgec_c_sadd16(x, edgec_c_sxtb16(y)), "sxtab16 %0, %1, %2")
EDGEC_PICK_2(edgec_sxtab16_ror8, edgec_c_sadd16(x, edgec_c_sxtb16_ror8(y)),
             "sxtab16 %0, %1, %2, ror #8")

/* Lane-wise 16-bit add and subtract; the q form saturates. */
EDGEC_PICK_2(edgec_sadd16, edgec_c_sadd16(x, y), "sadd16 %0, %1, %2")
EDGEC_PICK_2(edgec_ssub16, edgec_c_ssub16(x, y), "ssub16 %0, %1, %2")
EDGEC_PICK_2(edgec_qadd16, edgec_c_qadd16(x, y), "qadd16 %0, %1, %2")

/* acc + x.lo * y.lo + x.hi * y.hi, wrapping (the x form crosses the lanes of y). */
EDGEC_PICK_3(edgec_smlad, edgec_c_smlad(x, y, acc), "smlad %0, %1, %2, %3")
EDGEC_PICK_3(edgec_smladx, edgec_c_smlad(x, edgec_pack(y >> 16, y), acc), "smladx %0, %1, %2, %3")
EDGEC_PICK_2(edgec_smuad, edgec_c_smlad(x, y, 0), "smuad %0, %1, %2")

/* High word of the product, of the product rounded to nearest, and of acc * 2^32 + product rounded.
 */
EDGEC_PICK_2(edgec_smmul, edgec_c_smmla(x, y, 0, 0u), "smmul %0, %1, %2")
EDGEC_PICK_2(edgec_smmulr, edgec_c_smmla(x, y, 0, 0x80000000u), "smmulr %0, %1, %2")
EDGEC_PICK_3(edgec_smmlar, edgec_c_smmla(x, y, acc, 0x80000000u), "smmlar %0, %1, %2, %3")

/* Saturation to a signed or unsigned width. */
EDGEC_PICK_1(edgec_clamp_s8, edgec_c_clamp(x, -128, 127), "ssat %0, #8, %1")
EDGEC_PICK_1(edgec_clamp_s16, edgec_c_clamp(x, -32768, 32767), "ssat %0, #16, %1")
EDGEC_PICK_1(edgec_clamp_u8, edgec_c_clamp(x, 0, 255), "usat %0, #8, %1")
EDGEC_PICK_1(edgec_clamp_u16, edgec_c_clamp(x, 0, 65535), "usat %0, #16, %1")
EDGEC_PICK_1(edgec_clamp_s8x2,
             edgec_pack(edgec_c_clamp(edgec_lo16(x), -128, 127),
                        edgec_c_clamp(edgec_hi16(x), -128, 127)),
             "ssat16 %0, #8, %1")

/* Leading and trailing zero bits; 32 for 0. */
EDGEC_PICK_1(edgec_clz32, edgec_c_clz32(x), "clz %0, %1")
EDGEC_PICK_1(edgec_ctz32, edgec_c_ctz32(x), "rbit %0, %1\n\tclz %0, %0")

#ifdef __cplusplus
}
#endif

#endif
