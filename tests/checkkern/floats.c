/* floats.c: kernels without a tensor type. */
#include <string.h>

#include "base/half.h"
#include "check.h"

/* ---- quant ---- */

static void same_blocks(const pl_q8 *got, const pl_q8 *want, int64_t n, const char *what) {
  for (int64_t b = 0; b < n; b++) {
    const char *where = text("%s, block %lld", what, (long long)b);
    same_floats(&got[b].d, &want[b].d, 1, text("%s: d", where));
    same_floats(&got[b].s, &want[b].s, 1, text("%s: s", where));
    same_bytes(got[b].h, want[b].h, 4, text("%s: h", where));
    same_bytes(&got[b].z, &want[b].z, 4, text("%s: z", where));
    same_bytes(got[b].q, want[b].q, 32, text("%s: q", where));
  }
}

/* What the contract says of one block of finite values x [32]. */
static void right_block(const pl_q8 *y, const double *x, const char *what) {
  double amax = 0;
  int h[2] = {0, 0};
  for (int i = 0; i < 32; i++) amax = fabs(x[i]) > amax ? fabs(x[i]) : amax;
  near_enough(y->d, amax / 127, 2 * EPS * amax / 127, text("%s: d", what));
  for (int i = 0; i < 32; i++) {
    if (y->q[i] < -127) fail("%s: q[%d] is -128", what, i);
    near_enough((double)y->d * y->q[i], x[i], (double)y->d * 0.5001, text("%s: value %d", what, i));
    h[i / 16] += y->q[i];
  }
  if (y->h[0] != h[0] || y->h[1] != h[1])
    fail("%s: h is %d, %d, expected %d, %d", what, y->h[0], y->h[1], h[0], h[1]);
  if (y->z != -(h[0] + h[1])) fail("%s: z is %d, expected %d", what, y->z, -(h[0] + h[1]));
  near_enough(y->s, (double)y->d * (h[0] + h[1]), EPS * fabs((double)y->s), text("%s: s", what));
}

void check_quant(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int n = 1; n <= 40; n += n < 17 ? 1 : 5)
      for (int terms = 1; terms <= 2; terms++) {
        size_t bytes = (size_t)n * sizeof(pl_q8);
        float *x = floats(SLOT_A, 32 * n, (enum mood)mood);
        if (n % 9 == 0) /* exact ties */
          for (int i = 0; i < 32 * n; i++) x[i] = i % 32 ? (float)rnd_int(-253, 253) * 0.5f : 127.0f;
        pl_q8 *hi = buffer(SLOT_OUT, bytes, 4), *lo = terms == 2 ? buffer(SLOT_OUT2, bytes, 4) : NULL;
        const char *what = title("%s values, %d blocks", mood_name((enum mood)mood), n);
        ((pl_quant_fn *)e->fn)(x, 32 * n, hi, lo);
        called(hi, bytes, SLOT_OUT);
        if (lo) check_outside(SLOT_OUT2);
        if (!is_ref(e)) {
          pl_q8 *want = buffer(SLOT_WANT, bytes, 4), *want_lo = buffer(SLOT_B, bytes, 4);
          ref()->quant(x, 32 * n, want, want_lo);
          same_blocks(hi, want, n, what);
          if (lo) same_blocks(lo, want_lo, n, text("%s, second term", what));
        }
        for (int b = 0; b < n; b++)
          for (int i = 0; i < 32; i++)
            if (hi[b].q[i] == -128 || (lo && lo[b].q[i] == -128)) fail("%s: a code is -128", what);
        if (!is_ref(e) || (mood != NORMAL && mood != WIDE && mood != ZERO)) continue;
        for (int b = 0; b < n; b++) {
          double v[32], rest[32];
          for (int i = 0; i < 32; i++) {
            v[i] = x[32 * b + i];
            rest[i] = (float)(v[i] - (double)hi[b].d * hi[b].q[i]);
          }
          right_block(&hi[b], v, what);
          if (lo) right_block(&lo[b], rest, text("%s, second term", what));
        }
      }
}

/* ---- rmsnorm, silu, rope ---- */

