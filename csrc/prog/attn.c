/* attn.c: softmax(q K^T) V out of the paged cache, online over chunks of keys.
 *
 * A tile is some consecutive tokens of one sequence with the query heads that share one KV head: its rows read each
 * block of keys together. Keys are taken in chunks of PL_CHUNK at multiples of it from position 0; each chunk of each
 * row gives a maximum, a sum and an output, and these are merged in ascending order, so that a query's result depends
 * on nothing but its own sequence. Work items are KV heads of tiles, the later (longer) tiles of a sequence first; where
 * that leaves too few for the threads, as when one sequence with a long context decodes, a tile's chunks are split into
 * parts, whose results wait in shared memory for the last part to finish and merge them.
 * (Online softmax: Milakov and Gimelshein 2018; tiling: Dao et al. 2022; splitting: Dao et al. 2023.) */
#include <string.h>

#include "prog/kv.h"
#include "prog/program.h"

enum {
  TILE_ROWS = 64,
  PANEL_ROWS = 8,
  PARTS = 4 /* work items per thread that splitting aims at */
};

static int32_t tile_tokens(int32_t group) { return group < TILE_ROWS ? TILE_ROWS / group : 1; }
static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* What all tiles of an op share. */
typedef struct shape {
  const pl_op *op;
  const pl_view *kc, *vc;
  int32_t n_kv, group, hd_k, hd_v, hdp_k, hdp_v, window;
  int32_t tokens;         /* of a tile */
  int64_t head_k, head_v; /* bytes of a head's part of a page */
} shape;

static shape shape_of(const pl_op *op) {
  shape s = {.op = op, .kc = &op->src[1], .vc = &op->src[2], .n_kv = op->i[1], .hd_k = op->i[2], .hd_v = op->i[3]};
  s.group = op->i[0] / s.n_kv;
  s.window = op->i[4];
  s.tokens = tile_tokens(s.group);
  s.hdp_k = pl_kv_dim(s.kc->type, s.hd_k);
  s.hdp_v = pl_kv_dim(s.vc->type, s.hd_v);
  s.head_k = pl_kv_page_bytes(s.kc->type, 1, s.hd_k, 1);
  s.head_v = pl_kv_page_bytes(s.vc->type, 1, s.hd_v, 0);
  return s;
}

/* One tile: tokens [t0, t1) of sequence s; keys [lo, hi) are seen by some of them. */
typedef struct tile {
  int32_t s, t0, t1, lo, hi;
} tile;

/* The keys that the token at position pos sees: [first, pos]. */
static int32_t first_key(const shape *sh, int32_t pos) {
  if (sh->window < 0) return pos / -sh->window * -sh->window; /* the start of its chunk */
  return sh->window && pos + 1 > sh->window ? pos + 1 - sh->window : 0;
}

static tile tile_of(const pl_step *st, const shape *sh, int32_t s, int32_t t0) {
  tile t = {s, t0, t0 + sh->tokens < st->q_start[s + 1] ? t0 + sh->tokens : st->q_start[s + 1], INT32_MAX, 0};
  for (int32_t i = t.t0; i < t.t1; i++) {
    int32_t lo = first_key(sh, st->pos[i]), hi = st->pos[i] + 1;
    t.lo = lo < t.lo ? lo : t.lo;
    t.hi = hi > t.hi ? hi : t.hi;
  }
  return t;
}

static int32_t tile_rows(const shape *sh, const tile *t) { return (t->t1 - t->t0) * sh->group; }
static int32_t first_chunk(const tile *t) { return t->lo / PL_CHUNK; }
static int32_t tile_chunks(const tile *t) { return (t->hi + PL_CHUNK - 1) / PL_CHUNK - first_chunk(t); }

/* ---- working memory --------------------------------------------------------------------------------------------- */

/* A state of online softmax: rows of maximum, sum of exponentials, output. */
typedef struct state {
  float *max, *sum, *out; /* [rows] [rows] [rows][hdp_v] */
} state;

static int64_t state_floats(int64_t rows, int32_t hdp_v) { return rows * hdp_v + round_up(2 * rows, 16); }
static state state_at(float *p, int64_t rows, int32_t hdp_v) {
  return (state){p + rows * hdp_v, p + rows * hdp_v + rows, p};
}

/* A thread's working memory. */
typedef struct work {
  void *q;       /* the tile's queries, as the qk kernel wants them */
  float *query;  /* [hdp_k] one of them */
  float *scores; /* [rows][PL_CHUNK] */
  state chunk, total;
  float *row; /* [group][hd_v] one token's finished rows, where only their quantized form is wanted */
  int64_t bytes;
} work;

