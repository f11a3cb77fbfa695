#include "kern/avx512/pair.h"

/* As packed by the AVX2 room: 16 scales, then per 32 values 16 scale codes, 4 nibble lines. */
enum { SUB = 16 + 256 };

PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  __m512 acc[8];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    __m512 d = half16(w);
    w += 32;
    for (int j = 0; j < 8; j++, w += SUB) {
      fetch_ahead(w, SUB);
      __m512i idot[8];
      PL_UNROLL for (int t = 0; t < NT; t++) idot[t] = zero_point(act(a, stride, t, b + j), 128);
      dot_iq4(w + 16, a, stride, b + j, idot, NT);
      __m512 ds = _mm512_mul_ps(d, _mm512_cvtepi32_ps(sbytes16(w)));
      PL_UNROLL for (int t = 0; t < NT; t++) acc[t] =
          scaled(idot[t], ds, _mm512_set1_ps(act(a, stride, t, b + j)->d), acc[t]);
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM8(IQ4_XS)

PL_INLINE void unpack(const uint8_t *w, int n, int p, pl_pair *u) {
  __m512 d = half16(w);
  w += 32;
  for (int j = 0; j < n; j++, w += SUB) {
    _mm512_store_ps(u->d[j][p], _mm512_mul_ps(d, _mm512_cvtepi32_ps(sbytes16(w))));
    put_iq4(u, j, p, w + 16);
  }
}
PL_MM2(IQ4_XS, 32 + 8 * SUB, unpack, pl_pair_zero128)
