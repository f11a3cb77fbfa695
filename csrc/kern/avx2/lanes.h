/* lanes.h: kern/ref/lanes.h in AVX2. */
#ifndef PL_AVX2_LANES_H
#define PL_AVX2_LANES_H
#include <immintrin.h>

#include "base/half.h"
#include "kern/avx2/scatter.h"
#include "kern/tile.h"

typedef struct {
  __m256 a, b;
} v16;
typedef v16 m16;

#define V_BOTH(f) \
  (v16) { f(x.a, y.a), f(x.b, y.b) }

PL_INLINE v16 v_set(float a) { return (v16){_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
PL_INLINE v16 v_load(const float *p) { return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
PL_INLINE void v_store(float *p, v16 x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
PL_INLINE v16 v_add(v16 x, v16 y) { return V_BOTH(_mm256_add_ps); }
PL_INLINE v16 v_sub(v16 x, v16 y) { return V_BOTH(_mm256_sub_ps); }
PL_INLINE v16 v_mul(v16 x, v16 y) { return V_BOTH(_mm256_mul_ps); }
PL_INLINE v16 v_div(v16 x, v16 y) { return V_BOTH(_mm256_div_ps); }
PL_INLINE v16 v_min(v16 x, v16 y) { return V_BOTH(_mm256_min_ps); }
PL_INLINE v16 v_max(v16 x, v16 y) { return V_BOTH(_mm256_max_ps); }
PL_INLINE m16 v_gt(v16 x, v16 y) {
  return (m16){_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)};
}
PL_INLINE v16 v_select(m16 m, v16 x, v16 y) {
  return (v16){_mm256_blendv_ps(y.a, x.a, m.a), _mm256_blendv_ps(y.b, x.b, m.b)};
}
PL_INLINE __m256 lookup8(const float *table, __m256 at) {
  __m256i i = _mm256_cvttps_epi32(at);
  __m256 lo = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), i);
  __m256 hi = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), i);
  return _mm256_blendv_ps(lo, hi, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
}
PL_INLINE v16 v_lookup(const float *table, v16 at) { return (v16){lookup8(table, at.a), lookup8(table, at.b)}; }
PL_INLINE void v_bytes(uint8_t *p, v16 x) {
  __m256i low = _mm256_set1_epi32(255);
  __m256i a = _mm256_and_si256(_mm256_cvttps_epi32(x.a), low), b = _mm256_and_si256(_mm256_cvttps_epi32(x.b), low);
  __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
  __m128i c = _mm_packus_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
  _mm_storeu_si128((void *)p, c);
}
PL_INLINE v16 v_half(v16 x, uint16_t *h) {
  __m128i a = _mm256_cvtps_ph(x.a, 0), b = _mm256_cvtps_ph(x.b, 0);
  _mm_storeu_si128((void *)h, a);
  _mm_storeu_si128((void *)(h + 8), b);
  return (v16){_mm256_cvtph_ps(a), _mm256_cvtph_ps(b)};
}
/* t [8] = the transpose of 8 values from each of 8 rows. */
PL_INLINE void columns8(const float *const *p, int64_t i, __m256 *t) {
  __m256 a[8], b[8];
  PL_UNROLL for (int r = 0; r < 8; r++) a[r] = _mm256_loadu_ps(p[r] + i);
  PL_UNROLL for (int r = 0; r < 8; r += 2) {
    b[r] = _mm256_unpacklo_ps(a[r], a[r + 1]);
    b[r + 1] = _mm256_unpackhi_ps(a[r], a[r + 1]);
  }
  PL_UNROLL for (int r = 0; r < 8; r += 4) {
    a[r] = _mm256_shuffle_ps(b[r], b[r + 2], 0x44);
    a[r + 1] = _mm256_shuffle_ps(b[r], b[r + 2], 0xee);
    a[r + 2] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0x44);
    a[r + 3] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0xee);
  }
  PL_UNROLL for (int c = 0; c < 4; c++) {
    t[c] = _mm256_permute2f128_ps(a[c], a[4 + c], 0x20);
    t[4 + c] = _mm256_permute2f128_ps(a[c], a[4 + c], 0x31);
  }
}
PL_INLINE void v_columns(const float *const *p, v16 *t) {
  for (int i = 0; i < 16; i += 8) {
    __m256 a[8], b[8];
    columns8(p, i, a);
    columns8(p + 8, i, b);
    PL_UNROLL for (int c = 0; c < 8; c++) t[i + c] = (v16){a[c], b[c]};
  }
}

#endif
