/* SPDX-License-Identifier: Apache-2.0 */
/* port_cortex_m.c: start-up, faults and semihosting for a bare Cortex-M image.
 *
 * Semihosting is the only channel: an emulator or a debugger answers it, so the same image runs on
 * all of them. Commands come from the file edgec.in, replies go to edgec.out. */
#include "port.h"

/* From the linker script: what start-up copies out of flash, and what it clears. */
typedef struct {
    const uint32_t *from;
    uint32_t *start, *end;
} copy_row;
typedef struct {
    uint32_t *start, *end;
} zero_row;
extern const copy_row edgec_copies[], edgec_copies_end[];
extern const zero_row edgec_zeros[], edgec_zeros_end[];
extern uint32_t edgec_stack_limit[], edgec_stack_top[];

void edgec_reset(void);
void edgec_fault(void);
void edgec_fault_report(const uint32_t *frame);
int main(void);

#define STACK_PAINT 0xa5a55a5au

/* ---- registers of the system control space ---- */

#define REG32(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define SYST_CSR REG32(0xe000e010u)
#define SYST_RVR REG32(0xe000e014u)
#define SYST_CVR REG32(0xe000e018u)
#define SCB_CFSR REG32(0xe000ed28u)
#define SCB_BFAR REG32(0xe000ed38u)
#define SCB_CPACR REG32(0xe000ed88u)

/* ---- semihosting ---- */

enum {
    SYS_OPEN = 0x01,
    SYS_WRITE0 = 0x04,
    SYS_WRITE = 0x05,
    SYS_READ = 0x06,
    SYS_EXIT_EXTENDED = 0x20
};

static uintptr_t semihost(uintptr_t operation, const void *argument) {
    register uintptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uintptr_t handle_in, handle_out;

static uintptr_t open_file(const char *name, uintptr_t mode, uintptr_t length) {
    uintptr_t block[3];
    block[0] = (uintptr_t)name;
    block[1] = mode;
    block[2] = length;
    return semihost(SYS_OPEN, block);
}

/* SYS_READ returns the number of bytes it did not read: all of them means the end of the file. A
 * pipe may give less than asked for, hence the loop. */
int edgec_port_read(void *to, size_t bytes) {
    uint8_t *at = to;
    while (bytes != 0u) {
        uintptr_t block[3];
        uintptr_t left;
        block[0] = handle_in;
        block[1] = (uintptr_t)at;
        block[2] = bytes;
        left = semihost(SYS_READ, block);
        if (left >= bytes)
            return 0;
        at += bytes - left;
        bytes = left;
    }
    return 1;
}

void edgec_port_write(const void *from, size_t bytes) {
    uintptr_t block[3];
    block[0] = handle_out;
    block[1] = (uintptr_t)from;
    block[2] = bytes;
    if (bytes != 0u && semihost(SYS_WRITE, block) != 0u)
        edgec_port_exit(71);
}

void edgec_port_exit(int code) {
    uintptr_t block[2];
    block[0] = 0x20026u; /* ADP_Stopped_ApplicationExit */
    block[1] = (uintptr_t)code;
    (void)semihost(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}

/* ---- time and stack ---- */

uint32_t edgec_port_ticks(void) {
    return 0u - SYST_CVR; /* 24 bits of it count */
}

uint32_t edgec_port_ticks_since(uint32_t before) {
    return (edgec_port_ticks() - before) & 0x00ffffffu;
}

uint32_t edgec_port_stack_used(const void *frame) {
    const uint32_t *lowest = edgec_stack_limit;
    while ((uintptr_t)lowest < (uintptr_t)edgec_stack_top && *lowest == STACK_PAINT)
        lowest++;
    return (uint32_t)((uintptr_t)frame - (uintptr_t)lowest);
}

uint32_t edgec_port_stack_size(void) {
    return (uint32_t)((uintptr_t)edgec_stack_top - (uintptr_t)edgec_stack_limit);
}

/* ---- faults: without a report a crash looks like a hang ---- */

static void put_hex(const char *label, uint32_t value) {
    char text[10];
    (void)semihost(SYS_WRITE0, label);
    for (uint32_t i = 0; i < 8u; i++)
        text[i] = "0123456789abcdef"[(value >> (28u - 4u * i)) & 15u];
    text[8] = ' ';
    text[9] = '\0';
    (void)semihost(SYS_WRITE0, text);
}

void edgec_fault_report(const uint32_t *frame) {
    const uintptr_t top = (uintptr_t)edgec_stack_top;
#if __ARM_ARCH >= 7
    put_hex("edgec fault: CFSR=", SCB_CFSR);
    put_hex("BFAR=", SCB_BFAR);
#else
    put_hex("edgec fault: ARMv6-M, frame=", (uint32_t)(uintptr_t)frame);
#endif
    if ((uintptr_t)frame >= (uintptr_t)edgec_stack_limit && (uintptr_t)frame + 32u <= top) {
        put_hex("PC=", frame[6]);
        put_hex("LR=", frame[5]);
    }
    (void)semihost(SYS_WRITE0, "\n");
    edgec_port_exit(70);
}

/* The exception frame lies at the stack pointer of the fault; hand it over in r0. */
__attribute__((naked)) void edgec_fault(void) {
    __asm__ volatile("mov r0, sp\n\tbl edgec_fault_report\n");
}

/* ---- start-up ---- */

__attribute__((section(".vectors"), used)) void (*const edgec_vectors[16])(void) = {
    (void (*)(void))(uintptr_t)edgec_stack_top,
    edgec_reset,
    edgec_fault,
    edgec_fault,
    edgec_fault,
    edgec_fault,
    edgec_fault,
    edgec_fault,
    edgec_fault,
    edgec_fault,
    edgec_fault,
    edgec_fault,
    edgec_fault,
    edgec_fault,
    edgec_fault,
    edgec_fault};

/* The FPU (and the vector unit) must be on before any function that might use it is entered, so
 * this one contains no floating point and calls main only after the barrier. */
void edgec_reset(void) {
    uint32_t *at;
#if defined(__ARM_FP)
    SCB_CPACR |= 0xfu << 20;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
    for (const copy_row *row = edgec_copies; row != edgec_copies_end; row++) {
        const uint32_t *from = row->from;
        for (at = row->start; at != row->end; at++)
            *at = *from++;
    }
    for (const zero_row *row = edgec_zeros; row != edgec_zeros_end; row++) {
        for (at = row->start; at != row->end; at++)
            *at = 0u;
    }
    /* 256 bytes below the top are in use by this function. */
    for (at = edgec_stack_limit; (uintptr_t)at < (uintptr_t)edgec_stack_top - 256u; at++)
        *(volatile uint32_t *)at = STACK_PAINT;
    SYST_RVR = 0x00ffffffu;
    SYST_CVR = 0u;
    SYST_CSR = 5u; /* on, from the processor clock, no interrupt */
    edgec_port_exit(main());
}

int main(void) {
    handle_in = open_file("edgec.in", 1u, 8u);
    handle_out = open_file("edgec.out", 5u, 9u);
    if (handle_in == UINTPTR_MAX || handle_out == UINTPTR_MAX)
        return 72;
    return edgec_harness();
}
