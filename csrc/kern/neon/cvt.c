#include <arm_neon.h>

#include "base/half.h"
#include "kern/kern.h"

void pl_load_f16_neon(const uint16_t *x, int64_t n, float *y) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(y + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x + i))));
  for (; i < n; i++) y[i] = pl_f16_f32(x[i]);
}

void pl_store_f16_neon(const float *x, int64_t n, uint16_t *y) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) vst1_u16(y + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
  for (; i < n; i++) y[i] = pl_f32_f16(x[i]);
}

void pl_store_bf16_neon(const float *x, int64_t n, uint16_t *y) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    float32x4_t v = vld1q_f32(x + i);
    uint32x4_t u = vreinterpretq_u32_f32(v), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    uint32x4_t near = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff))),
               quiet = vorrq_u32(u, vdupq_n_u32(64 << 16));
    vst1_u16(y + i, vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), near, quiet), 16));
  }
  for (; i < n; i++) y[i] = pl_f32_bf16(x[i]);
}
