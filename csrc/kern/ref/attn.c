#include "kern/kern.h"

float pl_softmax_ref(float *s, int32_t n, float *m) {
  float max = *m, sum[16] = {0};
  for (int32_t j = 0; j < n; j++) max = s[j] > max ? s[j] : max;
  max += 0.0f; /* -0 becomes +0 */
  for (int32_t j = 0; j < n; j++) {
    s[j] = pl_exp(s[j] - max);
    sum[j % 16] += s[j];
  }
  for (int32_t j = n; j % 16; j++) s[j] = 0;
  *m = max;
  return pl_tree16(sum);
}

void pl_merge_ref(int32_t nq, int32_t hdp, float *m, float *sum, float *o, const float *mc, const float *sumc,
                  const float *oc) {
  for (int32_t r = 0; r < nq; r++, o += hdp, oc += hdp) {
    if (sumc[r] == 0) continue;
    float top = mc[r] > m[r] ? mc[r] : m[r], a = pl_exp(m[r] - top), b = pl_exp(mc[r] - top);
    sum[r] = fmaf(sumc[r], b, sum[r] * a);
    for (int32_t d = 0; d < hdp; d++) o[d] = fmaf(oc[d], b, o[d] * a);
    m[r] = top;
  }
}
