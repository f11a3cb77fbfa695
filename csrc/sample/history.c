/* history.c: the tokens so far, how often each occurs, and the penalties that follow from it. */
#include "sample/sample.h"

/* ---- map: open addressing, linear probing ----------------------------------------------------------------- */

static int32_t slot_of(const smp_map *m, int32_t id) {
  uint32_t mask = (uint32_t)m->size - 1, i = (uint32_t)id * 2654435769u >> 7 & mask;
  while (m->id[i] >= 0 && m->id[i] != id) i = (i + 1) & mask;
  return (int32_t)i;
}

/* Rebuild, leaving out the ids whose value is 0, with room for twice as many as remain. */
static int grow(smp_map *m) {
  int32_t live = 0, size = 32;
  for (int32_t i = 0; i < m->size; i++) live += m->id[i] >= 0 && m->value[i] != 0;
  while (size < 4 * (live + 1)) size *= 2;
  smp_map to = {malloc((size_t)size * sizeof *to.id), malloc((size_t)size * sizeof *to.value), size, 0};
  if (!to.id || !to.value) {
    smp_map_free(&to);
    return PL_E_MEM;
  }
  smp_map_clear(&to);
  for (int32_t i = 0; i < m->size; i++)
    if (m->id[i] >= 0 && m->value[i] != 0) {
      int32_t s = slot_of(&to, m->id[i]);
      to.id[s] = m->id[i];
      to.value[s] = m->value[i];
      to.used++;
    }
  smp_map_free(m);
  *m = to;
  return 0;
}

int32_t *smp_map_at(smp_map *m, int32_t id) {
  if (2 * (m->used + 1) > m->size && grow(m)) return NULL;
  int32_t s = slot_of(m, id);
  if (m->id[s] < 0) {
    m->id[s] = id;
    m->value[s] = 0;
    m->used++;
  }
  return &m->value[s];
}

void smp_map_clear(smp_map *m) {
  if (m->size) memset(m->id, 0xff, (size_t)m->size * sizeof *m->id);
  m->used = 0;
}

void smp_map_free(smp_map *m) {
  free(m->id);
  free(m->value);
  memset(m, 0, sizeof *m);
}

/* ---- history ---------------------------------------------------------------------------------------------- */

/* Append id. A buffer that is full drops all but the last `keep` tokens when that frees half of it, else doubles.
 * counted >= 0: count maintains the occurrences in the last `counted` tokens (INT32_MAX: in all of them). */
int smp_history_add(smp_history *h, int32_t id, int32_t counted) {
  if (h->n == h->cap) {
    if (h->n / 2 >= h->keep) {
      memmove(h->tok, h->tok + (h->n - h->keep), (size_t)h->keep * sizeof *h->tok);
      h->n = h->keep;
    } else {
      if (h->cap > INT32_MAX / 2) return PL_E_MEM;
      int32_t cap = h->cap ? 2 * h->cap : 128;
      int32_t *tok = realloc(h->tok, (size_t)cap * sizeof *tok);
      if (!tok) return PL_E_MEM;
      h->tok = tok;
      h->cap = cap;
    }
  }
  if (counted > 0) {
    int32_t *in = smp_map_at(&h->count, id);
    if (!in) return PL_E_MEM;
    ++*in;
    if (h->n >= counted) {
      int32_t *out = smp_map_at(&h->count, h->tok[h->n - counted]);
      if (!out) return PL_E_MEM;
      --*out;
    }
  }
  h->tok[h->n++] = id;
  return 0;
}

/* Repetition penalty (Keskar et al. 2019, "CTRL"), multiplying where the logit is not positive, then OpenAI's
 * frequency and presence penalties. */
void smp_penalize(const smp_history *h, const pl_sampler_params *p, float *x) {
  for (int32_t i = 0; i < h->count.size; i++) {
    int32_t id = h->count.id[i], count = id >= 0 ? h->count.value[i] : 0;
    if (count == 0) continue;
    float v = x[id] <= 0 ? x[id] * p->repeat_penalty : x[id] / p->repeat_penalty;
    x[id] = v - ((float)count * p->frequency_penalty + p->presence_penalty);
  }
}
