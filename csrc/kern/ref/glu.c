#include "kern/kern.h"

void pl_silu_ref(const float *g, const float *u, int64_t n, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = g[i] / (1.0f + pl_exp(-g[i])) * u[i];
}

void pl_gelu_ref(const float *g, const float *u, int64_t n, float *y) {
  for (int64_t i = 0; i < n; i++) {
    float v = g[i] / (1.0f + pl_exp(g[i] * fmaf(-PL_GELU_3, g[i] * g[i], -PL_GELU_1)));
    y[i] = u ? v * u[i] : v;
  }
}

void pl_softcap_ref(float *x, int64_t n, float cap) {
  for (int64_t i = 0; i < n; i++) x[i] = fmaf(-cap, 2.0f / (1.0f + pl_exp(x[i] * (2.0f / cap))), cap);
}
