/* SPDX-License-Identifier: Apache-2.0 */
/* edgec.h: what every compiled model shares. C99, no dependency beyond the freestanding headers. */
/* Included always. */
#ifndef EDGEC_H
#define EDGEC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Return codes of <model>_init, _reset, _step and _flush. */
#define EDGEC_OK 0           /* init, reset: done. step, flush: no output (yet, or nothing left) */
#define EDGEC_OUTPUT 1       /* step, flush: the outputs were written */
#define EDGEC_E_ARG (-1)     /* a null or misaligned pointer */
#define EDGEC_E_STATE (-2)   /* the state was not initialised, or is damaged */
#define EDGEC_E_FLUSHED (-3) /* step after flush: call reset first */

/* A C99 compile-time check: the array has negative size when the condition is false. */
#define EDGEC_CONCAT_(a, b) a##b
#define EDGEC_CONCAT(a, b) EDGEC_CONCAT_(a, b)
#define EDGEC_STATIC_ASSERT(condition, name)                                                       \
    typedef char EDGEC_CONCAT(edgec_static_assert_##name##_, __LINE__)[(condition) ? 1 : -1]

#if defined(__GNUC__) || defined(__clang__)
#define EDGEC_UNUSED __attribute__((unused))
#define EDGEC_NOINLINE __attribute__((noinline))
#define EDGEC_ALIGN(n) __attribute__((aligned(n)))
#define EDGEC_RESTRICT __restrict
#else
#define EDGEC_UNUSED
#define EDGEC_NOINLINE
#define EDGEC_ALIGN(n)
#define EDGEC_RESTRICT
#endif

/* An object in a section of its own, for the linker script to put into a fast memory. */
#if defined(__ELF__)
#define EDGEC_SECTION(name) __attribute__((section(name)))
#else
#define EDGEC_SECTION(name)
#endif

/* Block copy and fill. Freestanding compilers have no <string.h> but know these; a short constant
 * size becomes plain loads and stores, anything else a call of memcpy, which the port or libc
 * supplies. */
#if defined(__GNUC__) || defined(__clang__)
#define edgec_memcpy __builtin_memcpy
#define edgec_memmove __builtin_memmove
#define edgec_memset __builtin_memset
#else
#include <string.h>
#define edgec_memcpy memcpy
#define edgec_memmove memmove
#define edgec_memset memset
#endif

/* True when p may be read as an object that needs `n`-byte alignment (n a power of two). */
#define EDGEC_ALIGNED(p, n) ((((uintptr_t)(p)) & ((uintptr_t)(n) - 1u)) == 0u)

/* A profile build reports the end of every node to the port; a product build has nothing here. */
#ifdef EDGEC_PROFILE
void edgec_mark(int id);
#define EDGEC_MARK(id) (edgec_mark(id), edgec_marked())
/* As the last call of a function the mark would be a jump, whose end a counter cannot see. */
static inline EDGEC_UNUSED void edgec_marked(void) {
#if defined(__GNUC__) || defined(__clang__)
    __asm__ volatile("");
#endif
}
#else
#define EDGEC_MARK(id) ((void)0)
#endif

/* Generated code asserts its own invariants only in a debug build: a product has no stdio. */
#ifdef EDGEC_DEBUG
#define EDGEC_ASSERT(condition) ((condition) ? (void)0 : __builtin_trap())
#else
#define EDGEC_ASSERT(condition) ((void)0)
#endif

#ifdef __cplusplus
}
#endif

#endif
