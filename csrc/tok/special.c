/* Finds the tokens that are recognized in the raw text before anything else (control and user-defined ones): the
 * leftmost, of those the longest. A trie whose edges (node, byte) -> node lie in one hash table. */
#include <stdlib.h>
#include <string.h>

#include "pyllm.h"
#include "tok/tok.h"

struct pl_special {
  pl_pairs edges;     /* (node, byte) -> node */
  int32_t *id;        /* [n_nodes] of the token that ends here, or -1 */
  uint8_t first[256]; /* some token starts with this byte */
};

static void build(pl_special *h, const uint8_t *texts, const int64_t *off, const int32_t *ids, int32_t n) {
  int32_t n_nodes = 1;
  h->id[0] = -1;
  for (int32_t i = 0; i < n; i++) {
    int32_t node = 0;
    if (off[i + 1] == off[i]) continue;
    for (int64_t j = off[i]; j < off[i + 1]; j++) {
      uint64_t key = pl_pair_key(node, texts[j]);
      const pl_pair *edge = pl_pairs_find(&h->edges, key);
      if (edge) {
        node = edge->a;
      } else {
        pl_pairs_add(&h->edges, key, n_nodes, 0);
        h->id[n_nodes] = -1;
        node = n_nodes++;
      }
    }
    if (h->id[node] < 0) h->id[node] = ids[i];
    h->first[texts[off[i]]] = 1;
  }
}

pl_special *pl_special_new(const uint8_t *texts, const int64_t *off, const int32_t *ids, int32_t n,
                           uint64_t seed) {
  if (!texts || !ids || n < 1 || !pl_tok_spans(off, n)) return NULL;
  int64_t total = off[n] - off[0];
  for (int32_t i = 0; i < n; i++)
    if (ids[i] < 0) return NULL;
  if (total >= INT32_MAX) return NULL;
  pl_special *h = calloc(1, sizeof *h);
  if (!h) return NULL;
  h->id = malloc(((size_t)total + 1) * sizeof *h->id);
  if (!h->id || pl_pairs_init(&h->edges, total, seed)) {
    pl_special_free(h);
    return NULL;
  }
  build(h, texts, off, ids, n);
  return h;
}

void pl_special_free(pl_special *h) {
  if (!h) return;
  pl_pairs_free(&h->edges);
  free(h->id);
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
      const pl_pair *edge = pl_pairs_find(&h->edges, pl_pair_key(node, text[j]));
      if (!edge) break;
      node = edge->a;
      if (h->id[node] >= 0) {
        id = h->id[node];
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
