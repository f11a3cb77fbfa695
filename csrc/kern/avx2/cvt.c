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
