/* attn.c: kernels of attention, and those that fill the quantized caches. */
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "check.h"

static int quantized(const entry *e) { return e->type_id == PL_Q8_0 || e->type_id == PL_Q4_0; }
static int sane(enum mood mood) { return mood == NORMAL || mood == WIDE; }
/* Wide values are beyond half floats. */
static int sane_block(const entry *e, enum mood mood) {
  return mood == NORMAL || (mood == WIDE && (e->type_id == PL_F32 || e->type_id == PL_BF16));
}

/* ---- blocks of keys and values as the cache holds them ---- */

static uint16_t scale_of(enum mood mood) { return pl_f32_f16(fabsf(rnd_float(mood))); }

static int64_t block_bytes(const entry *e, int hd) {
  int64_t n = (int64_t)hd * PL_PAGE;
  if (!quantized(e)) return n * (e->type_id == PL_F32 ? 4 : 2);
  return n / (e->type_id == PL_Q8_0 ? 1 : 2) + n / 16 + (e->op[0] == 'q' ? hd + hd / 16 : 0);
}

static void fill_block(const entry *e, uint8_t *p, int hd, enum mood mood, int extreme) {
  int64_t n = (int64_t)hd * PL_PAGE, codes = e->type_id == PL_Q8_0 ? n : n / 2;
  if (!quantized(e)) {
    for (int64_t i = 0; i < n; i++) {
      float x = rnd_float(mood);
      if (e->type_id == PL_F32) memcpy(p + 4 * i, &x, 4);
      uint16_t h = e->type_id == PL_F16 ? pl_f32_f16(x) : pl_f32_bf16(x);
      if (e->type_id != PL_F32) memcpy(p + 2 * i, &h, 2);
    }
    return;
  }
  if (extreme)
    memset(p, e->type_id == PL_Q4_0 ? 0 : rnd() & 1 ? 127 : 128, (size_t)codes);
  else
    rnd_bytes(p, (size_t)codes);
  for (int64_t i = 0; i < n / 32; i++) {
    uint16_t d = scale_of(mood);
    memcpy(p + codes + 2 * i, &d, 2);
  }
  if (e->op[0] != 'q') return;
  uint8_t *offset = p + codes + n / 16;
  rnd_bytes(offset, (size_t)hd);
  for (int i = 0; i < hd / 32; i++) {
    uint16_t d = scale_of(mood);
    memcpy(offset + hd + 2 * i, &d, 2);
  }
}

/* Value d of key j of a block, by the description of the cache's layouts. */
static double value_at(const entry *e, const uint8_t *p, int hd, int j, int d) {
  int64_t n = (int64_t)hd * PL_PAGE, is_k = e->op[0] == 'q', at = is_k ? d * PL_PAGE + j : j * hd + d;
  float x;
  uint16_t h;
  switch (e->type_id) {
    case PL_F32:
      return memcpy(&x, p + 4 * at, 4), x;
    case PL_F16:
      return memcpy(&h, p + 2 * at, 2), pl_f16_f32(h);
    case PL_BF16:
      return memcpy(&h, p + 2 * at, 2), pl_bf16_f32(h);
    default:
      break;
  }
  int64_t codes = e->type_id == PL_Q8_0 ? n : n / 2;
  int code;
  if (e->type_id == PL_Q8_0) {
    code = (int8_t)p[is_k ? (d / 4 * PL_PAGE + j) * 4 + d % 4 : at];
  } else {
    uint8_t pair = p[is_k ? (d / 8 * PL_PAGE + j) * 4 + d % 4 : j * hd / 2 + d / 32 * 16 + d % 16];
    int high = is_k ? d % 8 >= 4 : d % 32 >= 16;
    code = (high ? pair >> 4 : pair & 15) - 8;
  }
  memcpy(&h, p + codes + 2 * (d / 32 * PL_PAGE + j), 2);
  double v = (double)pl_f16_f32(h) * code;
  if (!is_k) return v;
  const uint8_t *offset = p + codes + n / 16;
  memcpy(&h, offset + hd + 2 * (d / 32), 2);
  return v + (double)pl_f16_f32(h) * (int8_t)offset[d];
}

