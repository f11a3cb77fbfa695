/* Unigram (Kudo 2018): of all ways to spell a text in tokens the one of highest total score (their log
 * probabilities), found by Viterbi's algorithm; before that the text is normalized by the model's own table. */
#include <stdlib.h>
#include <string.h>

#include "pyllm.h"
#include "tok/tok.h"

#define UNKNOWN_PENALTY 10.0 /* an unknown character scores this much less than the worst token */

typedef struct best {
  double score; /* of the best spelling that ends here */
  int32_t id;   /* its last token; -1: an unknown character, -2: there is no spelling yet */
  int32_t from; /* where that starts */
} best;

struct pl_ugm {
  pl_trie trie;
  double *score; /* [n_tokens] */
  double unknown;
  int32_t byte_id[256]; /* or -1 */
  int32_t unk;          /* or -1 */
  int32_t whole;        /* some token has a space after another character: text cannot be cut at words */
  /* The table: a double array trie over bytes (Darts), and what its values point at, each ending in NUL. */
  uint32_t *unit; /* [n_units] */
  uint32_t n_units;
  uint8_t *replacement; /* [n_replacement], the last one NUL */
  uint32_t n_replacement;
};

/* ---- building ----------------------------------------------------------------------------------------------- */

static uint32_t read32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* map [n]: bytes of the trie, the trie in 32-bit little-endian units, the replacements. */
static int32_t read_charsmap(pl_ugm *h, const uint8_t *map, int64_t n) {
  if (!n) return 0;
  if (n < 4 || n > INT32_MAX) return PL_E_VOCAB;
  int64_t trie = read32(map);
  if (trie > n - 4 || trie % 4 || !trie) return PL_E_VOCAB;
  h->n_units = (uint32_t)(trie / 4);
  h->n_replacement = (uint32_t)(n - 4 - trie);
  if (!h->n_replacement || map[n - 1]) return PL_E_VOCAB;
  h->unit = malloc((size_t)trie);
  h->replacement = malloc(h->n_replacement);
  if (!h->unit || !h->replacement) return PL_E_MEM;
  for (uint32_t i = 0; i < h->n_units; i++) h->unit[i] = read32(map + 4 + 4 * (int64_t)i);
  memcpy(h->replacement, map + 4 + trie, h->n_replacement);
  return 0;
}

static int is_space(const uint8_t *p, int64_t n) { return n >= 3 && p[0] == 0xE2 && p[1] == 0x96 && p[2] == 0x81; }

/* Whether a space comes after something else. */
static int crosses(const uint8_t *p, int64_t n) {
  int other = 0;
  for (int64_t i = 0; i < n; i += pl_tok_char(p + i, n - i)) {
    int space = is_space(p + i, n - i);
    if (space && other) return 1;
    other |= !space;
  }
  return 0;
}

static int32_t build(pl_ugm *h, const uint8_t *tokens, const int64_t *token_off, const uint8_t *use,
                     const float *score, int32_t n_tokens, uint64_t seed, int32_t *bad) {
  double worst = 0;
  for (int32_t i = 0; i < n_tokens; i++) {
    if (!use[i]) continue;
    if (!(score[i] > -1e30f && score[i] < 1e30f)) {
      *bad = i;
      return PL_E_VOCAB;
    }
    h->score[i] = score[i];
    if (score[i] < worst) worst = score[i];
    h->whole |= crosses(tokens + token_off[i], token_off[i + 1] - token_off[i]);
  }
  h->unknown = worst - UNKNOWN_PENALTY;
  return pl_trie_init(&h->trie, tokens, token_off, use, NULL, n_tokens, seed);
}

int32_t pl_ugm_new(const uint8_t *tokens, const int64_t *token_off, const uint8_t *use, const float *score,
                   int32_t n_tokens, const int32_t *byte_id, int32_t unk, const uint8_t *charsmap,
                   int64_t n_charsmap, uint64_t seed, pl_ugm **out, int32_t *bad) {
  if (!tokens || !use || !score || !byte_id || !out || !bad || n_tokens < 1 || unk >= n_tokens) return PL_E_ARG;
  if (n_charsmap < 0 || (n_charsmap && !charsmap)) return PL_E_ARG;
  *out = NULL;
  *bad = -1;
  if (!pl_tok_spans(token_off, n_tokens)) return PL_E_ARG;
  for (int32_t b = 0; b < 256; b++)
    if (byte_id[b] >= n_tokens || (byte_id[b] < 0 && unk < 0)) return PL_E_ARG;
  pl_ugm *h = calloc(1, sizeof *h);
  if (!h) return PL_E_MEM;
  memcpy(h->byte_id, byte_id, sizeof h->byte_id);
  h->unk = unk < 0 ? -1 : unk;
  h->score = calloc((size_t)n_tokens, sizeof *h->score);
  int32_t rc = h->score ? read_charsmap(h, charsmap, n_charsmap) : PL_E_MEM;
  if (!rc) rc = build(h, tokens, token_off, use, score, n_tokens, seed, bad);
  if (rc) {
    pl_ugm_free(h);
    return rc;
  }
  *out = h;
  return 0;
}

void pl_ugm_free(pl_ugm *h) {
  if (!h) return;
  pl_trie_free(&h->trie);
  free(h->score);
  free(h->unit);
  free(h->replacement);
  free(h);
}

/* ---- normalizing -------------------------------------------------------------------------------------------- */

