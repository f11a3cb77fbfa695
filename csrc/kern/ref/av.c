#include "base/half.h"
#include "kern/kern.h"

static float load_f32(float x) { return x; }

#define AV_FLOAT(type, element, load)                                                                            \
  void pl_av_##type##_ref(const float *p, int32_t nq, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, \
                          float *o, const void *const *ahead) {                                                  \
    for (int32_t r = 0; r < nq; r++)                                                                             \
      for (int32_t j = j0; j < j1; j++) {                                                                        \
        const element *row = (const element *)v[j / PL_PAGE] + j % PL_PAGE * hdp;                                \
        for (int32_t d = 0; d < hdp; d++)                                                                        \
          o[r * hdp + d] = fmaf(p[r * PL_CHUNK + j], load(row[d]), o[r * hdp + d]);                              \
      }                                                                                                          \
  }
AV_FLOAT(F32, float, load_f32)
AV_FLOAT(F16, uint16_t, pl_f16_f32)
AV_FLOAT(BF16, uint16_t, pl_bf16_f32)
