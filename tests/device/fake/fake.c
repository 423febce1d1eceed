#include "fake.h"

static void fake_k0(int32_t *scaled, const int16_t *x, const int8_t *gain) {
    for (int i = 0; i < 4; i++)
        scaled[i] = (int32_t)x[i] * gain[0];
}

static void fake_k1(int32_t *sum, const int32_t *scaled) {
    for (int i = 0; i < 4; i++)
        sum[i] += scaled[i];
}

static void fake_k2(float *mean, const int32_t *y) {
    float total = 0.0f;
    for (int i = 0; i < 4; i++)
        total += (float)y[i];
    mean[0] = total * 0.25f;
}

/* Put the newest sum into the ring and give out the one from two frames ago. */
static int fake_emit(fake_state *s, int32_t *y, float *mean) {
    int32_t *slot = s->history[s->frames & 1];
    int ready = s->frames >= 2;
    if (ready) {
        edgec_memcpy(y, slot, 16);
        fake_k2(mean, y);
    }
    edgec_memcpy(slot, s->sum, 16);
    s->frames++;
    return ready;
}

int fake_init(fake_state *s) {
    if (s == NULL)
        return EDGEC_E_ARG;
    return fake_reset(s);
}

int fake_reset(fake_state *s) {
    if (s == NULL)
        return EDGEC_E_ARG;
    edgec_memset(s, 0, sizeof *s);
    return EDGEC_OK;
}

int fake_step(fake_state *s, void *arena, const int16_t x[4], const int8_t gain[1], int32_t y[4],
              float mean[1]) {
    int32_t *scaled = arena;
    int ready;
    if (s == NULL || arena == NULL || x == NULL || gain == NULL || y == NULL || mean == NULL)
        return EDGEC_E_ARG;
    if (s->flushed != 0)
        return EDGEC_E_FLUSHED;
    fake_k0(scaled, x, gain);
    EDGEC_MARK(0);
    fake_k1(s->sum, scaled);
    EDGEC_MARK(1);
    ready = fake_emit(s, y, mean);
    if (ready)
        EDGEC_MARK(2);
    return ready;
}

int fake_flush(fake_state *s, void *arena, int32_t y[4], float mean[1]) {
    if (s == NULL || arena == NULL || y == NULL || mean == NULL)
        return EDGEC_E_ARG;
    if (s->flushed >= 2 || s->flushed >= s->frames)
        return EDGEC_OK;
    s->flushed++;
    if (s->frames < 2)
        s->frames = 2;
    return fake_emit(s, y, mean);
}
