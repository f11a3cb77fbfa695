#include "kern/neon/attn.h"

/* Four values, quad g (0..7) of block b, of keys 4i .. 4i+3, side by side; codes of Q4_0 are not yet less 8. */
PL_INLINE int8x16_t keys(const uint8_t *codes, int32_t b, int g, int i, const int type) {
  if (type == PL_Q8_0) return vld1q_s8((const int8_t *)codes + (b * 8 + g) * 64 + 16 * i);
  uint8x16_t v = vld1q_u8(codes + (b * 4 + g / 2) * 64 + 16 * i);
  return vreinterpretq_s8_u8(g % 2 ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(15)));
}

PL_INLINE int32x4_t dot_lane(int32x4_t sum, int8x16_t k, int8x16_t x, int lane) {
  return lane == 0   ? vdotq_laneq_s32(sum, k, x, 0)
         : lane == 1 ? vdotq_laneq_s32(sum, k, x, 1)
         : lane == 2 ? vdotq_laneq_s32(sum, k, x, 2)
                     : vdotq_laneq_s32(sum, k, x, 3);
}

/* R queries against one block of 16 keys, each sum starting from `from` [R][16], times what makes it a score
 * (or, where that is 0, left as it is). A query's two bytes are summed apart: c = 256 hi + lo. */
PL_INLINE void tile(const pl_q16 *q, const uint8_t *k, int32_t hd, float scale, const float *from, float *s,
                    int64_t stride, const uint8_t *ahead, const int type, const int R) {
  const int32_t n = hd / 32, lines = fetched(type);
  const int64_t bytes = code_bytes(type, hd * PL_PAGE);
  float32x4_t acc[2][4];
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int h = 0; h < 4; h++) acc[r][h] =
      vdupq_n_f32(from[r * PL_PAGE]);
  for (int32_t b = 0; b < n; b++) {
    int32x4_t hi[2][4], lo[2][4];
    PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int h = 0; h < 4; h++) {
      hi[r][h] = vdupq_n_s32(0);
      lo[r][h] = vdupq_n_s32(type == PL_Q8_0 ? 0 : -8 * q[r * n + b].sum);
    }
    for (int32_t i = 0; i < lines; i++) fetch(ahead, b * lines + i);
    PL_UNROLL for (int half = 0; half < 2; half++) {
      int8x16_t x[2], y[2];
      PL_UNROLL for (int r = 0; r < R; r++) {
        x[r] = vld1q_s8(q[r * n + b].hi + 16 * half);
        y[r] = vld1q_s8(q[r * n + b].lo + 16 * half);
      }
      PL_UNROLL for (int g = 0; g < 4; g++) PL_UNROLL for (int h = 0; h < 4; h++) {
        int8x16_t key = keys(k, b, 4 * half + g, h, type);
        PL_UNROLL for (int r = 0; r < R; r++) {
          hi[r][h] = dot_lane(hi[r][h], key, x[r], g);
          lo[r][h] = dot_lane(lo[r][h], key, y[r], g);
        }
      }
    }
    PL_UNROLL for (int h = 0; h < 4; h++) {
      float32x4_t d = widen4(k + bytes + b * PL_PAGE * 2 + 8 * h, PL_F16);
      PL_UNROLL for (int r = 0; r < R; r++) {
        int32x4_t idot = vaddq_s32(vshlq_n_s32(hi[r][h], 8), lo[r][h]);
        acc[r][h] = vfmaq_f32(acc[r][h], vcvtq_f32_s32(idot), d);
      }
    }
  }
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int h = 0; h < 4; h++)
      vst1q_f32(s + r * stride + 4 * h, scale != 0 ? vmulq_n_f32(acc[r][h], q[r * n].d * scale) : acc[r][h]);
}

PL_QK_BLOCKS(2)
PL_QK_QUANT(Q8_0, dotprod)
PL_QK_QUANT(Q4_0, dotprod)
