#include "kern/neon/attn.h"

/* Four values, quad g (0..7) of block b, of 16 keys: value i of all keys at [i], as int8. */
PL_INLINE int8x16x4_t keys(const uint8_t *codes, int32_t b, int g, const int type) {
  if (type == PL_Q8_0) return vld4q_s8((const int8_t *)codes + (b * 8 + g) * 64);
  uint8x16x4_t v = vld4q_u8(codes + (b * 4 + g / 2) * 64);
  int8x16x4_t k;
  PL_UNROLL for (int i = 0; i < 4; i++) {
    uint8x16_t u = g % 2 ? vshrq_n_u8(v.val[i], 4) : vandq_u8(v.val[i], vdupq_n_u8(15));
    k.val[i] = vsubq_s8(vreinterpretq_s8_u8(u), vdupq_n_s8(8));
  }
  return k;
}

/* R queries against one block of 16 keys, each sum starting from `from` [R][16], times what makes it a score
 * (or, where that is 0, left as it is). */
PL_INLINE void tile(const pl_q16 *q, const uint8_t *k, int32_t hd, float scale, const float *from, float *s,
                    int64_t stride, const uint8_t *ahead, const int type, const int R) {
  const int32_t n = hd / 32, lines = fetched(type);
  const int64_t bytes = code_bytes(type, hd * PL_PAGE);
  float32x4_t acc[4][4];
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int h = 0; h < 4; h++) acc[r][h] =
      vdupq_n_f32(from[r * PL_PAGE]);
  for (int32_t b = 0; b < n; b++) {
    int32x4_t sum[4][4];
    PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int h = 0; h < 4; h++) sum[r][h] = vdupq_n_s32(0);
    for (int32_t i = 0; i < lines; i++) fetch(ahead, b * lines + i);
    for (int g = 0; g < 8; g++) {
      int8x16x4_t key = keys(k, b, g, type);
      PL_UNROLL for (int i = 0; i < 4; i++) {
        int16x8_t lo = vmovl_s8(vget_low_s8(key.val[i])), hi = vmovl_s8(vget_high_s8(key.val[i]));
        PL_UNROLL for (int r = 0; r < R; r++) {
          int16_t x = q[r * n + b].c[4 * g + i];
          sum[r][0] = vmlal_n_s16(sum[r][0], vget_low_s16(lo), x);
          sum[r][1] = vmlal_n_s16(sum[r][1], vget_high_s16(lo), x);
          sum[r][2] = vmlal_n_s16(sum[r][2], vget_low_s16(hi), x);
          sum[r][3] = vmlal_n_s16(sum[r][3], vget_high_s16(hi), x);
        }
      }
    }
    PL_UNROLL for (int h = 0; h < 4; h++) {
      float32x4_t d = widen4(k + bytes + b * PL_PAGE * 2 + 8 * h, PL_F16);
      PL_UNROLL for (int r = 0; r < R; r++) acc[r][h] = vfmaq_f32(acc[r][h], vcvtq_f32_s32(sum[r][h]), d);
    }
  }
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int h = 0; h < 4; h++)
      vst1q_f32(s + r * stride + 4 * h, scale != 0 ? vmulq_n_f32(acc[r][h], q[r * n].d * scale) : acc[r][h]);
}

PL_QK_BLOCKS(4)
PL_QK_QUANT(Q8_0, neon)
PL_QK_QUANT(Q4_0, neon)