static work lay_out(uint8_t *mem, const shape *sh) {
  int64_t rows = (int64_t)sh->tokens * sh->group;
  work w;
  float *p = (float *)(void *)mem;
  int64_t size = pl_kv_quantized(sh->kc->type) ? sh->hdp_k / 32 * (int64_t)sizeof(pl_q16) / 4 : sh->hdp_k;
  w.q = p, p += round_up(rows, PANEL_ROWS) * size;
  w.query = p, p += sh->hdp_k;
  w.scores = p, p += rows * PL_CHUNK;
  w.chunk = state_at(p, rows, sh->hdp_v), p += state_floats(rows, sh->hdp_v);
  w.total = state_at(p, rows, sh->hdp_v), p += state_floats(rows, sh->hdp_v);
  w.row = p, p += sh->group * sh->hdp_v;
  w.bytes = (int64_t)((uint8_t *)p - mem);
  return w;
}

int64_t pl_attn_scratch(const pl_op *op) {
  shape sh = shape_of(op);
  return lay_out(NULL, &sh).bytes;
}

/* Room for one result per query head and chunk of as long a context as the cache can hold. */
int64_t pl_attn_shared(const pl_op *op) {
  shape sh = shape_of(op);
  int64_t chunks = (int64_t)sh.kc->rows * PL_PAGE / PL_CHUNK + 1;
  return chunks * sh.n_kv * state_floats(sh.group, sh.hdp_v) * (int64_t)sizeof(float);
}

int32_t pl_attn_counters(int32_t n_threads) { return n_threads * PARTS; }

/* ---- one tile --------------------------------------------------------------------------------------------------- */

/* Queries of the tile as the qk kernel wants them: in panels of 8 rows, [hd_k][8] each, or rotated and quantized. */
static void gather_queries(const pl_run_ctx *c, const shape *sh, const tile *t, int32_t h, const work *w) {
  int32_t hd = sh->hd_k, hdp = sh->hdp_k, rotation = pl_kv_rotation_k(sh->kc->type);
  for (int32_t i = t->t0, r = 0; i < t->t1; i++) {
    const float *x = (const float *)pl_at(c, &sh->op->src[0], i) + (int64_t)h * sh->group * hd;
    for (int32_t g = 0; g < sh->group; g++, r++, x += hd) {
      if (pl_kv_quantized(sh->kc->type)) {
        memcpy(w->query, x, sizeof(float) * (size_t)hd);
        memset(w->query + hd, 0, sizeof(float) * (size_t)(hdp - hd));
        if (rotation) c->kern->rotate(w->query, hdp, rotation);
        c->kern->quant16(w->query, hdp, (pl_q16 *)w->q + (int64_t)r * (hdp / 32));
        continue;
      }
      float *y = (float *)w->q + (int64_t)(r / PANEL_ROWS * hd) * PANEL_ROWS + r % PANEL_ROWS;
      for (int32_t d = 0; d < hd; d++) y[d * PANEL_ROWS] = x[d];
    }
  }
}

