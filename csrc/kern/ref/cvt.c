#include "base/half.h"
#include "kern/kern.h"

void pl_load_f16_ref(const uint16_t *x, int64_t n, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = pl_f16_f32(x[i]);
}

void pl_store_f16_ref(const float *x, int64_t n, uint16_t *y) {
  for (int64_t i = 0; i < n; i++) y[i] = pl_f32_f16(x[i]);
}

void pl_store_bf16_ref(const float *x, int64_t n, uint16_t *y) {
  for (int64_t i = 0; i < n; i++) y[i] = pl_f32_bf16(x[i]);
}
