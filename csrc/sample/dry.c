/* dry.c: "Don't repeat yourself" (p-e-w 2024): a token that would extend a repetition of the end of the text is
 * penalized, exponentially in the length of the repetition. Sequence breakers bound the end that is compared. */
#include "sample/sample.h"

static int32_t *copy_of(const int32_t *from, int32_t n) {
  int32_t *to = malloc((size_t)(n ? n : 1) * sizeof *to);
  if (to && n) memcpy(to, from, (size_t)n * sizeof *to);
  return to;
}

int smp_dry_init(smp_dry *d, const pl_sampler_params *p, int32_t n_vocab) {
  int32_t n = p->n_breakers;
  if (n < 0 || (n > 0 && (!p->breaker_head || !p->breaker_off))) return PL_E_ARG;
  for (int32_t i = 0; i < n; i++) {
    if (p->breaker_head[i] < 0 || p->breaker_head[i] >= n_vocab) return PL_E_ARG;
    if (i > 0 && p->breaker_head[i] < p->breaker_head[i - 1]) return PL_E_ARG;
    if (p->breaker_off[i] < 0 || p->breaker_off[i + 1] < p->breaker_off[i]) return PL_E_ARG;
  }
  int32_t zero = 0, n_tail = n ? p->breaker_off[n] : 0;
  if (n_tail > 0 && !p->breaker_tail) return PL_E_ARG;
  d->n_breakers = n;
  d->head = copy_of(p->breaker_head, n);
  d->off = copy_of(n ? p->breaker_off : &zero, n + 1);
  d->tail = copy_of(p->breaker_tail, n_tail);
  return d->head && d->off && d->tail ? 0 : PL_E_MEM;
}

void smp_dry_free(smp_dry *d) {
  free(d->head);
  free(d->off);
  free(d->tail);
  free(d->z);
  smp_map_free(&d->longest);
}

/* The first breaker whose head is id; n_breakers or a breaker of another head if there is none. */
static int32_t first_breaker(const smp_dry *d, int32_t id) {
  int32_t lo = 0, hi = d->n_breakers;
  while (lo < hi) {
    int32_t mid = lo + (hi - lo) / 2;
    if (d->head[mid] < id)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

static int is_breaker(const smp_dry *d, int32_t id) {
  for (int32_t b = first_breaker(d, id); b < d->n_breakers && d->head[b] == id; b++)
    if (d->off[b] == d->off[b + 1]) return 1;
  return 0;
}

/* Tokens at the end of tok [n] after the last breaker; n when there is none. */
static int32_t since_breaker(const smp_dry *d, const int32_t *tok, int32_t n) {
  for (int32_t i = n - 1; i >= 0; i--) {
    int32_t after = n - 1 - i, longest = -1;
    for (int32_t b = first_breaker(d, tok[i]); b < d->n_breakers && d->head[b] == tok[i]; b++) {
      int32_t len = d->off[b + 1] - d->off[b];
      if (len <= longest || len > after) continue;
      if (!memcmp(d->tail + d->off[b], tok + i + 1, (size_t)len * sizeof *tok)) longest = len;
    }
    if (longest >= 0) return after - longest;
  }
  return n;
}

int smp_dry_apply(smp_dry *d, const pl_sampler_params *p, const smp_history *h, float *x) {
  int32_t n = p->dry_last_n < 0 || p->dry_last_n > h->n ? h->n : p->dry_last_n;
  if (n <= p->dry_allowed_length) return 0;
  const int32_t *tok = h->tok + (h->n - n), *end = tok + n - 1; /* end[-i]: i tokens before the last */
  int32_t limit = since_breaker(d, tok, n);
  if (limit < p->dry_allowed_length) return 0;
  if (n > d->z_cap) {
    int32_t cap = n + n / 2;
    free(d->z);
    d->z = malloc((size_t)cap * sizeof *d->z);
    d->z_cap = d->z ? cap : 0;
    if (!d->z) return PL_E_MEM;
  }
  /* z[k]: how many tokens ending k before the last equal the last ones. The Z algorithm (Gusfield 1997) on the
   * reversed text: [l, r) is the match that reaches farthest, and inside it z is known from its beginning. */
  int32_t *z = d->z;
  smp_map_clear(&d->longest);
  for (int32_t k = 1, l = 0, r = 0; k < n; k++) {
    int32_t m = k < r ? (z[k - l] < r - k ? z[k - l] : r - k) : 0;
    while (k + m < n && end[-m] == end[-(k + m)]) m++;
    z[k] = m;
    if (k + m > r) {
      l = k;
      r = k + m;
    }
    int32_t len = m < limit ? m : limit;
    if (len < p->dry_allowed_length) continue;
    int32_t *longest = smp_map_at(&d->longest, end[-(k - 1)]); /* the token that followed: one more, 0 is absent */
    if (!longest) return PL_E_MEM;
    if (*longest < len + 1) *longest = len + 1;
  }
  int32_t max_exponent = p->dry_base > 1.000001f ? (int32_t)(88.7228391f / logf(p->dry_base)) : 0;
  for (int32_t i = 0; i < d->longest.size; i++) {
    int32_t id = d->longest.id[i];
    if (id < 0 || is_breaker(d, id)) continue;
    int32_t exponent = d->longest.value[i] - 1 - p->dry_allowed_length;
    if (max_exponent > 0 && exponent > max_exponent) exponent = max_exponent;
    x[id] -= (float)((double)p->dry_multiplier * pow(p->dry_base, exponent));
  }
  return 0;
}
