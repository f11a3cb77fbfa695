/* attn.c: K and V into the paged cache, and softmax(q K^T) V out of it, online over chunks of keys.
 *
 * A work item is one KV head of a tile of consecutive tokens of one sequence; each block of 16 keys is converted
 * to float once and serves all query heads of the group and all tokens of the tile. Chunks are CHUNK keys at
 * multiples of CHUNK from position 0 and are merged in ascending order, so that a query's result depends on
 * nothing but its own sequence. (Online softmax: Milakov and Gimelshein 2018; tiling: Dao et al. 2022.) */
#include <string.h>

#include "prog/kv.h"
#include "prog/program.h"

enum { CHUNK = 256, TILE_ROWS = 32 };

static int32_t tile_tokens(int32_t group) { return group < TILE_ROWS ? TILE_ROWS / group : 1; }

void pl_do_kv_store(const pl_run_ctx *c, const pl_op *op) {
  int32_t n_kv = op->i[0], hd_k = op->i[1], hd_v = op->i[2];
  const pl_view *kc = &op->dst[0], *vc = &op->dst[1];
  int64_t head_k = pl_kv_page_bytes(kc->type, 1, hd_k), head_v = pl_kv_page_bytes(vc->type, 1, hd_v), first, last;
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  for (int64_t t = first; t < last; t++) {
    const float *k = pl_at(c, &op->src[0], t), *v = pl_at(c, &op->src[1], t);
    int32_t page = c->step->slot[t] / PL_PAGE, j = c->step->slot[t] % PL_PAGE;
    uint8_t *pk = pl_at(c, kc, page), *pv = pl_at(c, vc, page);
    for (int32_t h = 0; h < n_kv; h++) {
      pl_kv_put_k(c->kern, kc->type, k + h * hd_k, hd_k, j, pk + h * head_k);
      pl_kv_put_v(c->kern, vc->type, v + h * hd_v, hd_v, j, pv + h * head_v);
    }
  }
}

/* Layout of a thread's working memory: rows = tokens of the tile x query heads of the group. */
typedef struct work {
  float *block;     /* [hdp][16] one block of K or V as floats */
  float *scores;    /* [rows][CHUNK] */
  float *out;       /* [rows][hdp_v] */
  float *q;         /* [rows][hd_k] the tile's queries */
  float *done;      /* [group][hd_v] one token's finished rows, where only their quantized form is wanted */
  float *max, *sum; /* [rows] running maximum and sum of exponentials */
  int64_t bytes;
} work;

static work lay_out(uint8_t *mem, int32_t group, int32_t hd_k, int32_t hd_v) {
  int64_t rows = (int64_t)tile_tokens(group) * group, hdp = pl_kv_dim(hd_k > hd_v ? hd_k : hd_v);
  work w;
  float *p = (float *)mem;
  w.block = p, p += hdp * PL_PAGE;
  w.scores = p, p += rows * CHUNK;
  w.out = p, p += rows * pl_kv_dim(hd_v);
  w.q = p, p += rows * pl_kv_dim(hd_k);
  w.done = p, p += group * pl_kv_dim(hd_v);
  w.max = p, p += (rows + 15) / 16 * 16;
  w.sum = p, p += (rows + 15) / 16 * 16;
  w.bytes = (int64_t)((uint8_t *)p - mem);
  return w;
}

int64_t pl_attn_scratch(const pl_op *op) { return lay_out(NULL, op->i[0] / op->i[1], op->i[2], op->i[3]).bytes; }

