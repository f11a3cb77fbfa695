#include "kern/avx512/pair.h"

/* As packed by the AVX2 room: 16 scales, then per 32 values 16 + 16 scale codes, 3 lines of codes. */
enum { SUB = 32 + 192 };

/* Quad q of the three lines. */
PL_INLINE __m512i code(const __m512i v[3], int q) {
  if (q < 6) return _mm512_and_si512(_mm512_srli_epi16(v[q / 2], q % 2 * 3), _mm512_set1_epi8(7));
  __m512i two = _mm512_and_si512(_mm512_srli_epi16(v[q - 6], 6), _mm512_set1_epi8(3));
  return _mm512_or_si512(two, _mm512_and_si512(_mm512_srli_epi16(v[2], q - 2), _mm512_set1_epi8(4)));
}

/* idot = sc0 * (first 16) + sc1 * (last 16), each half's sum starting from its zero point; the sums fit in int16. */
PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  __m512 acc[8];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    __m512 d = half16(w);
    w += 32;
    for (int j = 0; j < 8; j++, w += SUB) {
      fetch_ahead(w, SUB);
      const __m512i codes[3] = {line(w + 32), line(w + 96), line(w + 160)},
                    sc = pairs(sbytes16(w), sbytes16(w + 16));
      __m512i sum[2][8];
      PL_UNROLL for (int hi = 0; hi < 2; hi++) {
        PL_UNROLL for (int t = 0; t < NT; t++) sum[hi][t] =
            _mm512_set1_epi32(-4 * act(a, stride, t, b + j)->h[hi]);
        PL_UNROLL for (int q = 4 * hi; q < 4 * hi + 4; q++) {
          __m512i v = code(codes, q);
          PL_UNROLL for (int t = 0; t < NT; t++) {
            sum[hi][t] = _mm512_dpbusd_epi32(sum[hi][t], v, quad(act(a, stride, t, b + j), q));
            PL_PIN(sum[hi][t]);
          }
        }
      }
      PL_UNROLL for (int t = 0; t < NT; t++) {
        __m512i idot = _mm512_madd_epi16(pairs(sum[0][t], sum[1][t]), sc);
        acc[t] = scaled(idot, d, _mm512_set1_ps(act(a, stride, t, b + j)->d), acc[t]);
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM8(Q3_K)

/* (q - 4) * sc is -124 .. 128, so 127 more fits in a byte: modulo 256, q * sc + (127 - 4 * sc). */
PL_INLINE void unpack(const uint8_t *w, int n, int p, pl_pair *u) {
  const __m512 d = half16(w);
  const __m512i even = _mm512_set1_epi16(255);
  w += 32;
  for (int j = 0; j < n; j++, w += SUB) {
    const __m512i codes[3] = {line(w + 32), line(w + 96), line(w + 160)};
    _mm512_store_ps(u->d[j][p], d);
    PL_UNROLL for (int hi = 0; hi < 2; hi++) {
      __m512i sc = sbytes16(w + 16 * hi),
              start = _mm512_sub_epi32(_mm512_set1_epi32(127), _mm512_slli_epi32(sc, 2));
      sc = pairs(sc, sc);
      start = _mm512_and_si512(pairs(start, start), even);
      start = _mm512_or_si512(start, _mm512_slli_epi16(start, 8));
      PL_UNROLL for (int q = 4 * hi; q < 4 * hi + 4; q++) {
        __m512i v = code(codes, q);
        __m512i lo = _mm512_mullo_epi16(_mm512_and_si512(v, even), sc);
        __m512i up = _mm512_slli_epi16(_mm512_mullo_epi16(_mm512_srli_epi16(v, 8), sc), 8);
        v = _mm512_or_si512(_mm512_and_si512(lo, even), up);
        put_quad(u, j, q, p, _mm512_add_epi8(v, start));
      }
    }
  }
}
PL_MM2(Q3_K, 32 + 8 * SUB, unpack, pl_pair_zero127)
