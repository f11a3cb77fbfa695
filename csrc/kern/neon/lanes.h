/* lanes.h: kern/ref/lanes.h in NEON. */
#ifndef PL_NEON_LANES_H
#define PL_NEON_LANES_H
#include <arm_neon.h>

#include "base/half.h"
#include "kern/tile.h"

typedef struct {
  float32x4_t v[4];
} v16;
typedef struct {
  uint32x4_t v[4];
} m16;

#define V_FOUR(type, expression)                             \
  type r;                                                    \
  PL_UNROLL for (int i = 0; i < 4; i++) r.v[i] = expression; \
  return r

PL_INLINE v16 v_set(float a) { V_FOUR(v16, vdupq_n_f32(a)); }
PL_INLINE v16 v_load(const float *p) { V_FOUR(v16, vld1q_f32(p + 4 * i)); }
PL_INLINE void v_store(float *p, v16 x) { PL_UNROLL for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, x.v[i]); }
PL_INLINE v16 v_add(v16 x, v16 y) { V_FOUR(v16, vaddq_f32(x.v[i], y.v[i])); }
PL_INLINE v16 v_sub(v16 x, v16 y) { V_FOUR(v16, vsubq_f32(x.v[i], y.v[i])); }
PL_INLINE v16 v_mul(v16 x, v16 y) { V_FOUR(v16, vmulq_f32(x.v[i], y.v[i])); }
PL_INLINE v16 v_div(v16 x, v16 y) { V_FOUR(v16, vdivq_f32(x.v[i], y.v[i])); }
/* vminq has another opinion of zeros of different sign */
PL_INLINE v16 v_min(v16 x, v16 y) { V_FOUR(v16, vbslq_f32(vcltq_f32(x.v[i], y.v[i]), x.v[i], y.v[i])); }
PL_INLINE v16 v_max(v16 x, v16 y) { V_FOUR(v16, vbslq_f32(vcgtq_f32(x.v[i], y.v[i]), x.v[i], y.v[i])); }
PL_INLINE m16 v_gt(v16 x, v16 y) { V_FOUR(m16, vcgtq_f32(x.v[i], y.v[i])); }
PL_INLINE v16 v_select(m16 m, v16 x, v16 y) { V_FOUR(v16, vbslq_f32(m.v[i], x.v[i], y.v[i])); }
/* Four bytes of the table for each number: at in 0 .. 15 becomes the bytes 4 at, 4 at + 1, ... */
PL_INLINE v16 v_lookup(const float *table, v16 at) {
  const uint8_t *t = (const void *)table;
  uint8x16x4_t bytes = {{vld1q_u8(t), vld1q_u8(t + 16), vld1q_u8(t + 32), vld1q_u8(t + 48)}};
  uint32x4_t times = vdupq_n_u32(0x04040404), plus = vdupq_n_u32(0x03020100);
  V_FOUR(v16, vreinterpretq_f32_u8(
                  vqtbl4q_u8(bytes, vreinterpretq_u8_u32(vmlaq_u32(plus, times, vcvtq_u32_f32(at.v[i]))))));
}
PL_INLINE void v_bytes(uint8_t *p, v16 x) {
  uint16x8_t w[2];
  PL_UNROLL for (int i = 0; i < 2; i++) w[i] =
      vcombine_u16(vmovn_u32(vreinterpretq_u32_s32(vcvtq_s32_f32(x.v[2 * i]))),
                   vmovn_u32(vreinterpretq_u32_s32(vcvtq_s32_f32(x.v[2 * i + 1]))));
  vst1q_u8(p, vcombine_u8(vmovn_u16(w[0]), vmovn_u16(w[1])));
}
PL_INLINE v16 v_half(v16 x, uint16_t *h) {
  v16 r;
  PL_UNROLL for (int i = 0; i < 4; i++) {
    float16x4_t f = vcvt_f16_f32(x.v[i]);
    vst1_u16(h + 4 * i, vreinterpret_u16_f16(f));
    r.v[i] = vcvt_f32_f16(f);
  }
  return r;
}
PL_INLINE void v_columns(const float *const *p, v16 *t) {
  for (int i = 0; i < 16; i += 4) PL_UNROLL for (int g = 0; g < 4; g++) { /* four rows, four columns */
      float32x4_t a = vld1q_f32(p[4 * g] + i), b = vld1q_f32(p[4 * g + 1] + i);
      float32x4_t c = vld1q_f32(p[4 * g + 2] + i), d = vld1q_f32(p[4 * g + 3] + i);
      float64x2_t ab0 = vreinterpretq_f64_f32(vtrn1q_f32(a, b)), ab1 = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
      float64x2_t cd0 = vreinterpretq_f64_f32(vtrn1q_f32(c, d)), cd1 = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
      t[i].v[g] = vreinterpretq_f32_f64(vtrn1q_f64(ab0, cd0));
      t[i + 1].v[g] = vreinterpretq_f32_f64(vtrn1q_f64(ab1, cd1));
      t[i + 2].v[g] = vreinterpretq_f32_f64(vtrn2q_f64(ab0, cd0));
      t[i + 3].v[g] = vreinterpretq_f32_f64(vtrn2q_f64(ab1, cd1));
    }
}
PL_INLINE void v_scatter(const uint8_t *c, uint8_t *const *p) {
  uint8x16_t a[16], b[16];
  PL_UNROLL for (int i = 0; i < 16; i++) a[i] = vld1q_u8(c + 16 * i);
  /* Twice two of the four perfect shuffles of all 256 bytes that make the index's halves change places. */
  PL_UNROLL for (int turn = 0; turn < 2; turn++) {
    PL_UNROLL for (int i = 0; i < 8; i++) {
      b[2 * i] = vzip1q_u8(a[i], a[i + 8]);
      b[2 * i + 1] = vzip2q_u8(a[i], a[i + 8]);
    }
    PL_UNROLL for (int i = 0; i < 8; i++) {
      a[2 * i] = vzip1q_u8(b[i], b[i + 8]);
      a[2 * i + 1] = vzip2q_u8(b[i], b[i + 8]);
    }
  }
  PL_UNROLL for (int i = 0; i < 16; i++) vst1q_u8(p[i], a[i]);
}

#endif