static void attend(const pl_run_ctx *c, const pl_op *op, int32_t s, int32_t t0, int32_t t1, int32_t h) {
  const pl_step *st = c->step;
  const pl_view *kc = &op->src[1], *vc = &op->src[2];
  int32_t n_kv = op->i[1], group = op->i[0] / n_kv, hd_k = op->i[2], hd_v = op->i[3], window = op->i[4];
  int32_t hdp_v = pl_kv_dim(hd_v), nt = t1 - t0, rows = nt * group;
  int64_t head_k = pl_kv_page_bytes(kc->type, 1, hd_k), head_v = pl_kv_page_bytes(vc->type, 1, hd_v);
  const int32_t *page = st->page + (int64_t)s * st->max_pages, *pos = st->pos + t0;
  work w = lay_out(c->scratch, group, hd_k, hd_v);
  memset(w.out, 0, sizeof(float) * (size_t)rows * (size_t)hdp_v);
  for (int32_t r = 0; r < rows; r++) w.max[r] = -INFINITY, w.sum[r] = 0;
  const float *q = (const float *)pl_at(c, &op->src[0], t0) + (int64_t)h * group * hd_k; /* one token: in place */
  if (nt > 1) {
    for (int32_t t = 0; t < nt; t++)
      memcpy(w.q + (int64_t)t * group * hd_k,
             (const float *)pl_at(c, &op->src[0], t0 + t) + (int64_t)h * group * hd_k,
             sizeof(float) * (size_t)group * (size_t)hd_k);
    q = w.q;
  }

  int32_t lo = 0, hi = 0; /* keys that some token of the tile sees: [lo, hi) */
  for (int32_t t = 0; t < nt; t++) hi = pos[t] + 1 > hi ? pos[t] + 1 : hi;
  if (window) {
    lo = hi;
    for (int32_t t = 0; t < nt; t++) {
      int32_t first = pos[t] + 1 - window > 0 ? pos[t] + 1 - window : 0;
      lo = first < lo ? first : lo;
    }
  }
  for (int32_t c0 = lo / CHUNK * CHUNK; c0 < hi; c0 += CHUNK) {
    int32_t c1 = c0 + CHUNK < hi ? c0 + CHUNK : hi, b0 = (lo > c0 ? lo : c0) / PL_PAGE;
    for (int32_t b = b0; b * PL_PAGE < c1; b++) {
      const float *kt =
          pl_kv_get_k(c->kern, kc->type, (uint8_t *)pl_at(c, kc, page[b]) + h * head_k, hd_k, w.block);
      /* scores of keys after a token's position are made too, and not used */
      c->kern->qk(q, hd_k, rows, kt, hd_k, op->f[0], w.scores + (b * PL_PAGE - c0), CHUNK);
    }
    for (int32_t r = 0; r < rows; r++) {
      int32_t p = pos[r / group], n = (p + 1 < c1 ? p + 1 : c1) - c0;
      int32_t skip = window && p + 1 - window > c0 ? p + 1 - window - c0 : 0;
      if (n <= skip) continue;
      float *sc = w.scores + (int64_t)r * CHUNK, old = w.max[r];
      for (int32_t j = 0; j < skip; j++) sc[j] = -INFINITY;
      float sum = c->kern->softmax(sc, n, &w.max[r]), scale = pl_exp(old - w.max[r]);
      w.sum[r] = fmaf(w.sum[r], scale, sum);
      if (scale != 1.0f)
        for (int32_t d = 0; d < hdp_v; d++) w.out[(int64_t)r * hdp_v + d] *= scale;
    }
    for (int32_t b = b0; b * PL_PAGE < c1; b++) {
      const float *v =
          pl_kv_get_v(c->kern, vc->type, (uint8_t *)pl_at(c, vc, page[b]) + h * head_v, hd_v, w.block);
      for (int32_t r = 0; r < rows; r++) {
        int32_t p = pos[r / group], n = (p + 1 < c1 ? p + 1 : c1) - b * PL_PAGE;
        if (n <= 0 || (window && p + 1 - window >= (b + 1) * PL_PAGE)) continue;
        c->kern->av(w.scores + (int64_t)r * CHUNK + (b * PL_PAGE - c0), n < PL_PAGE ? n : PL_PAGE, v, hdp_v,
                    w.out + (int64_t)r * hdp_v);
      }
    }
  }

  const pl_view *act = &op->dst[1];
  for (int32_t t = 0; t < nt; t++) {
    float *row = op->dst[0].buf >= 0 ? (float *)pl_at(c, &op->dst[0], t0 + t) + (int64_t)h * group * hd_v : w.done;
    for (int32_t g = 0; g < group; g++) {
      float inv = 1.0f / w.sum[t * group + g];
      const float *o = w.out + (int64_t)(t * group + g) * hdp_v;
      for (int32_t d = 0; d < hd_v; d++) row[g * hd_v + d] = o[d] * inv;
    }
    if (act->buf >= 0) { /* this head's share of the row: head_dim is a multiple of 32 here */
      pl_q8 *q = pl_at(c, act, t0 + t);
      int64_t n = (int64_t)group * hd_v, total = (int64_t)op->i[0] * hd_v;
      q += h * n / 32;
      pl_put_act(c, op, t0 + t, row, n, q, op->i[5] > 1 ? q + total / 32 : NULL);
    }
  }
}

void pl_do_attn(const pl_run_ctx *c, const pl_op *op) {
  int32_t n_kv = op->i[1], qt = tile_tokens(op->i[0] / n_kv);
  int64_t first, last, n = 0;
  for (int32_t s = 0; s < c->step->n_seqs; s++) n += (c->step->q_start[s + 1] - c->step->q_start[s] + qt - 1) / qt;
  while (pl_claim(c, op, n * n_kv, 1, &first, &last)) {
    int64_t tile = first / n_kv;
    for (int32_t s = 0; s < c->step->n_seqs; s++) {
      int32_t q0 = c->step->q_start[s], q1 = c->step->q_start[s + 1], tiles = (q1 - q0 + qt - 1) / qt;
      if (tile < tiles) {
        int32_t t0 = q0 + (int32_t)tile * qt;
        attend(c, op, s, t0, t0 + qt < q1 ? t0 + qt : q1, (int32_t)(first % n_kv));
        break;
      }
      tile -= tiles;
    }
  }
}
