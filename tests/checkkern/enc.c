/* enc: to the bytes of ref, and ref itself: what comes back is near, whatever the values' size. */
#include <string.h>

#include "check.h"
#include "quant/types.h"

/* x [n] of one mood, some blocks all zero, all alike, or far from zero and close together. */
static void fill(float *x, int64_t n, enum mood mood, float scale) {
  for (int64_t i = 0; i < n; i += 32) {
    int kind = rnd_int(0, 7);
    float base = rnd_float(mood) * scale;
    for (int64_t j = i; j < i + 32; j++) {
      float v = rnd_float(mood) * scale;
      x[j] = kind == 0 ? 0.0f : kind == 1 ? base : kind == 2 ? base + v * 0x1p-12f : kind == 3 && j % 9 ? 0.0f : v;
    }
  }
}

void check_enc(const entry *e) {
  static const enum mood moods[] = {NORMAL, WIDE, TINY, ZERO};
  int64_t block = pl_type_block(e->type_id);
  for (int m = 0; m < 4; m++)
    for (int i = 0; i < 12; i++) {
      int64_t cols = block * rnd_int(1, 5), n = cols * rnd_int(1, 9);
      int weighted = rnd_int(0, 1);
      float *x = buffer(SLOT_A, (size_t)n * 4, 4), *w = buffer(SLOT_B, (size_t)cols * 4, 4);
      float *y = buffer(SLOT_C, (size_t)n * 4, 4);
      fill(x, n, moods[m], moods[m] == WIDE ? 0x1p-8f : 1.0f);
      for (int64_t j = 0; j < cols; j++) w[j] = rnd_int(0, 3) ? (float)rnd_real(1e-3, 1) : 1e-6f;
      size_t bytes = (size_t)(n / cols * pl_row_bytes(e->type_id, cols));
      uint8_t *got = buffer(SLOT_OUT, bytes, 1), *want = buffer(SLOT_WANT, bytes, 1);
      const char *what = text("%s values, %lld of rows of %lld%s", mood_name(moods[m]), (long long)n,
                              (long long)cols, weighted ? ", weighted" : "");
      ((pl_enc_fn *)e->fn)(x, weighted ? w : NULL, cols, n, got);
      called(got, bytes, SLOT_OUT);
      pl_kern_at(PL_LEVEL_ref)->enc[e->type_id](x, weighted ? w : NULL, cols, n, want);
      same_bytes(got, want, bytes, what);
      pl_kern_at(PL_LEVEL_ref)->deq[e->type_id](got, y, n);
      for (int64_t j = 0; j < n; j += block) {
        float lo = 0, hi = 0;
        for (int64_t k = j; k < j + block; k++) {
          lo = x[k] < lo ? x[k] : lo;
          hi = x[k] > hi ? x[k] : hi;
        }
        for (int64_t k = j; k < j + block; k++) near_enough(y[k], x[k], (hi - lo) * 1.01 + 0x1p-18, what);
      }
    }
}
