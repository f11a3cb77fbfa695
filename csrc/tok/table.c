/* Hash tables with open addressing and linear probing, never more than two thirds full, filled once. */
#include <stdlib.h>
#include <string.h>

#include "pyllm.h"
#include "tok/tok.h"

int32_t pl_tok_spans(const int64_t *off, int32_t n) {
  if (!off || n < 0 || off[0] < 0) return 0;
  for (int32_t i = 0; i < n; i++)
    if (off[i + 1] < off[i]) return 0;
  return 1;
}

int32_t pl_tok_char(const uint8_t *p, int64_t n) {
  int32_t len = p[0] < 0xC0 ? 1 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
  return len <= n ? len : (int32_t)n;
}

/* Every step is a bijection of the state; the seed makes the state unknown to who wrote the texts. */
static uint64_t mix(uint64_t h, uint64_t x) {
  h = (h ^ x) * 0x9E3779B97F4A7C15u;
  h ^= h >> 29;
  h *= 0xD6E8FEB86659FD93u;
  return h ^ h >> 32;
}

static uint64_t hash_text(const uint8_t *p, int64_t n, uint64_t seed) {
  uint64_t h = mix(seed, (uint64_t)n), x = 0;
  for (; n >= 8; p += 8, n -= 8) {
    memcpy(&x, p, 8);
    h = mix(h, x);
  }
  if (n) {
    x = 0;
    memcpy(&x, p, (size_t)n);
    h = mix(h, x);
  }
  return h;
}

/* The number of slots for n entries. */
static uint64_t slots(int64_t n) {
  uint64_t size = 16;
  while (size < (uint64_t)n + (uint64_t)n / 2) size *= 2;
  return size;
}

int32_t pl_texts_init(pl_texts *t, const uint8_t *bytes, const int64_t *off, const uint8_t *use, int32_t n,
                      uint64_t seed, int32_t *bad) {
  int64_t used = 0;
  for (int32_t i = 0; i < n; i++) used += use[i] != 0;
  uint64_t size = slots(used);
  *t = (pl_texts){bytes, off, malloc(size * sizeof(pl_text_slot)), size - 1, seed};
  if (!t->slot) return PL_E_MEM;
  for (uint64_t s = 0; s < size; s++) t->slot[s] = (pl_text_slot){0, -1};
  for (int32_t i = 0; i < n; i++) {
    int64_t len = off[i + 1] - off[i];
    if (!use[i] || !len) continue;
    uint64_t h = hash_text(bytes + off[i], len, seed), s = h & t->mask;
    uint32_t tag = (uint32_t)(h >> 32);
    for (; t->slot[s].id >= 0; s = (s + 1) & t->mask) {
      int32_t other = t->slot[s].id;
      if (t->slot[s].tag == tag && off[other + 1] - off[other] == len &&
          !memcmp(bytes + off[other], bytes + off[i], (size_t)len)) {
        *bad = i;
        return PL_E_DUP;
      }
    }
    t->slot[s] = (pl_text_slot){tag, i};
  }
  return 0;
}

void pl_texts_free(pl_texts *t) {
  free(t->slot);
  t->slot = NULL;
}

int32_t pl_texts_find(const pl_texts *t, const uint8_t *p, int64_t n) {
  uint64_t h = hash_text(p, n, t->seed), s = h & t->mask;
  uint32_t tag = (uint32_t)(h >> 32);
  for (; t->slot[s].id >= 0; s = (s + 1) & t->mask) {
    int32_t id = t->slot[s].id;
    if (t->slot[s].tag == tag && t->off[id + 1] - t->off[id] == n && !memcmp(t->bytes + t->off[id], p, (size_t)n))
      return id;
  }
  return -1;
}

int32_t pl_pairs_init(pl_pairs *t, int64_t n, uint64_t seed) {
  uint64_t size = slots(n);
  *t = (pl_pairs){malloc(size * sizeof(pl_pair)), size - 1, seed, 0};
  if (!t->slot) return PL_E_MEM;
  for (uint64_t s = 0; s < size; s++) t->slot[s].a = -1;
  return 0;
}

void pl_pairs_free(pl_pairs *t) {
  free(t->slot);
  t->slot = NULL;
}

const pl_pair *pl_pairs_find(const pl_pairs *t, uint64_t key) {
  for (uint64_t s = mix(t->seed, key) & t->mask; t->slot[s].a >= 0; s = (s + 1) & t->mask)
    if (t->slot[s].key == key) return &t->slot[s];
  return NULL;
}

int32_t pl_pairs_add(pl_pairs *t, uint64_t key, int32_t a, int32_t b) {
  uint64_t s = mix(t->seed, key) & t->mask;
  for (; t->slot[s].a >= 0; s = (s + 1) & t->mask)
    if (t->slot[s].key == key) return 0;
  t->slot[s] = (pl_pair){key, a, b};
  t->n++;
  return 1;
}
