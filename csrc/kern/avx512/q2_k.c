#include "kern/avx512/pair.h"

/* As packed by the AVX2 room: 16 scales, 16 scales of the minimums, then per 32 values 16 + 16 codes of scales and
 * minimums, 2 lines of two-bit codes. */
enum { SUB = 32 + 128 };

/* Codes are multiplied with their scales before the dot product: at most 45, two to an int16 without a carry. */
PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  __m512 acc[8];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    __m512 d = half16(w), dmin = half16(w + 32);
    w += 64;
    for (int j = 0; j < 8; j++, w += SUB) {
      fetch_ahead(w, SUB);
      __m512i s[2] = {bytes16(w), bytes16(w + 16)}, idot[8];
      PL_UNROLL for (int t = 0; t < NT; t++) idot[t] = _mm512_setzero_si512();
      PL_UNROLL for (int hi = 0; hi < 2; hi++) {
        __m512i sc = low4(s[hi]), codes = line(w + 32 + 64 * hi);
        sc = pairs(sc, sc);
        PL_UNROLL for (int g = 0; g < 4; g++) {
          __m512i v = _mm512_and_si512(_mm512_srli_epi16(codes, 2 * g), _mm512_set1_epi8(3));
          v = _mm512_mullo_epi16(v, sc);
          PL_UNROLL for (int t = 0; t < NT; t++) {
            idot[t] = _mm512_dpbusd_epi32(idot[t], v, quad(act(a, stride, t, b + j), 4 * hi + g));
            PL_PIN(idot[t]);
          }
        }
      }
      __m512i m = pairs(_mm512_srli_epi32(s[0], 4), _mm512_srli_epi32(s[1], 4));
      PL_UNROLL for (int t = 0; t < NT; t++) {
        const pl_q8 *x = act(a, stride, t, b + j);
        __m512 da = _mm512_set1_ps(x->d), min = _mm512_cvtepi32_ps(_mm512_madd_epi16(bcast4(x->h), m));
        acc[t] = _mm512_fnmadd_ps(min, _mm512_mul_ps(dmin, da), scaled(idot[t], d, da, acc[t]));
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM8(Q2_K)

PL_INLINE void unpack(const uint8_t *w, int n, int p, pl_pair *u) {
  const __m512 d = half16(w), dmin = half16(w + 32);
  w += 64;
  for (int j = 0; j < n; j++, w += SUB) {
    const __m512i s[2] = {bytes16(w), bytes16(w + 16)};
    _mm512_store_ps(u->d[j][p], d);
    _mm512_store_ps(u->m[j][p], _mm512_xor_ps(dmin, _mm512_set1_ps(-0.0f)));
    _mm512_store_si512(u->half[j][p][0], pairs(_mm512_srli_epi32(s[0], 4), _mm512_srli_epi32(s[1], 4)));
    PL_UNROLL for (int hi = 0; hi < 2; hi++) {
      __m512i sc = low4(s[hi]), codes = line(w + 32 + 64 * hi);
      sc = pairs(sc, sc);
      PL_UNROLL for (int g = 0; g < 4; g++) {
        __m512i v = _mm512_and_si512(_mm512_srli_epi16(codes, 2 * g), _mm512_set1_epi8(3));
        put_quad(u, j, 4 * hi + g, p, _mm512_mullo_epi16(v, sc));
      }
    }
  }
}
PL_MM2(Q2_K, 64 + 8 * SUB, unpack, pl_pair_min16)
