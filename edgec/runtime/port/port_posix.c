/* SPDX-License-Identifier: Apache-2.0 */
/* port_posix.c: the harness as a command that reads stdin and writes stdout (ARM Linux, host).
 *
 * Where an emulator counts instructions, the variable EDGEC_COUNTER names the file with its count.
 */
#include "port.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const volatile uint64_t *counter;

int edgec_port_read(void *to, size_t bytes) {
    uint8_t *at = to;
    while (bytes != 0u) {
        ssize_t got = read(0, at, bytes);
        if (got <= 0)
            return 0;
        at += got;
        bytes -= (size_t)got;
    }
    return 1;
}

void edgec_port_write(const void *from, size_t bytes) {
    const uint8_t *at = from;
    while (bytes != 0u) {
        ssize_t put = write(1, at, bytes);
        if (put <= 0)
            exit(71);
        at += put;
        bytes -= (size_t)put;
    }
}

void edgec_port_exit(int code) {
    exit(code);
}

uint32_t edgec_port_ticks(void) {
    return counter != NULL ? (uint32_t)*counter : 0u;
}

uint32_t edgec_port_ticks_since(uint32_t before) {
    return edgec_port_ticks() - before;
}

uint32_t edgec_port_stack_used(const void *frame) {
    (void)frame;
    return 0;
}

uint32_t edgec_port_stack_size(void) {
    return 0;
}

static void open_counter(const char *path) {
    int file = open(path, O_RDONLY);
    void *mapped = mmap(NULL, sizeof *counter, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || mapped == MAP_FAILED)
        exit(72);
    counter = mapped;
}

int main(void) {
    const char *path = getenv("EDGEC_COUNTER");
    if (path != NULL)
        open_counter(path);
    return edgec_harness();
}
