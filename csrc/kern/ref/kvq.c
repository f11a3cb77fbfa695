/* kvq.c: what quantized keys and values are made with. */
#include "base/half.h"
#include "kern/kern.h"

void pl_rotate_ref(float *x, int32_t n, int32_t h) {
  for (int32_t w = 1; w < h; w *= 2)
    for (int32_t i = 0; i < n; i++)
      if (!(i & w)) {
        float a = x[i], b = x[i + w];
        x[i] = a + b;
        x[i + w] = a - b;
      }
}

void pl_quant16_ref(const float *x, int32_t n, pl_q16 *q) {
  float amax = 0;
  for (int32_t i = 0; i < n; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
  float inv = amax > 0 ? 32639.0f / amax : 0.0f;
  for (int32_t b = 0; b < n / 32; b++, q++, x += 32) {
    q->d = amax / 32639.0f;
    q->sum = 0;
    for (int i = 0; i < 32; i++) {
      float v = x[i] * inv;
      q->c[i] = fabsf(v) < 32639.5f ? (int16_t)lrintf(v) : -32639;
      q->sum += q->c[i];
      q->hi[i] = (int8_t)((q->c[i] + 128) >> 8);
      q->lo[i] = (int8_t)(q->c[i] - 256 * q->hi[i]);
    }
  }
}

void pl_code8_ref(const float *x, int32_t n, int8_t *q, uint16_t *d) {
  for (int32_t b = 0; b < n / 32; b++, x += 32, q += 32) {
    float amax = 0;
    for (int i = 0; i < 32; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    d[b] = pl_f32_f16(amax / 127.0f);
    float scale = pl_f16_f32(d[b]), inv = scale > 0 ? 1.0f / scale : 0;
    for (int i = 0; i < 32; i++) {
      float v = x[i] * inv;
      q[i] = v >= -127 ? v > 127 ? 127 : (int8_t)lrintf(v) : -127;
    }
  }
}

/* Rounds to nearest even where |v| is small enough to matter. */
static inline float nearest(float v) { return v + 12582912.0f - 12582912.0f; }

void pl_code4_ref(const float *x, int32_t n, uint8_t *q, uint16_t *d) {
  for (int32_t b = 0; b < n / 32; b++, x += 32, q += 32) {
    float top = 0,
          best = INFINITY; /* top: the value of largest magnitude, which code 0 stands for, or nearly so */
    for (int i = 0; i < 32; i++) top = fabsf(x[i]) > fabsf(top) ? x[i] : top;
    d[b] = 0;
    for (int i = 0; i < 32; i++) q[i] = 8;
    for (int s = 0; s < 8; s++) {
      uint16_t half = pl_f32_f16(top / (-7.5f - 0.5f * (float)s));
      float scale = pl_f16_f32(half), inv = scale != 0 ? 1.0f / scale : 0, code[32], err[8] = {0};
      for (int i = 0; i < 32; i++) {
        float v = x[i] * inv;
        v = nearest(v > -8 ? v < 7 ? v : 7 : -8);
        code[i] = v;
        v = x[i] - v * scale;
        err[i % 8] += v * v;
      }
      float sum = ((err[0] + err[4]) + (err[1] + err[5])) + ((err[2] + err[6]) + (err[3] + err[7]));
      if (!(sum < best)) continue;
      best = sum;
      d[b] = half;
      for (int i = 0; i < 32; i++) q[i] = (uint8_t)(int)(code[i] + 8);
    }
  }
}