/* nb blocks in a row, in any order, the last ending where the slot does. */
static void fill_blocks(const entry *e, enum slot s, int nb, int hd, enum mood mood, int extreme,
                        const void **block) {
  int64_t bytes = block_bytes(e, hd);
  uint8_t *p = buffer(s, (size_t)(nb * bytes), 4);
  for (int b = 0; b < nb; b++) {
    fill_block(e, p + b * bytes, hd, mood, extreme);
    block[b] = p + (b + nb / 2) % nb * bytes;
  }
}

/* Addresses that may be prefetched, and only that. */
static const void *const nowhere[16] = {(void *)64, (void *)128};

/* ---- qk ---- */

void check_qk(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 0; i < 40; i++) {
      int nq = i < 20 ? 1 + i : rnd_int(1, i == 39 ? 9 : 90), nb = i % 4 ? 1 + rnd_int(0, 15) : 1 + i % 16;
      int hd = i == 39        ? PL_HEAD_MAX
               : quantized(e) ? 32 * rnd_int(1, 8)
               : i % 3        ? 8 * rnd_int(1, 33)
                              : rnd_int(1, 80),
          extreme = i % 7 == 3;
      const float scale = 0.125f * (float)rnd_int(1, 9);
      const void *k[16];
      fill_blocks(e, SLOT_B, nb, hd, (enum mood)mood, extreme, k);
      float *x = floats(SLOT_C, nq * hd, (enum mood)mood);
      if (extreme)
        for (int j = 0; j < nq * hd; j++) x[j] = j / hd % 2 ? 1.0f : -1.0f;
      int64_t q_floats = quantized(e) ? nq * hd / 32 * (int64_t)sizeof(pl_q16) / 4 : (nq + 7) / 8 * 8 * hd;
      float *q = buffer(SLOT_A, (size_t)q_floats * 4, 4);
      for (int64_t j = 0; j < q_floats; j++) q[j] = NAN;
      for (int r = 0; r < nq; r++)
        if (quantized(e))
          ref()->quant16(x + r * hd, hd, (pl_q16 *)(void *)q + r * (hd / 32));
        else
          for (int d = 0; d < hd; d++) q[(r / 8 * hd + d) * 8 + r % 8] = x[r * hd + d];
      int n = (nq - 1) * PL_CHUNK + nb * PL_PAGE;
      float *s = buffer(SLOT_OUT, (size_t)n * 4, 4), *want = buffer(SLOT_WANT, (size_t)n * 4, 4);
      for (int j = 0; j < n; j++) s[j] = want[j] = 77.0f; /* to stay, between the rows */
      const char *what = title("%s values, hd %d, nq %d, nb %d", mood_name((enum mood)mood), hd, nq, nb);
      ((pl_qk_fn *)e->fn)(q, nq, k, nb, hd, scale, s, nowhere);
      called(s, (size_t)n * 4, SLOT_OUT);
      if (!is_ref(e)) {
        ref()->qk[e->type_id](q, nq, k, nb, hd, scale, want, nowhere);
        same_floats(s, want, n, what);
      } else if (sane_block(e, (enum mood)mood)) {
        for (int r = 0; r < nq; r++)
          for (int j = 0; j < PL_CHUNK && r * PL_CHUNK + j < n; j++) {
            if (j >= nb * PL_PAGE) {
              near_enough(s[r * PL_CHUNK + j], 77, 0, "between rows");
              continue;
            }
            double sum = 0, magnitude = 0, amax = 0, weight = 0;
            for (int d = 0; d < hd; d++) {
              double key = value_at(e, k[j / PL_PAGE], hd, j % PL_PAGE, d), v = (double)x[r * hd + d] * key;
              sum += v;
              magnitude += fabs(v);
              weight += fabs(key);
              amax = fabs((double)x[r * hd + d]) > amax ? fabs((double)x[r * hd + d]) : amax;
            }
            if (quantized(e)) magnitude *= 30; /* offset and difference may all but cancel */
            double rounding = quantized(e) ? 0.51 * amax / 32639 * 30 * weight : 0;
            near_enough(s[r * PL_CHUNK + j], sum * scale, ((hd + 2) * EPS * magnitude + rounding) * scale, what);
          }
      }
    }
}

