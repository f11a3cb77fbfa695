/* tok.h: what the tokenizers share. Hash tables from text and from pairs of numbers to ids, and the merge loop of
 * byte pair encoding.
 *
 * A vocabulary comes from a file that nobody vouches for. The hashes are therefore keyed with a random seed, so
 * that no vocabulary can be made whose tokens all land in one slot, and everything with a size is checked against
 * it. */
#ifndef PYLLM_TOK_H
#define PYLLM_TOK_H
#include <stdint.h>

/* 1 if off [n+1] starts at 0 or later and never falls. */
int32_t pl_tok_spans(const int64_t *off, int32_t n);
/* Bytes of the UTF-8 character at p, of which at most n > 0 are there. An odd byte counts as one character. */
int32_t pl_tok_char(const uint8_t *p, int64_t n);

/* ---- texts to ids ----------------------------------------------------------------------------------------- */

typedef struct pl_text_slot {
  uint32_t tag; /* upper half of the hash */
  int32_t id;   /* -1: empty */
} pl_text_slot;

typedef struct pl_texts {
  const uint8_t *bytes; /* text of id i is bytes [off[i], off[i+1]) */
  const int64_t *off;
  pl_text_slot *slot; /* [mask+1] */
  uint64_t mask, seed;
} pl_texts;

/* Enter the n texts i with use[i] != 0 that are not empty. bytes and off must outlive the table.
 * PL_E_DUP: *bad has the same text as an earlier one. */
int32_t pl_texts_init(pl_texts *t, const uint8_t *bytes, const int64_t *off, const uint8_t *use, int32_t n,
                      uint64_t seed, int32_t *bad);
void pl_texts_free(pl_texts *t);
/* The id of the text p [n], or -1. */
int32_t pl_texts_find(const pl_texts *t, const uint8_t *p, int64_t n);

/* ---- pairs to two numbers --------------------------------------------------------------------------------- */

typedef struct pl_pair {
  uint64_t key;
  int32_t a, b; /* a < 0: empty */
} pl_pair;

typedef struct pl_pairs {
  pl_pair *slot; /* [mask+1] */
  uint64_t mask, seed;
  int64_t n;
} pl_pairs;

/* Room for n pairs. */
int32_t pl_pairs_init(pl_pairs *t, int64_t n, uint64_t seed);
void pl_pairs_free(pl_pairs *t);
/* The entry of this key, or NULL. */
const pl_pair *pl_pairs_find(const pl_pairs *t, uint64_t key);
/* Enter key with a >= 0; 0 if it was there already (it stays as it was), 1 otherwise. */
int32_t pl_pairs_add(pl_pairs *t, uint64_t key, int32_t a, int32_t b);

static inline uint64_t pl_pair_key(int32_t left, int32_t right) {
  return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* ---- a trie ----------------------------------------------------------------------------------------------- */

typedef struct pl_trie {
  pl_pairs edges; /* (node, byte) -> node; the root is 0 */
  int32_t *id;    /* [nodes] of the text that ends here, or -1 */
} pl_trie;

/* Enter the n texts i with use[i] != 0 (use NULL: all) that are not empty, under ids[i] (ids NULL: i) each; of equal
 * texts the first counts. 0 or an error. */
int32_t pl_trie_init(pl_trie *t, const uint8_t *texts, const int64_t *off, const uint8_t *use, const int32_t *ids,
                     int32_t n, uint64_t seed);
void pl_trie_free(pl_trie *t);
/* The node that byte leads to, or -1. */
static inline int32_t pl_trie_next(const pl_trie *t, int32_t node, uint8_t byte) {
  const pl_pair *edge = pl_pairs_find(&t->edges, pl_pair_key(node, byte));
  return edge ? edge->a : -1;
}

/* ---- merging ---------------------------------------------------------------------------------------------- */

/* A piece of the text being merged: a node of a list that is doubly linked by index. */
typedef struct pl_sym {
  int32_t id;         /* token, or -1 */
  int32_t prev, next; /* -1: none */
  int32_t len;        /* bytes; 0: merged into the symbol before it */
  int64_t off;        /* first byte */
} pl_sym;

typedef struct pl_bigram {
  uint64_t key; /* rank, then index of the left symbol: the smallest is merged first */
  int32_t len;  /* bytes of both; anything else found there means that one of them has changed */
  int32_t id;   /* of the merged symbol */
} pl_bigram;

/* The id into which two neighbours merge and the merge's rank (lower first), or -1. */
typedef int32_t (*pl_merge_fn)(void *vocab, const uint8_t *text, const pl_sym *left, const pl_sym *right,
                               uint32_t *rank);

/* Working memory, one per call; all zero at first. */
typedef struct pl_work {
  pl_sym *sym;
  int64_t sym_cap;
  pl_bigram *heap;
  int64_t heap_n, heap_cap;
} pl_work;

/* Room for n symbols. */
int32_t pl_work_reserve(pl_work *w, int64_t n);
void pl_work_free(pl_work *w);
/* Merge symbols 0..n-1, linked in order, until no neighbours merge; the rest hang together by `next` from 0.
 * Always the pair of lowest rank, the leftmost of equals. O(n log n). */
int32_t pl_merge(pl_work *w, int32_t n, const uint8_t *text, void *vocab, pl_merge_fn find);

#endif
