/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_event.h: layers whose input is spikes. A layer lists the rows of its weights that its
 * spikes select, then adds those rows; inputs without a spike cost nothing. Weights are packed
 * input-major in blocks of outputs ([block][row][16], a last block of 4 if that is enough), so that
 * a spike adds 16 contiguous bytes. Sums are held in 16 bits: `segment` is the number of rows whose
 * sum provably fits.
 *
 * A list is int16 row numbers, with -1 between every `segment` of them and after the last. */
/* Included always. */
#ifndef EDGEC_EVENT_H
#define EDGEC_EVENT_H

#include "edgec_simd.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__ARM_ARCH) && !defined(__ARM_FEATURE_CLZ)
#define EDGEC_HAS_CLZ 0
#else
#define EDGEC_HAS_CLZ 1
#endif

/* Cortex-M without DSP: four bytes are added in a register. Elsewhere compilers vectorise plain
 * loops. */
#if defined(__thumb__) && !EDGEC_HAS_DSP && !defined(EDGEC_SIMD_PORTABLE)
#define EDGEC_SWAR 1
#else
#define EDGEC_SWAR 0
#endif

/* ---- from packed spikes to row numbers ---- */

/* Append row `base + k` for every bit k of a word; returns the end of the list. */
EDGEC_INLINE int16_t *edgec_list_word(uint32_t word, int32_t base, int16_t *list) {
#if EDGEC_HAS_CLZ
    while (word != 0u) {
        int32_t zeros = edgec_clz32((int32_t)word);
        word &= ~(0x80000000u >> (uint32_t)zeros);
        *list = (int16_t)(base + 31 - zeros);
        ++list;
    }
#else
    for (; word != 0u; word >>= 1, ++base) {
        if ((word & 1u) != 0u)
            *list++ = (int16_t)base;
    }
#endif
    return list;
}

/* Spread n rows out in place, so that -1 stands after every `segment` of them. */
EDGEC_INLINE void edgec_cut_list(int16_t *list, int32_t n, int32_t segment) {
    for (int32_t cut = (n - 1) / segment; cut > 0; --cut) {
        int32_t from = cut * segment;
        for (int32_t k = n - from - 1; k >= 0; --k)
            list[from + cut + k] = list[from + k];
        list[from + cut - 1] = -1;
        n = from;
    }
}

/* List the rows selected by `groups` rows of `words` words, `stride` words apart, of `width` inputs
 * each, `flip` exchanging spikes and silence. Bits beyond `width` are ignored. Returns their
 * number. */
EDGEC_INLINE int32_t edgec_listed_rows(const uint32_t *x, int32_t groups, int32_t words,
                                       int32_t stride, int32_t width, int32_t segment,
                                       uint32_t flip, int16_t *list) {
    uint32_t tail = width % 32 == 0 ? 0xffffffffu : (1u << (uint32_t)(width % 32)) - 1u;
    int16_t *end = list;
    for (int32_t g = 0; g < groups; ++g, x += stride) {
        int32_t base = g * width;
        for (int32_t k = 0; k < words; ++k, base += 32)
            end = edgec_list_word((x[k] ^ flip) & (k == words - 1 ? tail : 0xffffffffu), base, end);
    }
    int32_t n = (int32_t)(end - list);
    if (segment < groups * width && n > segment) {
        edgec_cut_list(list, n, segment);
        end += (n - 1) / segment;
    }
    *end = -1;
    return n;
}

EDGEC_INLINE int32_t edgec_spike_rows(const uint32_t *x, int32_t groups, int32_t words,
                                      int32_t stride, int32_t width, int32_t segment,
                                      int16_t *list) {
    return edgec_listed_rows(x, groups, words, stride, width, segment, 0u, list);
}

EDGEC_INLINE int32_t edgec_silent_rows(const uint32_t *x, int32_t groups, int32_t words,
                                       int32_t stride, int32_t width, int32_t segment,
                                       int16_t *list) {
    return edgec_listed_rows(x, groups, words, stride, width, segment, 0xffffffffu, list);
}

/* The same inputs as lanes of int16, in the order (0, 2), (1, 3) of each four; each group is
 * completed to a multiple of four, all of them by zeros to `words_out` words. */
