/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_lif.h: leaky integrate-and-fire neurons on cores with DSP instructions; the portable twins
 * give the same bytes. */
/* Included for edgec_lif. */
#ifndef EDGEC_LIF_H
#define EDGEC_LIF_H

#include "edgec_simd.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One table row per neuron: gain, bias, threshold (plus 1 where the comparison is strict). A neuron
 * fires when the saturated difference membrane - threshold is not negative. */

EDGEC_INLINE int64_t edgec_c_qsub(int32_t x, int32_t y) {
    int64_t d = (int64_t)x - y;
    return d < INT32_MIN ? INT32_MIN : (d > INT32_MAX ? INT32_MAX : d);
}

/* Saturating x - y: its sign is that of the exact difference. */
EDGEC_PICK_2(edgec_qsub, (int32_t)edgec_c_qsub(x, y), "qsub %0, %1, %2")

/* The new membrane before a reset: v + (((x - v) * decay) >> 15), or v - ((v * decay) >> 15) + x
 * without `input`. `rate` is decay * 2^17 less `whole` times 2^32, so that a high word gives the
 * floor. */
EDGEC_INLINE int32_t edgec_leak(int32_t x, int32_t v, int32_t input, int32_t whole, int32_t rate) {
    int32_t from = input != 0 ? x - v : v;
    int32_t change = edgec_smmul(from, rate);
    if (input != 0) {
        return (whole != 0 ? x : v) + change;
    }
    return (whole != 0 ? x : v + x) - change;
}

/* Reset: 0 none, 1 hard, 2 subtract. `count` <= 32 neurons; returns their spikes. */
#define EDGEC_LIF_LOOP(name, type)                                                                 \
    EDGEC_INLINE uint32_t name(const type *x, const int32_t *table, int32_t *v, int32_t count,     \
                               int32_t reset, int32_t input, int32_t whole, int32_t rate) {        \
        uint32_t spikes = 0u;                                                                      \
        for (int32_t k = 0; k < count; ++k) {                                                      \
            const int32_t *row = table + 3 * k;                                                    \
            int32_t h = edgec_leak(x[k] * row[0] + row[1], v[k], input, whole, rate);              \
            int32_t fires = edgec_qsub(h, row[2]) >= 0;                                            \
            v[k] = fires && reset != 0 ? (reset == 1 ? 0 : h - row[2]) : h;                        \
            spikes |= (uint32_t)fires << (uint32_t)k;                                              \
        }                                                                                          \
        return spikes;                                                                             \
    }
EDGEC_LIF_LOOP(edgec_lif_loop_i8, int8_t)
EDGEC_LIF_LOOP(edgec_lif_loop_i16, int16_t)
EDGEC_LIF_LOOP(edgec_lif_loop_i32, int32_t)
#undef EDGEC_LIF_LOOP

#if EDGEC_HAS_DSP
/* clang-format off */
/* 32 neurons in pairs of 16 instructions: x r0, table r1, v r2, rate r3, complement of the spikes r4,
 * count r12. A shift by 32 leaves the sign of the distance in the carry, which ADC shifts in. */
#define EDGEC_LIF_HARD(h, t, d)                 \
    "qsub " t ", " h ", " t "\n\t"              \
    "ands " h ", " h ", " t ", asr #32\n\t"
#define EDGEC_LIF_NONE(h, t, d)                 \
    "qsub " t ", " h ", " t "\n\t"              \
    "lsls " t ", " t ", #1\n\t"
#define EDGEC_LIF_SUBTRACT(h, t, d)             \
    "qsub " d ", " h ", " t "\n\t"              \
    "bics " t ", " t ", " d ", asr #32\n\t"     \
    "sub " h ", " h ", " t "\n\t"
