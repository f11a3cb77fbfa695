#include "base/half.h"
#include "kern/kern.h"
#include "kern/ref/codes.h"
#include "kern/ref/dot.h"

void pl_deq_Q5_0_ref(const void *src, float *y, int64_t n) {
  const pl_block_q5_0 *w = src;
  for (int64_t b = 0; b < n / 32; b++) {
    uint8_t q[32];
    codes_q5(w[b].qs, w[b].qh, q);
    float d = pl_f16_f32(w[b].d);
    for (int i = 0; i < 32; i++) y[b * 32 + i] = d * (float)(q[i] - 16);
  }
}

void pl_mm_Q5_0_ref(const void *w_rows, int64_t row_bytes, int32_t nr, int64_t k, const void *a, int64_t a_stride,
                    int32_t nt, const int32_t *at, float *y) {
  for (int32_t r = 0; r < nr; r++) {
    const pl_block_q5_0 *w = (const void *)((const uint8_t *)w_rows + r * row_bytes);
    for (int32_t t = 0; t < nt; t++) {
      const pl_q8 *x = (const void *)((const uint8_t *)a + t * a_stride);
      float acc = y[at[t] * PL_PANEL + r];
      for (int64_t b = 0; b < k / 32; b++) {
        uint8_t q[32];
        codes_q5(w[b].qs, w[b].qh, q);
        acc = fmaf((float)dot(q, 16, x[b].q, 32), pl_f16_f32(w[b].d) * x[b].d, acc);
      }
      y[at[t] * PL_PANEL + r] = acc;
    }
  }
}
