#include "base/half.h"
#include "kern/kern.h"
#include "quant/grids.h"

/* 8 values: d * |value| with signs (bit set: negative). */
static void put(float d, uint16_t codes, uint8_t signs, float *y) {
  for (int i = 0; i < 8; i++) {
    float v = d * (float)pl_iq2_values[codes >> 2 * i & 3];
    y[i] = signs >> i & 1 ? -v : v;
  }
}

void pl_deq_IQ2_XXS_ref(const void *src, float *y, int64_t n) {
  const pl_block_iq2_xxs *w = src;
  for (int64_t b = 0; b < n / 256; b++)
    for (int j = 0; j < 8; j++) { /* 32 values */
      const uint16_t *q = w[b].qs + 4 * j;
      uint32_t rest = q[2] | (uint32_t)q[3] << 16;
      float d = pl_f16_f32(w[b].d) * (0.5f + (float)(rest >> 28)) * 0.25f;
      for (int i = 0; i < 4; i++, y += 8)
        put(d, pl_grid_iq2_xxs[q[i / 2] >> i % 2 * 8 & 255], pl_even_signs(rest >> 7 * i), y);
    }
}

void pl_deq_IQ2_XS_ref(const void *src, float *y, int64_t n) {
  const pl_block_iq2_xs *w = src;
  for (int64_t b = 0; b < n / 256; b++)
    for (int i = 0; i < 32; i++, y += 8) {
      float d = pl_f16_f32(w[b].d) * (0.5f + (float)(w[b].scales[i / 4] >> i / 2 % 2 * 4 & 15)) * 0.25f;
      put(d, pl_grid_iq2_xs[w[b].qs[i] & 511], pl_even_signs(w[b].qs[i] >> 9), y);
    }
}

void pl_deq_IQ2_S_ref(const void *src, float *y, int64_t n) {
  const pl_block_iq2_s *w = src;
  for (int64_t b = 0; b < n / 256; b++)
    for (int i = 0; i < 32; i++, y += 8) {
      float d = pl_f16_f32(w[b].d) * (0.5f + (float)(w[b].scales[i / 4] >> i / 2 % 2 * 4 & 15)) * 0.25f;
      put(d, pl_grid_iq2_s[w[b].qs[i] | (w[b].qh[i / 4] >> i % 4 * 2 & 3) << 8], w[b].signs[i], y);
    }
}