void check_rmsnorm(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 0; i < 24; i++) {
      int n = i < 20 ? 1 + i : i < 22 ? 64 * i : rnd_int(1, 3000);
      const float eps = i % 2 ? 1e-5f : 1e-6f;
      float *x = floats(SLOT_A, n, (enum mood)mood), *w = floats(SLOT_B, n, NORMAL);
      float *y = buffer(SLOT_OUT, (size_t)n * 4, 4), *want = buffer(SLOT_WANT, (size_t)n * 4, 4);
      const char *what = title("%s values, n %d", mood_name((enum mood)mood), n);
      if (i % 3 == 0) memcpy(y, x, (size_t)n * 4); /* in place */
      ((pl_rmsnorm_fn *)e->fn)(i % 3 ? x : y, w, n, eps, y);
      called(y, (size_t)n * 4, SLOT_OUT);
      if (!is_ref(e)) {
        ref()->rmsnorm(x, w, n, eps, want);
        same_floats(y, want, n, what);
      } else if (mood == NORMAL || mood == WIDE) {
        double ss = 0;
        for (int j = 0; j < n; j++) ss += (double)x[j] * x[j];
        double r = 1 / sqrt(ss / n + (double)eps);
        for (int j = 0; j < n; j++) {
          double v = x[j] * r * w[j];
          near_enough(y[j], v, (n / 16 + 12) * EPS * fabs(v), text("%s, value %d", what, j));
        }
      }
    }
}

void check_silu(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 0; i < 24; i++) {
      int n = i < 20 ? 1 + i : rnd_int(1, 3000);
      float *g = floats(SLOT_A, n, (enum mood)mood), *u = floats(SLOT_B, n, (enum mood)mood);
      if (i % 2)
        for (int j = 0; j < n; j++) g[j] = (float)rnd_real(-110, 110);
      float *y = buffer(SLOT_OUT, (size_t)n * 4, 4), *want = buffer(SLOT_WANT, (size_t)n * 4, 4);
      const char *what = title("%s values, n %d", mood_name((enum mood)mood), n);
      if (i % 3 == 0) memcpy(y, g, (size_t)n * 4); /* in place */
      ((pl_silu_fn *)e->fn)(i % 3 ? g : y, u, n, y);
      called(y, (size_t)n * 4, SLOT_OUT);
      if (!is_ref(e)) {
        ref()->silu(g, u, n, want);
        same_floats(y, want, n, what);
      } else if (mood == NORMAL || mood == WIDE) {
        for (int j = 0; j < n; j++) {
          double v = g[j] / (1 + exp(-(double)g[j])) * u[j];
          double lost = g[j] < -88 ? 0x1p-121 * fabs((double)u[j]) : 0; /* 1 + e^-g overflows */
          near_enough(y[j], v, 8 * EPS * fabs(v) + lost + 0x1p-148, text("%s, value %d", what, j));
        }
      }
    }
}

void check_gelu(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 0; i < 24; i++) {
      int n = i < 20 ? 1 + i : rnd_int(1, 3000), gated = i % 5 != 0;
      float *g = floats(SLOT_A, n, (enum mood)mood), *u = floats(SLOT_B, n, (enum mood)mood);
      if (i % 2)
        for (int j = 0; j < n; j++) g[j] = (float)rnd_real(-12, 12);
      float *y = buffer(SLOT_OUT, (size_t)n * 4, 4), *want = buffer(SLOT_WANT, (size_t)n * 4, 4);
      const char *what = title("%s values, n %d%s", mood_name((enum mood)mood), n, gated ? ", gated" : "");
      if (i % 3 == 0) memcpy(y, g, (size_t)n * 4); /* in place */
      ((pl_gelu_fn *)e->fn)(i % 3 ? g : y, gated ? u : NULL, n, y);
      called(y, (size_t)n * 4, SLOT_OUT);
      if (!is_ref(e)) {
        ref()->gelu(g, gated ? u : NULL, n, want);
        same_floats(y, want, n, what);
      } else if (mood == NORMAL) {
        for (int j = 0; j < n; j++) {
          double v = g[j], z = 2 * sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
          double scale = gated ? fabs((double)u[j]) : 1, right = v / (1 + exp(-z)) * (gated ? (double)u[j] : 1);
          double lost = z < -88 ? 0x1p-121 * scale : 0; /* 1 + e^-z overflows */
          near_enough(y[j], right, (8 + 5 * fabs(z)) * EPS * fabs(right) + lost + 0x1p-148,
                      text("%s, value %d", what, j));
        }
      }
    }
}

