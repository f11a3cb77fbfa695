#include "kern/avx512/attn.h"
#include "kern/offsets.h"

/* Four values of 16 keys as unsigned bytes with a zero point: quad g (0..7) of block b. */
PL_INLINE __m512i keys(const uint8_t *codes, int32_t b, int g, const int type) {
  if (type == PL_Q8_0) return _mm512_xor_si512(line(codes + (b * 8 + g) * 64), _mm512_set1_epi8((char)0x80));
  __m512i v = line(codes + (b * 4 + g / 2) * 64);
  return g % 2 ? high4(v) : low4(v);
}

/* R queries against NB blocks of 16 keys, each sum starting from `from` [R][16] (or 0), times what makes it a score
 * (or, where that is 0, left as it is). A query's two bytes are summed apart: c = 256 hi + lo. */
PL_INLINE void tile(const pl_q16 *q, const void *const *k, int32_t hd, float scale, const float *from, float *s,
                    int64_t stride, const void *const *ahead, const int type, const int R, const int NB) {
  const int32_t n = hd / 32, bytes = hd * PL_PAGE / (type == PL_Q8_0 ? 1 : 2), zero = type == PL_Q8_0 ? 128 : 8;
  __m512 acc[4][4];
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int j = 0; j < NB; j++) acc[r][j] =
      from ? _mm512_set1_ps(from[r * PL_PAGE + j]) : _mm512_setzero_ps();
  for (int32_t b = 0; b < n; b++) {
    __m512i hi[4][4], lo[4][4], key[4];
    PL_UNROLL for (int j = 0; j < NB; j++) for (int i = 0; i < (type == PL_Q8_0 ? 9 : 6); i++)
        fetch(ahead[j], b * (type == PL_Q8_0 ? 9 : 6) + i);
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
  const int32_t n = hd / 32;
  for (; nq >= 4; nq -= 4, q += 4 * n, s += 4 * stride, ahead = k) {
    tile(q, k, hd, scale, from, s, stride, ahead, type, 4, NB);
    if (from) from += 4 * PL_PAGE;
  }
  switch (nq) {
    case 1:
      tile(q, k, hd, scale, from, s, stride, ahead, type, 1, NB);
      break;
    case 2:
      tile(q, k, hd, scale, from, s, stride, ahead, type, 2, NB);
      break;
    case 3:
      tile(q, k, hd, scale, from, s, stride, ahead, type, 3, NB);
      break;
  }
}

void pl_qk_Q8_0_avx512(const void *q, int32_t nq, const void *const *k, int32_t nb, int32_t hd, float scale,
                       float *s, const void *const *ahead) {
  if (nq == 1)
    for (; nb >= 4; nb -= 4, k += 4, ahead += 4, s += 4 * PL_PAGE)
      tile(q, k, hd, scale, NULL, s, PL_CHUNK, ahead, PL_Q8_0, 1, 4);
  for (; nb >= 2; nb -= 2, k += 2, ahead += 2, s += 2 * PL_PAGE)
    rows(q, nq, k, hd, scale, NULL, s, PL_CHUNK, ahead, PL_Q8_0, 2);
  if (nb) rows(q, nq, k, hd, scale, NULL, s, PL_CHUNK, ahead, PL_Q8_0, 1);
}

void pl_qk_Q4_0_avx512(const void *q, int32_t nq, const void *const *k, int32_t nb, int32_t hd, float scale,
                       float *s, const void *const *ahead) {
  enum { ROWS = 64 };
  pl_offsets offsets;
  float from[ROWS * PL_PAGE];
  const void *block = &offsets;
  pl_gather_offsets(k, nb, hd, &offsets);
  for (int32_t r = 0; r < nq; r += ROWS) {
    const pl_q16 *x = (const pl_q16 *)q + (int64_t)r * (hd / 32);
    int32_t n = nq - r < ROWS ? nq - r : ROWS, b = 0;
    rows(x, n, &block, hd, 0, NULL, from, PL_PAGE, &block, PL_Q8_0, 1);
    for (; b + 2 <= nb; b += 2)
      rows(x, n, k + b, hd, scale, from + b, s + r * PL_CHUNK + b * PL_PAGE, PL_CHUNK, ahead + b, PL_Q4_0, 2);
    if (b < nb)
      rows(x, n, k + b, hd, scale, from + b, s + r * PL_CHUNK + b * PL_PAGE, PL_CHUNK, ahead + b, PL_Q4_0, 1);
  }
}
