#include "base/half.h"
#include "kern/kern.h"

/* One block of 32 values of a query with each of 16 keys in turn: codes [32 / 4][16][4]. */
static int32_t idot8(const pl_q16 *q, const int8_t *codes, int32_t j) {
  int32_t sum = 0;
  for (int i = 0; i < 32; i++) sum += q->c[i] * codes[(i / 4 * PL_PAGE + j) * 4 + i % 4];
  return sum;
}

/* The same of nibbles [32 / 8][16][4]: value 8g + i is the low nibble of byte i of line g, 8g + 4 + i the high one. */
static int32_t idot4(const pl_q16 *q, const uint8_t *codes, int32_t j) {
  int32_t sum = 0;
  for (int i = 0; i < 32; i++) {
    uint8_t pair = codes[(i / 8 * PL_PAGE + j) * 4 + i % 4];
    sum += q->c[i] * ((i % 8 < 4 ? pair & 15 : pair >> 4) - 8);
  }
  return sum;
}

static void qk(const pl_q16 *x, int32_t nq, const void *const *k, int32_t nb, int32_t hd, float scale, float *s,
               int type) {
  const int32_t block = 32 * PL_PAGE / (type == PL_Q8_0 ? 1 : 2); /* bytes of codes */
  for (int32_t r = 0; r < nq; r++, x += hd / 32, s += PL_CHUNK)
    for (int32_t j = 0; j < nb * PL_PAGE; j++) {
      const uint8_t *codes = k[j / PL_PAGE];
      const uint16_t *d = (const uint16_t *)(const void *)(codes + hd / 32 * block);
      const int8_t *offset = (const int8_t *)(d + hd / 32 * PL_PAGE);
      const uint16_t *d_offset = (const uint16_t *)(const void *)(offset + hd);
      float acc = 0;
      for (int32_t b = 0; b < hd / 32; b++) {
        int32_t sum = 0;
        for (int i = 0; i < 32; i++) sum += x[b].c[i] * offset[b * 32 + i];
        acc = fmaf((float)sum, pl_f16_f32(d_offset[b]), acc);
      }
      for (int32_t b = 0; b < hd / 32; b++, codes += block) {
        int32_t sum =
            type == PL_Q8_0 ? idot8(x + b, (const int8_t *)codes, j % PL_PAGE) : idot4(x + b, codes, j % PL_PAGE);
        acc = fmaf((float)sum, pl_f16_f32(d[b * PL_PAGE + j % PL_PAGE]), acc);
      }
      s[j] = acc * (x->d * scale);
    }
}

void pl_qk_Q8_0_ref(const void *q, int32_t nq, const void *const *k, int32_t nb, int32_t hd, float scale, float *s,
                    const void *const *ahead) {
  qk(q, nq, k, nb, hd, scale, s, PL_Q8_0);
}

void pl_qk_Q4_0_ref(const void *q, int32_t nq, const void *const *k, int32_t nb, int32_t hd, float scale, float *s,
                    const void *const *ahead) {
  qk(q, nq, k, nb, hd, scale, s, PL_Q4_0);
}
