#include "kern/avx512/pair.h"

/* As packed by the AVX2 room: 16 scales, then per 32 values 16 + 16 scale codes, 2 lines of upper bits, 4 nibble
 * lines. */
enum { SUB = 32 + 128 + 256 };

/* The upper two bits of quad g of an upper line, in bits 4 and 5. */
PL_INLINE __m512i upper(__m512i v, int g) {
  __m512i at4 = g < 2 ? _mm512_slli_epi16(v, 4 - 2 * g) : _mm512_srli_epi16(v, 2 * g - 4);
  return _mm512_and_si512(at4, _mm512_set1_epi8(48));
}

/* idot = sc0 * (first 16) + sc1 * (last 16), each half's sum starting from its zero point. */
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
      PL_UNROLL for (int hi = 0; hi < 2; hi++) {
        __m512i up = line(w + 32 + 64 * hi), sum[8];
        PL_UNROLL for (int t = 0; t < NT; t++) sum[t] = _mm512_set1_epi32(-32 * act(a, stride, t, b + j)->h[hi]);
        PL_UNROLL for (int g = 0; g < 4; g++) {
          __m512i v = line(w + 160 + 64 * g);
          v = _mm512_or_si512(hi ? high4(v) : low4(v), upper(up, g));
          PL_UNROLL for (int t = 0; t < NT; t++) {
            sum[t] = _mm512_dpbusd_epi32(sum[t], v, quad(act(a, stride, t, b + j), 4 * hi + g));
            PL_PIN(sum[t]);
          }
        }
        __m512i sc = _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(w + 16 * hi)));
        PL_UNROLL for (int t = 0; t < NT; t++) {
          __m512i s = _mm512_mullo_epi32(sum[t], sc);
          idot[t] = hi ? _mm512_add_epi32(idot[t], s) : s;
        }
      }
      PL_UNROLL for (int t = 0; t < NT; t++) acc[t] =
          scaled(idot[t], d, _mm512_set1_ps(act(a, stride, t, b + j)->d), acc[t]);
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM8(Q6_K)

PL_INLINE void unpack(const uint8_t *w, int n, int p, pl_pair *u) {
  const __m512 d = half16(w);
  w += 32;
  for (int j = 0; j < n; j++, w += SUB) {
    _mm512_store_ps(u->d[j][p], d);
    PL_UNROLL for (int hi = 0; hi < 2; hi++) {
      _mm512_store_si512(u->half[j][p][hi], sbytes16(w + 16 * hi));
      const __m512i up = line(w + 32 + 64 * hi);
      PL_UNROLL for (int g = 0; g < 4; g++) {
        __m512i v = line(w + 160 + 64 * g);
        put_quad(u, j, 4 * hi + g, p, _mm512_or_si512(hi ? high4(v) : low4(v), upper(up, g)));
      }
    }
  }
}
PL_MM2(Q6_K, 32 + 8 * SUB, unpack, pl_pair_half32)
