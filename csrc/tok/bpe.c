/* Byte-level byte pair encoding (Radford et al. 2019). The file spells a token in an alphabet of 256 printable
 * characters, one per byte; here tokens are the bytes themselves, and a merge is a pair of ids with a rank. */
#include <stdlib.h>
#include <string.h>

#include "pyllm.h"
#include "tok/tok.h"

struct pl_bpe {
  pl_pairs merges;      /* (left id, right id) -> rank, merged id */
  pl_texts words;       /* every token, if whole words are looked up first */
  int32_t byte_id[256]; /* the token of a single byte, or -1 */
  uint8_t *bytes;
  int64_t *off;
};

/* GPT-2's alphabet: bytes that print stand for themselves, the others for the characters from 256 on, in order. */
static void alphabet(int16_t byte_of[512]) {
  int16_t next = 256;
  memset(byte_of, 0xFF, 512 * sizeof *byte_of);
  for (int16_t b = 0; b < 256; b++) {
    int prints = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    byte_of[prints ? b : next++] = b;
  }
}

/* The bytes that p [n] spells, to out; -1 if it has a character outside the alphabet. */
static int64_t spell(const int16_t byte_of[512], const uint8_t *p, int64_t n, uint8_t *out) {
  int64_t len = 0;
  for (int64_t i = 0; i < n; len++) {
    int32_t c = p[i++];
    if (c >= 0xC2 && c < 0xC8 && i < n)
      c = (c & 0x1F) << 6 | (p[i++] & 0x3F);
    else if (c >= 0x80)
      return -1;
    if (byte_of[c] < 0) return -1;
    out[len] = (uint8_t)byte_of[c];
  }
  return len;
}

/* Enter merge i, "LEFT RIGHT", spelled at p [n]; buf has room for it. */
static int32_t add_merge(pl_bpe *h, const int16_t byte_of[512], const uint8_t *p, int64_t n, int32_t i,
                         uint8_t *buf) {
  const uint8_t *space = n > 1 ? memchr(p + 1, ' ', (size_t)(n - 1)) : NULL;
  if (!space) return PL_E_VOCAB;
  int64_t left_n = spell(byte_of, p, space - p, buf);
  if (left_n < 0) return PL_E_VOCAB;
  int64_t right_n = spell(byte_of, space + 1, p + n - space - 1, buf + left_n);
  if (right_n < 0) return PL_E_VOCAB;
  int32_t left = pl_texts_find(&h->words, buf, left_n);
  int32_t right = pl_texts_find(&h->words, buf + left_n, right_n);
  int32_t id = pl_texts_find(&h->words, buf, left_n + right_n);
  if (left < 0 || right < 0 || id < 0) return PL_E_VOCAB;
  return pl_pairs_add(&h->merges, pl_pair_key(left, right), i, id) ? 0 : PL_E_DUP;
}

static int32_t build(pl_bpe *h, const uint8_t *tokens, const int64_t *token_off, uint8_t *use, int32_t n_tokens,
                     const uint8_t *merges, const int64_t *merge_off, int32_t n_merges, uint64_t seed,
                     uint8_t *buf, int32_t *bad) {
  int16_t byte_of[512];
  alphabet(byte_of);
  h->off[0] = 0;
  for (int32_t i = 0; i < n_tokens; i++) {
    int64_t n = token_off[i + 1] - token_off[i];
    int64_t len = use[i] ? spell(byte_of, tokens + token_off[i], n, h->bytes + h->off[i]) : 0;
    if (len < 0) use[i] = 0, len = 0;
    h->off[i + 1] = h->off[i] + len;
  }
  int32_t rc = pl_texts_init(&h->words, h->bytes, h->off, use, n_tokens, seed, bad);
  if (rc) return rc;
  for (int32_t b = 0; b < 256; b++) {
    uint8_t byte = (uint8_t)b;
    h->byte_id[b] = pl_texts_find(&h->words, &byte, 1);
  }
  if (pl_pairs_init(&h->merges, n_merges, seed)) return PL_E_MEM;
  for (int32_t i = 0; i < n_merges; i++) {
    rc = add_merge(h, byte_of, merges + merge_off[i], merge_off[i + 1] - merge_off[i], i, buf);
    if (rc) {
      *bad = n_tokens + i;
      return rc;
    }
  }
  return 0;
}

