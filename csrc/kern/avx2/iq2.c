#include "kern/avx2/deq.h"

/* Values of eight codes of two bits; the third bit of an index belongs to the next code. */
static const float values[8] = {8, 25, 43, 0, 8, 25, 43, 0};

void pl_deq_IQ2_XXS_avx2(const void *src, float *y, int64_t n) {
  const pl_block_iq2_xxs *w = src;
  const __m256 table = _mm256_loadu_ps(values);
  for (int64_t b = 0; b < n / 256; b++)
    for (int j = 0; j < 8; j++) {
      const uint16_t *q = w[b].qs + 4 * j;
      uint32_t rest = q[2] | (uint32_t)q[3] << 16;
      float d = pl_f16_f32(w[b].d) * (0.5f + (float)(rest >> 28)) * 0.25f;
      for (int i = 0; i < 4; i++, y += 8)
        put_signed(lookup8(table, pl_grid_iq2_xxs[q[i / 2] >> i % 2 * 8 & 255], 2), d,
                   pl_even_signs(rest >> 7 * i), y);
    }
}

void pl_deq_IQ2_XS_avx2(const void *src, float *y, int64_t n) {
  const pl_block_iq2_xs *w = src;
  const __m256 table = _mm256_loadu_ps(values);
  for (int64_t b = 0; b < n / 256; b++)
    for (int i = 0; i < 32; i++, y += 8) {
      float d = pl_f16_f32(w[b].d) * (0.5f + (float)(w[b].scales[i / 4] >> i / 2 % 2 * 4 & 15)) * 0.25f;
      put_signed(lookup8(table, pl_grid_iq2_xs[w[b].qs[i] & 511], 2), d, pl_even_signs(w[b].qs[i] >> 9), y);
    }
}

void pl_deq_IQ2_S_avx2(const void *src, float *y, int64_t n) {
  const pl_block_iq2_s *w = src;
  const __m256 table = _mm256_loadu_ps(values);
  for (int64_t b = 0; b < n / 256; b++)
    for (int i = 0; i < 32; i++, y += 8) {
      float d = pl_f16_f32(w[b].d) * (0.5f + (float)(w[b].scales[i / 4] >> i / 2 % 2 * 4 & 15)) * 0.25f;
      int entry = w[b].qs[i] | (w[b].qh[i / 4] >> i % 4 * 2 & 3) << 8;
      put_signed(lookup8(table, pl_grid_iq2_s[entry], 2), d, w[b].signs[i], y);
    }
}
