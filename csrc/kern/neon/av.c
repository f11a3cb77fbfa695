#include "kern/neon/attn.h"

/* R rows of scores times 4 ND values of each key; the outputs stay in registers while the keys go by. */
PL_INLINE void tile(const float *p, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, int32_t d, float *o,
                    const void *const *ahead, const int type, const int R, const int ND) {
  float32x4_t acc[8][8];
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int i = 0; i < ND; i++) acc[r][i] =
      vld1q_f32(o + (int64_t)r * hdp + d + 4 * i);
  while (j0 < j1) {
    int32_t end = (j0 / PL_PAGE + 1) * PL_PAGE < j1 ? (j0 / PL_PAGE + 1) * PL_PAGE : j1;
    const uint8_t *row = (const uint8_t *)v[j0 / PL_PAGE] + ((int64_t)(j0 % PL_PAGE) * hdp + d) * width(type);
    const uint8_t *next = (const uint8_t *)ahead[j0 / PL_PAGE] + ((int64_t)(j0 % PL_PAGE) * hdp + d) * width(type);
    for (; j0 < end; j0++, row += hdp * width(type), next += hdp * width(type)) {
      PL_UNROLL for (int i = 0; i < 4 * ND * width(type); i += 64) fetch(next, i / 64);
      PL_UNROLL for (int i = 0; i < ND; i++) {
        float32x4_t x = widen4(row + 4 * i * width(type), type);
        PL_UNROLL for (int r = 0; r < R; r++) acc[r][i] = vfmaq_n_f32(acc[r][i], x, p[r * PL_CHUNK + j0]);
      }
    }
  }
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int i = 0; i < ND; i++)
      vst1q_f32(o + (int64_t)r * hdp + d + 4 * i, acc[r][i]);
}

PL_INLINE void rows(const float *p, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, float *o,
                    const void *const *ahead, const int type, const int R) {
  int32_t d = 0;
  if (R <= 3)
    for (; d + 32 <= hdp; d += 32) tile(p, v, j0, j1, hdp, d, o, ahead, type, R, 8);
  if (R <= 4)
    for (; d < hdp; d += 16) tile(p, v, j0, j1, hdp, d, o, ahead, type, R, 4);
  for (; d < hdp; d += 8) tile(p, v, j0, j1, hdp, d, o, ahead, type, R, 2);
}

PL_INLINE void av(const float *p, int32_t nq, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, float *o,
                  const void *const *ahead, const int type) {
  for (; nq >= 8; nq -= 8, p += 8 * PL_CHUNK, o += 8 * hdp, ahead = v) rows(p, v, j0, j1, hdp, o, ahead, type, 8);
  for (; nq >= 4; nq -= 4, p += 4 * PL_CHUNK, o += 4 * hdp, ahead = v) rows(p, v, j0, j1, hdp, o, ahead, type, 4);
  switch (nq) {
    case 1:
      rows(p, v, j0, j1, hdp, o, ahead, type, 1);
      break;
    case 2:
      rows(p, v, j0, j1, hdp, o, ahead, type, 2);
      break;
    case 3:
      rows(p, v, j0, j1, hdp, o, ahead, type, 3);
      break;
  }
}

#define AV(type)                                                                                                  \
  void pl_av_##type##_neon(const float *p, int32_t nq, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, \
                           float *o, const void *const *ahead) {                                                  \
    av(p, nq, v, j0, j1, hdp, o, ahead, PL_##type);                                                               \
  }
AV(F32)
AV(F16)
AV(BF16)
