#include "kern/avx2/deq.h"

void pl_deq_IQ3_XXS_avx2(const void *src, float *y, int64_t n) {
  static const float values[8] = {4, 12, 20, 28, 36, 44, 52, 62};
  const pl_block_iq3_xxs *w = src;
  const __m256 table = _mm256_loadu_ps(values);
  for (int64_t b = 0; b < n / 256; b++)
    for (int i = 0; i < 32; i++, y += 8) {
      uint32_t rest = w[b].signs[i / 4 * 2] | (uint32_t)w[b].signs[i / 4 * 2 + 1] << 16;
      uint32_t codes = pl_grid_iq3_xxs[w[b].qs[2 * i]] | (uint32_t)pl_grid_iq3_xxs[w[b].qs[2 * i + 1]] << 12;
      float d = pl_f16_f32(w[b].d) * (0.5f + (float)(rest >> 28)) * 0.5f;
      put_signed(lookup8(table, codes, 3), d, pl_even_signs(rest >> i % 4 * 7), y);
    }
}

void pl_deq_IQ3_S_avx2(const void *src, float *y, int64_t n) {
  static const float values[8] = {1, 3, 5, 7, 9, 11, 13, 15};
  const pl_block_iq3_s *w = src;
  const __m256 table = _mm256_loadu_ps(values);
  for (int64_t b = 0; b < n / 256; b++)
    for (int i = 0; i < 32; i++, y += 8) {
      int high = w[b].qh[i / 4] >> i % 4 * 2;
      uint32_t codes = pl_grid_iq3_s[w[b].qs[2 * i] | (high & 1) << 8] |
                       (uint32_t)pl_grid_iq3_s[w[b].qs[2 * i + 1] | (high & 2) << 7] << 12;
      float d = pl_f16_f32(w[b].d) * (float)(1 + 2 * (w[b].scales[i / 8] >> i / 4 % 2 * 4 & 15));
      put_signed(lookup8(table, codes, 3), d, w[b].signs[i], y);
    }
}