EDGEC_INLINE void edgec_spike_lanes(const uint32_t *x, int32_t groups, int32_t stride,
                                    int32_t width, int32_t words_out, int32_t *to) {
    int32_t used = groups * ((width + 3) / 4 * 2);
    for (int32_t g = 0; g < groups; ++g, x += stride) {
        for (int32_t k = 0; k < width; k += 4, to += 2) {
            uint32_t four = x[k / 32] >> (uint32_t)(k % 32) & 15u;
            uint32_t lanes = four | four << 14;
            to[0] = (int32_t)(lanes & 0x00010001u);
            to[1] = (int32_t)(lanes >> 1 & 0x00010001u);
        }
    }
    for (int32_t k = used; k < words_out; ++k)
        to[k - used] = 0;
}

/* The same inputs as int8; up to three bytes more are written. */
EDGEC_INLINE void edgec_spike_bytes(const uint32_t *x, int32_t groups, int32_t stride,
                                    int32_t width, int8_t *to) {
    for (int32_t g = 0; g < groups; ++g, x += stride, to += width) {
        for (int32_t k = 0; k < width; k += 4) {
            uint32_t four = x[k / 32] >> (uint32_t)(k % 32) & 15u;
            edgec_write_s8x4(to + k, (int32_t)(four * 0x00204081u & 0x01010101u));
        }
    }
}

/* `width` spikes as int8: `high` where there is one, `low` elsewhere. */
EDGEC_INLINE void edgec_spike_levels(const uint32_t *x, int32_t width, int32_t low, int32_t high,
                                     int8_t *to) {
    uint32_t silent = (uint32_t)(uint8_t)low, change = (uint32_t)(uint8_t)(low ^ high);
    uint32_t base = silent * 0x01010101u, word = 0;
    int32_t k = 0;
    for (; k + 4 <= width; k += 4, word >>= 4) {
        if (k % 32 == 0)
            word = x[k / 32];
        uint32_t ones = (word & 15u) * 0x00204081u & 0x01010101u;
        edgec_write_s8x4(to + k, (int32_t)(base ^ ones * change));
    }
    if (k % 32 == 0 && k < width)
        word = x[k / 32];
    for (; k < width; ++k, word >>= 1)
        to[k] = (int8_t)(word & 1u ? high : low);
}

/* ---- signed weights, for cores with DSP instructions ---- */

#if EDGEC_HAS_DSP
/* clang-format off */
/* One row: 16 bytes at lr to eight pairs of sums in r4..r11, and the next row's address to lr meanwhile. */
#define EDGEC_EVENT_ROW(compare)          \
    "ldm lr, {r2, r3, r12, lr}\n\t"       \
    "sxtab16 r10, r10, lr\n\t"            \
    "sxtab16 r11, r11, lr, ror #8\n\t"    \
    "ldrsh lr, [r1], #2\n\t"              \
    "sxtab16 r4, r4, r2\n\t"              \
    "sxtab16 r5, r5, r2, ror #8\n\t"      \
    compare                               \
    "sxtab16 r6, r6, r3\n\t"              \
    "sxtab16 r7, r7, r3, ror #8\n\t"      \
    "add lr, r0, lr, lsl #4\n\t"          \
    "sxtab16 r8, r8, r12\n\t"             \
    "sxtab16 r9, r9, r12, ror #8\n\t"
/* Four outputs: bias + sum, from the pairs (0, 2) in `even` and (1, 3) in `odd`. */
#define EDGEC_EVENT_STORE(even, odd)        \
    "ldm r0!, {r2, r3, r12, lr}\n\t"        \
    "sxtah r2, r2, " even "\n\t"            \
    "sxtah r3, r3, " odd "\n\t"             \
    "sxtah r12, r12, " even ", ror #16\n\t" \
    "sxtah lr, lr, " odd ", ror #16\n\t"    \
    "stm r1!, {r2, r3, r12, lr}\n\t"

/* out[0..15] = bias[0..15] + the sum of the n listed rows; 90 instructions for 8 rows of 16. The first row
 * sets the sums; the loop over the others, eight at a time, is entered where a multiple of eight is left. */