/* Bytes of the longest prefix of p [n] that the table replaces, and by what; 0 if it replaces none. */
static int64_t replaced(const pl_ugm *h, const uint8_t *p, int64_t n, const uint8_t **with) {
  int64_t longest = 0;
  if (!h->n_units) return 0;
  uint32_t at = 0, unit = h->unit[0];
  for (int64_t i = 0; i < n && p[i]; i++) {
    at ^= unit >> 10 << ((unit & 512u) >> 6);
    at ^= p[i];
    if (at >= h->n_units) break;
    unit = h->unit[at];
    if ((unit & (0x80000000u | 255u)) != p[i]) break;
    if (unit & 256u) {
      uint32_t leaf = at ^ (unit >> 10 << ((unit & 512u) >> 6));
      uint32_t value = leaf < h->n_units ? h->unit[leaf] & 0x7FFFFFFFu : UINT32_MAX;
      if (value >= h->n_replacement) break;
      *with = h->replacement + value;
      longest = i + 1;
    }
  }
  return longest;
}

typedef struct writer {
  uint8_t *out;
  int64_t n, cap;
} writer;

static void put(writer *w, uint8_t byte) {
  if (w->n < w->cap) w->out[w->n] = byte;
  w->n++;
}

static void put_space(writer *w) {
  put(w, 0xE2);
  put(w, 0x96);
  put(w, 0x81);
}

int64_t pl_ugm_normalize(const pl_ugm *h, const uint8_t *text, int64_t n, int32_t prefix, int32_t merge,
                         uint8_t *out, int64_t cap) {
  if (!h || !text || n < 0 || cap < 0 || (cap && !out)) return PL_E_ARG;
  writer w = {out, 0, cap};
  int pending =
      0; /* with merge: a space that was read and is written before the next character, if there is one */
  int started = 0;
  if (prefix && !merge && n) put_space(&w);
  for (int64_t i = 0; i < n;) {
    const uint8_t *with = NULL;
    int64_t used = replaced(h, text + i, n - i, &with), len;
    if (used) {
      len = (int64_t)strlen((const char *)with);
    } else {
      with = text + i;
      used = len = pl_tok_char(with, n - i);
    }
    i += used;
    for (int64_t j = 0; j < len; j++) {
      if (with[j] == ' ' && merge) {
        pending = started;
        continue;
      }
      if (pending || (merge && prefix && !started)) put_space(&w);
      pending = 0;
      started = 1;
      if (with[j] == ' ')
        put_space(&w);
      else
        put(&w, with[j]);
    }
  }
  return w.n;
}

/* ---- encoding ----------------------------------------------------------------------------------------------- */

typedef struct ugm_call {
  const pl_ugm *h;
  best *best; /* [cap] */
  int64_t cap;
  int32_t *ids;
  int64_t n_ids;
  int32_t after_unk; /* the last id stands for unknown text, and more of it needs no other */
} ugm_call;

static void offer(best *b, double score, int32_t id, int64_t from) {
  if (b->id == -2 || score > b->score) *b = (best){score, id, (int32_t)from};
}

static void emit_unknown(ugm_call *c, const uint8_t *p, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    int32_t id = c->h->byte_id[p[i]];
    if (id < 0 && c->after_unk) continue;
    c->after_unk = id < 0;
    c->ids[c->n_ids++] = id < 0 ? c->h->unk : id;
  }
}

/* One stretch of text, p [n], that no token crosses the ends of. */
static int32_t encode_word(ugm_call *c, const uint8_t *p, int64_t n) {
  const pl_ugm *h = c->h;
  if (n >= c->cap) {
    int64_t cap = c->cap ? c->cap : 64;
    while (cap <= n) cap *= 2;
    best *grown = realloc(c->best, (size_t)cap * sizeof *grown);
    if (!grown) return PL_E_MEM;
    c->best = grown;
    c->cap = cap;
  }
  best *b = c->best;
  for (int64_t i = 0; i <= n; i++) b[i] = (best){0, -2, 0};
  for (int64_t i = 0, len; i < n; i += len) {
    int known = 0;
    len = pl_tok_char(p + i, n - i);
    for (int64_t j = i, node = 0; j < n;) {
      node = pl_trie_next(&h->trie, (int32_t)node, p[j++]);
      if (node < 0) break;
      int32_t id = h->trie.id[node];
      if (id < 0) continue;
      known |= j - i == len;
      offer(&b[j], b[i].score + h->score[id], id, i);
    }
    if (!known) offer(&b[i + len], b[i].score + h->unknown, -1, i);
  }
  int32_t end = -1; /* turn the chain round: from now says where the next token ends */
  for (int32_t at = (int32_t)n, before; at > 0; at = before) {
    before = b[at].from;
    b[at].from = end;
    end = at;
  }
  for (int32_t start = 0; end > 0; start = end, end = b[end].from) {
    if (b[end].id < 0) {
      emit_unknown(c, p + start, end - start);
    } else {
      c->ids[c->n_ids++] = b[end].id;
      c->after_unk = 0;
    }
  }
  return 0;
}

int64_t pl_ugm_encode(const pl_ugm *h, const uint8_t *text, int64_t n, int32_t *ids, int64_t cap) {
  if (!h || !text || !ids || n < 0 || n >= INT32_MAX || cap < n) return PL_E_ARG;
  ugm_call c = {.h = h, .ids = ids};
  int32_t rc = 0;
  for (int64_t start = 0, at = 0, other = 0; start < n && !rc;) {
    int space = at < n && is_space(text + at, n - at);
    if (at == n || (space && other && !h->whole)) {
      rc = encode_word(&c, text + start, at - start);
      start = at;
      other = 0;
    } else {
      other |= !space;
      at += pl_tok_char(text + at, n - at);
    }
  }
  free(c.best);
  return rc ? rc : c.n_ids;
}
