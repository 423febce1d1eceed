/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_math.h: the float functions generated kernels use, without a C library.
 *
 * Worst error against the exact value, over the whole float range, in units in the last place:
 *   edgec_expf 1.1   edgec_logf 1.0   edgec_tanhf 1.5   edgec_erff 1.4   edgec_sigmoidf 2.5
 *   edgec_sqrtf, edgec_floorf, edgec_roundf: exact
 * (results below 2^-126 may be off by one more subnormal step). The tests measure these bounds.
 * Only additions, multiplications and divisions in a fixed order are used: without contraction (the
 * builds pass -ffp-contract=off) every machine gives the same bits. NaN in gives NaN out. */
/* Included always. */
#ifndef EDGEC_MATH_H
#define EDGEC_MATH_H

#include <stdint.h>

#include "edgec.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEC_MATH static inline EDGEC_UNUSED

EDGEC_MATH uint32_t edgec_float_bits(float x) {
    uint32_t bits;
    edgec_memcpy(&bits, &x, sizeof bits);
    return bits;
}

EDGEC_MATH float edgec_bits_float(uint32_t bits) {
    float x;
    edgec_memcpy(&x, &bits, sizeof x);
    return x;
}

EDGEC_MATH float edgec_fabsf(float x) {
    return edgec_bits_float(edgec_float_bits(x) & 0x7fffffffu);
}

/* Magnitude of the first, sign of the second. */
EDGEC_MATH float edgec_copysignf(float x, float sign) {
    return edgec_bits_float((edgec_float_bits(x) & 0x7fffffffu) |
                            (edgec_float_bits(sign) & 0x80000000u));
}

/* 2^n for -126 <= n <= 127. */
EDGEC_MATH float edgec_pow2i(int32_t n) {
    return edgec_bits_float((uint32_t)(n + 127) << 23);
}

/* To the nearest integer, ties to even: adding 2^23 leaves no fraction bits. */
EDGEC_MATH float edgec_roundf(float x) {
    float a = edgec_fabsf(x);
    if (!(a < 8388608.0f))
        return x;
    return edgec_copysignf((a + 8388608.0f) - 8388608.0f, x);
}

EDGEC_MATH float edgec_floorf(float x) {
    float r = edgec_roundf(x);
    return edgec_copysignf(r > x ? r - 1.0f : r, x);
}

/* Correctly rounded in integers, bit by bit, for cores without a square root instruction. */
EDGEC_MATH float edgec_c_sqrtf(float x) {
    uint32_t bits = edgec_float_bits(x);
    int32_t exponent = (int32_t)(bits >> 23);
    uint32_t mantissa = bits & 0x7fffffu;
    uint32_t root = 0u;
    uint32_t rest = 0u;
    if (bits == 0u || bits == 0x80000000u || bits == 0x7f800000u)
        return x;
    if (bits > 0x7f800000u)
        return edgec_bits_float(0x7fc00000u);
    if (exponent == 0) {
        exponent = 1;
        for (; (mantissa & 0x800000u) == 0u; mantissa <<= 1)
            exponent--;
    }
    mantissa |= 0x800000u;
    exponent -= 127;
    if ((exponent & 1) != 0) {
        mantissa <<= 1;
        exponent -= 1;
    }
    mantissa <<= 1; /* 25 root bits: 24 and one to round with */
    for (uint32_t bit = 0x1000000u; bit != 0u; bit >>= 1) {
        uint32_t candidate = rest + bit;
        if (candidate <= mantissa) {
            rest = candidate + bit;
            mantissa -= candidate;
            root += bit;
        }
        mantissa <<= 1;
    }
    if (mantissa != 0u)
        root += root & 1u; /* not halfway: an odd root is above it */
    return edgec_bits_float((root >> 1) + ((uint32_t)(exponent / 2 + 126) << 23));
}

EDGEC_MATH float edgec_sqrtf(float x) {
#if defined(EDGEC_SIMD_PORTABLE)
    return edgec_c_sqrtf(x);
#elif !defined(__aarch64__) && defined(__ARM_ARCH_PROFILE) && defined(__ARM_FP) && (__ARM_FP & 4)
    float root;
    __asm__("vsqrt.f32 %0, %1" : "=t"(root) : "t"(x));
    return root;
#elif defined(__aarch64__)
    float root;
    __asm__("fsqrt %s0, %s1" : "=w"(root) : "w"(x));
    return root;
#elif defined(__SSE2__) && defined(__GNUC__)
    float root;
    __asm__("sqrtss %1, %0" : "=x"(root) : "x"(x));
    return root;
#else
    return edgec_c_sqrtf(x);
#endif
}