/* The state of keys [c0, c0 + PL_CHUNK) of the tile's rows, for KV head h. */
static void attend_chunk(const pl_run_ctx *c, const shape *sh, const tile *t, int32_t h, int32_t c0, const work *w,
                         const state *y) {
  const pl_step *st = c->step;
  const int32_t *page = st->page + (int64_t)t->s * st->max_pages, *pos = st->pos + t->t0;
  int32_t rows = tile_rows(sh, t), c1 = c0 + PL_CHUNK < t->hi ? c0 + PL_CHUNK : t->hi;
  int32_t b0 = (t->lo > c0 ? t->lo - c0 : 0) / PL_PAGE, b1 = (c1 - c0 + PL_PAGE - 1) / PL_PAGE;
  const void *k[PL_CHUNK / PL_PAGE], *v[PL_CHUNK / PL_PAGE], *next[PL_CHUNK / PL_PAGE]; /* the next chunk's keys */
  for (int32_t b = b0; b < b1; b++) {
    int32_t p = page[c0 / PL_PAGE + b];
    k[b] = (const uint8_t *)pl_at(c, sh->kc, p) + h * sh->head_k;
    v[b] = (const uint8_t *)pl_at(c, sh->vc, p) + h * sh->head_v;
    int32_t far = c0 + PL_CHUNK + b * PL_PAGE < t->hi ? page[(c0 + PL_CHUNK) / PL_PAGE + b] : p;
    next[b] = (const uint8_t *)pl_at(c, sh->kc, far) + h * sh->head_k;
  }
  /* scores of keys that a row does not see are made too, and not used */
  int32_t quantized = pl_kv_quantized(sh->kc->type), rotation = pl_kv_rotation_k(sh->kc->type);
  c->kern->qk[sh->kc->type](w->q, rows, k + b0, b1 - b0, quantized ? sh->hdp_k : sh->hd_k,
                            rotation ? sh->op->f[0] / (float)rotation : sh->op->f[0], w->scores + b0 * PL_PAGE,
                            v + b0);
  memset(y->out, 0, sizeof(float) * (size_t)rows * (size_t)sh->hdp_v);
  for (int32_t r0 = 0; r0 < rows; r0 += PANEL_ROWS) {
    int32_t n = rows - r0 < PANEL_ROWS ? rows - r0 : PANEL_ROWS, from[PANEL_ROWS], to[PANEL_ROWS];
    int32_t all_from = 0, all_to = PL_CHUNK; /* keys that all rows of the panel see */
    float *p = w->scores + (int64_t)r0 * PL_CHUNK, *o = y->out + (int64_t)r0 * sh->hdp_v;
    for (int32_t i = 0; i < n; i++) {
      int32_t at = pos[(r0 + i) / sh->group], lo = first_key(sh, at) - c0, hi = at + 1 - c0;
      float *s = p + i * PL_CHUNK;
      from[i] = lo > 0 ? lo : 0;
      to[i] = hi < c1 - c0 ? hi : c1 - c0;
      y->max[r0 + i] = -INFINITY;
      y->sum[r0 + i] = 0;
      if (from[i] < to[i]) {
        int32_t skip = from[i] / PL_PAGE * PL_PAGE;
        if (sh->op->f[1] != 0) c->kern->softcap(s + skip, to[i] - skip, sh->op->f[1]);
        for (int32_t j = skip; j < from[i]; j++) s[j] = -INFINITY;
        y->sum[r0 + i] = c->kern->softmax(s + skip, to[i] - skip, &y->max[r0 + i]);
      } else {
        from[i] = to[i] = 0;
      }
      all_from = from[i] > all_from ? from[i] : all_from;
      all_to = to[i] < all_to ? to[i] : all_to;
    }
    if (all_from >= all_to) all_from = all_to = PL_CHUNK; /* none: every row on its own */
    pl_av_fn *av = c->kern->av[sh->vc->type];
    for (int32_t i = 0; i < n; i++) {
      int32_t end = to[i] < all_from ? to[i] : all_from;
      if (from[i] < end) av(p + i * PL_CHUNK, 1, v, from[i], end, sh->hdp_v, o + i * sh->hdp_v, v);
    }
    if (all_from < all_to) av(p, n, v, all_from, all_to, sh->hdp_v, o, r0 ? v : next);
    for (int32_t i = 0; i < n; i++)
      if (all_to < to[i]) av(p + i * PL_CHUNK, 1, v, all_to, to[i], sh->hdp_v, o + i * sh->hdp_v, v);
  }
}

static void start(const state *x, int32_t rows, int32_t hdp_v) {
  for (int32_t r = 0; r < rows; r++) x->max[r] = -INFINITY, x->sum[r] = 0;
  memset(x->out, 0, sizeof(float) * (size_t)rows * (size_t)hdp_v);
}

static void merge(const pl_run_ctx *c, const shape *sh, int32_t rows, const state *x, const state *next) {
  c->kern->merge(rows, sh->hdp_v, x->max, x->sum, x->out, next->max, next->sum, next->out);
}

/* Output rows of the tile from its final state. */
static void finish(const pl_run_ctx *c, const shape *sh, const tile *t, int32_t h, const work *w) {
  const pl_op *op = sh->op;
  const pl_view *y = &op->dst[0], *act = &op->dst[1];
  const float *sinks = op->src[3].buf >= 0 ? pl_at(c, &op->src[3], 0) : NULL;
  int64_t n = (int64_t)sh->group * sh->hd_v, total = (int64_t)op->i[0] * sh->hd_v;
  int32_t rotation = pl_kv_rotation_v(sh->vc->type, sh->hdp_v);
  for (int32_t i = t->t0, r = 0; i < t->t1; i++) {
    float *row = y->buf >= 0 ? (float *)pl_at(c, y, i) + h * n : w->row;
    for (int32_t g = 0; g < sh->group; g++, r++) {
      float sum = w->total.sum[r];
      if (sinks) sum += pl_exp(sinks[h * sh->group + g] - w->total.max[r]);
      float inv = 1.0f / sum, *o = w->total.out + (int64_t)r * sh->hdp_v;
      if (rotation) {
        c->kern->rotate(o, sh->hdp_v, rotation); /* its own inverse but for the factor */
        inv /= (float)rotation;
      }
      for (int32_t d = 0; d < sh->hd_v; d++) row[g * sh->hd_v + d] = o[d] * inv;
    }
    if (act->buf >= 0) { /* this head's share of the row: head_dim is a multiple of 32 here */
      pl_q8 *q = (pl_q8 *)pl_at(c, act, i) + h * n / 32;
      pl_put_act(c, op, i, row, n, q, op->i[5] > 1 ? q + total / 32 : NULL);
    }
  }
}

