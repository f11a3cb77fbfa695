/* WordPiece (Schuster and Nakajima 2012; as in BERT, Devlin et al. 2018): the longest token that starts the word,
 * then the longest of what continues it, and so on. A word that does not come out whole is the unknown token. */
#include <stdlib.h>
#include <string.h>

#include "pyllm.h"
#include "tok/tok.h"

#define STARTS 1
#define CONTINUES 2

struct pl_wpm {
  pl_trie starts, continues;
  int32_t unk;
};

static int32_t build(pl_wpm *h, const uint8_t *tokens, const int64_t *token_off, const uint8_t *use,
                     int32_t n_tokens, uint64_t seed) {
  uint8_t *some = malloc((size_t)n_tokens);
  if (!some) return PL_E_MEM;
  for (int32_t i = 0; i < n_tokens; i++) some[i] = use[i] == STARTS;
  int32_t rc = pl_trie_init(&h->starts, tokens, token_off, some, NULL, n_tokens, seed);
  for (int32_t i = 0; i < n_tokens; i++) some[i] = use[i] == CONTINUES;
  if (!rc) rc = pl_trie_init(&h->continues, tokens, token_off, some, NULL, n_tokens, seed);
  free(some);
  return rc;
}

int32_t pl_wpm_new(const uint8_t *tokens, const int64_t *token_off, const uint8_t *use, int32_t n_tokens,
                   int32_t unk, uint64_t seed, pl_wpm **out) {
  if (!tokens || !use || !out || n_tokens < 1 || unk < 0 || unk >= n_tokens) return PL_E_ARG;
  *out = NULL;
  if (!pl_tok_spans(token_off, n_tokens)) return PL_E_ARG;
  pl_wpm *h = calloc(1, sizeof *h);
  if (!h) return PL_E_MEM;
  h->unk = unk;
  int32_t rc = build(h, tokens, token_off, use, n_tokens, seed);
  if (rc) {
    pl_wpm_free(h);
    return rc;
  }
  *out = h;
  return 0;
}

void pl_wpm_free(pl_wpm *h) {
  if (!h) return;
  pl_trie_free(&h->starts);
  pl_trie_free(&h->continues);
  free(h);
}

/* One word, p [n] with n > 0, to ids [n]: their number. */
static int64_t encode_word(const pl_wpm *h, const uint8_t *p, int64_t n, int32_t *ids) {
  int64_t count = 0;
  for (int64_t i = 0; i < n;) {
    const pl_trie *t = i ? &h->continues : &h->starts;
    int32_t node = 0, id = -1;
    int64_t end = i;
    for (int64_t j = i; j < n; j++) {
      node = pl_trie_next(t, node, p[j]);
      if (node < 0) break;
      if (t->id[node] >= 0) {
        id = t->id[node];
        end = j + 1;
      }
    }
    if (id < 0) {
      ids[0] = h->unk;
      return 1;
    }
    ids[count++] = id;
    i = end;
  }
  return count;
}

int64_t pl_wpm_encode(const pl_wpm *h, const uint8_t *text, const int64_t *word_off, int32_t n_words, int32_t *ids,
                      int64_t cap, int64_t *ids_end) {
  if (!h || !text || !ids || !ids_end || n_words < 0 || !pl_tok_spans(word_off, n_words)) return PL_E_ARG;
  if (cap < word_off[n_words] - word_off[0]) return PL_E_ARG;
  int64_t count = 0;
  for (int32_t i = 0; i < n_words; i++) {
    int64_t n = word_off[i + 1] - word_off[i];
    if (n) count += encode_word(h, text + word_off[i], n, ids + count);
    ids_end[i] = count;
  }
  return count;
}