/* pl_exp: within 2 ulp, and what its comment says of the ends. */
static void check_exp(void) {
  for (int i = 0; i < 200000; i++) {
    float x = (float)rnd_real(-87, 88.7);
    double want = exp((double)x);
    near_enough(pl_exp(x), want, 2 * 2 * EPS * want, text("pl_exp(%a)", (double)x));
  }
  for (int i = 0; i < 20000; i++) {
    float x = (float)rnd_real(-104, -87);
    near_enough(pl_exp(x), exp((double)x), 0x1p-148, text("pl_exp(%a)", (double)x));
  }
  const float zero[] = {-104.0f, -1000.0f, -INFINITY}, inf[] = {88.72284f, 1000.0f, INFINITY};
  for (int i = 0; i < 3; i++) {
    if (pl_exp(zero[i]) != 0) fail("pl_exp(%g) is not 0", (double)zero[i]);
    if (pl_exp(inf[i]) != INFINITY) fail("pl_exp(%g) is not infinite", (double)inf[i]);
  }
  if (!(pl_exp(NAN) != pl_exp(NAN))) fail("pl_exp(NaN) is a number");
  if (pl_exp(0.0f) != 1.0f) fail("pl_exp(0) is not 1");
}

void check_softmax(const entry *e) {
  if (is_ref(e)) check_exp();
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 0; i < 50; i++) {
      int n = i < 40 ? 1 + i : rnd_int(1, 600), room = (n + 15) / 16 * 16;
      float *x = floats(SLOT_A, n, (enum mood)mood);
      if (i % 2)
        for (int j = 0; j < n; j++) x[j] = (float)rnd_real(-120, 20);
      float *s = buffer(SLOT_OUT, (size_t)room * 4, 4), *want = buffer(SLOT_WANT, (size_t)room * 4, 4);
      for (int j = 0; j < room; j++) s[j] = want[j] = j < n ? x[j] : NAN; /* room beyond n may hold anything */
      float old = i % 3 == 0 ? -INFINITY : i % 3 == 1 ? rnd_float((enum mood)mood) : 30.0f, m = old, want_m = old;
      const char *what = title("%s values, n %d", mood_name((enum mood)mood), n);
      float sum = ((pl_softmax_fn *)e->fn)(s, n, &m);
      called(s, (size_t)room * 4, SLOT_OUT);
      if (!is_ref(e)) {
        float want_sum = ref()->softmax(want, n, &want_m);
        same_floats(s, want, room, what);
        same_floats(&m, &want_m, 1, text("%s: maximum", what));
        same_floats(&sum, &want_sum, 1, text("%s: sum", what));
      } else if (mood == NORMAL || mood == WIDE) {
        double max = old, total = 0;
        for (int j = 0; j < n; j++) max = x[j] > max ? x[j] : max;
        near_enough(m, max, 0, text("%s: maximum", what));
        for (int j = 0; j < room; j++) {
          double p = j < n ? exp(x[j] - max) : 0;
          near_enough(s[j], p, (6 + 2 * fabs(j < n ? x[j] - max : 0)) * EPS * p + 0x1p-148,
                      text("%s, value %d", what, j));
          total += s[j];
        }
        near_enough(sum, total, (n / 16 + 5) * EPS * total, text("%s: sum", what));
      }
    }
}

