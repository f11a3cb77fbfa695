#include "base/half.h"
#include "kern/kern.h"
#include "kern/ref/dot.h"

/* The 32 codes of a block, 0..31: four bits as in Q4_1, the fifth of value i in bit i of qh. */
static void codes(const pl_block_q5_1 *b, int8_t *q) {
  for (int i = 0; i < 16; i++) {
    q[i] = (int8_t)((b->qs[i] & 15) | (b->qh[i / 8] >> i % 8 & 1) << 4);
    q[i + 16] = (int8_t)(b->qs[i] >> 4 | (b->qh[2 + i / 8] >> i % 8 & 1) << 4);
  }
}

void pl_deq_Q5_1_ref(const void *src, float *y, int64_t n) {
  const pl_block_q5_1 *w = src;
  for (int64_t b = 0; b < n / 32; b++) {
    int8_t q[32];
    codes(&w[b], q);
    float d = pl_f16_f32(w[b].d), m = pl_f16_f32(w[b].m);
    for (int i = 0; i < 32; i++) y[b * 32 + i] = d * (float)q[i] + m;
  }
}

void pl_mm_Q5_1_ref(const void *w_rows, int64_t row_bytes, int32_t nr, int64_t k, const void *a, int64_t a_stride,
                    int32_t nt, float *y) {
  for (int32_t r = 0; r < nr; r++) {
    const pl_block_q5_1 *w = (const void *)((const uint8_t *)w_rows + r * row_bytes);
    for (int32_t t = 0; t < nt; t++) {
      const pl_q8 *x = (const void *)((const uint8_t *)a + t * a_stride);
      float acc = 0;
      for (int64_t b = 0; b < k / 32; b++) {
        int8_t q[32];
        codes(&w[b], q);
        acc = fmaf((float)dot(q, x[b].q, 32), pl_f16_f32(w[b].d) * x[b].d, acc);
        acc = fmaf(pl_f16_f32(w[b].m), x[b].s, acc);
      }
      y[t * PL_PANEL + r] = acc;
    }
  }
}
