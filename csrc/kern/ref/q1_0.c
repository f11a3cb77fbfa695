#include "base/half.h"
#include "kern/kern.h"

void pl_deq_Q1_0_ref(const void *src, float *y, int64_t n) {
  const pl_block_q1_0 *w = src;
  for (int64_t b = 0; b < n / 128; b++) {
    float d = pl_f16_f32(w[b].d);
    for (int i = 0; i < 128; i++) y[b * 128 + i] = w[b].qs[i / 8] >> i % 8 & 1 ? d : -d;
  }
}