EDGEC_ASM_FUNCTION void edgec_event_rows16(
    const int32_t *w EDGEC_UNUSED, const int16_t *list EDGEC_UNUSED, int32_t n EDGEC_UNUSED,
    const int32_t *bias EDGEC_UNUSED, int32_t *out EDGEC_UNUSED) {
    __asm__("push {r3, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
            "subs lr, r2, #1\n\t"
            "blt 10f\n\t"
            "ldrsh r12, [r1], #2\n\t"
            "and lr, lr, #7\n\t"
            "add r12, r0, r12, lsl #4\n\t"
            "ldm r12, {r2, r3, r11, r12}\n\t"
            "sxtb16 r4, r2\n\t"
            "sxtb16 r5, r2, ror #8\n\t"
            "ldrsh r2, [r1], #2\n\t"
            "sxtb16 r6, r3\n\t"
            "sxtb16 r7, r3, ror #8\n\t"
            "cmp r2, #0\n\t"
            "sxtb16 r8, r11\n\t"
            "sxtb16 r9, r11, ror #8\n\t"
            "sxtb16 r10, r12\n\t"
            "sxtb16 r11, r12, ror #8\n\t"
            "blt 11f\n\t"
            "mov r3, lr\n\t"
            "add lr, r0, r2, lsl #4\n\t"
            "tbb [pc, r3]\n"
            "9:\n\t"
            ".byte (8f - 9b) / 2, (1f - 9b) / 2, (2f - 9b) / 2, (3f - 9b) / 2\n\t"
            ".byte (4f - 9b) / 2, (5f - 9b) / 2, (6f - 9b) / 2, (7f - 9b) / 2\n"
            "8:\n\t" EDGEC_EVENT_ROW("")
            "7:\n\t" EDGEC_EVENT_ROW("")
            "6:\n\t" EDGEC_EVENT_ROW("")
            "5:\n\t" EDGEC_EVENT_ROW("")
            "4:\n\t" EDGEC_EVENT_ROW("")
            "3:\n\t" EDGEC_EVENT_ROW("")
            "2:\n\t" EDGEC_EVENT_ROW("")
            "1:\n\t" EDGEC_EVENT_ROW("cmp lr, #0\n\t")
            "bge 8b\n"
            "11:\n\t"
            "ldr r0, [sp]\n\t"
            "ldr r1, [sp, #40]\n\t"
            EDGEC_EVENT_STORE("r4", "r5")
            EDGEC_EVENT_STORE("r6", "r7")
            EDGEC_EVENT_STORE("r8", "r9")
            EDGEC_EVENT_STORE("r10", "r11")
            "pop {r3, r4, r5, r6, r7, r8, r9, r10, r11, pc}\n"
            "10:\n\t"
            "ldr r12, [sp, #40]\n\t"
            "ldm r3!, {r4, r5, r6, r7, r8, r9, r10, r11}\n\t"
            "stm r12!, {r4, r5, r6, r7, r8, r9, r10, r11}\n\t"
            "ldm r3, {r4, r5, r6, r7, r8, r9, r10, r11}\n\t"
            "stm r12, {r4, r5, r6, r7, r8, r9, r10, r11}\n\t"
            "pop {r3, r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");
}
/* clang-format on */
#undef EDGEC_EVENT_ROW
#undef EDGEC_EVENT_STORE
#else
EDGEC_INLINE void edgec_event_rows16(const int32_t *w, const int16_t *list, int32_t n,
                                     const int32_t *bias, int32_t *out) {
    int16_t sum[16] = {0};
    for (int32_t k = 0; k < n; ++k) {
        const int8_t *row = (const int8_t *)(w + list[k] * 4);
        for (int32_t j = 0; j < 16; ++j)
            sum[j] = (int16_t)(sum[j] + row[j]);
    }
    for (int32_t j = 0; j < 16; ++j)
        out[j] = bias[j] + sum[j];
}
#endif

EDGEC_INLINE void edgec_event_rows4(const int32_t *w, const int16_t *list, int32_t n,
                                    const int32_t *bias, int32_t *out) {
    int32_t even = 0, odd = 0;
    for (int32_t k = 0; k < n; ++k) {
        int32_t row = w[list[k]];
        even = edgec_sxtab16(even, row);
        odd = edgec_sxtab16_ror8(odd, row);
    }
    out[0] = bias[0] + edgec_lo16(even);
    out[1] = bias[1] + edgec_lo16(odd);
    out[2] = bias[2] + edgec_hi16(even);
    out[3] = bias[3] + edgec_hi16(odd);
}

