#include "kern/avx512/mm.h"

/* NQ queries against one block of 16 keys. */
PL_INLINE void scores(const float *q, int64_t q_stride, const float *kt, int32_t hd, float scale, float *s,
                      int64_t s_stride, const int NQ) {
  __m512 acc[8];
  zero_tile(acc, NQ);
  for (int32_t d = 0; d < hd; d++) {
    __m512 key = _mm512_loadu_ps(kt + d * PL_PAGE);
    PL_UNROLL for (int i = 0; i < NQ; i++) acc[i] =
        _mm512_fmadd_ps(_mm512_set1_ps(q[i * q_stride + d]), key, acc[i]);
  }
  PL_UNROLL for (int i = 0; i < NQ; i++)
      _mm512_storeu_ps(s + i * s_stride, _mm512_mul_ps(acc[i], _mm512_set1_ps(scale)));
}

void pl_qk_avx512(const float *q, int64_t q_stride, int32_t nq, const float *kt, int32_t hd, float scale, float *s,
                  int64_t s_stride) {
  for (; nq >= 8; nq -= 8, q += 8 * q_stride, s += 8 * s_stride)
    scores(q, q_stride, kt, hd, scale, s, s_stride, 8);
  if (nq & 4) scores(q, q_stride, kt, hd, scale, s, s_stride, 4), q += 4 * q_stride, s += 4 * s_stride;
  if (nq & 2) scores(q, q_stride, kt, hd, scale, s, s_stride, 2), q += 2 * q_stride, s += 2 * s_stride;
  if (nq & 1) scores(q, q_stride, kt, hd, scale, s, s_stride, 1);
}

/* NV registers of the output stay in registers while the keys go by. */
PL_INLINE void values(const float *p, int32_t n, const float *v, int32_t hd, float *o, const int NV) {
  __m512 acc[8];
  PL_UNROLL for (int i = 0; i < NV; i++) acc[i] = _mm512_loadu_ps(o + 16 * i);
  for (int32_t j = 0; j < n; j++, v += hd) {
    __m512 x = _mm512_set1_ps(p[j]);
    PL_UNROLL for (int i = 0; i < NV; i++) acc[i] = _mm512_fmadd_ps(x, _mm512_loadu_ps(v + 16 * i), acc[i]);
  }
  PL_UNROLL for (int i = 0; i < NV; i++) _mm512_storeu_ps(o + 16 * i, acc[i]);
}

void pl_av_avx512(const float *p, int32_t n, const float *v, int32_t hd, float *o) {
  int32_t d = 0;
  for (; d + 128 <= hd; d += 128) values(p, n, v + d, hd, o + d, 8);
  if (hd - d >= 64) values(p, n, v + d, hd, o + d, 4), d += 64;
  for (; d < hd; d += 16) values(p, n, v + d, hd, o + d, 1);
}
