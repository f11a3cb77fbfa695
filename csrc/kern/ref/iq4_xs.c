#include "base/half.h"
#include "kern/kern.h"
#include "kern/ref/codes.h"
#include "kern/ref/dot.h"
#include "kern/ref/scale_k.h"

void pl_deq_IQ4_XS_ref(const void *src, float *y, int64_t n) {
  const pl_block_iq4_xs *w = src;
  for (int64_t b = 0; b < n / 256; b++)
    for (int j = 0; j < 8; j++) {
      uint8_t q[32];
      codes_nibbles(w[b].qs + 16 * j, q);
      float d = pl_f16_f32(w[b].d) * (float)scale_iq4_xs(&w[b], j);
      for (int i = 0; i < 32; i++) y[b * 256 + j * 32 + i] = d * (float)values_iq4[q[i]];
    }
}

void pl_mm_IQ4_XS_ref(const void *w_rows, int64_t row_bytes, int32_t nr, int64_t k, const void *a,
                      int64_t a_stride, int32_t nt, const int32_t *at, float *y) {
  for (int32_t r = 0; r < nr; r++) {
    const pl_block_iq4_xs *w = (const void *)((const uint8_t *)w_rows + r * row_bytes);
    for (int32_t t = 0; t < nt; t++) {
      const pl_q8 *x = (const void *)((const uint8_t *)a + t * a_stride);
      float acc = y[at[t] * PL_PANEL + r];
      for (int64_t b = 0; b < k / 256; b++) {
        float d = pl_f16_f32(w[b].d);
        for (int j = 0; j < 8; j++, x++) {
          uint8_t q[32];
          codes_nibbles(w[b].qs + 16 * j, q);
          float ds = d * (float)scale_iq4_xs(&w[b], j);
          acc = fmaf((float)dot_values(values_iq4, q, x->q, 32), ds * x->d, acc);
        }
      }
      y[at[t] * PL_PANEL + r] = acc;
    }
  }
}
