#include "kern/kern.h"

void pl_rope_ref(float *x, int32_t n_heads, int64_t head_stride, int32_t n_rot, int32_t interleaved,
                 const float *cs) {
  int32_t half = n_rot / 2;
  for (int32_t h = 0; h < n_heads; h++, x += head_stride)
    for (int32_t i = 0; i < half; i++) {
      float *pa = interleaved ? x + 2 * i : x + i, *pb = interleaved ? x + 2 * i + 1 : x + i + half;
      float a = *pa, b = *pb, c = cs[2 * i], s = cs[2 * i + 1];
      *pa = fmaf(a, c, -(b * s));
      *pb = fmaf(b, c, a * s);
    }
}
