/* lanes.h: kern/ref/lanes.h in AVX-512. */
#ifndef PL_AVX512_LANES_H
#define PL_AVX512_LANES_H
#include <immintrin.h>

#include "base/half.h"
#include "kern/avx2/scatter.h"
#include "kern/tile.h"

typedef __m512 v16;
typedef __mmask16 m16;

PL_INLINE v16 v_set(float a) { return _mm512_set1_ps(a); }
PL_INLINE v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
PL_INLINE void v_store(float *p, v16 x) { _mm512_storeu_ps(p, x); }
PL_INLINE v16 v_add(v16 x, v16 y) { return _mm512_add_ps(x, y); }
PL_INLINE v16 v_sub(v16 x, v16 y) { return _mm512_sub_ps(x, y); }
PL_INLINE v16 v_mul(v16 x, v16 y) { return _mm512_mul_ps(x, y); }
PL_INLINE v16 v_div(v16 x, v16 y) { return _mm512_div_ps(x, y); }
PL_INLINE v16 v_min(v16 x, v16 y) { return _mm512_min_ps(x, y); }
PL_INLINE v16 v_max(v16 x, v16 y) { return _mm512_max_ps(x, y); }
PL_INLINE m16 v_gt(v16 x, v16 y) { return _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ); }
PL_INLINE v16 v_select(m16 m, v16 x, v16 y) { return _mm512_mask_blend_ps(m, y, x); }
PL_INLINE v16 v_lookup(const float *table, v16 at) {
  return _mm512_permutexvar_ps(_mm512_cvttps_epi32(at), _mm512_loadu_ps(table));
}
PL_INLINE void v_bytes(uint8_t *p, v16 x) {
  _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(x)));
}
PL_INLINE v16 v_half(v16 x, uint16_t *h) {
  __m256i a = _mm512_cvtps_ph(x, 0);
  _mm256_storeu_si256((void *)h, a);
  return _mm512_cvtph_ps(a);
}
PL_INLINE void v_columns(const float *const *p, v16 *t) {
  __m512 a[16], b[16];
  PL_UNROLL for (int r = 0; r < 16; r++) a[r] = _mm512_loadu_ps(p[r]);
  PL_UNROLL for (int r = 0; r < 16; r += 2) {
    b[r] = _mm512_unpacklo_ps(a[r], a[r + 1]);
    b[r + 1] = _mm512_unpackhi_ps(a[r], a[r + 1]);
  }
  PL_UNROLL for (int r = 0; r < 16; r += 4) { /* a[r + c]: columns c, 4 + c, 8 + c, 12 + c of four rows */
    a[r] = _mm512_shuffle_ps(b[r], b[r + 2], 0x44);
    a[r + 1] = _mm512_shuffle_ps(b[r], b[r + 2], 0xee);
    a[r + 2] = _mm512_shuffle_ps(b[r + 1], b[r + 3], 0x44);
    a[r + 3] = _mm512_shuffle_ps(b[r + 1], b[r + 3], 0xee);
  }
  PL_UNROLL for (int c = 0; c < 4; c++) {
    __m512 lo0 = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x44), hi0 = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xee);
    __m512 lo1 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x44),
           hi1 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xee);
    t[c] = _mm512_shuffle_f32x4(lo0, lo1, 0x88);
    t[4 + c] = _mm512_shuffle_f32x4(lo0, lo1, 0xdd);
    t[8 + c] = _mm512_shuffle_f32x4(hi0, hi1, 0x88);
    t[12 + c] = _mm512_shuffle_f32x4(hi0, hi1, 0xdd);
  }
}

#endif
