/* SPDX-License-Identifier: Apache-2.0 */
/* port.h: what the harness asks of the machine below it. One port_*.c supplies it per machine. */
#ifndef EDGEC_PORT_H
#define EDGEC_PORT_H

#include <stddef.h>
#include <stdint.h>

/* Read exactly `bytes` bytes of the command stream; 0 when it has ended. */
int edgec_port_read(void *to, size_t bytes);
void edgec_port_write(const void *from, size_t bytes);
void edgec_port_exit(int code);

/* A free-running tick counter that counts up, or 0 where the machine has none, and how far it has
 * come since it was `before`, however few bits it has. */
uint32_t edgec_port_ticks(void);
uint32_t edgec_port_ticks_since(uint32_t before);

/* Deepest stack use below `frame` since start-up, from the painted pattern; 0 where it is not
 * known. */
uint32_t edgec_port_stack_used(const void *frame);
uint32_t edgec_port_stack_size(void);

int edgec_harness(void);

#endif
