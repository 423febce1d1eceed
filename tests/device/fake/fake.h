#ifndef FAKE_H
#define FAKE_H

#include "edgec.h"

#define FAKE_ARENA_BYTES 64

/* An accumulator with a delay of two frames: output n is the sum of inputs 0..n, one frame late
 * twice. */
typedef struct {
    int32_t sum[4];
    int32_t history[2][4];
    int32_t frames;
    int32_t flushed;
} fake_state;

int fake_init(fake_state *s);
int fake_reset(fake_state *s);
int fake_step(fake_state *s, void *arena, const int16_t x[4], const int8_t gain[1], int32_t y[4],
              float mean[1]);
int fake_flush(fake_state *s, void *arena, int32_t y[4], float mean[1]);

#endif