/* ---- sharing out ------------------------------------------------------------------------------------------------ */

/* Walks the tiles of a step, always in the same order. A tile that is split has room for its chunks' states in the
 * shared memory and a counter of parts done per KV head. */
typedef struct walk {
  tile t;
  int32_t s;        /* next sequence */
  int32_t next;     /* tiles left of sequence s - 1 */
  int32_t parts;    /* that each KV head of the tile is split into */
  int64_t shared;   /* floats of shared memory before this tile's */
  int64_t used;     /* and after them */
  int32_t counter;  /* first of its counters */
  int32_t counters; /* used so far */
} walk;

static int64_t tile_work(const shape *sh, const tile *t) { return (int64_t)tile_chunks(t) * tile_rows(sh, t); }

/* The next tile, whose KV heads are split into parts of at least unit work. 0: there is none. */
static int next_tile(const pl_run_ctx *c, const shape *sh, walk *w, int64_t unit) {
  const pl_step *st = c->step;
  if (!w->next) {
    if (w->s == st->n_seqs) return 0;
    w->next = (st->q_start[w->s + 1] - st->q_start[w->s] + sh->tokens - 1) / sh->tokens;
    w->s++;
  }
  w->next--; /* the last tile first */
  w->t = tile_of(st, sh, w->s - 1, st->q_start[w->s - 1] + w->next * sh->tokens);
  w->parts = 1;
  w->shared = w->used;
  w->counter = w->counters;
  if (!unit) return 1;
  int64_t n = tile_work(sh, &w->t) / unit, chunks = tile_chunks(&w->t);
  int64_t need = chunks * sh->n_kv * state_floats(tile_rows(sh, &w->t), sh->hdp_v);
  if (n > chunks) n = chunks;
  if (n > 1 && (w->used + need) * (int64_t)sizeof(float) <= c->prog->shared_bytes &&
      w->counters + sh->n_kv <= c->prog->n_counters) {
    w->parts = (int32_t)n;
    w->used += need;
    w->counters += sh->n_kv;
  }
  return 1;
}

/* Part `part` of KV head h of the walk's tile. */
static void attend(const pl_run_ctx *c, const shape *sh, const walk *at, int32_t h, int32_t part) {
  const tile *t = &at->t;
  int32_t rows = tile_rows(sh, t), n = tile_chunks(t), first = first_chunk(t);
  work w = lay_out(c->scratch, sh);
  gather_queries(c, sh, t, h, &w);
  if (at->parts == 1) {
    start(&w.total, rows, sh->hdp_v);
    for (int32_t i = 0; i < n; i++) {
      attend_chunk(c, sh, t, h, (first + i) * PL_CHUNK, &w, &w.chunk);
      merge(c, sh, rows, &w.total, &w.chunk);
    }
  } else {
    int64_t size = state_floats(rows, sh->hdp_v);
    float *shared = (float *)(void *)c->prog->shared + at->shared + (int64_t)h * n * size;
    for (int32_t i = n * part / at->parts; i < n * (part + 1) / at->parts; i++) {
      state y = state_at(shared + i * size, rows, sh->hdp_v);
      attend_chunk(c, sh, t, h, (first + i) * PL_CHUNK, &w, &y);
    }
    atomic_int *done = &c->prog->counters[at->counter + h];
    if (atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 < at->parts) return;
    atomic_store_explicit(done, 0, memory_order_relaxed); /* for the next op; a barrier is between */
    start(&w.total, rows, sh->hdp_v);
    for (int32_t i = 0; i < n; i++) {
      state y = state_at(shared + i * size, rows, sh->hdp_v);
      merge(c, sh, rows, &w.total, &y);
    }
  }
  finish(c, sh, t, h, &w);
}

void pl_do_attn(const pl_run_ctx *c, const pl_op *op) {
  shape sh = shape_of(op);
  int64_t unit = 0, first, last, before = 0; /* items before the walk's tile */
  if (c->n_threads > 1) {
    for (walk w = {0}; next_tile(c, &sh, &w, 0);) unit += tile_work(&sh, &w.t) * sh.n_kv;
    unit = unit / (c->n_threads * PARTS) + 1;
  }
  walk w = {0};
  if (!next_tile(c, &sh, &w, unit)) return;
  while (pl_claim(c, op, INT64_MAX, 1, &first, &last)) { /* claims ascend, and so does the walk */
    while (first - before >= (int64_t)w.parts * sh.n_kv) {
      before += (int64_t)w.parts * sh.n_kv;
      if (!next_tile(c, &sh, &w, unit)) return;
    }
    attend(c, &sh, &w, (int32_t)((first - before) / w.parts), (int32_t)((first - before) % w.parts));
  }
}
