#include "kern/neon/attn.h"

/* R queries of a panel against NB blocks of 16 keys. */
PL_INLINE void tile(const float *q, const void *const *k, int32_t hd, float scale, float *s,
                    const void *const *ahead, const int type, const int R, const int NB) {
  const uint8_t *block[2];
  float32x4_t acc[4][8];
  PL_UNROLL for (int b = 0; b < NB; b++) block[b] = k[b];
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int h = 0; h < 4 * NB; h++) acc[r][h] = vdupq_n_f32(0);
  for (int64_t d = 0; d < hd; d++, q += 8) {
    PL_UNROLL for (int b = 0; b < NB; b += 2) fetch(ahead[NB == 1 ? 0 : b + d % 2], d / 2);
    PL_UNROLL for (int h = 0; h < 4 * NB; h++) {
      float32x4_t key = widen4(block[h / 4] + (d * PL_PAGE + 4 * (h % 4)) * width(type), type);
      PL_UNROLL for (int r = 0; r < R; r++) acc[r][h] = vfmaq_n_f32(acc[r][h], key, q[r]);
    }
  }
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int h = 0; h < 4 * NB; h++)
      vst1q_f32(s + r * PL_CHUNK + 4 * h, vmulq_n_f32(acc[r][h], scale));
}

enum { WIDEST = 256 }; /* values of a key for which there is room */

/* All queries against one block: half panels. */
PL_INLINE void panels(const float *q, int32_t nq, const void *const *k, int32_t hd, float scale, float *s,
                      const void *const *ahead, const int type) {
  for (int32_t r = 0; r < nq; r += 4, s += 4 * PL_CHUNK, ahead = k) {
    const float *x = q + (int64_t)(r / 8 * hd) * 8 + r % 8;
    if (nq - r >= 4) tile(x, k, hd, scale, s, ahead, type, 4, 1);
    PL_ROWS(nq - r, R, 4, tile(x, k, hd, scale, s, ahead, type, R, 1))
  }
}

/* One block for many queries: widened once. */
PL_INLINE void many(const float *q, int32_t nq, const uint8_t *k, int32_t hd, float scale, float *s,
                    const uint8_t *ahead, const int type) {
  float wide[WIDEST * PL_PAGE];
  const void *block = wide;
  for (int32_t i = 0; i < hd * PL_PAGE; i += 16) {
    if (i % 32 == 0) fetch(ahead, i / 32);
    PL_UNROLL for (int h = 0; h < 16; h += 4) vst1q_f32(wide + i + h, widen4(k + (i + h) * width(type), type));
  }
  panels(q, nq, &block, hd, scale, s, &block, PL_F32);
}

/* With few queries two blocks at a time, so that there are enough chains of additions to work on. */
#define QK(type)                                                                                                 \
  void pl_qk_##type##_neon(const void *q, int32_t nq, const void *const *k, int32_t nb, int32_t hd, float scale, \
                           float *s, const void *const *ahead) {                                                 \
    if (nq <= 2)                                                                                                 \
      for (; nb >= 2; nb -= 2, k += 2, ahead += 2, s += 2 * PL_PAGE)                                             \
        PL_ROWS(nq, R, 3, tile(q, k, hd, scale, s, ahead, PL_##type, R, 2))                                      \
    for (; nb; nb--, k++, ahead++, s += PL_PAGE) {                                                               \
      if (PL_##type != PL_F32 && nq > 4 && hd <= WIDEST)                                                         \
        many(q, nq, k[0], hd, scale, s, ahead[0], PL_##type);                                                    \
      else                                                                                                       \
        panels(q, nq, k, hd, scale, s, ahead, PL_##type);                                                        \
    }                                                                                                            \
  }
QK(F32)
QK(F16)
QK(BF16)