/* x = n ln 2 + r, |r| <= ln 2 / 2; e^r by a polynomial, then two exact-power multiplications, so
 * that results near the ends of the range neither overflow early nor lose their last bits. */
EDGEC_MATH float edgec_expf(float x) {
    float n, r, p;
    int32_t k, half;
    if (!(x < 88.72284f))
        return x >= 88.72284f ? edgec_bits_float(0x7f800000u) : x;
    if (x < -103.98f)
        return 0.0f;
    n = edgec_roundf(x * 1.44269504f);
    r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    p = 8.368887939e-03f + r * 1.395048341e-03f;
    p = 4.166620597e-02f + r * p;
    p = 1.666651815e-01f + r * p;
    p = 5.0e-01f + r * p;
    k = (int32_t)n;
    half = k / 2;
    return (1.0f + (r + r * r * p)) * edgec_pow2i(half) * edgec_pow2i(k - half);
}

/* x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = 2 atanh(f / (2 + f)). */
EDGEC_MATH float edgec_logf(float x) {
    uint32_t bits = edgec_float_bits(x);
    int32_t k = 0;
    float f, s, z, p, n;
    if (bits == 0u || bits == 0x80000000u)
        return edgec_bits_float(0xff800000u);
    if (bits >= 0x7f800000u)
        return bits == 0x7f800000u ? x : edgec_bits_float(0x7fc00000u);
    if (bits < 0x00800000u) {
        bits = edgec_float_bits(x * 8388608.0f);
        k = -23;
    }
    bits += 0x3f800000u - 0x3f3504f3u;
    k += (int32_t)(bits >> 23) - 127;
    f = edgec_bits_float((bits & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
    s = f / (2.0f + f);
    z = s * s;
    p = 2.853715718e-01f + z * 2.358517945e-01f;
    p = 4.000033736e-01f + z * p;
    p = 6.666666269e-01f + z * p;
    n = (float)k;
    return (f - (s * (f - z * p) - n * -2.12194440e-4f)) + n * 0.693359375f;
}

EDGEC_MATH float edgec_tanhf(float x) {
    float a = edgec_fabsf(x);
    float z, p;
    if (a < 0.625f) {
        z = x * x;
        p = 2.064863592e-02f + z * -5.714762025e-03f;
        p = -5.374293029e-02f + z * p;
        p = 1.333148479e-01f + z * p;
        p = -3.333328366e-01f + z * p;
        return x + x * (z * p);
    }
    if (!(a < 9.02f))
        return a >= 9.02f ? edgec_copysignf(1.0f, x) : x;
    return edgec_copysignf(1.0f - 2.0f / (edgec_expf(a + a) + 1.0f), x);
}

/* Near zero a polynomial; beyond 1 the complement, e^(-x^2) t P(t) with t = 1 / (1 + x / 2). */
EDGEC_MATH float edgec_erff(float x) {
    float a = edgec_fabsf(x);
    float z, p, t;
    if (a < 1.0f) {
        z = x * x;
        p = -8.020839887e-04f + z * 7.889114931e-05f;
        p = 5.189535208e-03f + z * p;
        p = -2.685444430e-02f + z * p;
        p = 1.128360033e-01f + z * p;
        p = -3.761262596e-01f + z * p;
        p = 1.283791661e-01f + z * p;
        return x + x * p;
    }
    if (!(a < 4.0f))
        return a >= 4.0f ? edgec_copysignf(1.0f, x) : x;
    t = 1.0f / (1.0f + 0.5f * a);
    p = -3.869839311e-01f + t * 9.529399872e-02f;
    p = 4.380609989e-01f + t * p;
    p = -1.163308043e-03f + t * p;
    p = 2.979894280e-01f + t * p;
    p = 2.740782201e-01f + t * p;
    p = 2.826257646e-01f + t * p;
    return edgec_copysignf(1.0f - edgec_expf(-(a * a)) * (t * p), x);
}

/* The exponential of a non-positive argument only: it cannot overflow. */
EDGEC_MATH float edgec_sigmoidf(float x) {
    float e = edgec_expf(-edgec_fabsf(x));
    return x < 0.0f ? e / (1.0f + e) : 1.0f / (1.0f + e);
}

#ifdef __cplusplus
}
#endif

#endif
