/* filter.c: the stages that shrink and weigh a set of candidates. Each follows the rule of llama.cpp's sampler of
 * the same name; the paper behind it is named at the function. */
#include "sample/sample.h"

static float largest(const smp_set *c) {
  if (c->sorted) return smp_logit(c->key[0]);
  uint64_t best = c->key[0];
  for (int32_t i = 1; i < c->n; i++) best = c->key[i] < best ? c->key[i] : best;
  return smp_logit(best);
}

double smp_weigh(smp_set *c, double scale) {
  double max = largest(c), sum = 0;
  for (int32_t i = 0; i < c->n; i++) c->w[i] = smp_exp((smp_logit(c->key[i]) - max) * scale);
  for (int32_t i = 0; i < c->n; i++) sum += c->w[i];
  return sum;
}

/* Nucleus sampling (Holtzman et al. 2020, "The curious case of neural text degeneration"): the shortest beginning
 * of the sorted set whose probability is at least p. */
int smp_top_p(smp_set *c, float p, double total) {
  smp_sort(c);
  double sum = smp_weigh(c, 1.0), cum = 0;
  if (total > 0) sum = total;
  for (int32_t i = 0; i < c->n; i++) {
    cum += c->w[i];
    if (cum >= (double)p * sum) {
      c->n = i + 1;
      c->dead = 0;
      return 1;
    }
  }
  return 0;
}

/* Min-p (Nguyen et al. 2024, "Turning up the heat"): tokens at least p times as likely as the best one. */
void smp_min_p(smp_set *c, float p) {
  float lo = largest(c) + logf(p);
  int32_t m = 0;
  for (int32_t i = 0; i < c->n; i++)
    if (smp_logit(c->key[i]) >= lo) c->key[m++] = c->key[i];
  c->n = m;
  c->dead = 0;
}

/* Locally typical sampling (Meister et al. 2023): tokens whose surprise is nearest to the entropy, until their
 * probability exceeds p. Banned tokens take no part (in llama.cpp they turn the entropy into NaN). Returns 0, or
 * PL_E_MEM. */
int smp_typical(smp_set *c, float p) {
  smp_sort(c);
  double sum = smp_weigh(c, 1.0), max = largest(c), mean = 0;
  for (int32_t i = 0; i < c->n; i++) mean += c->w[i] * (max - smp_logit(c->key[i]));
  mean /= sum; /* mean surprise above that of the best token: entropy = mean + log(sum) */
  if (c->cap > c->aux_cap) {
    free(c->aux);
    c->aux = malloc((size_t)c->cap * sizeof *c->aux);
    c->aux_cap = c->aux ? c->cap : 0;
    if (!c->aux) return PL_E_MEM;
  }
  for (int32_t i = 0; i < c->n; i++) {
    float away = (float)fabs(max - smp_logit(c->key[i]) - mean);
    c->aux[i] = smp_key(-away, i);
  }
  smp_sort_keys(c->aux, c->tmp, c->n);
  double cum = 0;
  for (int32_t m = 0; m < c->n; m++) {
    int32_t i = smp_id(c->aux[m]);
    cum += c->w[i];
    c->w[i] = -1.0; /* taken */
    if (cum > (double)p * sum) {
      c->dead = 0;
      break;
    }
  }
  int32_t m = 0;
  for (int32_t i = 0; i < c->n; i++)
    if (c->w[i] < 0) c->key[m++] = c->key[i];
  c->n = m;
  return 0;
}

/* Exclude top choices (XTC, p-e-w 2024): of the tokens with at least the threshold's probability, only the least
 * likely stays. */
void smp_xtc(smp_set *c, float threshold) {
  smp_sort(c);
  double sum = smp_weigh(c, 1.0);
  int32_t m = 0;
  while (m < c->n && c->w[m] >= (double)threshold * sum) m++;
  if (m < 2) return;
  memmove(c->key, c->key + (m - 1), (size_t)(c->n - (m - 1)) * sizeof *c->key);
  c->n -= m - 1;
}

static double only_best(smp_set *c) {
  uint64_t best = c->key[0];
  for (int32_t i = 1; i < c->n; i++) best = c->key[i] < best ? c->key[i] : best;
  c->key[0] = best;
  c->w[0] = 1.0;
  c->n = 1;
  c->sorted = 1;
  return 1.0;
}

/* Temperature; with a range, the temperature follows the entropy of the set (dynamic temperature, kalomaze 2023):
 * t - range where one token is certain, t + range where all are equally likely. */
double smp_temperature(smp_set *c, float t, float range, float exponent) {
  int32_t members = c->n + c->dead;
  if (range > 0 && members > 1) {
    double sum = smp_weigh(c, 1.0), max = largest(c), entropy = 0;
    for (int32_t i = 0; i < c->n; i++) entropy += c->w[i] * (max - smp_logit(c->key[i]));
    entropy = (entropy / sum + log(sum)) / log((double)members);
    entropy = entropy > 0 ? entropy : 0;
    double low = (double)t - range > 0 ? (double)t - range : 0, high = (double)t + range;
    double dynamic = low + (high - low) * pow(entropy, exponent);
    return dynamic > 0 ? smp_weigh(c, 1.0 / dynamic) : only_best(c);
  }
  if (t > 0) return smp_weigh(c, 1.0 / t);
  return only_best(c);
}

int32_t smp_draw(const smp_set *c, double total, double u) {
  double target = total * u, cum = 0;
  for (int32_t i = 0; i < c->n; i++) {
    cum += c->w[i];
    if (cum > target) return i;
  }
  return c->n - 1;
}