void check_softcap(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 0; i < 24; i++) {
      int n = i < 20 ? 1 + i : rnd_int(1, 3000);
      const float cap = i % 2 ? 30.0f : (float)rnd_real(0.5, 60);
      float *x = floats(SLOT_A, n, (enum mood)mood);
      float *y = buffer(SLOT_OUT, (size_t)n * 4, 4), *want = buffer(SLOT_WANT, (size_t)n * 4, 4);
      if (i % 3)
        for (int j = 0; j < n; j++) x[j] = (float)rnd_real(-100, 100);
      memcpy(y, x, (size_t)n * 4);
      memcpy(want, x, (size_t)n * 4);
      const char *what = title("%s values, n %d, cap %g", mood_name((enum mood)mood), n, (double)cap);
      ((pl_softcap_fn *)e->fn)(y, n, cap);
      called(y, (size_t)n * 4, SLOT_OUT);
      if (!is_ref(e)) {
        ref()->softcap(want, n, cap);
        same_floats(y, want, n, what);
      } else if (mood == NORMAL || mood == WIDE) {
        for (int j = 0; j < n; j++)
          near_enough(y[j], (double)cap * tanh((double)x[j] / (double)cap), 8 * EPS * (double)cap,
                      text("%s, value %d", what, j));
      }
    }
}

void check_rope(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 0; i < 40; i++) {
      int half = i < 20 ? 1 + i : i < 24 ? 32 : rnd_int(1, 70), heads = rnd_int(1, 5), interleaved = i % 2;
      int head = 2 * half + rnd_int(0, 9), n = heads * head;
      float *x = floats(SLOT_A, n, (enum mood)mood), *cs = buffer(SLOT_B, (size_t)half * 8, 4);
      for (int j = 0; j < half; j++) {
        double angle = rnd_real(-4, 4);
        cs[2 * j] = (float)cos(angle);
        cs[2 * j + 1] = (float)sin(angle);
      }
      float *y = buffer(SLOT_OUT, (size_t)n * 4, 4), *want = buffer(SLOT_WANT, (size_t)n * 4, 4);
      memcpy(y, x, (size_t)n * 4);
      memcpy(want, x, (size_t)n * 4);
      const char *what =
          title("%s values, n_rot %d, interleaved %d", mood_name((enum mood)mood), 2 * half, interleaved);
      ((pl_rope_fn *)e->fn)(y, heads, head, 2 * half, interleaved, cs);
      called(y, (size_t)n * 4, SLOT_OUT);
      if (!is_ref(e)) {
        ref()->rope(want, heads, head, 2 * half, interleaved, cs);
        same_floats(y, want, n, what);
        continue;
      }
      if (mood != NORMAL && mood != WIDE) continue;
      for (int h = 0; h < heads; h++) {
        same_floats(y + h * head + 2 * half, x + h * head + 2 * half, head - 2 * half, "beyond n_rot");
        for (int j = 0; j < half; j++) {
          int ia = h * head + (interleaved ? 2 * j : j), ib = interleaved ? ia + 1 : ia + half;
          double a = x[ia], b = x[ib], c = cs[2 * j], s = cs[2 * j + 1], tol = 3 * EPS * (fabs(a) + fabs(b));
          near_enough(y[ia], a * c - b * s, tol, what);
          near_enough(y[ib], b * c + a * s, tol, what);
        }
      }
    }
}

/* ---- half floats ---- */

