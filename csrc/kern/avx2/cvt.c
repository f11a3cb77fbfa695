#include <immintrin.h>

#include "base/half.h"
#include "kern/kern.h"

void pl_load_f16_avx2(const uint16_t *x, int64_t n, float *y) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(x + i))));
  for (; i < n; i++) y[i] = pl_f16_f32(x[i]);
}

void pl_store_f16_avx2(const float *x, int64_t n, uint16_t *y) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128((void *)(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < n; i++) y[i] = pl_f32_f16(x[i]);
}

void pl_store_bf16_avx2(const float *x, int64_t n, uint16_t *y) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    __m256 v = _mm256_loadu_ps(x + i);
    __m256i u = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i near = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)), quiet = _mm256_set1_epi32(64 << 16);
    u = _mm256_srli_epi32(_mm256_blendv_epi8(near, _mm256_or_si256(u, quiet), nan), 16);
    _mm_storeu_si128((void *)(y + i), _mm_packus_epi32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1)));
  }
  for (; i < n; i++) y[i] = pl_f32_bf16(x[i]);
}
