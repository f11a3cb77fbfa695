#include <arm_neon.h>

#include "base/half.h"
#include "kern/kern.h"

void pl_rotate_neon(float *x, int32_t n, int32_t h) {
  for (int32_t i = 0; i < n; i += 8) { /* stages of width 1 and 2: even lanes, odd lanes; pairs of lanes */
    float32x4x2_t v = vld2q_f32(x + i);
    float32x4_t a = vaddq_f32(v.val[0], v.val[1]), b = vsubq_f32(v.val[0], v.val[1]);
    float32x4_t even = vuzp1q_f32(a, b), odd = vuzp2q_f32(a, b); /* 0 4 | 1 5 and 2 6 | 3 7 */
    float32x4_t sum = vaddq_f32(even, odd), less = vsubq_f32(even, odd);
    float32x4_t lo = vcombine_f32(vget_low_f32(vuzp1q_f32(sum, sum)), vget_low_f32(vuzp1q_f32(less, less)));
    float32x4_t hi = vcombine_f32(vget_low_f32(vuzp2q_f32(sum, sum)), vget_low_f32(vuzp2q_f32(less, less)));
    vst1q_f32(x + i, lo);
    vst1q_f32(x + i + 4, hi);
  }
  for (int32_t w = 4; w < h; w *= 2)
    for (int32_t i = 0; i < n; i += 2 * w)
      for (int32_t j = i; j < i + w; j += 4) {
        float32x4_t a = vld1q_f32(x + j), b = vld1q_f32(x + j + w);
        vst1q_f32(x + j, vaddq_f32(a, b));
        vst1q_f32(x + j + w, vsubq_f32(a, b));
      }
}

/* max|x| of n values, a multiple of 4, NaN passed over. */
static inline float largest(const float *x, int32_t n) {
  float32x4_t top = vdupq_n_f32(0);
  for (int32_t i = 0; i < n; i += 4) {
    float32x4_t a = vabsq_f32(vld1q_f32(x + i));
    top = vbslq_f32(vcgtq_f32(a, top), a, top);
  }
  return vmaxvq_f32(top);
}

void pl_quant16_neon(const float *x, int32_t n, pl_q16 *q) {
  float amax = largest(x, n), inv = amax > 0 ? 32639.0f / amax : 0.0f;
  for (int32_t b = 0; b < n / 32; b++, q++, x += 32) {
    q->d = amax / 32639.0f;
    q->sum = 0;
    for (int i = 0; i < 4; i++) {
      int32x4_t part[2];
      for (int j = 0; j < 2; j++) {
        float32x4_t v = vmulq_n_f32(vld1q_f32(x + 8 * i + 4 * j), inv);
        uint32x4_t fine = vcltq_f32(vabsq_f32(v), vdupq_n_f32(32639.5f));
        part[j] = vcvtnq_s32_f32(vbslq_f32(fine, v, vdupq_n_f32(-32639.0f)));
      }
      int16x8_t c = vcombine_s16(vmovn_s32(part[0]), vmovn_s32(part[1]));
      q->sum += vaddvq_s32(vaddq_s32(part[0], part[1]));
      vst1q_s16(q->c + 8 * i, c);
      vst1_s8(q->hi + 8 * i, vshrn_n_s16(vaddq_s16(c, vdupq_n_s16(128)), 8));
      vst1_s8(q->lo + 8 * i, vmovn_s16(c));
    }
  }
}

void pl_code8_neon(const float *x, int32_t n, int8_t *q, uint16_t *d) {
  for (int32_t b = 0; b < n / 32; b++, x += 32, q += 32) {
    d[b] = pl_f32_f16(largest(x, 32) / 127.0f);
    float scale = pl_f16_f32(d[b]), inv = scale > 0 ? 1.0f / scale : 0;
    for (int i = 0; i < 4; i++) {
      int32x4_t part[2];
      for (int j = 0; j < 2; j++) {
        float32x4_t v = vmulq_n_f32(vld1q_f32(x + 8 * i + 4 * j), inv);
        v = vbslq_f32(vcgeq_f32(v, vdupq_n_f32(-127.0f)), v, vdupq_n_f32(-127.0f)); /* NaN too */
        part[j] = vcvtnq_s32_f32(vminq_f32(v, vdupq_n_f32(127.0f)));
      }
      vst1_s8(q + 8 * i, vmovn_s16(vcombine_s16(vmovn_s32(part[0]), vmovn_s32(part[1]))));
    }
  }
}

/* Codes of 4 values, from -8 to 7, as floats: rounded to nearest as `nearest` of ref does. */
static inline float32x4_t codes4(float32x4_t x, float inv) {
  const float32x4_t magic = vdupq_n_f32(12582912.0f), lo = vdupq_n_f32(-8.0f);
  float32x4_t v = vmulq_n_f32(x, inv);
  v = vbslq_f32(vcgtq_f32(v, lo), v, lo); /* NaN too */
  return vsubq_f32(vaddq_f32(vminq_f32(v, vdupq_n_f32(7.0f)), magic), magic);
}

void pl_code4_neon(const float *x, int32_t n, uint8_t *q, uint16_t *d) {
  for (int32_t b = 0; b < n / 32; b++, x += 32, q += 32) {
    const float amax = largest(x, 32);
    float top = 0, best = INFINITY, best_inv = 0;
    float32x4_t v[8];
    for (int i = 0; i < 8; i++) v[i] = vld1q_f32(x + 4 * i);
    for (int i = 0; i < 32 && top == 0 && amax > 0; i++) top = fabsf(x[i]) == amax ? x[i] : 0;
    d[b] = 0;
    for (int k = 0; k < 8; k++) {
      uint16_t half = pl_f32_f16(top / (-7.5f - 0.5f * (float)k));
      float scale = pl_f16_f32(half), inv = scale != 0 ? 1.0f / scale : 0;
      float32x4_t err[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
      for (int i = 0; i < 8; i++) {
        float32x4_t e = vsubq_f32(v[i], vmulq_n_f32(codes4(v[i], inv), scale));
        err[i % 2] = vaddq_f32(err[i % 2], vmulq_f32(e, e));
      }
      float32x4_t t = vaddq_f32(err[0], err[1]);
      t = vpaddq_f32(t, t);
      float sum = vgetq_lane_f32(t, 0) + vgetq_lane_f32(t, 1);
      if (sum < best) best = sum, best_inv = inv, d[b] = half;
    }
    for (int i = 0; i < 4; i++) {
      int32x4_t part[2];
      for (int j = 0; j < 2; j++) {
        float32x4_t code = best < INFINITY ? codes4(v[2 * i + j], best_inv) : vdupq_n_f32(0);
        part[j] = vaddq_s32(vcvtq_s32_f32(code), vdupq_n_s32(8));
      }
      int16x8_t c = vcombine_s16(vmovn_s32(part[0]), vmovn_s32(part[1]));
      vst1_u8(q + 8 * i, vreinterpret_u8_s8(vmovn_s16(c)));
    }
  }
}
