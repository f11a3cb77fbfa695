/* sampler.c: the chain, and the entry points of pyllm.h. The stages and their order are llama.cpp's default:
 * bias, penalties, DRY, top-n-sigma, top-k, typical-p, top-p, min-p, XTC, temperature, draw; with mirostat: bias,
 * temperature, mirostat, draw. */
#include "sample/sample.h"

/* Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): 128 random bits from a seed
 * and a counter, with no state in between. */
static void philox(uint64_t seed, uint64_t counter, uint32_t out[4]) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = 0, c3 = 0;
  for (int round = 0; round < 10; round++) {
    uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)b;
    c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/* 53 random bits as a number in [0, 1). */
static double uniform(uint32_t hi, uint32_t lo) {
  return (double)(((uint64_t)hi << 32 | lo) >> 11) * (1.0 / 9007199254740992.0);
}

/* ---- making and freeing ----------------------------------------------------------------------------------- */

static int in_range(float v, float lo, float hi) { return v >= lo && v <= hi; }

static int valid(const pl_sampler_params *p) {
  return in_range(p->temperature, -FLT_MAX, FLT_MAX) && in_range(p->dynatemp_range, 0, FLT_MAX) &&
         in_range(p->dynatemp_exponent, 0, FLT_MAX) && in_range(p->top_p, 0, 1) && in_range(p->min_p, 0, 1) &&
         in_range(p->typical_p, 0, 1) && in_range(p->top_n_sigma, -FLT_MAX, FLT_MAX) &&
         in_range(p->xtc_probability, 0, 1) && in_range(p->xtc_threshold, 0, 1) &&
         in_range(p->repeat_penalty, FLT_MIN, 1 / FLT_MIN) && in_range(p->frequency_penalty, -FLT_MAX, FLT_MAX) &&
         in_range(p->presence_penalty, -FLT_MAX, FLT_MAX) && in_range(p->dry_multiplier, 0, FLT_MAX) &&
         in_range(p->dry_base, 0, FLT_MAX) && in_range(p->mirostat_tau, 0, FLT_MAX) &&
         in_range(p->mirostat_eta, 0, FLT_MAX) && p->repeat_last_n >= -1 && p->dry_last_n >= -1 &&
         p->dry_allowed_length >= 0 && p->mirostat >= 0 && p->mirostat <= 2 && p->n_bias >= 0 &&
         (p->n_bias == 0 || (p->bias_id && p->bias));
}

static int32_t window(int32_t last_n) { return last_n < 0 ? INT32_MAX : last_n; }

static int init(pl_sampler *s) {
  pl_sampler_params *p = &s->p;
  const int32_t *bias_id = p->bias_id;
  const float *bias = p->bias;
  p->bias_id = NULL;
  p->bias = NULL;
  if (p->n_bias > 0) {
    int32_t *id = malloc((size_t)p->n_bias * sizeof *id);
    float *b = malloc((size_t)p->n_bias * sizeof *b);
    p->bias_id = id;
    p->bias = b;
    if (!id || !b) return PL_E_MEM;
    for (int32_t i = 0; i < p->n_bias; i++) {
      if (bias_id[i] < 0 || bias_id[i] >= s->n_vocab || !(bias[i] <= FLT_MAX)) return PL_E_ARG;
      id[i] = bias_id[i];
      b[i] = bias[i];
    }
    s->use_bias = 1;
  }
  s->mu = 2.0 * p->mirostat_tau;
  if (p->mirostat) return 0;
  s->use_penalties =
      p->repeat_last_n != 0 && (p->repeat_penalty != 1 || p->frequency_penalty != 0 || p->presence_penalty != 0);
  s->use_dry = p->dry_multiplier > 0 && p->dry_base >= 1 && p->dry_last_n != 0;
  if (s->use_penalties) s->hist.keep = window(p->repeat_last_n);
  if (s->use_dry && window(p->dry_last_n) > s->hist.keep) s->hist.keep = window(p->dry_last_n);
  return s->use_dry ? smp_dry_init(&s->dry, p, s->n_vocab) : 0;
}

pl_sampler *pl_sampler_new(const pl_sampler_params *params, int32_t n_vocab) {
  if (!params || n_vocab < 1 || !valid(params)) return NULL;
  pl_sampler *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->p = *params;
  s->n_vocab = n_vocab;
  if (init(s) == 0) return s;
  pl_sampler_free(s);
  return NULL;
}

