#include "base/half.h"
#include "kern/kern.h"

/* Value d of key j of a block, less its scale. */
static float code8(const uint8_t *block, int32_t hdp, int32_t j, int32_t d) { return (int8_t)block[j * hdp + d]; }
static float code4(const uint8_t *block, int32_t hdp, int32_t j, int32_t d) {
  uint8_t pair = block[j * hdp / 2 + d / 32 * 16 + d % 16];
  return (float)((d % 32 < 16 ? pair & 15 : pair >> 4) - 8);
}

#define AV_QUANT(type, bits, code)                                                                               \
  void pl_av_##type##_ref(const float *p, int32_t nq, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, \
                          float *o, const void *const *ahead) {                                                  \
    for (int32_t r = 0; r < nq; r++)                                                                             \
      for (int32_t j = j0; j < j1; j++) {                                                                        \
        const uint8_t *block = v[j / PL_PAGE];                                                                   \
        const uint16_t *scale = (const uint16_t *)(const void *)(block + hdp * PL_PAGE * bits / 8);              \
        for (int32_t d = 0; d < hdp; d++) {                                                                      \
          float w = p[r * PL_CHUNK + j] * pl_f16_f32(scale[d / 32 * PL_PAGE + j % PL_PAGE]);                     \
          o[r * hdp + d] = fmaf(w, code(block, hdp, j % PL_PAGE, d), o[r * hdp + d]);                            \
        }                                                                                                        \
      }                                                                                                          \
  }
AV_QUANT(Q8_0, 8, code8)
AV_QUANT(Q4_0, 4, code4)