void check_merge(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 1; i <= 20; i++) {
      int nq = rnd_int(1, 9), hdp = 16 * i, n = nq * hdp;
      float *mc = floats(SLOT_A, 2 * nq, (enum mood)mood), *sumc = mc + nq,
            *oc = floats(SLOT_B, n, (enum mood)mood);
      float *o = floats(SLOT_OUT, n, (enum mood)mood), *m = floats(SLOT_OUT2, 2 * nq, (enum mood)mood),
            *sum = m + nq;
      for (int r = 0; r < nq; r++) {
        if (rnd_int(0, 2) == 0) m[r] = (float)rnd_real(-20, 20), mc[r] = (float)rnd_real(-20, 20);
        if (rnd_int(0, 3) == 0) m[r] = -INFINITY, sum[r] = 0, memset(o + r * hdp, 0, (size_t)hdp * 4);
        if (rnd_int(0, 3) == 0) mc[r] = -INFINITY, sumc[r] = 0;
      }
      float *want = buffer(SLOT_WANT, (size_t)(n + 2 * nq) * 4, 4), *want_m = want + n, *want_sum = want_m + nq;
      memcpy(want, o, (size_t)n * 4);
      memcpy(want_m, m, (size_t)nq * 8);
      const char *what = title("%s values, nq %d, hdp %d", mood_name((enum mood)mood), nq, hdp);
      float *before = buffer(SLOT_C, (size_t)(n + 2 * nq) * 4, 4);
      memcpy(before, want, (size_t)(n + 2 * nq) * 4);
      ((pl_merge_fn *)e->fn)(nq, hdp, m, sum, o, mc, sumc, oc);
      called(o, (size_t)n * 4, SLOT_OUT);
      check_outside(SLOT_OUT2);
      if (!is_ref(e)) {
        ref()->merge(nq, hdp, want_m, want_sum, want, mc, sumc, oc);
        same_floats(o, want, n, what);
        same_floats(m, want_m, 2 * nq, text("%s: maximum and sum", what));
      } else if (sane((enum mood)mood)) {
        for (int r = 0; r < nq; r++) {
          const float *b = before + r * hdp;
          double old = before[n + r], top = mc[r] > old ? mc[r] : old, wa = exp(old - top), wb = exp(mc[r] - top);
          if (sumc[r] == 0) wa = 1, wb = 0, top = old;
          near_enough(m[r] == top ? 0 : 1, 0, 0, text("%s: maximum", what));
          double slack = (8 + 2 * (isfinite(old - mc[r]) ? fabs(old - mc[r]) : 0)) * EPS;
          double want_s = before[n + nq + r] * wa + sumc[r] * wb;
          near_enough(sum[r], want_s, slack * (fabs(before[n + nq + r] * wa) + fabs(sumc[r] * wb)) + 0x1p-126,
                      what);
          for (int d = 0; d < hdp; d++)
            near_enough(o[r * hdp + d], b[d] * wa + oc[r * hdp + d] * wb,
                        slack * (fabs(b[d] * wa) + fabs(oc[r * hdp + d] * wb)) + 0x1p-126, what);
        }
      }
    }
}

/* ---- av ---- */

