#include "base/half.h"
#include "kern/kern.h"
#include "quant/grids.h"

void pl_deq_IQ3_XXS_ref(const void *src, float *y, int64_t n) {
  const pl_block_iq3_xxs *w = src;
  for (int64_t b = 0; b < n / 256; b++)
    for (int j = 0; j < 8; j++) { /* 32 values */
      uint32_t rest = w[b].signs[2 * j] | (uint32_t)w[b].signs[2 * j + 1] << 16;
      float d = pl_f16_f32(w[b].d) * (0.5f + (float)(rest >> 28)) * 0.5f;
      for (int i = 0; i < 32; i++, y++) {
        uint16_t codes = pl_grid_iq3_xxs[w[b].qs[8 * j + i / 4]];
        float v = d * (float)pl_iq3_xxs_values[codes >> i % 4 * 3 & 7];
        *y = pl_even_signs(rest >> i / 8 * 7) >> i % 8 & 1 ? -v : v;
      }
    }
}

void pl_deq_IQ3_S_ref(const void *src, float *y, int64_t n) {
  const pl_block_iq3_s *w = src;
  for (int64_t b = 0; b < n / 256; b++)
    for (int i = 0; i < 256; i++, y++) {
      float d = pl_f16_f32(w[b].d) * (float)(1 + 2 * (w[b].scales[i / 64] >> i / 32 % 2 * 4 & 15));
      uint16_t codes = pl_grid_iq3_s[w[b].qs[i / 4] | (w[b].qh[i / 32] >> i / 4 % 8 & 1) << 8];
      float v = d * (float)(2 * (codes >> i % 4 * 3 & 7) + 1);
      *y = w[b].signs[i / 8] >> i % 8 & 1 ? -v : v;
    }
}
