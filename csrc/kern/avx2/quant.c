#include <immintrin.h>

#include "kern/kern.h"

/* One block of 32 in four registers. */
static inline void block(const __m256 x[4], pl_q8 *y) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 a[4];
  for (int i = 0; i < 4; i++) a[i] = _mm256_andnot_ps(sign, x[i]);
  __m256 top = _mm256_setzero_ps(); /* max(a, b) keeps b where a is NaN */
  for (int i = 0; i < 4; i++) top = _mm256_max_ps(a[i], top);
  __m128 t = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps(top, 1));
  t = _mm_max_ps(t, _mm_movehl_ps(t, t));
  float amax = _mm_cvtss_f32(_mm_max_ss(t, _mm_shuffle_ps(t, t, 1)));
  const __m256 inv = _mm256_set1_ps(amax > 0 ? 127.0f / amax : 0.0f);

  __m256i q[4];
  for (int i = 0; i < 4; i++) {
    __m256 v = _mm256_mul_ps(x[i], inv);
    __m256 fine = _mm256_cmp_ps(_mm256_andnot_ps(sign, v), _mm256_set1_ps(127.5f), _CMP_LT_OQ);
    q[i] = _mm256_cvtps_epi32(_mm256_blendv_ps(_mm256_set1_ps(-127.0f), v, fine));
  }
  /* q[0] and q[1] are the first half, q[2] and q[3] the last */
  const __m256i ones = _mm256_set1_epi8(1), order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  bytes = _mm256_permutevar8x32_epi32(bytes, order);
  _mm256_storeu_si256((void *)y->q, bytes);
  __m256i s = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, bytes), _mm256_set1_epi16(1));
  __m128i h = _mm_hadd_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  h = _mm_hadd_epi32(h, h);
  int32_t h0 = _mm_cvtsi128_si32(h), h1 = _mm_extract_epi32(h, 1);
  y->d = amax / 127.0f;
  y->s = y->d * (float)(h0 + h1);
  y->h[0] = (int16_t)h0;
  y->h[1] = (int16_t)h1;
  y->z = -(h0 + h1);
}

void pl_quant_avx2(const float *x, int64_t k, pl_q8 *hi, pl_q8 *lo) {
  for (int64_t b = 0; b < k / 32; b++, x += 32) {
    __m256 v[4];
    for (int i = 0; i < 4; i++) v[i] = _mm256_loadu_ps(x + 8 * i);
    block(v, &hi[b]);
    if (!lo) continue;
    const __m256 d = _mm256_set1_ps(hi[b].d);
    for (int i = 0; i < 4; i++) {
      __m256 q = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(hi[b].q + 8 * i))));
      v[i] = _mm256_fnmadd_ps(d, q, v[i]);
    }
    block(v, &lo[b]);
  }
}
