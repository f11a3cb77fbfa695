#include "kern/kern.h"

void pl_silu_ref(const float *g, const float *u, int64_t n, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = g[i] / (1.0f + pl_exp(-g[i])) * u[i];
}
