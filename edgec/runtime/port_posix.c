/* port_posix.c: the harness as a command that reads stdin and writes stdout (ARM Linux, host). */
#include "port.h"

#include <stdlib.h>
#include <unistd.h>

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
    return 0;
}

uint32_t edgec_port_stack_used(const void *frame) {
    (void)frame;
    return 0;
}

uint32_t edgec_port_stack_size(void) {
    return 0;
}

int main(void) {
    return edgec_harness();
}
