/* SentencePiece's byte pair encoding (Kudo and Richardson 2018): neighbours merge when their text together is a
 * token, the one of highest score first; what has no token is spelled in bytes. Spaces come as U+2581 already.
 *
 * Two neighbouring characters that stand side by side in no token can never end up in one token. The text is cut
 * at all such places first (in most vocabularies: before every word), and each piece is merged by itself. */
#include <stdlib.h>
#include <string.h>

#include "pyllm.h"
#include "tok/tok.h"

#define SPACE 256 /* class of U+2581, which shares its first byte with many other characters */
#define CLASSES 257
#define UNUSED 2

struct pl_spm {
  pl_texts texts;
  uint8_t *bytes;
  int64_t *off;
  uint32_t *rank;  /* [n_tokens] of the score, the highest score has the lowest rank */
  int32_t *unused; /* [n_tokens] index of an unused token among them, else -1; NULL if there are none */
  int32_t n_unused;
  int64_t longest;      /* bytes of the longest token */
  int32_t byte_id[256]; /* or -1 */
  int32_t unk;          /* or -1 */
  uint8_t *joined; /* [256][CLASSES]: some token has a character that ends in this byte before one of this class */
};

/* What one call needs: merges that led to unused tokens have to be undone at the end. */
typedef struct spm_call {
  const pl_spm *h;
  pl_work work;
  int32_t *left_len; /* [n_unused] bytes of the left half of the latest merge; 0: none */
  pl_sym *stack;
  int64_t stack_n, stack_cap;
  int32_t *ids;
  int64_t n_ids;
  int32_t after_unk; /* the last id stands for unknown text, and more of it needs no other */
} spm_call;

static int32_t class_of(const uint8_t *p, int32_t n) {
  return n == 3 && p[0] == 0xE2 && p[1] == 0x96 && p[2] == 0x81 ? SPACE : p[0];
}

/* Scores to integers that sort the other way round. */
static uint32_t rank_of(float score) {
  uint32_t u;
  if (score == 0) score = 0; /* -0 */
  memcpy(&u, &score, 4);
  u = u & 0x80000000u ? ~u : u | 0x80000000u;
  return ~u;
}

static void join(pl_spm *h, const uint8_t *p, int64_t n) {
  int32_t len = 0;
  for (int64_t i = 0; i < n; i += len) {
    int32_t before = len;
    len = pl_tok_char(p + i, n - i);
    if (before) h->joined[p[i - 1] * CLASSES + class_of(p + i, len)] = 1;
  }
}

static int32_t build(pl_spm *h, const uint8_t *tokens, const int64_t *token_off, const uint8_t *use,
                     const float *score, int32_t n_tokens, uint64_t seed, int32_t *bad) {
  memcpy(h->bytes, tokens + token_off[0], (size_t)(token_off[n_tokens] - token_off[0]));
  for (int32_t i = 0; i <= n_tokens; i++) h->off[i] = token_off[i] - token_off[0];
  int32_t rc = pl_texts_init(&h->texts, h->bytes, h->off, use, n_tokens, seed, bad);
  if (rc) return rc;
  for (int32_t i = 0; i < n_tokens; i++) {
    if (!use[i]) continue;
    int64_t n = h->off[i + 1] - h->off[i];
    if (score[i] != score[i]) {
      *bad = i;
      return PL_E_VOCAB;
    }
    h->rank[i] = rank_of(score[i]);
    if (n > h->longest) h->longest = n;
    join(h, h->bytes + h->off[i], n);
    h->n_unused += use[i] == UNUSED;
  }
  if (!h->n_unused) return 0;
  h->unused = malloc((size_t)n_tokens * sizeof *h->unused);
  if (!h->unused) return PL_E_MEM;
  int32_t next = 0;
  for (int32_t i = 0; i < n_tokens; i++) h->unused[i] = use[i] == UNUSED ? next++ : -1;
  return 0;
}

int32_t pl_spm_new(const uint8_t *tokens, const int64_t *token_off, const uint8_t *use, const float *score,
                   int32_t n_tokens, const int32_t *byte_id, int32_t unk, uint64_t seed, pl_spm **out,
                   int32_t *bad) {
  if (!tokens || !use || !score || !byte_id || !out || !bad || n_tokens < 1 || unk >= n_tokens) return PL_E_ARG;
  *out = NULL;
  *bad = -1;
  if (!pl_tok_spans(token_off, n_tokens)) return PL_E_ARG;
  for (int32_t b = 0; b < 256; b++)
    if (byte_id[b] >= n_tokens || (byte_id[b] < 0 && unk < 0)) return PL_E_ARG;
  pl_spm *h = calloc(1, sizeof *h);
  if (!h) return PL_E_MEM;
  memcpy(h->byte_id, byte_id, sizeof h->byte_id);
  h->unk = unk < 0 ? -1 : unk;
  h->bytes = malloc((size_t)(token_off[n_tokens] - token_off[0]) + 1);
  h->off = malloc(((size_t)n_tokens + 1) * sizeof *h->off);
  h->rank = calloc((size_t)n_tokens, sizeof *h->rank);
  h->joined = calloc(256 * CLASSES, 1);
  int32_t rc = h->bytes && h->off && h->rank && h->joined
                   ? build(h, tokens, token_off, use, score, n_tokens, seed, bad)
                   : PL_E_MEM;
  if (rc) {
    pl_spm_free(h);
    return rc;
  }
  *out = h;
  return 0;
}

