/* select.c: from a vocabulary of logits to a set of candidates. */
#include "sample/sample.h"

/* tokens looked at together: one branch per block, and none of them taken for most of a vocabulary */
#define BLOCK 64
#define GROUP (16 * BLOCK)

int smp_reserve(smp_set *c, int32_t cap) {
  if (cap <= c->cap) return 0;
  free(c->key);
  free(c->tmp);
  free(c->w);
  c->key = malloc((size_t)cap * sizeof *c->key);
  c->tmp = malloc((size_t)cap * sizeof *c->tmp);
  c->w = malloc((size_t)cap * sizeof *c->w);
  c->cap = cap;
  c->n = 0;
  if (c->key && c->tmp && c->w) return 0;
  c->cap = 0;
  return PL_E_MEM;
}

static void insertion_sort(uint64_t *a, int32_t n) {
  for (int32_t i = 1; i < n; i++) {
    uint64_t v = a[i];
    int32_t j = i;
    for (; j > 0 && a[j - 1] >> 32 > v >> 32; j--) a[j] = a[j - 1];
    a[j] = v;
  }
}

/* Least significant digit first, eight bits at a time; a digit that all keys share costs one histogram only. */
void smp_sort_keys(uint64_t *key, uint64_t *tmp, int32_t n) {
  if (n <= 48) {
    insertion_sort(key, n);
    return;
  }
  int32_t count[4][256];
  memset(count, 0, sizeof count);
  for (int32_t i = 0; i < n; i++)
    for (int d = 0; d < 4; d++) count[d][key[i] >> (32 + 8 * d) & 255]++;
  uint64_t *from = key, *to = tmp;
  for (int d = 0; d < 4; d++) {
    int shift = 32 + 8 * d;
    int32_t *at = count[d];
    if (at[from[0] >> shift & 255] == n) continue;
    for (int32_t i = 0, sum = 0; i < 256; i++) {
      int32_t here = at[i];
      at[i] = sum;
      sum += here;
    }
    for (int32_t i = 0; i < n; i++) to[at[from[i] >> shift & 255]++] = from[i];
    uint64_t *swap = from;
    from = to;
    to = swap;
  }
  if (from != key) memcpy(key, from, (size_t)n * sizeof *key);
}

void smp_sort(smp_set *c) {
  if (!c->sorted) smp_sort_keys(c->key, c->tmp, c->n);
  c->sorted = 1;
}

/* Does any of x [n], n <= BLOCK, exceed t? NaN does not. */
static inline int any_above(const float *x, int32_t n, float t) {
  int32_t any = 0;
  if (n == BLOCK) {
    for (int32_t i = 0; i < BLOCK; i++) any |= -(int32_t)(x[i] > t);
  } else {
    for (int32_t i = 0; i < n; i++) any |= -(int32_t)(x[i] > t);
  }
  return any;
}

int32_t smp_argmax(const float *x, int32_t n) {
  float best = -INFINITY;
  int32_t at = -1;
  for (int32_t b = 0; b < n; b += BLOCK) {
    int32_t end = n - b < BLOCK ? n : b + BLOCK;
    if (!any_above(x + b, end - b, best)) continue;
    for (int32_t i = b; i < end; i++)
      if (x[i] > best) {
        best = x[i];
        at = i;
      }
  }
  return at;
}

int smp_gather(smp_set *c, const float *x, int32_t n, float lo) {
  int rc = smp_reserve(c, n);
  if (rc) return rc;
  float below = nextafterf(lo, -INFINITY);
  int32_t m = 0;
  for (int32_t b = 0; b < n; b += BLOCK) {
    int32_t end = n - b < BLOCK ? n : b + BLOCK;
    if (!any_above(x + b, end - b, below)) continue;
    for (int32_t i = b; i < end; i++) {
      c->key[m] = smp_key(x[i], i);
      m += x[i] > below;
    }
  }
  c->n = m;
  c->dead = n - m;
  c->sorted = 0;
  return 0;
}

/* Adds the x [n] that exceed above to the m keys of c, ids starting at id. When the buffer is full it is cut to its k
 * best and the threshold becomes the last of them: a later token with the same logit has a higher id and loses, so the
 * comparison is strict. Returns the number of keys. */
