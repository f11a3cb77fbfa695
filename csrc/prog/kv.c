#include "prog/kv.h"

#include <string.h>

#include "base/half.h"
#include "prog/program.h"

int32_t pl_kv_dim(int32_t type, int32_t head_dim) {
  int32_t to = pl_kv_quantized(type) ? 32 : 16;
  return (head_dim + to - 1) / to * to;
}

/* A wider rotation gains nothing for differences. */
int32_t pl_kv_rotation_k(int32_t type) { return pl_kv_quantized(type) ? 32 : 0; }

int32_t pl_kv_rotation_v(int32_t type, int32_t hdp) { return type == PL_Q4_0 ? hdp & -hdp : 0; }

/* Bytes of one head's part of a page; 0 for a type that a cache cannot have. */
static int64_t head_bytes(int32_t type, int32_t head_dim, int is_k) {
  int64_t hdp = pl_kv_dim(type, head_dim), n = hdp * PL_PAGE;
  switch (type) {
    case PL_F32:
      return n * 4;
    case PL_F16:
    case PL_BF16:
      return n * 2;
    case PL_Q8_0:
    case PL_Q4_0:
      return n / (type == PL_Q8_0 ? 1 : 2) + n / 32 * 2 + (is_k ? (hdp + hdp / 32 * 2 + 31) / 32 * 32 : 0);
    default:
      return 0;
  }
}

int64_t pl_kv_page_bytes(int32_t type, int32_t n_kv, int32_t head_dim, int32_t is_k) {
  return n_kv > 0 && head_dim > 0 && head_dim <= PL_HEAD_MAX ? n_kv * head_bytes(type, head_dim, is_k) : 0;
}

/* ---- one key, one value ----------------------------------------------------------------------------------------- */

/* A thread's working memory: vectors of hdp values. */
typedef struct work {
  float *x, *first;
  uint8_t *codes;
  uint16_t *half; /* scales, or values */
} work;

static work lay_out(uint8_t *mem, int64_t hdp) {
  return (work){(float *)(void *)mem, (float *)(void *)(mem + hdp * 4), mem + hdp * 8,
                (uint16_t *)(void *)(mem + hdp * 9)};
}

int64_t pl_kv_scratch(const pl_op *op) {
  int heads = op->kind == PL_OP_mm_heads;
  int32_t k = pl_kv_dim(PL_Q8_0, op->i[heads ? 4 : 1]), v = heads ? 0 : pl_kv_dim(PL_Q8_0, op->i[2]);
  return (int64_t)(k > v ? k : v) * 11;
}

/* x [head_dim] with zeros up to hdp, rotated. */
static void prepare(const pl_kern_table *k, const float *x, int32_t head_dim, int32_t hdp, int32_t h, float *y) {
  memcpy(y, x, sizeof(float) * (size_t)head_dim);
  memset(y + head_dim, 0, sizeof(float) * (size_t)(hdp - head_dim));
  if (h) k->rotate(y, hdp, h);
}

/* Stores key x as number j of one head's part of a page. first: the page's first key, or NULL if an earlier step has
 * stored it. */
static void put_k(const pl_kern_table *k, int32_t type, const float *x, const float *first, int32_t head_dim,
                  int32_t j, uint8_t *head, work w) {
  int32_t hdp = pl_kv_dim(type, head_dim);
  if (type == PL_F32) {
    for (int32_t d = 0; d < head_dim; d++) ((float *)(void *)head)[d * PL_PAGE + j] = x[d];
    return;
  }
  if (type == PL_F16 || type == PL_BF16) {
    (type == PL_F16 ? k->store_f16 : k->store_bf16)(x, head_dim, w.half);
    for (int32_t d = 0; d < head_dim; d++) ((uint16_t *)(void *)head)[d * PL_PAGE + j] = w.half[d];
    return;
  }
  prepare(k, x, head_dim, hdp, pl_kv_rotation_k(type), w.x);
  uint16_t *scales = (uint16_t *)(void *)(head + hdp * PL_PAGE / (type == PL_Q8_0 ? 1 : 2));
  int8_t *offset = (int8_t *)(scales + hdp / 32 * PL_PAGE);
  uint16_t *offset_scales = (uint16_t *)(void *)(offset + hdp);
  const int8_t *code = offset;
  const uint16_t *scale = offset_scales;
  if (j == 0) {
    k->code8(w.x, hdp, offset, offset_scales);
  } else if (first) { /* being stored in this step, maybe by another thread */
    prepare(k, first, head_dim, hdp, pl_kv_rotation_k(type), w.first);
    k->code8(w.first, hdp, (int8_t *)w.codes, w.half);
    code = (int8_t *)w.codes, scale = w.half;
  }
  for (int32_t d = 0; d < hdp; d++) w.x[d] -= (float)code[d] * pl_f16_f32(scale[d / 32]);
  if (type == PL_Q8_0) {
    k->code8(w.x, hdp, (int8_t *)w.codes, w.half);
    for (int32_t g = 0; g < hdp / 4; g++) memcpy(head + (g * PL_PAGE + j) * 4, w.codes + 4 * g, 4);
  } else {
    k->code4(w.x, hdp, w.codes, w.half);
    for (int32_t d = 0; d < hdp; d += 8)
      for (int32_t i = 0; i < 4; i++)
        head[(d / 8 * PL_PAGE + j) * 4 + i] = (uint8_t)(w.codes[d + i] | w.codes[d + 4 + i] << 4);
  }
  for (int32_t b = 0; b < hdp / 32; b++) scales[b * PL_PAGE + j] = w.half[b];
}