void pl_spm_free(pl_spm *h) {
  if (!h) return;
  pl_texts_free(&h->texts);
  free(h->bytes);
  free(h->off);
  free(h->rank);
  free(h->unused);
  free(h->joined);
  free(h);
}

static int32_t find_merge(void *vocab, const uint8_t *text, const pl_sym *left, const pl_sym *right,
                          uint32_t *rank) {
  spm_call *c = vocab;
  const pl_spm *h = c->h;
  int64_t n = (int64_t)left->len + right->len;
  if (n > h->longest) return -1;
  int32_t id = pl_texts_find(&h->texts, text + left->off, n);
  if (id < 0) return -1;
  if (h->unused && h->unused[id] >= 0) c->left_len[h->unused[id]] = left->len;
  *rank = h->rank[id];
  return id;
}

/* Text that no token has. */
static void emit_unknown(spm_call *c, const uint8_t *p, int32_t n) {
  for (int32_t i = 0; i < n; i++) {
    int32_t id = c->h->byte_id[p[i]];
    if (id >= 0) {
      c->ids[c->n_ids++] = id;
      c->after_unk = 0;
    } else if (!c->after_unk) {
      c->ids[c->n_ids++] = c->h->unk;
      c->after_unk = 1;
    }
  }
}

static int32_t emit(spm_call *c, const uint8_t *text, pl_sym sym) {
  const pl_spm *h = c->h;
  c->stack_n = 0;
  for (;;) {
    int32_t unused = sym.id >= 0 && h->unused ? h->unused[sym.id] : -1;
    int32_t cut = unused >= 0 ? c->left_len[unused] : 0;
    if (cut > 0 && cut < sym.len) { /* the left half now, the right half from the stack */
      if (c->stack_n == c->stack_cap) {
        int64_t cap = c->stack_cap ? 2 * c->stack_cap : 16;
        pl_sym *stack = realloc(c->stack, (size_t)cap * sizeof *stack);
        if (!stack) return PL_E_MEM;
        c->stack = stack;
        c->stack_cap = cap;
      }
      pl_sym right = {0, -1, -1, sym.len - cut, sym.off + cut};
      right.id = pl_texts_find(&h->texts, text + right.off, right.len);
      c->stack[c->stack_n++] = right;
      sym.len = cut;
      sym.id = pl_texts_find(&h->texts, text + sym.off, sym.len);
      continue;
    }
    if (sym.id >= 0) {
      c->ids[c->n_ids++] = sym.id;
      c->after_unk = 0;
    } else {
      emit_unknown(c, text + sym.off, sym.len);
    }
    if (!c->stack_n) return 0;
    sym = c->stack[--c->stack_n];
  }
}

/* The characters from *at up to the first border that no token crosses, merged. */
static int32_t encode_piece(spm_call *c, const uint8_t *text, int64_t n, int64_t *at) {
  const pl_spm *h = c->h;
  int64_t i = *at;
  int32_t count = 0;
  while (i < n) {
    int32_t len = pl_tok_char(text + i, n - i);
    if (count && !h->joined[text[i - 1] * CLASSES + class_of(text + i, len)]) break;
    if (count == INT32_MAX || pl_work_reserve(&c->work, count + (int64_t)1)) return PL_E_MEM;
    c->work.sym[count] = (pl_sym){pl_texts_find(&h->texts, text + i, len), count - 1, count + 1, len, i};
    count++;
    i += len;
  }
  c->work.sym[count - 1].next = -1;
  *at = i;
  if (pl_merge(&c->work, count, text, c, find_merge)) return PL_E_MEM;
  for (int32_t s = 0; s >= 0; s = c->work.sym[s].next)
    if (emit(c, text, c->work.sym[s])) return PL_E_MEM;
  return 0;
}

int64_t pl_spm_encode(const pl_spm *h, const uint8_t *text, int64_t n, int32_t *ids, int64_t cap) {
  if (!h || !text || !ids || n < 0 || n > INT32_MAX || cap < n) return PL_E_ARG;
  spm_call c = {.h = h, .ids = ids};
  int32_t rc = 0;
  if (h->n_unused) {
    c.left_len = calloc((size_t)h->n_unused, sizeof *c.left_len);
    if (!c.left_len) return PL_E_MEM;
  }
  for (int64_t at = 0; at < n && !rc;) rc = encode_piece(&c, text, n, &at);
  pl_work_free(&c.work);
  free(c.left_len);
  free(c.stack);
  return rc ? rc : c.n_ids;
}
