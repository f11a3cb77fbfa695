#include "base/half.h"
#include "kern/kern.h"
#include "kern/ref/codes.h"

void pl_deq_NVFP4_ref(const void *src, float *y, int64_t n) {
  const pl_block_nvfp4 *w = src;
  for (int64_t b = 0; b < n / 64; b++)
    for (int i = 0; i < 64; i++) {
      uint8_t q = w[b].qs[i / 16 * 8 + i % 8] >> i % 16 / 8 * 4 & 15;
      y[b * 64 + i] = pl_ue4m3_half(w[b].d[i / 16]) * (float)values_e2m1[q];
    }
}
