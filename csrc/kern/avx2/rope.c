#include <immintrin.h>

#include "kern/kern.h"

/* Pairs (2i, 2i+1): a and b lie side by side as cos and sin do. */
static void interleaved_head(float *x, int32_t half, const float *cs) {
  int32_t i = 0;
  for (; i + 4 <= half; i += 4) {
    __m256 v = _mm256_loadu_ps(x + 2 * i), r = _mm256_loadu_ps(cs + 2 * i);
    __m256 t = _mm256_mul_ps(_mm256_permute_ps(v, 0xb1), _mm256_movehdup_ps(r)); /* b s, a s */
    _mm256_storeu_ps(x + 2 * i, _mm256_fmaddsub_ps(v, _mm256_moveldup_ps(r), t));
  }
  for (; i < half; i++) {
    float a = x[2 * i], b = x[2 * i + 1], c = cs[2 * i], s = cs[2 * i + 1];
    x[2 * i] = fmaf(a, c, -(b * s));
    x[2 * i + 1] = fmaf(b, c, a * s);
  }
}

/* Pairs (i, i + half). */
static void split_head(float *x, int32_t half, const float *cs) {
  int32_t i = 0;
  for (; i + 8 <= half; i += 8) {
    __m256 r0 = _mm256_loadu_ps(cs + 2 * i), r1 = _mm256_loadu_ps(cs + 2 * i + 8);
    __m256 lo = _mm256_permute2f128_ps(r0, r1, 0x20), hi = _mm256_permute2f128_ps(r0, r1, 0x31);
    __m256 c = _mm256_shuffle_ps(lo, hi, 0x88), s = _mm256_shuffle_ps(lo, hi, 0xdd);
    __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + half);
    _mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
    _mm256_storeu_ps(x + i + half, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
  }
  for (; i < half; i++) {
    float a = x[i], b = x[i + half], c = cs[2 * i], s = cs[2 * i + 1];
    x[i] = fmaf(a, c, -(b * s));
    x[i + half] = fmaf(b, c, a * s);
  }
}

void pl_rope_avx2(float *x, int32_t n_heads, int64_t head_stride, int32_t n_rot, int32_t interleaved,
                  const float *cs) {
  for (int32_t h = 0; h < n_heads; h++, x += head_stride)
    if (interleaved)
      interleaved_head(x, n_rot / 2, cs);
    else
      split_head(x, n_rot / 2, cs);
}