/* ---- weights + 128 as unsigned bytes, for cores without DSP instructions; segment <= 256 ---- */

#if EDGEC_SWAR
/* The sum of whole words holds all four bytes' sums, overlapping; the sum of the odd bytes alone
 * takes them apart. */
EDGEC_INLINE void edgec_event_store_u8(uint32_t all, uint32_t odd, int32_t offset,
                                       const int32_t *bias, int32_t *out) {
    uint32_t even = all - (odd << 8);
    out[0] = bias[0] + (int32_t)(even & 0xffffu) - offset;
    out[1] = bias[1] + (int32_t)(odd & 0xffffu) - offset;
    out[2] = bias[2] + (int32_t)(even >> 16) - offset;
    out[3] = bias[3] + (int32_t)(odd >> 16) - offset;
}

#if EDGEC_HAS_CLZ
/* clang-format off */
/* One row: eight of the 16 bytes at lr in two words, then the others and the next row's address. */
#define EDGEC_EVENT_WORDS(all0, all1, odd0, odd1) \
    "add " all0 ", " all0 ", r2\n\t"              \
    "and r2, r12, r2, lsr #8\n\t"                 \
    "add " odd0 ", " odd0 ", r2\n\t"              \
    "add " all1 ", " all1 ", r3\n\t"              \
    "and r3, r12, r3, lsr #8\n\t"                 \
    "add " odd1 ", " odd1 ", r3\n\t"
#define EDGEC_EVENT_ROW(compare)               \
    "ldrd r2, r3, [lr]\n\t"                    \
    EDGEC_EVENT_WORDS("r4", "r5", "r8", "r9")  \
    "ldrd r2, r3, [lr, #8]\n\t"                \
    "ldrsh lr, [r1], #2\n\t"                   \
    EDGEC_EVENT_WORDS("r6", "r7", "r10", "r11") \
    compare                                    \
    "add lr, r0, lr, lsl #4\n\t"

/* sums[0..3] whole words, sums[4..7] odd bytes of the n listed rows; 66 instructions for 4 rows of 16. */
EDGEC_ASM_FUNCTION void edgec_event_sums(const int32_t *w EDGEC_UNUSED,
                                         const int16_t *list EDGEC_UNUSED, int32_t n EDGEC_UNUSED,
                                         uint32_t *sums EDGEC_UNUSED) {
    __asm__("push {r3, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
            "ldrsh lr, [r1], #2\n\t"
            "mov r12, #0x00ff00ff\n\t"
            "mov r4, #0\n\t"
            "mov r5, #0\n\t"
            "mov r6, #0\n\t"
            "mov r7, #0\n\t"
            "mov r8, #0\n\t"
            "mov r9, #0\n\t"
            "mov r10, #0\n\t"
            "mov r11, #0\n\t"
            "add r3, r0, lr, lsl #4\n\t"
            "ands r2, r2, #3\n\t"
            "beq 5f\n\t"
            "mov lr, r3\n\t"
            "cmp r2, #2\n\t"
            "bhi 3f\n\t"
            "beq 2f\n\t"
            "b 1f\n"
            "5:\n\t"
            "cmp lr, #0\n\t"
            "mov lr, r3\n\t"
            "blt 6f\n"
            "4:\n\t" EDGEC_EVENT_ROW("")
            "3:\n\t" EDGEC_EVENT_ROW("")
            "2:\n\t" EDGEC_EVENT_ROW("")
            "1:\n\t" EDGEC_EVENT_ROW("cmp lr, #0\n\t")
            "bge 4b\n"
            "6:\n\t"
            "ldr r3, [sp]\n\t"
            "stm r3, {r4, r5, r6, r7, r8, r9, r10, r11}\n\t"
            "pop {r3, r4, r5, r6, r7, r8, r9, r10, r11, pc}\n\t");
}
/* clang-format on */
#undef EDGEC_EVENT_ROW
#undef EDGEC_EVENT_WORDS
#else
EDGEC_INLINE void edgec_event_sums(const int32_t *w, const int16_t *list, int32_t n,
                                   uint32_t *sums) {
    for (int32_t j = 0; j < 4; j += 2, w += 2) { /* two words: as many as there are registers */
        uint32_t all0 = 0u, all1 = 0u, odd0 = 0u, odd1 = 0u;
        const int16_t *at = list;
        for (const int16_t *end = list + n; at != end; ++at) {
            const int32_t *row = w + *at * 4;
            uint32_t word0 = (uint32_t)row[0], word1 = (uint32_t)row[1];
            all0 += word0;
            all1 += word1;
            odd0 += (word0 >> 8) & 0x00ff00ffu;
            odd1 += (word1 >> 8) & 0x00ff00ffu;
        }
        sums[j] = all0;
        sums[j + 1] = all1;
        sums[j + 4] = odd0;
        sums[j + 5] = odd1;
    }
}
#endif