void check_av(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 0; i < 40; i++) {
      int hdp = i == 39 ? PL_HEAD_MAX : (quantized(e) ? 32 : 16) * rnd_int(1, 9),
          nq = i < 20 ? 1 + i : rnd_int(1, i == 39 ? 9 : 40);
      int nb = rnd_int(1, i % 2 ? 16 : 3), j0 = rnd_int(0, nb * PL_PAGE - 1), j1 = rnd_int(j0 + 1, nb * PL_PAGE);
      if (i % 3 == 0) j0 = 0, j1 = nb * PL_PAGE;
      const void *v[16] = {0};
      fill_blocks(e, SLOT_B, nb, hdp, (enum mood)mood, i % 7 == 3, v);
      int n_p = (nq - 1) * PL_CHUNK + nb * PL_PAGE, n = nq * hdp;
      float *p = floats(SLOT_A, n_p, (enum mood)mood), *o = floats(SLOT_OUT, n, NORMAL);
      float *want = buffer(SLOT_WANT, (size_t)n * 4, 4);
      memcpy(want, o, (size_t)n * 4);
      const char *what =
          title("%s values, nq %d, keys %d to %d, hdp %d", mood_name((enum mood)mood), nq, j0, j1, hdp);
      ((pl_av_fn *)e->fn)(p, nq, v, j0, j1, hdp, o, nowhere);
      called(o, (size_t)n * 4, SLOT_OUT);
      if (!is_ref(e)) {
        ref()->av[e->type_id](p, nq, v, j0, j1, hdp, want, nowhere);
        same_floats(o, want, n, what);
      } else if (sane_block(e, (enum mood)mood)) {
        for (int r = 0; r < nq; r++)
          for (int d = 0; d < hdp; d++) {
            double sum = want[r * hdp + d], magnitude = fabs(sum);
            for (int j = j0; j < j1; j++) {
              double x = p[r * PL_CHUNK + j] * value_at(e, v[j / PL_PAGE], hdp, j % PL_PAGE, d);
              sum += x;
              magnitude += fabs(x);
            }
            near_enough(o[r * hdp + d], sum, (j1 - j0 + 2) * EPS * magnitude, what);
          }
      }
    }
}

/* ---- what fills the quantized caches ---- */

void check_rotate(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 0; i < 20; i++) {
      int h = 32 << rnd_int(0, 5), n = h * rnd_int(1, 4);
      float *x = floats(SLOT_A, n, (enum mood)mood), *y = buffer(SLOT_OUT, (size_t)n * 4, 4);
      float *want = buffer(SLOT_WANT, (size_t)n * 4, 4);
      memcpy(y, x, (size_t)n * 4);
      memcpy(want, x, (size_t)n * 4);
      const char *what = title("%s values, n %d, h %d", mood_name((enum mood)mood), n, h);
      ((pl_rotate_fn *)e->fn)(y, n, h);
      called(y, (size_t)n * 4, SLOT_OUT);
      if (!is_ref(e)) {
        ref()->rotate(want, n, h);
        same_floats(y, want, n, what);
      } else if (sane((enum mood)mood)) {
        for (int j = 0; j < n; j++) {
          double sum = 0, magnitude = 0;
          for (int d = 0; d < h; d++) {
            double v = x[j / h * h + d];
            sum += __builtin_popcount((unsigned)(d & j % h)) % 2 ? -v : v;
            magnitude += fabs(v);
          }
          near_enough(y[j], sum, 10 * EPS * magnitude, what);
        }
      }
    }
}

void check_quant16(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 0; i < 20; i++) {
      int n = 32 * rnd_int(1, 9);
      size_t bytes = (size_t)n / 32 * sizeof(pl_q16);
      float *x = floats(SLOT_A, n, (enum mood)mood);
      if (i % 4 == 1) /* exact ties */
        for (int j = 0; j < n; j++) x[j] = j ? (float)rnd_int(-65277, 65277) * 0.5f : 32639.0f;
      pl_q16 *q = buffer(SLOT_OUT, bytes, 4), *want = buffer(SLOT_WANT, bytes, 4);
      const char *what = title("%s values, n %d", mood_name((enum mood)mood), n);
      ((pl_quant16_fn *)e->fn)(x, n, q);
      called(q, bytes, SLOT_OUT);
      if (!is_ref(e)) {
        ref()->quant16(x, n, want);
        same_bytes(q, want, bytes, what);
      }
      double amax = 0;
      for (int j = 0; j < n; j++) amax = fabs((double)x[j]) > amax ? fabs((double)x[j]) : amax;
      for (int b = 0; b < n / 32; b++) {
        int sum = 0;
        for (int j = 0; j < 32; j++) {
          sum += q[b].c[j];
          if (abs(q[b].c[j]) > 32639 || q[b].c[j] != 256 * q[b].hi[j] + q[b].lo[j])
            fail("%s: code %d is 256 * %d + %d", what, q[b].c[j], q[b].hi[j], q[b].lo[j]);
          if (is_ref(e) && sane((enum mood)mood))
            near_enough((double)q[b].d * q[b].c[j], x[32 * b + j], (double)q[b].d * 0.503, what);
        }
        if (sum != q[b].sum) fail("%s: sum is %d, expected %d", what, q[b].sum, sum);
        if (is_ref(e) && sane((enum mood)mood)) near_enough(q[b].d, amax / 32639, 2 * EPS * amax / 32639, what);
      }
    }
}