void pl_sampler_free(pl_sampler *s) {
  if (!s) return;
  free((void *)s->p.bias_id);
  free((void *)s->p.bias);
  free(s->x);
  free(s->set.key);
  free(s->set.tmp);
  free(s->set.w);
  free(s->set.aux);
  free(s->set.most);
  free(s->hist.tok);
  smp_map_free(&s->hist.count);
  smp_dry_free(&s->dry);
  free(s);
}

int32_t pl_sampler_accept(pl_sampler *s, const int32_t *ids, int32_t n) {
  if (!s || n < 0 || (n > 0 && !ids)) return PL_E_ARG;
  for (int32_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= s->n_vocab) return PL_E_ARG;
  if (s->hist.keep == 0) return 0;
  int32_t counted = s->use_penalties ? window(s->p.repeat_last_n) : 0;
  for (int32_t i = 0; i < n; i++) {
    int rc = smp_history_add(&s->hist, ids[i], counted);
    if (rc) return rc;
  }
  return 0;
}

/* ---- the chain -------------------------------------------------------------------------------------------- */

static int own_logits(pl_sampler *s, const float **x) {
  if (*x == s->x) return 0;
  if (!s->x) s->x = malloc((size_t)s->n_vocab * sizeof *s->x);
  if (!s->x) return PL_E_MEM;
  memcpy(s->x, *x, (size_t)s->n_vocab * sizeof *s->x);
  *x = s->x;
  return 0;
}

/* Bias, penalties, DRY: *x becomes a copy when one of them changes it. */
static int adjust(pl_sampler *s, const float **x) {
  const pl_sampler_params *p = &s->p;
  int penalize = s->use_penalties && s->hist.n > 0, dry = s->use_dry && s->hist.n > p->dry_allowed_length;
  if (!s->use_bias && !penalize && !dry) return 0;
  int rc = own_logits(s, x);
  if (rc) return rc;
  if (s->use_bias)
    for (int32_t i = 0; i < p->n_bias; i++) s->x[p->bias_id[i]] += p->bias[i];
  if (penalize) smp_penalize(&s->hist, p, s->x);
  return dry ? smp_dry_apply(&s->dry, p, &s->hist, s->x) : 0;
}

/* +inf becomes the largest float, so that differences of logits are numbers. */
static int clamp(pl_sampler *s, const float **x) {
  int rc = own_logits(s, x);
  if (rc) return rc;
  for (int32_t i = 0; i < s->n_vocab; i++) s->x[i] = s->x[i] > FLT_MAX ? FLT_MAX : s->x[i];
  return 0;
}

/* The best id; *max its logit, made finite. */
static int32_t find_max(pl_sampler *s, const float **x, float *max) {
  int32_t at = smp_argmax(*x, s->n_vocab);
  if (at < 0) return PL_E_LOGITS;
  *max = (*x)[at];
  if (*max > FLT_MAX) {
    int rc = clamp(s, x);
    if (rc) return rc;
    *max = FLT_MAX;
  }
  return at;
}

/* With top-p as the first filter, the set need not hold the vocabulary: take more of the best until they do. */
static int nucleus(pl_sampler *s, const float *x, float lo, float max) {
  int32_t n = s->n_vocab;
  double total = smp_sum_exp(x, n, lo, max, 1.0);
  for (int32_t k = 256; k <= n / 8; k *= 16) {
    int rc = smp_top_k(&s->set, x, n, lo, k);
    if (rc || smp_top_p(&s->set, s->p.top_p, total)) return rc;
  }
  int rc = smp_gather(&s->set, x, n, lo);
  if (rc == 0) smp_top_p(&s->set, s->p.top_p, total);
  return rc;
}

/* Top-n-sigma, top-k, typical-p, top-p and min-p: s->set becomes what they leave. */
static int filter(pl_sampler *s, const float *x) {
  const pl_sampler_params *p = &s->p;
  smp_set *c = &s->set;
  int32_t n = s->n_vocab, top_k = p->top_k > 0, typical = p->typical_p < 1;
  int top_p = p->top_p < 1, min_p = p->min_p > 0, rc;
  float lo = -FLT_MAX, max = 0;
  if (!top_k || p->top_n_sigma > 0) {
    rc = find_max(s, &x, &max);
    if (rc < 0) return rc;
  }
  /* Tang et al. 2024, "Top-n sigma": tokens within n standard deviations of the best logit */
  if (p->top_n_sigma > 0 && n > 1)
    lo = fmaxf((float)(max - (double)p->top_n_sigma * smp_std(x, n, max)), -FLT_MAX);
  if (top_k) {
    rc = smp_top_k(c, x, n, lo, p->top_k);
    if (rc == 0 && c->n > 0 && smp_logit(c->key[0]) > FLT_MAX) {
      rc = clamp(s, &x);
      if (rc == 0) rc = smp_top_k(c, x, n, lo, p->top_k);
    }
  } else if (top_p && !typical) {
    rc = nucleus(s, x, lo, max);
    top_p = 0;
  } else {
    if (min_p && !typical && !top_p) lo = fmaxf(lo, max + logf(p->min_p));
    rc = smp_gather(c, x, n, lo);
  }
  if (rc) return rc;
  if (c->n == 0) return PL_E_LOGITS;
  if (typical) rc = smp_typical(c, p->typical_p);
  if (top_p) smp_top_p(c, p->top_p, 0);
  if (min_p) smp_min_p(c, p->min_p);
  return rc;
}

