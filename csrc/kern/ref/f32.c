#include "kern/kern.h"

void pl_deq_F32_ref(const void *src, float *y, int64_t n) {
  const float *w = src;
  for (int64_t i = 0; i < n; i++) y[i] = w[i];
}

void pl_mm_F32_ref(const void *w_rows, int64_t row_bytes, int32_t nr, int64_t k, const void *a, int64_t a_stride,
                   int32_t nt, const int32_t *at, float *y) {
  for (int32_t r = 0; r < nr; r++) {
    const float *w = (const void *)((const uint8_t *)w_rows + r * row_bytes);
    for (int32_t t = 0; t < nt; t++) {
      const float *x = (const void *)((const uint8_t *)a + t * a_stride);
      float acc = y[at[t] * PL_PANEL + r];
      for (int64_t i = 0; i < k; i++) acc = fmaf(w[i], x[i], acc);
      y[at[t] * PL_PANEL + r] = acc;
    }
  }
}