void check_code8(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 0; i < 20; i++) {
      int n = 32 * rnd_int(1, 9);
      float *x = floats(SLOT_A, n, (enum mood)mood);
      if (i % 4 == 1) /* exact ties */
        for (int j = 0; j < n; j++) x[j] = j % 32 ? (float)rnd_int(-253, 253) * 0.5f : 127.0f;
      int8_t *q = buffer(SLOT_OUT, (size_t)n, 1), *want = buffer(SLOT_WANT, (size_t)n, 1);
      uint16_t *d = buffer(SLOT_OUT2, (size_t)n / 16, 2), *want_d = buffer(SLOT_B, (size_t)n / 16, 2);
      const char *what = title("%s values, n %d", mood_name((enum mood)mood), n);
      ((pl_code8_fn *)e->fn)(x, n, q, d);
      called(q, (size_t)n, SLOT_OUT);
      check_outside(SLOT_OUT2);
      if (!is_ref(e)) {
        ref()->code8(x, n, want, want_d);
        same_bytes(q, want, (size_t)n, what);
        same_bytes(d, want_d, (size_t)n / 16, what);
      }
      for (int j = 0; j < n; j++) {
        double step = pl_f16_f32(d[j / 32]);
        if (q[j] == -128) fail("%s: a code is -128", what);
        if (mood == NORMAL) near_enough(step * q[j], x[j], step * (0.5 + 127 * 0x1p-11), what);
      }
    }
}

void check_code4(const entry *e) {
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int i = 0; i < 20; i++) {
      int n = 32 * rnd_int(1, 9);
      float *x = floats(SLOT_A, n, (enum mood)mood);
      uint8_t *q = buffer(SLOT_OUT, (size_t)n, 1), *want = buffer(SLOT_WANT, (size_t)n, 1);
      uint16_t *d = buffer(SLOT_OUT2, (size_t)n / 16, 2), *want_d = buffer(SLOT_B, (size_t)n / 16, 2);
      const char *what = title("%s values, n %d", mood_name((enum mood)mood), n);
      ((pl_code4_fn *)e->fn)(x, n, q, d);
      called(q, (size_t)n, SLOT_OUT);
      check_outside(SLOT_OUT2);
      if (!is_ref(e)) {
        ref()->code4(x, n, want, want_d);
        same_bytes(q, want, (size_t)n, what);
        same_bytes(d, want_d, (size_t)n / 16, what);
      }
      for (int b = 0; b < n / 32; b++) { /* no worse than the plain scale, largest / -8 */
        double top = 0, plain = 0, error = 0;
        for (int j = 32 * b; j < 32 * b + 32; j++) top = fabs((double)x[j]) > fabs(top) ? x[j] : top;
        for (int j = 32 * b; j < 32 * b + 32; j++) {
          if (q[j] > 15) fail("%s: a code is %d", what, q[j]);
          double step = top / -8, code = step != 0 ? rint(x[j] / step) : 0,
                 v = (double)pl_f16_f32(d[b]) * (q[j] - 8);
          code = code > 7 ? 7 : code;
          plain += (x[j] - code * step) * (x[j] - code * step);
          error += (x[j] - v) * (x[j] - v);
        }
        if (mood == NORMAL && error > plain * 1.01) fail("%s: error %g, plainly %g", what, error, plain);
      }
    }
}
