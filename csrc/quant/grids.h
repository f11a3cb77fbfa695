/* grids.h: the codebooks of the IQ types (grids.c), and what their codes stand for. */
#ifndef PL_GRIDS_H
#define PL_GRIDS_H
#include <stdint.h>

extern const uint16_t pl_grid_iq2_xxs[256], pl_grid_iq2_xs[512], pl_grid_iq2_s[1024]; /* 8 codes of 2 bits */
extern const uint16_t pl_grid_iq3_xxs[256], pl_grid_iq3_s[512];                       /* 4 codes of 3 bits */
extern const uint16_t pl_grid_iq1_s[2048];                                            /* 8 codes of 2 bits */

static const uint8_t pl_iq2_values[4] = {8, 25, 43, 0};
static const uint8_t pl_iq3_xxs_values[8] = {4, 12, 20, 28, 36, 44, 52, 62};

/* Eight signs, one per bit, from seven: the eighth makes their number even. */
static inline uint8_t pl_even_signs(uint32_t seven) {
  uint32_t v = seven & 127, parity = v ^ v >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return (uint8_t)(v | (parity & 1) << 7);
}

#endif