EDGEC_INLINE void edgec_event_rows16_u8(const int32_t *w, const int16_t *list, int32_t n,
                                        const int32_t *bias, int32_t *out) {
    uint32_t sums[8];
    edgec_event_sums(w, list, n, sums);
    for (int32_t j = 0; j < 4; ++j)
        edgec_event_store_u8(sums[j], sums[j + 4], n * 128, bias + 4 * j, out + 4 * j);
}

EDGEC_INLINE void edgec_event_rows4_u8(const int32_t *w, const int16_t *list, int32_t n,
                                       const int32_t *bias, int32_t *out) {
    uint32_t all = 0u, odd = 0u;
    for (const int16_t *end = list + n; list != end; ++list) {
        uint32_t word = (uint32_t)w[*list];
        all += word;
        odd += (word >> 8) & 0x00ff00ffu;
    }
    edgec_event_store_u8(all, odd, n * 128, bias, out);
}
#else
EDGEC_INLINE void edgec_event_rows16_u8(const int32_t *w, const int16_t *list, int32_t n,
                                        const int32_t *bias, int32_t *out) {
    uint16_t sum[16] = {0};
    for (int32_t k = 0; k < n; ++k) {
        const uint8_t *row = (const uint8_t *)(w + list[k] * 4);
        for (int32_t j = 0; j < 16; ++j)
            sum[j] = (uint16_t)(sum[j] + row[j]);
    }
    for (int32_t j = 0; j < 16; ++j)
        out[j] = bias[j] + (int32_t)sum[j] - n * 128;
}

EDGEC_INLINE void edgec_event_rows4_u8(const int32_t *w, const int16_t *list, int32_t n,
                                       const int32_t *bias, int32_t *out) {
    uint16_t sum[4] = {0};
    for (int32_t k = 0; k < n; ++k) {
        const uint8_t *row = (const uint8_t *)(w + list[k]);
        for (int32_t j = 0; j < 4; ++j)
            sum[j] = (uint16_t)(sum[j] + row[j]);
    }
    for (int32_t j = 0; j < 4; ++j)
        out[j] = bias[j] + (int32_t)sum[j] - n * 128;
}
#endif

/* ---- what kernels call: a block of `count` <= 16 (or 4) outputs, segment by segment ---- */

#define EDGEC_EVENT_BLOCK(name, rows, width)                                                       \
    EDGEC_INLINE void name(const int32_t *w, const int16_t *list, int32_t n, int32_t segment,      \
                           int32_t count, const int32_t *bias, int32_t *out) {                     \
        int32_t part[width];                                                                       \
        int32_t *to = count == (width) ? out : part;                                               \
        for (; n > segment; n -= segment, list += segment + 1) {                                   \
            rows(w, list, segment, bias, to);                                                      \
            bias = to;                                                                             \
        }                                                                                          \
        rows(w, list, n, bias, to);                                                                \
        for (int32_t j = 0; count != (width) && j < count; ++j)                                    \
            out[j] = part[j];                                                                      \
    }
EDGEC_EVENT_BLOCK(edgec_event_block16, edgec_event_rows16, 16)
EDGEC_EVENT_BLOCK(edgec_event_block4, edgec_event_rows4, 4)
EDGEC_EVENT_BLOCK(edgec_event_block16_u8, edgec_event_rows16_u8, 16)
EDGEC_EVENT_BLOCK(edgec_event_block4_u8, edgec_event_rows4_u8, 4)
#undef EDGEC_EVENT_BLOCK

#ifdef __cplusplus
}
#endif

#endif
