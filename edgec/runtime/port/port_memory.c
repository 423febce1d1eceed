/* SPDX-License-Identifier: Apache-2.0 */
/* port_memory.c: the four routines compilers call without being asked. A file of its own, so that
 * what the model pulls in is counted as the model's flash. Built with the idiom recognition that
 * would turn these loops into calls of themselves switched off. */
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

typedef uint32_t __attribute__((may_alias)) word;
struct packed_word {
    uint32_t value;
} __attribute__((packed, may_alias));

/* Word copies where both pointers are aligned, or anywhere on cores that allow unaligned words. */
void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
    uint8_t *d = to;
    const uint8_t *s = from;
#if defined(__ARM_FEATURE_UNALIGNED)
    const int words = 1;
#else
    const int words = (((uintptr_t)d | (uintptr_t)s) & 3u) == 0u;
#endif
    if (words) {
        for (; bytes >= 16u; bytes -= 16u, d += 16, s += 16) {
            struct packed_word *wd = (struct packed_word *)(void *)d;
            const struct packed_word *ws = (const struct packed_word *)(const void *)s;
            wd[0] = ws[0];
            wd[1] = ws[1];
            wd[2] = ws[2];
            wd[3] = ws[3];
        }
        for (; bytes >= 4u; bytes -= 4u, d += 4, s += 4)
            ((struct packed_word *)(void *)d)->value =
                ((const struct packed_word *)(const void *)s)->value;
    }
    while (bytes-- != 0u)
        *d++ = *s++;
    return to;
}

void *memmove(void *to, const void *from, size_t bytes) {
    uint8_t *d = to;
    const uint8_t *s = from;
    if ((uintptr_t)d - (uintptr_t)s >= bytes)
        return memcpy(to, from, bytes);
    while (bytes-- != 0u)
        d[bytes] = s[bytes];
    return to;
}

void *memset(void *to, int value, size_t bytes) {
    uint8_t *d = to;
    const uint32_t byte = (uint32_t)value & 0xffu;
    const uint32_t pattern = byte * 0x01010101u;
    for (; bytes != 0u && ((uintptr_t)d & 3u) != 0u; bytes--)
        *d++ = (uint8_t)byte;
    for (; bytes >= 16u; bytes -= 16u, d += 16) {
        word *w = (word *)(void *)d;
        w[0] = pattern;
        w[1] = pattern;
        w[2] = pattern;
        w[3] = pattern;
    }
    while (bytes-- != 0u)
        *d++ = (uint8_t)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t bytes) {
    const uint8_t *x = a;
    const uint8_t *y = b;
    for (; bytes != 0u; bytes--, x++, y++)
        if (*x != *y)
            return (int)*x - (int)*y;
    return 0;
}