/* The weighted candidates of the next draw in s->set, *total their sum. bits: this draw's random numbers. sort:
 * the best first, whatever the filters left behind. */
static int chain(pl_sampler *s, const float *x, const uint32_t bits[4], int sort, double *total) {
  const pl_sampler_params *p = &s->p;
  int xtc = p->xtc_probability > 0 && p->xtc_threshold <= 0.5f;
  int greedy = p->temperature <= 0 && (p->mirostat || (p->dynatemp_range <= 0 && p->typical_p >= 1 && !xtc));
  int rc = adjust(s, &x);
  if (rc) return rc;
  if (greedy || p->mirostat) {
    float max;
    int32_t at = find_max(s, &x, &max);
    if (at < 0) return at;
    if (greedy) {
      rc = smp_reserve(&s->set, 1);
      if (rc) return rc;
      s->set.key[0] = smp_key(max, at);
      s->set.w[0] = 1.0;
      s->set.n = s->set.sorted = 1;
      *total = 1.0;
      return 0;
    }
    *total = smp_mirostat(&s->set, p, x, s->n_vocab, s->mu);
    return *total < 0 ? (int)*total : 0;
  }
  rc = filter(s, x);
  if (rc) return rc;
  if (xtc && s->set.n > 1 && uniform(bits[2], bits[3]) < p->xtc_probability) smp_xtc(&s->set, p->xtc_threshold);
  if (sort) smp_sort(&s->set);
  *total = smp_temperature(&s->set, p->temperature, p->dynatemp_range, p->dynatemp_exponent);
  return 0;
}

int32_t pl_sampler_sample(pl_sampler *s, const float *logits) {
  if (!s || !logits) return PL_E_ARG;
  uint32_t bits[4];
  double total;
  philox(s->p.seed, s->drawn, bits);
  int rc = chain(s, logits, bits, 0, &total);
  if (rc) return rc;
  int32_t i = smp_draw(&s->set, total, uniform(bits[0], bits[1]));
  s->drawn++;
  if (s->p.mirostat) s->mu -= s->p.mirostat_eta * (-log2(s->set.w[i] / total) - s->p.mirostat_tau);
  return smp_id(s->set.key[i]);
}

int32_t pl_sampler_candidates(pl_sampler *s, const float *logits, int32_t n, int32_t *ids, float *probs) {
  if (!s || !logits || n < 0 || (n > 0 && (!ids || !probs))) return PL_E_ARG;
  uint32_t bits[4];
  double total;
  philox(s->p.seed, s->drawn, bits);
  int rc = chain(s, logits, bits, 1, &total);
  if (rc) return rc;
  smp_set *c = &s->set;
  for (int32_t i = 0; i < c->n && i < n; i++) {
    ids[i] = smp_id(c->key[i]);
    probs[i] = (float)(c->w[i] / total);
  }
  return c->n;
}

int32_t pl_sampler_logprobs(pl_sampler *s, const float *logits, int32_t token, int32_t n, int32_t *ids,
                            float *logprobs, float *token_logprob) {
  if (!s || !logits || token < -1 || token >= s->n_vocab || n < 0 || (n > 0 && (!ids || !logprobs)))
    return PL_E_ARG;
  const float *x = logits;
  float max;
  int32_t at = find_max(s, &x, &max);
  if (at < 0) return at;
  double norm = log(smp_sum_exp(x, s->n_vocab, -FLT_MAX, max, 1.0)) + max;
  if (token >= 0 && token_logprob) *token_logprob = x[token] >= -FLT_MAX ? (float)(x[token] - norm) : -INFINITY;
  if (n == 0) return 0;
  int rc = smp_top_k(&s->set, x, s->n_vocab, -FLT_MAX, n);
  if (rc) return rc;
  for (int32_t i = 0; i < s->set.n; i++) {
    ids[i] = smp_id(s->set.key[i]);
    logprobs[i] = (float)(smp_logit(s->set.key[i]) - norm);
  }
  return s->set.n;
}
