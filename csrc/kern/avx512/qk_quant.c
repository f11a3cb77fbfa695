#include "kern/avx512/attn.h"

/* Four values of 16 keys as unsigned bytes with a zero point: quad g (0..7) of block b. */
PL_INLINE __m512i keys(const uint8_t *codes, int32_t b, int g, const int type) {
  if (type == PL_Q8_0) return _mm512_xor_si512(line(codes + (b * 8 + g) * 64), _mm512_set1_epi8((char)0x80));
  __m512i v = line(codes + (b * 4 + g / 2) * 64);
  return g % 2 ? high4(v) : low4(v);
}

/* R queries against NB blocks of 16 keys, each sum starting from `from` [R][16], times what makes it a score
 * (or, where that is 0, left as it is). A query's two bytes are summed apart: c = 256 hi + lo. */
PL_INLINE void tile(const pl_q16 *q, const void *const *k, int32_t hd, float scale, const float *from, float *s,
                    int64_t stride, const void *const *ahead, const int type, const int R, const int NB) {
  const int32_t n = hd / 32, zero = type == PL_Q8_0 ? 128 : 8;
  const int64_t bytes = code_bytes(type, hd * PL_PAGE);
  __m512 acc[4][4];
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int j = 0; j < NB; j++) acc[r][j] =
      _mm512_set1_ps(from[r * PL_PAGE + j]);
  for (int32_t b = 0; b < n; b++) {
    __m512i hi[4][4], lo[4][4], key[4];
    PL_UNROLL for (int j = 0; j < NB; j++) for (int i = 0; i < fetched(type); i++)
        fetch(ahead[j], b * fetched(type) + i);
    PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int j = 0; j < NB; j++) {
      hi[r][j] = _mm512_setzero_si512();
      lo[r][j] = _mm512_set1_epi32(-zero * q[r * n + b].sum);
    }
    PL_UNROLL for (int g = 0; g < 8; g++) {
      PL_UNROLL for (int j = 0; j < NB; j++) key[j] = keys(k[j], b, g, type);
      PL_UNROLL for (int r = 0; r < R; r++) {
        __m512i x = bcast4(q[r * n + b].hi + 4 * g), y = bcast4(q[r * n + b].lo + 4 * g);
        PL_UNROLL for (int j = 0; j < NB; j++) {
          hi[r][j] = _mm512_dpbusd_epi32(hi[r][j], key[j], x);
          lo[r][j] = _mm512_dpbusd_epi32(lo[r][j], key[j], y);
          PL_PIN(hi[r][j]);
          PL_PIN(lo[r][j]);
        }
      }
    }
    PL_UNROLL for (int j = 0; j < NB; j++) {
      __m512 d = half16((const uint8_t *)k[j] + bytes + b * PL_PAGE * 2);
      PL_UNROLL for (int r = 0; r < R; r++) {
        __m512i idot = _mm512_add_epi32(_mm512_slli_epi32(hi[r][j], 8), lo[r][j]);
        acc[r][j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(idot), d, acc[r][j]);
      }
    }
  }
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int j = 0; j < NB; j++)
      _mm512_storeu_ps(s + r * stride + j * PL_PAGE,
                       scale != 0 ? _mm512_mul_ps(acc[r][j], _mm512_set1_ps(q[r * n].d * scale)) : acc[r][j]);
}

PL_INLINE void rows(const pl_q16 *q, int32_t nq, const void *const *k, int32_t hd, float scale, const float *from,
                    float *s, int64_t stride, const void *const *ahead, const int type, const int NB) {
  for (; nq >= 4; nq -= 4, q += 4 * (hd / 32), s += 4 * stride, ahead = k) {
    tile(q, k, hd, scale, from, s, stride, ahead, type, 4, NB);
    from += 4 * PL_PAGE;
  }
  PL_ROWS(nq, R, 4, tile(q, k, hd, scale, from, s, stride, ahead, type, R, NB))
}

PL_INLINE void blocks(const pl_q16 *q, int32_t nq, const void *const *k, int32_t nb, int32_t hd, float scale,
                      const float *from, float *s, int64_t stride, const void *const *ahead, const int type) {
  int32_t b = 0;
  if (nq == 1)
    for (; b + 4 <= nb; b += 4)
      tile(q, k + b, hd, scale, from + b, s + b * PL_PAGE, stride, ahead + b, type, 1, 4);
  for (; b + 2 <= nb; b += 2) rows(q, nq, k + b, hd, scale, from + b, s + b * PL_PAGE, stride, ahead + b, type, 2);
  if (b < nb) rows(q, nq, k + b, hd, scale, from + b, s + b * PL_PAGE, stride, ahead + b, type, 1);
}
PL_QK_QUANT(Q8_0, avx512)
PL_QK_QUANT(Q4_0, avx512)