void check_load_f16(const entry *e) {
  const int sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 64, 65536};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    int n = sizes[i];
    uint16_t *x = buffer(SLOT_A, (size_t)n * 2, 2);
    for (int j = 0; j < n; j++) x[j] = n == 65536 ? (uint16_t)j : (uint16_t)rnd();
    float *y = buffer(SLOT_OUT, (size_t)n * 4, 4), *want = buffer(SLOT_WANT, (size_t)n * 4, 4);
    ((pl_load_f16_fn *)e->fn)(x, n, y);
    called(y, (size_t)n * 4, SLOT_OUT);
    for (int j = 0; j < n; j++) { /* the definition of binary16 */
      int exp = x[j] >> 10 & 31, man = x[j] & 1023;
      double v = exp == 31 ? (man ? NAN : INFINITY) : exp ? ldexp(1024 + man, exp - 25) : ldexp(man, -24);
      want[j] = (float)(x[j] & 0x8000 ? -v : v);
    }
    same_floats(y, want, n, text("n %d", n));
  }
}

/* The nearest half float, ties to even, in double precision. */
static uint16_t nearest_half(float f) {
  uint16_t sign = (uint16_t)(pl_f32_bits(f) >> 16 & 0x8000);
  double a = fabs((double)f);
  if (a != a) return 0x7e00;
  if (a == 0) return sign;
  if (a >= 65520) return sign | 0x7c00;
  int exp;
  frexp(a, &exp);
  int shift = exp - 11 < -24 ? -24 : exp - 11; /* the exponent of one unit in the last place */
  double units = nearbyint(ldexp(a, -shift));  /* 1024..2048, or fewer if subnormal */
  return (uint16_t)(sign + (shift + 24) * 1024 + (int)units);
}

void check_store_f16(const entry *e) {
  const int sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 4096, 4096, 4096, 65536, 65536};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    int n = sizes[i];
    float *x = floats(SLOT_A, n, (enum mood)(i % N_MOODS));
    if (i % 3 == 1)
      for (int j = 0; j < n; j++) x[j] = pl_bits_f32((uint32_t)rnd());
    if (i % 3 == 2) /* half floats and the points midway between them, and their neighbours */
      for (int j = 0; j < n; j++)
        x[j] = pl_bits_f32((pl_f32_bits(pl_f16_f32((uint16_t)rnd())) + (uint32_t)(rnd() & 1) * 0x1000 +
                            (uint32_t)(rnd() % 3) - 1));
    uint16_t *y = buffer(SLOT_OUT, (size_t)n * 2, 2);
    ((pl_store_f16_fn *)e->fn)(x, n, y);
    called(y, (size_t)n * 2, SLOT_OUT);
    for (int j = 0; j < n; j++) {
      if (x[j] != x[j] && (y[j] & 0x7c00) == 0x7c00 && y[j] & 1023) continue;
      uint16_t want = nearest_half(x[j]);
      if (y[j] != want) fail("%a becomes %#06x, expected %#06x", (double)x[j], y[j], want);
    }
  }
}

void check_store_bf16(const entry *e) {
  const int sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 4096, 4096, 4096, 65536};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    int n = sizes[i];
    float *x = floats(SLOT_A, n, (enum mood)(i % N_MOODS));
    if (i % 2)
      for (int j = 0; j < n; j++) x[j] = pl_bits_f32((uint32_t)rnd() & (rnd() & 1 ? 0xffff8000u : 0xffffffffu));
    uint16_t *y = buffer(SLOT_OUT, (size_t)n * 2, 2);
    ((pl_store_bf16_fn *)e->fn)(x, n, y);
    called(y, (size_t)n * 2, SLOT_OUT);
    for (int j = 0; j < n; j++) {
      uint32_t u = pl_f32_bits(x[j]), below = u & 0xffff0000u, half = u & 0xffff;
      if (x[j] != x[j]) { /* stays NaN, of the same sign and upper bits */
        if (y[j] != (below >> 16 | 64)) fail("NaN %#x becomes %#06x", u, y[j]);
        continue;
      }
      uint32_t up = half > 0x8000 || (half == 0x8000 && below >> 16 & 1);
      if (y[j] != (uint16_t)((below >> 16) + up)) fail("%a becomes %#06x", (double)x[j], y[j]);
    }
  }
}
