/* lanes.h: sixteen floats side by side, in plain C. The encoders (quant/enc/) are written with these; other rooms have
 * the same with their instructions, to the same bits. */
#ifndef PL_REF_LANES_H
#define PL_REF_LANES_H
#include "base/half.h"
#include "kern/tile.h"

typedef struct {
  float v[16];
} v16;
typedef struct {
  uint32_t v[16];
} m16; /* all bits or none */

/* Calls: inlined into the encoders, sixteen scalars in the place of one register take compilers minutes. */
#define V_FN static __attribute__((noinline, unused))

#define V_EACH(expression)                          \
  v16 r;                                            \
  for (int i = 0; i < 16; i++) r.v[i] = expression; \
  return r

V_FN v16 v_set(float a) { V_EACH(a); }
V_FN v16 v_load(const float *p) { V_EACH(p[i]); }
V_FN void v_store(float *p, v16 a) { memcpy(p, a.v, sizeof a.v); }
V_FN v16 v_add(v16 a, v16 b) { V_EACH(a.v[i] + b.v[i]); }
V_FN v16 v_sub(v16 a, v16 b) { V_EACH(a.v[i] - b.v[i]); }
V_FN v16 v_mul(v16 a, v16 b) { V_EACH(a.v[i] * b.v[i]); }
V_FN v16 v_div(v16 a, v16 b) { V_EACH(a.v[i] / b.v[i]); }
/* The second where they are equal. */
V_FN v16 v_min(v16 a, v16 b) { V_EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
V_FN v16 v_max(v16 a, v16 b) { V_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
V_FN m16 v_gt(v16 a, v16 b) {
  m16 r;
  for (int i = 0; i < 16; i++) r.v[i] = a.v[i] > b.v[i] ? ~0u : 0;
  return r;
}
/* a where m, else b. */
V_FN v16 v_select(m16 m, v16 a, v16 b) {
  V_EACH(pl_bits_f32((pl_f32_bits(a.v[i]) & m.v[i]) | (pl_f32_bits(b.v[i]) & ~m.v[i])));
}
/* Entries of a table at whole numbers 0 .. 15. */
V_FN v16 v_lookup(const float *table /* [16] */, v16 at) { V_EACH(table[(int)at.v[i] & 15]); }
/* Whole numbers 0 .. 255 or -128 .. 127 to bytes. */
V_FN void v_bytes(uint8_t *p, v16 a) {
  for (int i = 0; i < 16; i++) p[i] = (uint8_t)(int)a.v[i];
}
/* To the nearest half float, given as such and as float. */
V_FN v16 v_half(v16 a, uint16_t *h /* [16] */) {
  for (int i = 0; i < 16; i++) h[i] = pl_f32_f16(a.v[i]);
  V_EACH(pl_f16_f32(h[i]));
}
/* t [16][16] = the transpose of 16 values from each of p [16]. */
V_FN void v_columns(const float *const *p, v16 *t) {
  for (int r = 0; r < 16; r++)
    for (int i = 0; i < 16; i++) t[i].v[r] = p[r][i];
}
/* 16 bytes to each of p [16] from columns of c [16][16]. */
V_FN void v_scatter(const uint8_t *c, uint8_t *const *p) {
  for (int r = 0; r < 16; r++)
    for (int i = 0; i < 16; i++) p[r][i] = c[16 * i + r];
}

#endif
