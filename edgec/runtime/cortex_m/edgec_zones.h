/* SPDX-License-Identifier: Apache-2.0 */
/* edgec_zones.h: biases of a convolution that depend on the place, by zones of rows and columns. */
/* Included for edgec_rows3_zones, edgec_mve_zones. */
#ifndef EDGEC_ZONES_H
#define EDGEC_ZONES_H

#include "edgec_simd.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Read from 4 words of 16 bits, behind which the zones of all rows and then of all columns lie. */
typedef struct {
    int16_t outputs, height, width, col_zones;
} edgec_zones;

/* Kernels have what the biases of each zone have more than those in the stream of the weights, for
 * all outputs, zone by zone. This is how far behind the first zone's, which are 0, those of output
 * number `place` of an image (or of several) lie. */
EDGEC_INLINE int32_t edgec_zones_at(const int16_t *map, int32_t place) {
    edgec_zones g;
    edgec_memcpy(&g, map, sizeof g);
    int32_t i = place / g.width, j = place - i * g.width;
    const int16_t *rows = map + 4, *cols = rows + g.height;
    while (i >= g.height)
        i -= g.height;
    return (rows[i] * g.col_zones + cols[j]) * g.outputs;
}

#ifdef __cplusplus
}
#endif

#endif