int32_t pl_bpe_new(const uint8_t *tokens, const int64_t *token_off, const uint8_t *use, int32_t n_tokens,
                   const uint8_t *merges, const int64_t *merge_off, int32_t n_merges, int32_t whole_words,
                   uint64_t seed, pl_bpe **out, int32_t *bad) {
  if (!tokens || !use || !merges || !out || !bad || n_tokens < 1 || n_merges < 0) return PL_E_ARG;
  *out = NULL;
  *bad = -1;
  if (!pl_tok_spans(token_off, n_tokens) || !pl_tok_spans(merge_off, n_merges)) return PL_E_ARG;
  int64_t longest = 0;
  for (int32_t i = 0; i < n_merges; i++)
    if (merge_off[i + 1] - merge_off[i] > longest) longest = merge_off[i + 1] - merge_off[i];
  pl_bpe *h = calloc(1, sizeof *h);
  uint8_t *buf = malloc((size_t)longest + 1), *used = malloc((size_t)n_tokens);
  int32_t rc = PL_E_MEM;
  if (h && buf && used) {
    h->bytes = malloc((size_t)(token_off[n_tokens] - token_off[0]) + 1);
    h->off = malloc(((size_t)n_tokens + 1) * sizeof *h->off);
    memcpy(used, use, (size_t)n_tokens);
    if (h->bytes && h->off)
      rc = build(h, tokens, token_off, used, n_tokens, merges, merge_off, n_merges, seed, buf, bad);
  }
  free(buf);
  free(used);
  if (rc) {
    pl_bpe_free(h);
    return rc;
  }
  if (!whole_words) {
    pl_texts_free(&h->words);
    free(h->bytes);
    free(h->off);
    h->bytes = NULL;
    h->off = NULL;
  }
  *out = h;
  return 0;
}

void pl_bpe_free(pl_bpe *h) {
  if (!h) return;
  pl_pairs_free(&h->merges);
  pl_texts_free(&h->words);
  free(h->bytes);
  free(h->off);
  free(h);
}

static int32_t find_merge(void *vocab, const uint8_t *text, const pl_sym *left, const pl_sym *right,
                          uint32_t *rank) {
  const pl_bpe *h = vocab;
  (void)text;
  const pl_pair *p = pl_pairs_find(&h->merges, pl_pair_key(left->id, right->id));
  if (!p) return -1;
  *rank = (uint32_t)p->a;
  return p->b;
}

/* One word, p [n] with n > 0, to ids [n]: their number, or an error. */
static int32_t encode_word(const pl_bpe *h, pl_work *w, const uint8_t *p, int32_t n, int32_t *ids) {
  if (h->words.slot) {
    int32_t id = pl_texts_find(&h->words, p, n);
    if (id >= 0) {
      ids[0] = id;
      return 1;
    }
  }
  if (pl_work_reserve(w, n)) return PL_E_MEM;
  int32_t m = 0, count = 0;
  for (int32_t i = 0; i < n; i++) {
    if (h->byte_id[p[i]] < 0) continue; /* as if it were not there: what lies beside it may merge */
    w->sym[m] = (pl_sym){h->byte_id[p[i]], m - 1, m + 1, 1, i};
    m++;
  }
  if (!m) return 0;
  w->sym[m - 1].next = -1;
  if (pl_merge(w, m, p, (void *)(uintptr_t)h, find_merge)) return PL_E_MEM;
  for (int32_t i = 0; i >= 0; i = w->sym[i].next) ids[count++] = w->sym[i].id;
  return count;
}

int64_t pl_bpe_encode(const pl_bpe *h, const uint8_t *text, const int64_t *word_off, int32_t n_words, int32_t *ids,
                      int64_t cap, int64_t *ids_end) {
  if (!h || !text || !ids || !ids_end || n_words < 0 || !pl_tok_spans(word_off, n_words)) return PL_E_ARG;
  if (cap < word_off[n_words] - word_off[0]) return PL_E_ARG;
  pl_work w = {0};
  int64_t count = 0;
  for (int32_t i = 0; i < n_words && count >= 0; i++) {
    int64_t n = word_off[i + 1] - word_off[i];
    int32_t got = n > INT32_MAX ? PL_E_ARG
                  : n           ? encode_word(h, &w, text + word_off[i], (int32_t)n, ids + count)
                                : 0;
    count = got < 0 ? got : count + got;
    ids_end[i] = count;
  }
  pl_work_free(&w);
  return count;
}
