#include "kern/avx2/deq.h"
#include "kern/ref/codes.h"

void pl_deq_NVFP4_avx2(const void *src, float *y, int64_t n) {
  const pl_block_nvfp4 *w = src;
  const __m128i table = _mm_loadu_si128((const void *)values_e2m1), low = _mm_set1_epi8(15);
  for (int64_t b = 0; b < n / 64; b++)
    for (int j = 0; j < 4; j++, y += 16) {
      __m128i q = _mm_loadl_epi64((const void *)(w[b].qs + 8 * j));
      q = _mm_shuffle_epi8(table, _mm_and_si128(_mm_unpacklo_epi64(q, _mm_srli_epi16(q, 4)), low));
      __m256 d = _mm256_set1_ps(pl_ue4m3_half(w[b].d[j]));
      _mm256_storeu_ps(y, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q))));
      q = _mm_unpackhi_epi64(q, q);
      _mm256_storeu_ps(y + 8, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q))));
    }
}
