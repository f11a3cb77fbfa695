#include "base/half.h"
#include "kern/kern.h"

/* Ternary digit i of a byte that holds a fraction in base 3: -1, 0 or 1. */
static float trit(uint8_t q, int i) {
  static const uint8_t power[5] = {1, 3, 9, 27, 81};
  return (float)(((uint8_t)(q * power[i]) * 3 >> 8) - 1);
}

void pl_deq_TQ1_0_ref(const void *src, float *y, int64_t n) {
  const pl_block_tq1_0 *w = src;
  for (int64_t b = 0; b < n / 256; b++) {
    float d = pl_f16_f32(w[b].d);
    for (int i = 0; i < 160; i++) *y++ = d * trit(w[b].qs[i % 32], i / 32);
    for (int i = 0; i < 80; i++) *y++ = d * trit(w[b].qs[32 + i % 16], i / 16);
    for (int i = 0; i < 16; i++) *y++ = d * trit(w[b].qh[i % 4], i / 4);
  }
}

void pl_deq_TQ2_0_ref(const void *src, float *y, int64_t n) {
  const pl_block_tq2_0 *w = src;
  for (int64_t b = 0; b < n / 256; b++) {
    float d = pl_f16_f32(w[b].d);
    for (int i = 0; i < 256; i++) *y++ = d * (float)((w[b].qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3) - 1);
  }
}
