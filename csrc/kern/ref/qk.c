#include "base/half.h"
#include "kern/kern.h"

static float load_f32(float x) { return x; }

/* Row r's value d in panels of 8 rows. */
static float query(const float *q, int32_t hd, int32_t r, int32_t d) { return q[(r / 8 * hd + d) * 8 + r % 8]; }

#define QK_FLOAT(type, element, load)                                                                           \
  void pl_qk_##type##_ref(const void *q, int32_t nq, const void *const *k, int32_t nb, int32_t hd, float scale, \
                          float *s, const void *const *ahead) {                                                 \
    for (int32_t r = 0; r < nq; r++)                                                                            \
      for (int32_t j = 0; j < nb * PL_PAGE; j++) {                                                              \
        const element *block = k[j / PL_PAGE];                                                                  \
        float acc = 0;                                                                                          \
        for (int32_t d = 0; d < hd; d++)                                                                        \
          acc = fmaf(query(q, hd, r, d), load(block[d * PL_PAGE + j % PL_PAGE]), acc);                          \
        s[r * PL_CHUNK + j] = acc * scale;                                                                      \
      }                                                                                                         \
  }
QK_FLOAT(F32, float, load_f32)
QK_FLOAT(F16, uint16_t, pl_f16_f32)
QK_FLOAT(BF16, uint16_t, pl_bf16_f32)
