#include <arm_neon.h>

#include "kern/kern.h"

/* One block of 32 in eight registers. */
static inline void block(const float32x4_t x[8], pl_q8 *y) {
  float32x4_t top = vdupq_n_f32(0);
  for (int i = 0; i < 8; i++) {
    float32x4_t a = vabsq_f32(x[i]);
    top = vbslq_f32(vcgtq_f32(a, top), a, top); /* NaN is passed over */
  }
  float amax = vmaxvq_f32(top), inv = amax > 0 ? 127.0f / amax : 0.0f;
  int16x8_t q[4];
  for (int i = 0; i < 4; i++) {
    int32x4_t part[2];
    for (int j = 0; j < 2; j++) {
      float32x4_t v = vmulq_n_f32(x[2 * i + j], inv);
      uint32x4_t fine = vcltq_f32(vabsq_f32(v), vdupq_n_f32(127.5f));
      part[j] = vcvtnq_s32_f32(vbslq_f32(fine, v, vdupq_n_f32(-127.0f)));
    }
    q[i] = vcombine_s16(vmovn_s32(part[0]), vmovn_s32(part[1]));
    vst1_s8(y->q + 8 * i, vmovn_s16(q[i]));
  }
  y->h[0] = vaddvq_s16(vaddq_s16(q[0], q[1]));
  y->h[1] = vaddvq_s16(vaddq_s16(q[2], q[3]));
  y->z = -(y->h[0] + y->h[1]);
  y->d = amax / 127.0f;
  y->s = y->d * (float)(y->h[0] + y->h[1]);
}

void pl_quant_neon(const float *x, int64_t k, pl_q8 *hi, pl_q8 *lo) {
  for (int64_t b = 0; b < k / 32; b++, x += 32) {
    float32x4_t v[8];
    for (int i = 0; i < 8; i++) v[i] = vld1q_f32(x + 4 * i);
    block(v, &hi[b]);
    if (!lo) continue;
    for (int i = 0; i < 8; i += 2) {
      int16x8_t q = vmovl_s8(vld1_s8(hi[b].q + 4 * i));
      v[i] = vfmsq_n_f32(v[i], vcvtq_f32_s32(vmovl_s16(vget_low_s16(q))), hi[b].d);
      v[i + 1] = vfmsq_n_f32(v[i + 1], vcvtq_f32_s32(vmovl_high_s16(q)), hi[b].d);
    }
    block(v, &lo[b]);
  }
}
