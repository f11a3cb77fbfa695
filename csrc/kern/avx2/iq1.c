#include "kern/avx2/deq.h"

/* Values of eight codes of two bits; the third bit of an index belongs to the next code. */
static const float values[8] = {-1, 0, 1, 2, -1, 0, 1, 2};

/* 8 values: d * (value + shift). */
PL_INLINE void put(__m256 table, float d, uint16_t codes, int negative, float *y) {
  __m256 v = _mm256_add_ps(lookup8(table, codes, 2), _mm256_set1_ps(negative ? -0.125f : 0.125f));
  _mm256_storeu_ps(y, _mm256_mul_ps(_mm256_set1_ps(d), v));
}

void pl_deq_IQ1_S_avx2(const void *src, float *y, int64_t n) {
  const pl_block_iq1_s *w = src;
  const __m256 table = _mm256_loadu_ps(values);
  for (int64_t b = 0; b < n / 256; b++)
    for (int i = 0; i < 32; i++, y += 8) {
      uint16_t qh = w[b].qh[i / 4];
      float d = pl_f16_f32(w[b].d) * (float)(2 * (qh >> 12 & 7) + 1);
      put(table, d, pl_grid_iq1_s[w[b].qs[i] | (qh >> i % 4 * 3 & 7) << 8], qh >> 15, y);
    }
}

void pl_deq_IQ1_M_avx2(const void *src, float *y, int64_t n) {
  const pl_block_iq1_m *w = src;
  const __m256 table = _mm256_loadu_ps(values);
  for (int64_t b = 0; b < n / 256; b++) {
    uint16_t s[4];
    memcpy(s, w[b].scales, 8);
    uint16_t half = (uint16_t)(s[0] >> 12 | (s[1] >> 12) << 4 | (s[2] >> 12) << 8 | (s[3] >> 12) << 12);
    for (int i = 0; i < 32; i++, y += 8) {
      uint8_t qh = w[b].qh[i / 2] >> i % 2 * 4 & 15;
      float d = pl_f16_f32(half) * (float)(2 * (s[i / 8] >> i / 2 % 4 * 3 & 7) + 1);
      put(table, d, pl_grid_iq1_s[w[b].qs[i] | (qh & 7) << 8], qh >> 3, y);
    }
  }
}
