#include "base/half.h"
#include "kern/kern.h"

void pl_deq_Q2_0_ref(const void *src, float *y, int64_t n) {
  const pl_block_q2_0 *w = src;
  for (int64_t b = 0; b < n / 64; b++) {
    float d = pl_f16_f32(w[b].d);
    for (int i = 0; i < 64; i++) y[b * 64 + i] = d * (float)((w[b].qs[i / 4] >> i % 4 * 2 & 3) - 1);
  }
}
