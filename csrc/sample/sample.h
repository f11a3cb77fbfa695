/* sample.h: the parts of a sampler, shared by the files of this folder.
 *
 * One sampler belongs to one sequence. A draw is: adjusted logits (bias, penalties, DRY) -> a set of candidates ->
 * filters that shrink it -> weights -> one uniform number. Whatever is as long as the vocabulary is a plain loop
 * over floats that a compiler turns into vector code; every other loop is as long as the set.
 *
 * Sums and exponentials are double precision in a fixed order, compiled once for every CPU level, so that a seed
 * means the same text on all of them. */
#ifndef PL_SAMPLE_H
#define PL_SAMPLE_H
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pyllm.h"

/* ---- candidates: select.c --------------------------------------------------------------------------------- */

/* A candidate is one integer: above, the logit as 32 bits that ascend as the logit descends; below, the id.
 * Ascending keys are descending logits, equal logits by ascending id. */
static inline uint64_t smp_key(float logit, int32_t id) {
  union {
    float f;
    uint32_t u;
  } v;
  v.f = logit + 0.0f; /* -0 becomes +0: they are equal as logits */
  uint32_t k = v.u >> 31 ? v.u : ~v.u & 0x7fffffffu;
  return (uint64_t)k << 32 | (uint32_t)id;
}
static inline float smp_logit(uint64_t key) {
  union {
    float f;
    uint32_t u;
  } v;
  uint32_t k = (uint32_t)(key >> 32);
  v.u = k >> 31 ? k : ~k & 0x7fffffffu;
  return v.f;
}
static inline int32_t smp_id(uint64_t key) { return (int32_t)(uint32_t)key; }

/* e^x for x <= 0, relative error under 1e-12; x below -700 (and NaN) gives e^-700, zero for every purpose here.
 * Reduction to |r| <= ln2/2 by the add-and-subtract rounding of 1.5 * 2^52, then the Taylor polynomial. */
static inline double smp_exp(double x) {
  const double magic = 6755399441055744.0;
  x = x > -700.0 ? x : -700.0;
  union {
    double f;
    uint64_t u;
  } t, p;
  t.f = x * 1.4426950408889634 + magic;
  double r = x - (t.f - magic) * 0.6931471805599453;
  double q = 1.0 / 39916800.0;
  q = q * r + 1.0 / 3628800.0;
  q = q * r + 1.0 / 362880.0;
  q = q * r + 1.0 / 40320.0;
  q = q * r + 1.0 / 5040.0;
  q = q * r + 1.0 / 720.0;
  q = q * r + 1.0 / 120.0;
  q = q * r + 1.0 / 24.0;
  q = q * r + 1.0 / 6.0;
  q = q * r + 0.5;
  q = q * r + 1.0;
  p.f = q * r + 1.0;
  p.u += t.u << 52;
  return p.f;
}

/* The candidates that are left. Tokens whose logit is -inf (or NaN, which counts as -inf) are never in it, but
 * llama.cpp keeps them as members of probability zero: dead counts those, for the one rule that needs it. */
typedef struct smp_set {
  uint64_t *key; /* [cap] */
  uint64_t *tmp; /* [cap] the sort's other half */
  double *w;     /* [cap] weights: probability times an unknown factor */
  uint64_t *aux; /* [aux_cap] another order, made when first needed */
  float *most;   /* [n_most] maxima of parts, made when first needed */
  int32_t n, dead, cap, aux_cap, n_most;
  int32_t sorted; /* keys ascend */
} smp_set;

