#include "base/half.h"
#include "kern/kern.h"
#include "kern/ref/codes.h"
#include "kern/ref/dot.h"
#include "kern/ref/scale_k.h"

void pl_deq_Q3_K_ref(const void *src, float *y, int64_t n) {
  const pl_block_q3_K *w = src;
  for (int64_t b = 0; b < n / 256; b++)
    for (int j = 0; j < 8; j++) {
      uint8_t q[32];
      codes_q3_k(&w[b], j, q);
      for (int i = 0; i < 32; i++) {
        float d = pl_f16_f32(w[b].d) * (float)scale_q3(w[b].scales, 2 * j + i / 16);
        y[b * 256 + j * 32 + i] = d * (float)(q[i] - 4);
      }
    }
}

void pl_mm_Q3_K_ref(const void *w_rows, int64_t row_bytes, int32_t nr, int64_t k, const void *a, int64_t a_stride,
                    int32_t nt, const int32_t *at, float *y) {
  for (int32_t r = 0; r < nr; r++) {
    const pl_block_q3_K *w = (const void *)((const uint8_t *)w_rows + r * row_bytes);
    for (int32_t t = 0; t < nt; t++) {
      const pl_q8 *x = (const void *)((const uint8_t *)a + t * a_stride);
      float acc = y[at[t] * PL_PANEL + r];
      for (int64_t b = 0; b < k / 256; b++) {
        float d = pl_f16_f32(w[b].d);
        for (int j = 0; j < 8; j++, x++) {
          uint8_t q[32];
          codes_q3_k(&w[b], j, q);
          int32_t idot = scale_q3(w[b].scales, 2 * j) * dot(q, 4, x->q, 16) +
                         scale_q3(w[b].scales, 2 * j + 1) * dot(q + 16, 4, x->q + 16, 16);
          acc = fmaf((float)idot, d * x->d, acc);
        }
      }
      y[at[t] * PL_PANEL + r] = acc;
    }
  }
}