#define EDGEC_LIF_LOAD_I32 "ldrd r11, lr, [r0], #8\n\t"
#define EDGEC_LIF_LOAD_I16 "ldrsh r11, [r0], #2\n\t" "ldrsh lr, [r0], #2\n\t"
/* The drive is the base of the membrane where the decay is a half or more (see edgec_leak). */
#define EDGEC_LIF_PAIR(load, base0, base1, reset) \
    "ldm r1!, {r5, r6, r7, r8, r9, r10}\n\t"    \
    load                                        \
    "mla lr, lr, r8, r9\n\t"                    \
    "mla r11, r11, r5, r6\n\t"                  \
    "ldrd r5, r8, [r2]\n\t"                     \
    "sub r6, r11, r5\n\t"                       \
    "smmla r5, r6, r3, " base0 "\n\t"           \
    reset("r5", "r7", "r6")                     \
    "adcs r4, r4, r4\n\t"                       \
    "sub r9, lr, r8\n\t"                        \
    "smmla r8, r9, r3, " base1 "\n\t"           \
    reset("r8", "r10", "r9")                    \
    "adcs r4, r4, r4\n\t"                       \
    "strd r5, r8, [r2], #8\n\t"
#define EDGEC_LIF_32(name, type, load, base0, base1, reset)                 \
    EDGEC_ASM_FUNCTION uint32_t name(                                       \
        const type *x EDGEC_UNUSED, const int32_t *table EDGEC_UNUSED,      \
        int32_t *v EDGEC_UNUSED, int32_t rate EDGEC_UNUSED) {               \
        __asm__("push {r4, r5, r6, r7, r8, r9, r10, r11, r12, lr}\n\t"      \
                "mov r12, #8\n"                                             \
                "1:\n\t"                                                    \
                EDGEC_LIF_PAIR(load, base0, base1, reset)                   \
                EDGEC_LIF_PAIR(load, base0, base1, reset)                   \
                "subs r12, r12, #1\n\t"                                     \
                "bne 1b\n\t"                                                \
                "mvn r4, r4\n\t"                                            \
                "rbit r0, r4\n\t"                                           \
                "pop {r4, r5, r6, r7, r8, r9, r10, r11, r12, pc}\n\t");     \
    }
/* clang-format on */
#define EDGEC_LIF_BASES(name, type, load, reset)                                                   \
    EDGEC_LIF_32(name##_v, type, load, "r5", "r8", reset)                                          \
    EDGEC_LIF_32(name##_x, type, load, "r11", "lr", reset)
#define EDGEC_LIF_RESETS(name, type, load)                                                         \
    EDGEC_LIF_BASES(name##_none, type, load, EDGEC_LIF_NONE)                                       \
    EDGEC_LIF_BASES(name##_hard, type, load, EDGEC_LIF_HARD)                                       \
    EDGEC_LIF_BASES(name##_subtract, type, load, EDGEC_LIF_SUBTRACT)
EDGEC_LIF_RESETS(edgec_lif32_i32, int32_t, EDGEC_LIF_LOAD_I32)
EDGEC_LIF_RESETS(edgec_lif32_i16, int16_t, EDGEC_LIF_LOAD_I16)
#else
#define EDGEC_LIF_32(name, type, loop, reset, whole)                                               \
    EDGEC_INLINE uint32_t name(const type *x, const int32_t *table, int32_t *v, int32_t rate) {    \
        return loop(x, table, v, 32, reset, 1, whole, rate);                                       \
    }
#define EDGEC_LIF_BASES(name, type, loop, reset)                                                   \
    EDGEC_LIF_32(name##_v, type, loop, reset, 0)                                                   \
    EDGEC_LIF_32(name##_x, type, loop, reset, 1)
#define EDGEC_LIF_RESETS(name, type, loop)                                                         \
    EDGEC_LIF_BASES(name##_none, type, loop, 0)                                                    \
    EDGEC_LIF_BASES(name##_hard, type, loop, 1)                                                    \
    EDGEC_LIF_BASES(name##_subtract, type, loop, 2)
EDGEC_LIF_RESETS(edgec_lif32_i32, int32_t, edgec_lif_loop_i32)
EDGEC_LIF_RESETS(edgec_lif32_i16, int16_t, edgec_lif_loop_i16)
#endif
#undef EDGEC_LIF_RESETS
#undef EDGEC_LIF_BASES
#undef EDGEC_LIF_32

#ifdef __cplusplus
}
#endif

#endif