/* These return 0 or PL_E_MEM. */
int smp_reserve(smp_set *c, int32_t cap);
void smp_sort(smp_set *c);
/* Sort n keys by their upper halves, keeping the order of equals. */
void smp_sort_keys(uint64_t *key, uint64_t *tmp, int32_t n);
/* Id of the largest x [n], the lowest id of equals; -1 when all are -inf or NaN. */
int32_t smp_argmax(const float *x, int32_t n);
/* c = the tokens with x >= lo, in order of id. */
int smp_gather(smp_set *c, const float *x, int32_t n, float lo);
/* c = the k largest of the tokens with x >= lo, sorted. */
int smp_top_k(smp_set *c, const float *x, int32_t n, float lo, int32_t k);
/* Sum over the tokens with x >= lo of e^((x - max) * scale). */
double smp_sum_exp(const float *x, int32_t n, float lo, float max, double scale);
/* Standard deviation of the x [n] that are neither -inf nor NaN; max is the largest of them. */
double smp_std(const float *x, int32_t n, float max);

/* ---- filters: filter.c ------------------------------------------------------------------------------------ */

/* w = e^((logit - largest logit) * scale) for every candidate; returns their sum. */
double smp_weigh(smp_set *c, double scale);
/* total: the sum of weights of the whole set of which c is a sorted beginning; 0: c is the whole set. Returns 1
 * when the sum reached p inside c. */
int smp_top_p(smp_set *c, float p, double total);
void smp_min_p(smp_set *c, float p);
int smp_typical(smp_set *c, float p);
void smp_xtc(smp_set *c, float threshold);
/* Final weights for temperature t; t <= 0 leaves the best candidate alone. Returns the sum. */
double smp_temperature(smp_set *c, float t, float range, float exponent);
/* Index of the candidate at u in [0, 1) of the cumulative weights. */
int32_t smp_draw(const smp_set *c, double total, double u);

/* ---- token -> int32 map: history.c ------------------------------------------------------------------------ */

typedef struct smp_map {
  int32_t *id, *value; /* [size] id -1: free */
  int32_t size, used;  /* size is a power of two */
} smp_map;

/* The value of this id, 0 when it was absent; NULL when out of memory. */
int32_t *smp_map_at(smp_map *m, int32_t id);
void smp_map_clear(smp_map *m);
void smp_map_free(smp_map *m);

/* ---- history, penalties: history.c ------------------------------------------------------------------------ */

typedef struct smp_history {
  int32_t *tok; /* [n] oldest first, at least the last `keep` tokens */
  int32_t n, cap, keep;
  smp_map count; /* occurrences in the last repeat_last_n tokens */
} smp_history;

int smp_history_add(smp_history *h, int32_t id, int32_t counted);
void smp_penalize(const smp_history *h, const pl_sampler_params *p, float *x);

/* ---- DRY: dry.c ------------------------------------------------------------------------------------------- */

typedef struct smp_dry {
  int32_t n_breakers;
  int32_t *head; /* [n_breakers] ascending */
  int32_t *off;  /* [n_breakers + 1] into tail */
  int32_t *tail;
  int32_t *z; /* [z_cap] */
  int32_t z_cap;
  smp_map longest;
} smp_dry;

int smp_dry_init(smp_dry *d, const pl_sampler_params *p, int32_t n_vocab);
int smp_dry_apply(smp_dry *d, const pl_sampler_params *p, const smp_history *h, float *x);
void smp_dry_free(smp_dry *d);

/* ---- mirostat: mirostat.c --------------------------------------------------------------------------------- */

/* c = the candidates mirostat 1 or 2 leaves at this mu, weighted; returns the sum of weights, negative on error.
 */
double smp_mirostat(smp_set *c, const pl_sampler_params *p, const float *x, int32_t n, double mu);

/* ---- the sampler: sampler.c ------------------------------------------------------------------------------- */

struct pl_sampler {
  pl_sampler_params p; /* its pointers are copies */
  int32_t n_vocab;
  uint32_t use_bias, use_penalties, use_dry;
  float *x; /* [n_vocab] adjusted logits, made when first needed */
  smp_set set;
  smp_history hist;
  smp_dry dry;
  double mu;
  uint64_t drawn; /* tokens drawn so far: the counter of the random numbers */
};

#endif
