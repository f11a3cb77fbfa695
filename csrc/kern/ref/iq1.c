#include "base/half.h"
#include "kern/kern.h"
#include "quant/grids.h"

/* 8 values: d * (value + shift). */
static void put(float d, uint16_t codes, int negative, float *y) {
  float shift = negative ? -0.125f : 0.125f;
  for (int i = 0; i < 8; i++) y[i] = d * ((float)(codes >> 2 * i & 3) - 1.0f + shift);
}

void pl_deq_IQ1_S_ref(const void *src, float *y, int64_t n) {
  const pl_block_iq1_s *w = src;
  for (int64_t b = 0; b < n / 256; b++)
    for (int i = 0; i < 32; i++, y += 8) {
      uint16_t qh = w[b].qh[i / 4];
      float d = pl_f16_f32(w[b].d) * (float)(2 * (qh >> 12 & 7) + 1);
      put(d, pl_grid_iq1_s[w[b].qs[i] | (qh >> i % 4 * 3 & 7) << 8], qh >> 15, y);
    }
}

void pl_deq_IQ1_M_ref(const void *src, float *y, int64_t n) {
  const pl_block_iq1_m *w = src;
  for (int64_t b = 0; b < n / 256; b++) {
    uint16_t s[4], half = 0;
    for (int i = 0; i < 4; i++) {
      s[i] = (uint16_t)(w[b].scales[2 * i] | w[b].scales[2 * i + 1] << 8);
      half = (uint16_t)(half | (s[i] >> 12) << 4 * i);
    }
    for (int i = 0; i < 32; i++, y += 8) {
      uint8_t qh = w[b].qh[i / 2] >> i % 2 * 4 & 15;
      float d = pl_f16_f32(half) * (float)(2 * (s[i / 8] >> i / 2 % 4 * 3 & 7) + 1);
      put(d, pl_grid_iq1_s[w[b].qs[i] | (qh & 7) << 8], qh >> 3, y);
    }
  }
}
