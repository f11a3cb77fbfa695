/* mirostat.c: Mirostat (Basu et al. 2021): keep the surprise of the text near a target by choosing how much of the
 * distribution takes part. mu, which the sampler adapts after every draw, is the surprise allowed. */
#include "sample/sample.h"

/* the most probable tokens from which version 1 estimates the Zipf exponent */
#define ESTIMATE_FROM 100

/* Version 1: k from an estimate of Zipf's exponent s over the best tokens. */
static int32_t zipf_k(const smp_set *c, double temperature, int32_t n_vocab, double mu) {
  double tb = 0, tt = 0;
  for (int32_t i = 0; i + 1 < c->n && i + 1 < ESTIMATE_FROM; i++) {
    double t = log((double)(i + 2) / (i + 1));
    tb += t * ((double)smp_logit(c->key[i]) - (double)smp_logit(c->key[i + 1])) / temperature;
    tt += t * t;
  }
  double s = tb / tt, e = s - 1;
  double k = pow(e * pow(2, mu) / (1 - pow(n_vocab, -e)), 1 / s);
  if (!(k >= 1)) return 1;
  return k < n_vocab ? (int32_t)k : n_vocab;
}

double smp_mirostat(smp_set *c, const pl_sampler_params *p, const float *x, int32_t n, double mu) {
  int32_t at = smp_argmax(x, n);
  float max = x[at];
  double scale = 1.0 / p->temperature;
  int rc;
  if (p->mirostat == 1) {
    rc = smp_top_k(c, x, n, -FLT_MAX, ESTIMATE_FROM);
    if (rc) return rc;
    int32_t k = zipf_k(c, p->temperature, n, mu);
    if (k > ESTIMATE_FROM) {
      rc = smp_top_k(c, x, n, -FLT_MAX, k);
      if (rc) return rc;
    }
    if (k < c->n) c->n = k;
  } else {
    /* version 2: the tokens of surprise at most mu, -log2 p <= mu, at least one */
    double sum = smp_sum_exp(x, n, -FLT_MAX, max, scale);
    double lo = (double)max + p->temperature * (log(sum) - mu * 0.6931471805599453);
    lo = lo > -FLT_MAX ? lo : -FLT_MAX;
    rc = smp_gather(c, x, n, lo < max ? (float)lo : max);
    if (rc) return rc;
    smp_sort(c);
    if (lo > max) c->n = 1;
  }
  c->dead = 0;
  return smp_weigh(c, scale);
}
