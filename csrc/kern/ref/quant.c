#include "kern/kern.h"

/* One block of 32. */
static void block(const float *x, pl_q8 *y) {
  float amax = 0;
  for (int i = 0; i < 32; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
  float inv = amax > 0 ? 127.0f / amax : 0.0f;
  y->d = amax / 127.0f;
  y->h[0] = y->h[1] = 0;
  for (int i = 0; i < 32; i++) {
    float v = x[i] * inv;
    y->q[i] = fabsf(v) < 127.5f ? (int8_t)lrintf(v) : -127;
    y->h[i / 16] = (int16_t)(y->h[i / 16] + y->q[i]);
  }
  y->z = -(y->h[0] + y->h[1]);
  y->s = y->d * (float)(y->h[0] + y->h[1]);
}

void pl_quant_ref(const float *x, int64_t k, pl_q8 *hi, pl_q8 *lo) {
  for (int64_t b = 0; b < k / 32; b++, x += 32) {
    block(x, &hi[b]);
    if (!lo) continue;
    float rest[32];
    for (int i = 0; i < 32; i++) rest[i] = fmaf(-hi[b].d, (float)hi[b].q[i], x[i]);
    block(rest, &lo[b]);
  }
}
