/* A trie of texts over bytes, whose edges (node, byte) -> node lie in one hash table. */
#include <stdlib.h>

#include "pyllm.h"
#include "tok/tok.h"

int32_t pl_trie_init(pl_trie *t, const uint8_t *texts, const int64_t *off, const uint8_t *use, const int32_t *ids,
                     int32_t n, uint64_t seed) {
  int64_t total = 0;
  *t = (pl_trie){0};
  for (int32_t i = 0; i < n; i++)
    if (!use || use[i]) total += off[i + 1] - off[i];
  if (total >= INT32_MAX) return PL_E_ARG;
  t->id = malloc(((size_t)total + 1) * sizeof *t->id);
  if (!t->id || pl_pairs_init(&t->edges, total, seed)) {
    pl_trie_free(t);
    return PL_E_MEM;
  }
  t->id[0] = -1;
  int32_t n_nodes = 1;
  for (int32_t i = 0; i < n; i++) {
    int32_t node = 0;
    if ((use && !use[i]) || off[i + 1] == off[i]) continue;
    for (int64_t j = off[i]; j < off[i + 1]; j++) {
      int32_t next = pl_trie_next(t, node, texts[j]);
      if (next < 0) {
        next = n_nodes++;
        t->id[next] = -1;
        pl_pairs_add(&t->edges, pl_pair_key(node, texts[j]), next, 0);
      }
      node = next;
    }
    if (t->id[node] < 0) t->id[node] = ids ? ids[i] : i;
  }
  return 0;
}

void pl_trie_free(pl_trie *t) {
  pl_pairs_free(&t->edges);
  free(t->id);
  t->id = NULL;
}
