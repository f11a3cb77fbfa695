#include "kern/kern.h"

void pl_rmsnorm_ref(const float *x, const float *w, int64_t n, float eps, float *y) {
  float ss[16] = {0};
  for (int64_t i = 0; i < n; i++) ss[i % 16] = fmaf(x[i], x[i], ss[i % 16]);
  float r = 1.0f / sqrtf(pl_tree16(ss) / (float)n + eps);
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * r * w[i];
}
