/* The merge loop of byte pair encoding: a heap of the pairs that may merge, over a linked list of symbols. A pair
 * is entered when its two symbols become neighbours and never taken out early: that it is outdated shows in its
 * length when it comes up (borders between symbols only ever vanish, so equal ends and equal length mean the same
 * pair). */
#include <stdlib.h>

#include "pyllm.h"
#include "tok/tok.h"

int32_t pl_work_reserve(pl_work *w, int64_t n) {
  if (n <= w->sym_cap) return 0;
  int64_t cap = w->sym_cap ? w->sym_cap : 64;
  while (cap < n) cap *= 2;
  pl_sym *sym = realloc(w->sym, (size_t)cap * sizeof *sym);
  if (!sym) return PL_E_MEM;
  w->sym = sym;
  w->sym_cap = cap;
  return 0;
}

void pl_work_free(pl_work *w) {
  free(w->sym);
  free(w->heap);
  *w = (pl_work){0};
}

static int32_t push(pl_work *w, pl_bigram b) {
  if (w->heap_n == w->heap_cap) {
    int64_t cap = w->heap_cap ? 2 * w->heap_cap : 64;
    pl_bigram *heap = realloc(w->heap, (size_t)cap * sizeof *heap);
    if (!heap) return PL_E_MEM;
    w->heap = heap;
    w->heap_cap = cap;
  }
  int64_t i = w->heap_n++;
  while (i > 0 && b.key < w->heap[(i - 1) / 2].key) {
    w->heap[i] = w->heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  w->heap[i] = b;
  return 0;
}

static pl_bigram pop(pl_work *w) {
  pl_bigram top = w->heap[0], last = w->heap[--w->heap_n];
  int64_t i = 0;
  for (;;) {
    int64_t child = 2 * i + 1;
    if (child >= w->heap_n) break;
    if (child + 1 < w->heap_n && w->heap[child + 1].key < w->heap[child].key) child++;
    if (last.key <= w->heap[child].key) break;
    w->heap[i] = w->heap[child];
    i = child;
  }
  w->heap[i] = last;
  return top;
}

static int32_t consider(pl_work *w, int32_t left, int32_t right, const uint8_t *text, void *vocab,
                        pl_merge_fn find) {
  if (left < 0 || right < 0) return 0;
  const pl_sym *l = &w->sym[left], *r = &w->sym[right];
  uint32_t rank = 0;
  int32_t id = find(vocab, text, l, r, &rank);
  if (id < 0) return 0;
  return push(w, (pl_bigram){(uint64_t)rank << 32 | (uint32_t)left, l->len + r->len, id});
}

int32_t pl_merge(pl_work *w, int32_t n, const uint8_t *text, void *vocab, pl_merge_fn find) {
  w->heap_n = 0;
  for (int32_t i = 1; i < n; i++)
    if (consider(w, i - 1, i, text, vocab, find)) return PL_E_MEM;
  while (w->heap_n) {
    pl_bigram b = pop(w);
    int32_t left = (int32_t)(b.key & 0xFFFFFFFFu), right = w->sym[left].next;
    pl_sym *l = &w->sym[left];
    if (!l->len || right < 0 || l->len + w->sym[right].len != b.len) continue;
    l->id = b.id;
    l->len = b.len;
    l->next = w->sym[right].next;
    w->sym[right].len = 0;
    if (l->next >= 0) w->sym[l->next].prev = left;
    if (consider(w, l->prev, left, text, vocab, find)) return PL_E_MEM;
    if (consider(w, left, l->next, text, vocab, find)) return PL_E_MEM;
  }
  return 0;
}