static int32_t collect(smp_set *c, const float *x, int32_t n, int32_t id, float *above, int32_t k, int32_t m) {
  for (int32_t b = 0; b < n; b += BLOCK) {
    int32_t end = n - b < BLOCK ? n : b + BLOCK;
    if (!any_above(x + b, end - b, *above)) continue;
    for (int32_t i = b; i < end; i++) {
      if (!(x[i] > *above)) continue;
      c->key[m++] = smp_key(x[i], id + i);
      if (m == c->cap) {
        smp_sort_keys(c->key, c->tmp, m);
        m = k;
        *above = smp_logit(c->key[k - 1]);
      }
    }
  }
  return m;
}

/* most [BLOCK]: the largest of every BLOCK-th of x [GROUP], NaN passed over. */
static void maxima(const float *restrict x, float *restrict most) {
  for (int32_t j = 0; j < BLOCK; j++) most[j] = -INFINITY;
  for (int32_t i = 0; i < GROUP; i += BLOCK)
    for (int32_t j = 0; j < BLOCK; j++) most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
}

/* The k best of the x [n] that exceed above, among the keys returned. The k-th best of the maxima of parts is a bound
 * for the k-th best of all, and few groups of parts reach it. most: room for n / 15 values. */
static int32_t collect_best(smp_set *c, const float *x, int32_t n, float above, int32_t k, float *most) {
  int32_t groups = n / GROUP, m = 0;
  if (n < 16 * k) groups = 0;
  for (int32_t g = 0; g < groups; g++) maxima(x + g * GROUP, most + g * BLOCK);
  if (groups) {
    int32_t n_most = groups * BLOCK, found = collect_best(c, most, n_most, above, k, most + n_most);
    smp_sort_keys(c->key, c->tmp, found);
    if (found >= k) above = nextafterf(smp_logit(c->key[k - 1]), -INFINITY);
  }
  for (int32_t g = 0; g < groups; g++)
    if (any_above(most + g * BLOCK, BLOCK, above)) m = collect(c, x + g * GROUP, GROUP, g * GROUP, &above, k, m);
  return collect(c, x + groups * GROUP, n - groups * GROUP, groups * GROUP, &above, k, m);
}

int smp_top_k(smp_set *c, const float *x, int32_t n, float lo, int32_t k) {
  int rc;
  if (k > n / 8) {
    rc = smp_gather(c, x, n, lo);
    if (rc) return rc;
  } else {
    rc = smp_reserve(c, k < 64 ? 256 : 4 * k);
    if (rc) return rc;
    if (n / 15 > c->n_most) {
      free(c->most);
      c->most = malloc((size_t)(n / 15) * sizeof *c->most);
      c->n_most = c->most ? n / 15 : 0;
      if (!c->most) return PL_E_MEM;
    }
    c->n = collect_best(c, x, n, nextafterf(lo, -INFINITY), k, c->most);
  }
  smp_sort_keys(c->key, c->tmp, c->n);
  if (c->n > k) c->n = k;
  c->sorted = 1;
  c->dead = (k < n ? k : n) - c->n;
  return 0;
}

double smp_sum_exp(const float *x, int32_t n, float lo, float max, double scale) {
  double acc[8] = {0};
  int32_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int j = 0; j < 8; j++) {
      double d = ((double)x[i + j] - (double)max) * scale;
      acc[j] += smp_exp(x[i + j] >= lo ? d : -700.0);
    }
  for (; i < n; i++) acc[0] += smp_exp(x[i] >= lo ? ((double)x[i] - (double)max) * scale : -700.0);
  return ((acc[0] + acc[4]) + (acc[2] + acc[6])) + ((acc[1] + acc[5]) + (acc[3] + acc[7]));
}

double smp_std(const float *x, int32_t n, float max) {
  double sum[8] = {0}, sum2[8] = {0}, m[8] = {0};
  int32_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int j = 0; j < 8; j++) {
      int32_t ok = x[i + j] >= -FLT_MAX;
      double d = ok ? (double)x[i + j] - (double)max : 0;
      sum[j] += d;
      sum2[j] += d * d;
      m[j] += ok;
    }
  for (; i < n; i++) {
    int32_t ok = x[i] >= -FLT_MAX;
    double d = ok ? (double)x[i] - (double)max : 0;
    sum[0] += d;
    sum2[0] += d * d;
    m[0] += ok;
  }
  for (int j = 1; j < 8; j++) {
    sum[0] += sum[j];
    sum2[0] += sum2[j];
    m[0] += m[j];
  }
  if (m[0] == 0) return 0;
  double mean = sum[0] / m[0], var = sum2[0] / m[0] - mean * mean;
  return var > 0 ? sqrt(var) : 0;
}
