/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_map.h: what expressions call beside edgec_math.h; integers are int32 and wrap around.
 *
 * Worst error against the exact value, over the whole float range, in units in the last place:
 *   edgec_map_sinf 3.0   edgec_map_cosf 3.0   edgec_map_atanf 3.0   edgec_map_powf 2.5
 *   edgec_map_ceilf, edgec_map_truncf, edgec_map_fmodf: exact
 *
 * As edgec_math.h they give every machine the same bits. */
/* Included for edgec_map_. */
#ifndef EDGEC_MAP_H
#define EDGEC_MAP_H

#include <stdint.h>

#include "edgec_math.h"

#ifdef __cplusplus
extern "C" {
#endif

EDGEC_MATH float edgec_map_ceilf(float x) {
    return -edgec_floorf(-x);
}

EDGEC_MATH float edgec_map_truncf(float x) {
    return edgec_copysignf(edgec_floorf(edgec_fabsf(x)), x);
}

EDGEC_MATH int32_t edgec_map_isnanf(float x) {
    return (edgec_float_bits(x) & 0x7fffffffu) > 0x7f800000u;
}

EDGEC_MATH int32_t edgec_map_isinff(float x) {
    return (edgec_float_bits(x) & 0x7fffffffu) == 0x7f800000u;
}

/* Towards zero; beyond int32 its ends, NaN 0. */
EDGEC_MATH int32_t edgec_map_to_i32(float x) {
    if (!(x < 2147483648.0f))
        return edgec_map_isnanf(x) ? 0 : INT32_MAX;
    return x < -2147483648.0f ? INT32_MIN : (int32_t)x;
}

/* Rest of x in [-pi/4, pi/4] after that many quarter turns, of which the last two bits count: the
 * mantissa times the 96 bits of 2/pi that matter at x's exponent, 62 bits of fraction. x is finite.
 */
EDGEC_MATH float edgec_map_quarter_turns(float x, uint32_t *turns) {
    const uint32_t bits_of_2_over_pi[8] = {0x00000000u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u,
                                           0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu};
    uint32_t bits = edgec_float_bits(x) & 0x7fffffffu;
    uint32_t start, w, s, mantissa, high, middle, low;
    uint64_t product;
    int32_t top;
    float rest;
    *turns = 0u;
    if (bits < 0x3f490fdbu)
        return x;
    start = (bits >> 23) - 120u;
    mantissa = (bits & 0x7fffffu) | 0x800000u;
    w = start >> 5;
    s = start & 31u;
    high = (uint32_t)(((((uint64_t)bits_of_2_over_pi[w] << 32) | bits_of_2_over_pi[w + 1u]) << s) >>
                      32);
    middle = (uint32_t)(((((uint64_t)bits_of_2_over_pi[w + 1u] << 32) | bits_of_2_over_pi[w + 2u])
                         << s) >>
                        32);
    low = (uint32_t)(((((uint64_t)bits_of_2_over_pi[w + 2u] << 32) | bits_of_2_over_pi[w + 3u])
                      << s) >>
                     32);
    product = ((uint64_t)(mantissa * high) << 32) + (uint64_t)mantissa * middle +
              (((uint64_t)mantissa * low) >> 32);
    *turns = (uint32_t)((product + ((uint64_t)1 << 61)) >> 62);
    product -= (uint64_t)*turns << 62;
    top = (int32_t)(uint32_t)(product >> 32);
    rest = ((float)top * 4294967296.0f + (float)(uint32_t)product) *
           3.4061215800e-19f; /* pi/2 * 2^-62 */
    if ((edgec_float_bits(x) >> 31) == 0u)
        return rest;
    *turns = 0u - *turns;
    return -rest;
}

EDGEC_MATH float edgec_map_sin_of_turns(float r, uint32_t turns) {
    float z = r * r;
    float y;
    if ((turns & 1u) != 0u)
        y = 1.0f - (0.5f * z -
                    z * z * (4.166664568e-02f + z * (-1.388731625e-03f + z * 2.443315712e-05f)));
    else
        y = r + r * (z * (-1.666665461e-01f + z * (8.332160874e-03f + z * -1.951529589e-04f)));
    return (turns & 2u) != 0u ? -y : y;
}

EDGEC_MATH float edgec_map_sinf(float x) {
    uint32_t turns;
    float r;
    if ((edgec_float_bits(x) & 0x7fffffffu) >= 0x7f800000u)
        return edgec_bits_float(0x7fc00000u);
    r = edgec_map_quarter_turns(x, &turns);
    return edgec_map_sin_of_turns(r, turns);
}

EDGEC_MATH float edgec_map_cosf(float x) {
    uint32_t turns;
    float r;
    if ((edgec_float_bits(x) & 0x7fffffffu) >= 0x7f800000u)
        return edgec_bits_float(0x7fc00000u);
    r = edgec_map_quarter_turns(x, &turns);
    return edgec_map_sin_of_turns(r, turns + 1u);
}

EDGEC_MATH float edgec_map_atanf(float x) {
    float a = edgec_fabsf(x);
    float base = 0.0f;
    float z, p;
    if (a > 2.414213562f) { /* tan(3/8 pi) */
        base = 1.570796327f;
        a = -1.0f / a;
    } else if (a > 0.4142135624f) { /* tan(pi/8) */
        base = 0.7853981634f;
        a = (a - 1.0f) / (a + 1.0f);
    }
    z = a * a;
    p = -1.387768561e-01f + z * 8.053744495e-02f;
    p = 1.997771065e-01f + z * p;
    p = -3.333294915e-01f + z * p;
    return edgec_copysignf(base + (a + a * (z * p)), x);
}

/* The upper 12 bits of a mantissa: products of two such are exact. */
EDGEC_MATH float edgec_map_upper(float x) {
    return edgec_bits_float(edgec_float_bits(x) & 0xfffff000u);
}

/* a^y for a positive and finite, |y| < 2^31: log(a) = k ln 2 + 2 atanh(s), s = f / (2 + f), as a
 * sum of two floats. */
EDGEC_MATH float edgec_map_pow_positive(float a, float y) {
    uint32_t bits = edgec_float_bits(a);
    int32_t k = 0;
    float f, s, sh, sl, d, z, p, n, head, high, low, yh, ph, pl, r, half;
    if (bits < 0x00800000u) {
        bits = edgec_float_bits(a * 8388608.0f);
        k = -23;
    }
    bits += 0x3f800000u - 0x3f3504f3u;
    k += (int32_t)(bits >> 23) - 127;
    f = edgec_bits_float((bits & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
    s = f / (2.0f + f);
    sh = edgec_map_upper(s);
    d = edgec_map_upper(2.0f + f);
    sl = ((f - sh * d) - sh * (f - (d - 2.0f))) / (2.0f + f);
    z = s * s;
    p = 2.853715718e-01f + z * 2.358517945e-01f;
    p = 4.000033736e-01f + z * p;
    p = 6.666666269e-01f + z * p;
    n = (float)k;
    head = n * 0.693359375f;
    high = edgec_map_upper(head + 2.0f * sh);
    low = ((2.0f * sh - (high - head)) + n * -2.12194440e-4f) + (2.0f * sl + s * z * p);
    yh = edgec_map_upper(y);
    ph = yh * high;
    pl = (y - yh) * high + y * low;
    if (ph + pl > 89.0f)
        return edgec_bits_float(0x7f800000u);
    if (ph + pl < -104.0f)
        return 0.0f;
    n = edgec_roundf((ph + pl) * 1.44269504f);
    r = ((ph - n * 0.693359375f) - n * -2.12194440e-4f) + pl;
    p = 8.368887939e-03f + r * 1.395048341e-03f;
    p = 4.166620597e-02f + r * p;
    p = 1.666651815e-01f + r * p;
    p = 5.0e-01f + r * p;
    k = (int32_t)n;
    half = edgec_pow2i(k / 2);
    return (1.0f + (r + r * r * p)) * half * edgec_pow2i(k - k / 2);
}

/* As C's powf: of a negative x with a whole y only. */
EDGEC_MATH float edgec_map_powf(float x, float y) {
    float a = edgec_fabsf(x);
    float b = edgec_fabsf(y);
    float whole = edgec_map_truncf(b);
    float power;
    if (x == 1.0f || y == 0.0f)
        return 1.0f;
    if (edgec_map_isnanf(x) || edgec_map_isnanf(y))
        return edgec_bits_float(0x7fc00000u);
    if (a == 1.0f && edgec_map_isinff(y))
        return 1.0f;
    if (x < 0.0f && a < edgec_bits_float(0x7f800000u) && whole != b)
        return edgec_bits_float(0x7fc00000u);
    if (a == 0.0f || edgec_map_isinff(a) || edgec_map_isinff(y))
        power = ((a > 1.0f) == (y > 0.0f)) ? edgec_bits_float(0x7f800000u) : 0.0f;
    else
        power =
            edgec_map_pow_positive(a, b > 2147483520.0f ? edgec_copysignf(2147483520.0f, y) : y);
    /* a whole number below 2^24 is odd where half of it is not whole */
    if (b < 16777216.0f && whole == b && edgec_map_truncf(0.5f * b) != 0.5f * b)
        return edgec_copysignf(power, x);
    return power;
}

/* x - n y with n = trunc(x / y), bit by bit. */
EDGEC_MATH float edgec_map_fmodf(float x, float y) {
    uint32_t a = edgec_float_bits(x) & 0x7fffffffu;
    uint32_t b = edgec_float_bits(y) & 0x7fffffffu;
    int32_t ea = (int32_t)(a >> 23);
    int32_t eb = (int32_t)(b >> 23);
    if (b == 0u || b > 0x7f800000u || a >= 0x7f800000u)
        return edgec_bits_float(0x7fc00000u);
    if (a < b)
        return x;
    a = (a & 0x7fffffu) | (ea != 0 ? 0x800000u : 0u);
    b = (b & 0x7fffffu) | (eb != 0 ? 0x800000u : 0u);
    ea += ea == 0;
    eb += eb == 0;
    for (; b < 0x800000u; eb--)
        b <<= 1;
    for (; a < 0x800000u; ea--)
        a <<= 1;
    for (; ea > eb; ea--) {
        a -= a >= b ? b : 0u;
        a <<= 1;
    }
    a -= a >= b ? b : 0u;
    for (; eb < 1; eb++)
        a >>= 1;
    for (; a != 0u && a < 0x800000u && eb > 1; eb--)
        a <<= 1;
    a = a < 0x800000u ? a : ((uint32_t)eb << 23) + (a - 0x800000u);
    return edgec_copysignf(edgec_bits_float(a), x);
}

/* The remainder with the sign of y. */
EDGEC_MATH float edgec_map_floor_modf(float x, float y) {
    float r = edgec_map_fmodf(x, y);
    return r != 0.0f && (r < 0.0f) != (y < 0.0f) ? r + y : r;
}

/* Integers: by zero 0, and INT32_MIN / -1 wraps around. */
EDGEC_MATH int32_t edgec_map_trunc_div(int32_t a, int32_t b) {
    if (b == 0)
        return 0;
    return b == -1 ? (int32_t)(0u - (uint32_t)a) : a / b;
}

EDGEC_MATH int32_t edgec_map_trunc_mod(int32_t a, int32_t b) {
    return b == 0 || b == -1 ? 0 : a % b;
}

EDGEC_MATH int32_t edgec_map_floor_div(int32_t a, int32_t b) {
    return edgec_map_trunc_div(a, b) - (edgec_map_trunc_mod(a, b) != 0 && (a < 0) != (b < 0));
}

EDGEC_MATH int32_t edgec_map_floor_mod(int32_t a, int32_t b) {
    int32_t r = edgec_map_trunc_mod(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

/* a^b, which wraps around; 1 / a^-b towards zero for a negative b. */
EDGEC_MATH int32_t edgec_map_powi(int32_t a, int32_t b) {
    uint32_t power = 1u;
    uint32_t square = (uint32_t)a;
    if (b < 0)
        return a == 1 ? 1 : a == -1 ? 1 - 2 * (b & 1) : 0;
    for (; b != 0; b >>= 1) {
        power *= (b & 1) != 0 ? square : 1u;
        square *= square;
    }
    return (int32_t)power;
}

#ifdef __cplusplus
}
#endif

#endif
