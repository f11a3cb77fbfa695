#include "quant/types.h"

#include <stddef.h>

#include "kern/kern.h"
#include "pyllm.h"

static const pl_type_info types[] = {
#define PL_T(name, id, block, bytes, act) {#name, id, block, bytes, PL_ACT_##act},
#include "quant/types.inc"
#undef PL_T
};

const pl_type_info *pl_type_at(int32_t i) {
  return i >= 0 && i < (int32_t)(sizeof types / sizeof *types) ? &types[i] : NULL;
}

int32_t pl_dequantize(int32_t type, const void *src, float *dst, int64_t n) {
  if (type < 0 || type >= PL_N_TYPES || !pl_kern()->deq[type]) return PL_E_TYPE;
  pl_kern()->deq[type](src, dst, n);
  return 0;
}

int32_t pl_act_bytes(void) { return sizeof(pl_q8); }

static int64_t round_up(int64_t n, int64_t m) { return (n + m - 1) / m * m; }

int64_t pl_pack_bytes(int32_t type, int64_t rows, int64_t cols) {
  if (type < 0 || type >= PL_N_TYPES || !pl_kern()->mm[type]) return PL_E_TYPE;
  if (!pl_kern()->pack[type]) return 0;
  return round_up(rows, PL_PANEL) / PL_PANEL * pl_kern()->panel_bytes[type](cols);
}

static const pl_type_info *find(int32_t type) {
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (types[i].id == type) return &types[i];
  return NULL;
}

int64_t pl_row_bytes(int32_t type, int64_t cols) {
  const pl_type_info *t = find(type);
  return t ? cols / t->block * t->bytes : 0;
}

int32_t pl_type_block(int32_t type) {
  const pl_type_info *t = find(type);
  return t ? t->block : 0;
}

int32_t pl_type_act(int32_t type) {
  const pl_type_info *t = find(type);
  return t ? t->act : PL_ACT_NONE;
}

int32_t pl_pack(int32_t type, const void *src, int64_t rows, int64_t cols, int64_t first, int64_t last,
                void *dst) {
  if (pl_pack_bytes(type, rows, cols) <= 0) return PL_E_TYPE;
  const pl_kern_table *k = pl_kern();
  int64_t row_bytes = pl_row_bytes(type, cols), panel = k->panel_bytes[type](cols);
  for (int64_t p = first; p < last; p++) {
    int64_t nr = rows - p * PL_PANEL;
    k->pack[type]((const uint8_t *)src + p * PL_PANEL * row_bytes, row_bytes,
                  nr < PL_PANEL ? (int32_t)nr : PL_PANEL, cols, (uint8_t *)dst + p * panel);
  }
  return 0;
}
