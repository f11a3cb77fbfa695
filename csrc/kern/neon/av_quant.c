#include "kern/neon/attn.h"

/* 16 codes, the i-th half of a block of 32, as floats. */
PL_INLINE float32x4x4_t values(const uint8_t *block, int i, const int type) {
  int8x16_t c;
  if (type == PL_Q8_0) {
    c = vld1q_s8((const int8_t *)block + 16 * i);
  } else {
    uint8x16_t v = vld1q_u8(block);
    v = i ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(15));
    c = vsubq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8(8));
  }
  int16x8_t lo = vmovl_s8(vget_low_s8(c)), hi = vmovl_s8(vget_high_s8(c));
  float32x4x4_t x;
  x.val[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo)));
  x.val[1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo)));
  x.val[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi)));
  x.val[3] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)));
  return x;
}

/* R rows of scores times NH halves, from the i-th on, of block b of 32 values of each key; the outputs stay in
 * registers while the keys go by. */
PL_INLINE void tile(const float *p, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, int32_t b, float *o,
                    const void *const *ahead, const int type, const int R, const int i0, const int NH) {
  const int64_t row_bytes = code_bytes(type, hdp), block_bytes = code_bytes(type, 32);
  float32x4_t acc[4][8];
  float *y = o + 32 * b + 16 * i0;
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int i = 0; i < 4 * NH; i++) acc[r][i] =
      vld1q_f32(y + (int64_t)r * hdp + 4 * i);
  while (j0 < j1) {
    const int32_t page = j0 / PL_PAGE, end = page_end(j0, j1);
    const uint8_t *block = v[page], *d = block + PL_PAGE * row_bytes + b * PL_PAGE * 2;
    float w[4][PL_PAGE]; /* scores times scales */
    PL_UNROLL for (int h = 0; h < 4; h++) {
      float32x4_t scale = widen4(d + 8 * h, PL_F16);
      PL_UNROLL for (int r = 0; r < R; r++)
          vst1q_f32(w[r] + 4 * h, vmulq_f32(vld1q_f32(p + r * PL_CHUNK + page * PL_PAGE + 4 * h), scale));
    }
    for (int i = 0; i < fetched(type); i++) fetch(ahead[page], b * fetched(type) + i);
    const uint8_t *row = block + j0 % PL_PAGE * row_bytes + b * block_bytes;
    for (int32_t j = j0 % PL_PAGE; j0 < end; j0++, j++, row += row_bytes) PL_UNROLL for (int h = 0; h < NH; h++) {
        float32x4x4_t x = values(row, i0 + h, type);
        PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int i = 0; i < 4; i++) acc[r][4 * h + i] =
            vfmaq_n_f32(acc[r][4 * h + i], x.val[i], w[r][j]);
      }
  }
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int i = 0; i < 4 * NH; i++)
      vst1q_f32(y + (int64_t)r * hdp + 4 * i, acc[r][i]);
}

PL_INLINE void rows(const float *p, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, float *o,
                    const void *const *ahead, const int type, const int R) {
  for (int32_t b = 0; b < hdp / 32; b++) {
    if (R <= 2) {
      tile(p, v, j0, j1, hdp, b, o, ahead, type, R, 0, 2);
    } else {
      tile(p, v, j0, j1, hdp, b, o, ahead, type, R, 0, 1);
      tile(p, v, j0, j1, hdp, b, o, ahead, type, R, 1, 1);
    }
  }
}

PL_AV(Q8_0, neon, 4, 4)
PL_AV(Q4_0, neon, 4, 4)
