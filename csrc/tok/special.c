/* Finds the tokens that are recognized in the raw text before anything else (control and user-defined ones): the
 * leftmost, of those the longest. */
#include <stdlib.h>

#include "pyllm.h"
#include "tok/tok.h"

struct pl_special {
  pl_trie trie;
  uint8_t first[256]; /* some token starts with this byte */
};

pl_special *pl_special_new(const uint8_t *texts, const int64_t *off, const int32_t *ids, int32_t n,
                           uint64_t seed) {
  if (!texts || !ids || n < 1 || !pl_tok_spans(off, n)) return NULL;
  for (int32_t i = 0; i < n; i++)
    if (ids[i] < 0) return NULL;
  pl_special *h = calloc(1, sizeof *h);
  if (!h) return NULL;
  if (pl_trie_init(&h->trie, texts, off, NULL, ids, n, seed)) {
    free(h);
    return NULL;
  }
  for (int32_t i = 0; i < n; i++)
    if (off[i + 1] > off[i]) h->first[texts[off[i]]] = 1;
  return h;
}

void pl_special_free(pl_special *h) {
  if (!h) return;
  pl_trie_free(&h->trie);
  free(h);
}

int64_t pl_special_find(const pl_special *h, const uint8_t *text, int64_t n, int64_t *hits, int64_t cap) {
  if (!h || !text || n < 0 || cap < 0 || (cap && !hits)) return PL_E_ARG;
  int64_t count = 0;
  for (int64_t i = 0; i < n;) {
    int64_t end = -1;
    int32_t node = 0, id = -1;
    if (!h->first[text[i]]) {
      i++;
      continue;
    }
    for (int64_t j = i; j < n; j++) {
      node = pl_trie_next(&h->trie, node, text[j]);
      if (node < 0) break;
      if (h->trie.id[node] >= 0) {
        id = h->trie.id[node];
        end = j + 1;
      }
    }
    if (end < 0) {
      i++;
      continue;
    }
    if (count < cap) {
      hits[3 * count] = i;
      hits[3 * count + 1] = end;
      hits[3 * count + 2] = id;
    }
    count++;
    i = end;
  }
  return count;
}
