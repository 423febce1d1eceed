/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_dwt.h: the cycle counter of Cortex-M cores from the M3 on (DWT->CYCCNT); 0 elsewhere. */
/* Included for edgec_cycles_. */
#ifndef EDGEC_DWT_H
#define EDGEC_DWT_H

#include "edgec.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M' && __ARM_ARCH >= 7
#define EDGEC_CYCLES_REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Once, before the first step: tracing on, the M7's lock open, the counter at 0 and running. */
static inline void edgec_cycles_start(void) {
    EDGEC_CYCLES_REGISTER(0xe000edfcu) |= 1u << 24; /* DEMCR.TRCENA */
    EDGEC_CYCLES_REGISTER(0xe0001fb0u) = 0xc5acce55u;
    EDGEC_CYCLES_REGISTER(0xe0001004u) = 0u;
    EDGEC_CYCLES_REGISTER(0xe0001000u) |= 1u; /* CYCCNTENA */
}

static inline uint32_t edgec_cycles_now(void) {
    return EDGEC_CYCLES_REGISTER(0xe0001004u);
}

#else
static inline void edgec_cycles_start(void) {
}

static inline uint32_t edgec_cycles_now(void) {
    return 0u;
}
#endif

/* What has passed since `since` goes to layer `id`; cycles may be NULL. The counter wraps after
 * 2^32 cycles: the difference is right as long as one layer takes less. */
static inline void edgec_cycles_add(uint32_t *cycles, uint32_t id, uint32_t *since) {
    if (cycles != NULL) {
        cycles[id] += edgec_cycles_now() - *since;
        *since = edgec_cycles_now();
    }
}

#ifdef __cplusplus
}
#endif

#endif