static void put_v(const pl_kern_table *k, int32_t type, const float *x, int32_t head_dim, int32_t j, uint8_t *head,
                  work w) {
  int32_t hdp = pl_kv_dim(type, head_dim);
  if (type == PL_F32) {
    memcpy((float *)(void *)head + j * hdp, x, sizeof(float) * (size_t)head_dim);
    return;
  }
  if (type == PL_F16 || type == PL_BF16) {
    (type == PL_F16 ? k->store_f16 : k->store_bf16)(x, head_dim, (uint16_t *)(void *)head + j * hdp);
    return;
  }
  prepare(k, x, head_dim, hdp, pl_kv_rotation_v(type, hdp), w.x);
  uint16_t *scales = (uint16_t *)(void *)(head + hdp * PL_PAGE / (type == PL_Q8_0 ? 1 : 2));
  if (type == PL_Q8_0) {
    k->code8(w.x, hdp, (int8_t *)head + j * hdp, w.half);
  } else {
    k->code4(w.x, hdp, w.codes, w.half);
    for (int32_t b = 0; b < hdp / 32; b++)
      for (int32_t i = 0; i < 16; i++)
        head[j * (hdp / 2) + b * 16 + i] = (uint8_t)(w.codes[b * 32 + i] | w.codes[b * 32 + 16 + i] << 4);
  }
  for (int32_t b = 0; b < hdp / 32; b++) scales[b * PL_PAGE + j] = w.half[b];
}

/* The token of this step that is stored first in the page of token t, or -1. */
static int64_t first_of_page(const pl_step *s, int64_t t) {
  int32_t slot = s->slot[t] / PL_PAGE * PL_PAGE;
  int64_t guess = t - s->slot[t] % PL_PAGE;
  if (guess >= 0 && s->slot[guess] == slot) return guess;
  for (int64_t i = 0; i < s->n_tokens; i++)
    if (s->slot[i] == slot) return i;
  return -1;
}

/* Stores heads [h0, h1) of rows [t0, t1) of x, all of whose rows in these heads are there. */
static void store(const pl_run_ctx *c, const pl_view *cache, int is_k, const pl_view *x, int32_t head_dim,
                  int32_t h0, int32_t h1, int64_t t0, int64_t t1, work w) {
  int64_t bytes = head_bytes(cache->type, head_dim, is_k);
  for (int64_t t = t0; t < t1; t++) {
    const float *v = pl_at(c, x, t), *first = NULL;
    int32_t j = c->step->slot[t] % PL_PAGE;
    uint8_t *page = pl_at(c, cache, c->step->slot[t] / PL_PAGE);
    if (is_k && pl_kv_quantized(cache->type) && j > 0) {
      int64_t at = first_of_page(c->step, t);
      if (at >= 0) first = pl_at(c, x, at);
    }
    for (int32_t h = h0; h < h1; h++)
      if (is_k)
        put_k(c->kern, cache->type, v + h * head_dim, first ? first + h * head_dim : NULL, head_dim, j,
              page + h * bytes, w);
      else
        put_v(c->kern, cache->type, v + h * head_dim, head_dim, j, page + h * bytes, w);
  }
}

void pl_kv_store_head(const pl_run_ctx *c, const pl_view *cache, int is_k, const pl_view *x, int32_t head_dim,
                      int32_t h) {
  work w = lay_out(c->scratch, pl_kv_dim(PL_Q8_0, head_dim));
  store(c, cache, is_k, x, head_dim, h, h + 1, 0, c->step->n_tokens, w);
}

void pl_do_kv_store(const pl_run_ctx *c, const pl_op *op) {
  int32_t n_kv = op->i[0], hd_k = op->i[1], hd_v = op->i[2];
  int64_t first, last;
  work w = lay_out(c->scratch, pl_kv_dim(PL_Q8_0, hd_k > hd_v ? hd_k : hd_v));
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  store(c, &op->dst[0], 1, &op->src[0], hd_k, 0, n_kv, first, last, w);
  store(c, &op->dst[1], 0, &op->src[1], hd_v, 0, n_kv, first, last, w);
}
