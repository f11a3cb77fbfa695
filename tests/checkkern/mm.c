/* mm.c: kernels of tensor types: deq, mm, pack, panel_bytes. */
#include <string.h>

#include "base/half.h"
#include "check.h"
#include "quant/types.h"

/* Where a block keeps its half floats (scales, minimums), and where its codes; the rest (packed scale codes) is
 * always random. max is the byte that makes the largest codes. */
static const struct layout {
  int type, n_half, half[2], n_codes, code[2], code_bytes[2], max;
} layouts[] = {
    {PL_Q4_0, 1, {0}, 1, {2}, {16}, 0xff},       {PL_Q4_1, 2, {0, 2}, 1, {4}, {16}, 0xff},
    {PL_Q5_0, 1, {0}, 1, {2}, {20}, 0xff},       {PL_Q5_1, 2, {0, 2}, 1, {4}, {20}, 0xff},
    {PL_Q8_0, 1, {0}, 1, {2}, {32}, 0x80},       {PL_Q4_K, 2, {0, 2}, 1, {16}, {128}, 0xff},
    {PL_Q5_K, 2, {0, 2}, 1, {16}, {160}, 0xff},  {PL_Q6_K, 1, {208}, 1, {0}, {192}, 0xff},
    {PL_Q2_K, 2, {80, 82}, 1, {16}, {64}, 0xff}, {PL_Q3_K, 1, {108}, 1, {0}, {96}, 0xff},
    {PL_IQ4_NL, 1, {0}, 1, {2}, {16}, 0xff},     {PL_IQ4_XS, 1, {0}, 1, {8}, {128}, 0xff},
    {PL_MXFP4, 0, {0}, 1, {1}, {16}, 0x77},
};

static const struct layout *layout_of(int type) {
  for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
    if (layouts[i].type == type) return &layouts[i];
  return NULL;
}

int is_q8_type(int type) {
  const pl_type_info *t;
  for (int i = 0; (t = pl_type_at(i)); i++)
    if (t->id == type) return t->act == 1;
  return 0;
}

/* A half float of this mood. */
static uint16_t rnd_half(enum mood mood) {
  switch (mood) {
    case NORMAL:
      return pl_f32_f16((float)rnd_real(-0.1, 0.1));
    case WIDE:
      return pl_f32_f16((rnd() & 1 ? 1.0f : -1.0f) * (float)ldexp(rnd_real(1, 2), rnd_int(-20, 10)));
    case TINY:
      return (uint16_t)(rnd() & 0x83ff); /* subnormal */
    case HUGE_:
      return (uint16_t)(0x7bff ^ (rnd() & 0x803f));
    case ZERO:
      return (uint16_t)(rnd() & 0x8000);
    default:
      return (uint16_t)rnd();
  }
}

/* An E8M0 scale of this mood. */
static uint8_t rnd_e8m0(enum mood mood) {
  switch (mood) {
    case NORMAL:
      return (uint8_t)rnd_int(120, 126);
    case WIDE:
      return (uint8_t)rnd_int(100, 140);
    case TINY:
    case ZERO:
      return (uint8_t)rnd_int(0, 2);
    case HUGE_:
      return (uint8_t)rnd_int(250, 255);
    default:
      return (uint8_t)rnd();
  }
}

static void put_half(uint8_t *p, uint16_t h) { memcpy(p, &h, 2); }

/* Set the codes of a row of blocks to one byte. */
static void set_codes(int type, uint8_t *row, int64_t k, int byte) {
  const struct layout *l = layout_of(type);
  if (!l) return;
  int64_t block = pl_row_bytes(type, pl_type_block(type));
  for (int64_t b = 0; b < k / pl_type_block(type); b++)
    for (int c = 0; c < l->n_codes; c++) memset(row + b * block + l->code[c], byte, (size_t)l->code_bytes[c]);
}

void fill_rows(int type, void *rows, int64_t row_bytes, int32_t nr, int64_t k, enum mood mood, int extreme) {
  const struct layout *l = layout_of(type);
  int64_t block = pl_row_bytes(type, pl_type_block(type)), n = k / pl_type_block(type);
  for (int32_t r = 0; r < nr; r++) {
    uint8_t *row = (uint8_t *)rows + r * row_bytes;
    rnd_bytes(row, (size_t)pl_row_bytes(type, k));
    for (int64_t b = 0; b < n; b++) {
      uint8_t *p = row + b * block;
      if (type == PL_F32) {
        float f = rnd_float(mood);
        memcpy(p, &f, 4);
      } else if (type == PL_F16) {
        put_half(p, rnd_half(mood));
      } else if (type == PL_BF16) {
        put_half(p, (uint16_t)(pl_f32_bits(rnd_float(mood)) >> 16));
      } else {
        for (int h = 0; l && h < l->n_half; h++) put_half(p + l->half[h], rnd_half(mood));
        if (type == PL_MXFP4) *p = rnd_e8m0(mood);
      }
    }
    if (extreme) set_codes(type, row, k, rnd() & 1 ? l ? l->max : 0 : 0);
    if (extreme && rnd() & 1) set_codes(type, row, k, 0x7f);
  }
}

static void fill_q8(pl_q8 *x, int64_t n, enum mood mood, int extreme) {
  for (int64_t b = 0; b < n; b++) {
    int32_t side = rnd() & 1 ? 127 : -127;
    x[b].d = mood == SPECIAL ? rnd_float(SPECIAL) : fabsf(rnd_float(mood));
    x[b].h[0] = x[b].h[1] = 0;
    for (int i = 0; i < 32; i++) {
      x[b].q[i] = (int8_t)(extreme ? side : rnd_int(-127, 127));
      x[b].h[i / 16] = (int16_t)(x[b].h[i / 16] + x[b].q[i]);
    }
    x[b].z = -(x[b].h[0] + x[b].h[1]);
    x[b].s = x[b].d * (float)(x[b].h[0] + x[b].h[1]);
  }
}

void fill_acts(int is_q8, void *acts, int64_t stride, int32_t nt, int64_t k, enum mood mood, int extreme) {
  for (int32_t t = 0; t < nt; t++) {
    void *row = (uint8_t *)acts + t * stride;
    if (is_q8)
      fill_q8(row, k / 32, mood, extreme);
    else
      for (int64_t i = 0; i < k; i++) ((float *)row)[i] = rnd_float(mood);
  }
}

/* One problem: nr rows of W, nt rows of activations. */
typedef struct problem {
  int type, q8;
  int32_t nr, nt;
  int64_t k, row_bytes, stride;
  uint8_t *w, *a;
} problem;

static problem make(int type, int32_t nr, int32_t nt, int64_t k, enum mood wm, enum mood am, int extreme) {
  problem p = {.type = type, .q8 = is_q8_type(type), .nr = nr, .nt = nt, .k = k};
  int64_t align = type == PL_F32 ? 4 : 2, pad = rnd_int(0, 2) * align;
  int64_t act = p.q8 ? k / 32 * (int64_t)sizeof(pl_q8) : k * 4;
  p.row_bytes = pl_row_bytes(type, k) + pad;
  p.stride = act + 4 * rnd_int(0, 3);
  p.w = buffer(SLOT_W, (size_t)(p.row_bytes * nr - pad), (size_t)align);
  p.a = buffer(SLOT_A, (size_t)(p.stride * (nt - 1) + act), 4);
  fill_rows(type, p.w, p.row_bytes, nr, k, wm, extreme);
  fill_acts(p.q8, p.a, p.stride, nt, k, am, extreme);
  return p;
}

static void *packed(const entry *e, const problem *p, enum slot s) {
  const pl_kern_table *t = pl_kern_at(e->level_id);
  if (!t->pack[p->type]) return p->w;
  void *panel = buffer(s, (size_t)t->panel_bytes[p->type](p->k), 64);
  t->pack[p->type](p->w, p->row_bytes, p->nr, p->k, panel);
  check_outside(s);
  return panel;
}

/* Rows of y one after the other, and in disorder (7 t + 3 modulo 64). */
enum { MAX_NT = 64 };
static int32_t in_order[MAX_NT], in_disorder[MAX_NT];
static void make_orders(void) {
  for (int32_t t = 0; t < MAX_NT; t++) in_order[t] = t, in_disorder[t] = (7 * t + 3) % MAX_NT;
}

/* y [nt][16] starts with these: sums that the kernel adds to. */
static void begin(float *y, int32_t nt) {
  for (int32_t i = 0; i < nt * PL_PANEL; i++) y[i] = (float)(i % 7) - 3.0f;
}

static void run_mm(const entry *e, const problem *p, const void *w, const uint8_t *a, int32_t nt, float *y) {
  begin(y, nt);
  ((pl_mm_fn *)e->fn)(w, p->row_bytes, p->nr, p->k, a, p->stride, nt, in_order, y);
  called(y, (size_t)nt * PL_PANEL * 4, SLOT_OUT);
}

static const int32_t some_nt[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33};

/* A level above ref gives the bits of ref, whatever the data. */
static void against_ref(const entry *e, const problem *p, const char *what) {
  float *want = buffer(SLOT_WANT, (size_t)p->nt * PL_PANEL * 4, 4);
  begin(want, p->nt);
  ref()->mm[p->type](p->w, p->row_bytes, p->nr, p->k, p->a, p->stride, p->nt, in_order, want);
  const void *w = packed(e, p, SLOT_PANEL);
  float *y = buffer(SLOT_OUT, (size_t)p->nt * PL_PANEL * 4, 4);
  run_mm(e, p, w, p->a, p->nt, y);
  for (int32_t t = 0; t < p->nt; t++)
    same_floats(y + t * PL_PANEL, want + t * PL_PANEL, p->nr, text("%s, token %d", what, (int)t));
}

/* nt tokens in one call give bit for bit what nt calls give. */
static void consistent(const entry *e, const problem *p, const char *what) {
  const void *w = packed(e, p, SLOT_PANEL);
  size_t bytes = (size_t)p->nt * PL_PANEL * 4;
  float *y = buffer(SLOT_OUT, bytes, 4), *all = buffer(SLOT_OUT2, bytes, 4);
  run_mm(e, p, w, p->a, p->nt, y);
  memcpy(all, y, bytes);
  for (int32_t t = 0; t < p->nt; t++) {
    y = buffer(SLOT_OUT, (size_t)(t + 1) * PL_PANEL * 4, 4);
    begin(y, t + 1);
    ((pl_mm_fn *)e->fn)(w, p->row_bytes, p->nr, p->k, p->a + t * p->stride, p->stride, 1, &t, y);
    check_outside(SLOT_OUT);
    same_floats(all + t * PL_PANEL, y + t * PL_PANEL, p->nr,
                text("%s: token %d of %d against alone", what, (int)t, (int)p->nt));
  }
}

/* k in two calls, the second going on where the first ended, gives what one call gives. */
static void in_parts(const entry *e, const problem *p, const char *what) {
  const pl_kern_table *t = pl_kern_at(e->level_id);
  const int64_t block = pl_type_block(p->type), first = p->k / block / 2 * block;
  if (!first) return;
  const uint8_t *w = packed(e, p, SLOT_PANEL);
  int64_t part = t->pack[p->type] ? t->panel_bytes[p->type](64 * block) / 64 : pl_row_bytes(p->type, block);
  size_t bytes = (size_t)p->nt * PL_PANEL * 4;
  float *y = buffer(SLOT_OUT, bytes, 4), *all = buffer(SLOT_OUT2, bytes, 4);
  run_mm(e, p, w, p->a, p->nt, y);
  memcpy(all, y, bytes);
  begin(y, p->nt);
  ((pl_mm_fn *)e->fn)(w, p->row_bytes, p->nr, first, p->a, p->stride, p->nt, in_order, y);
  ((pl_mm_fn *)e->fn)(w + first / block * part, p->row_bytes, p->nr, p->k - first,
                      p->a + (p->q8 ? first / 32 * (int64_t)sizeof(pl_q8) : first * 4), p->stride, p->nt, in_order,
                      y);
  check_outside(SLOT_OUT);
  for (int32_t i = 0; i < p->nt; i++)
    same_floats(all + i * PL_PANEL, y + i * PL_PANEL, p->nr, text("%s: token %d, k in parts", what, (int)i));
}

/* Rows of y in any order, and none but those, are added to. */
static void scattered(const entry *e, const problem *p, const char *what) {
  const void *w = packed(e, p, SLOT_PANEL);
  float *y = buffer(SLOT_OUT, (size_t)p->nt * PL_PANEL * 4, 4),
        *all = buffer(SLOT_OUT2, sizeof(float[MAX_NT][PL_PANEL]), 4);
  run_mm(e, p, w, p->a, p->nt, y);
  for (int32_t i = 0; i < MAX_NT * PL_PANEL; i++) all[i] = -1.0f;
  for (int32_t t = 0; t < p->nt; t++)
    for (int32_t r = 0; r < PL_PANEL; r++)
      all[in_disorder[t] * PL_PANEL + r] = (float)((t * PL_PANEL + r) % 7) - 3.0f;
  ((pl_mm_fn *)e->fn)(w, p->row_bytes, p->nr, p->k, p->a, p->stride, p->nt, in_disorder, all);
  check_outside(SLOT_OUT2);
  float untouched[PL_PANEL];
  for (int32_t r = 0; r < PL_PANEL; r++) untouched[r] = -1.0f;
  for (int32_t t = 0; t < MAX_NT; t++) {
    int mine = t < p->nt;
    same_floats(all + in_disorder[t] * PL_PANEL, mine ? y + t * PL_PANEL : untouched, mine ? p->nr : PL_PANEL,
                text("%s: token %d, y in disorder", what, (int)t));
  }
}

/* ref against double precision: the error of a chain of n roundings is at most n eps (sum of magnitudes), the
 * magnitude of a weight being the largest that the parts of its block can have. */
static void against_double(const entry *e, const problem *p, const char *what) {
  float *y = buffer(SLOT_OUT, (size_t)p->nt * PL_PANEL * 4, 4);
  run_mm(e, p, p->w, p->a, p->nt, y);
  size_t row = (size_t)pl_row_bytes(p->type, p->k);
  float *v = buffer(SLOT_B, (size_t)p->k * 4, 4), *lo = buffer(SLOT_C, (size_t)p->k * 4, 4);
  float *hi = buffer(SLOT_OUT2, (size_t)p->k * 4, 4);
  uint8_t *copy = buffer(SLOT_PANEL, row, 4);
  pl_deq_fn *deq = ref()->deq[p->type];
  const struct layout *l = layout_of(p->type);
  for (int32_t r = 0; r < p->nr; r++) {
    memcpy(copy, p->w + r * p->row_bytes, row);
    deq(copy, v, p->k);
    set_codes(p->type, copy, p->k, 0);
    deq(copy, lo, p->k);
    set_codes(p->type, copy, p->k, l ? l->max : 0);
    deq(copy, hi, p->k);
    for (int32_t t = 0; t < p->nt; t++) {
      double sum = (double)((t * PL_PANEL + r) % 7) - 3.0, magnitude = 3;
      for (int64_t i = 0; i < p->k; i++) {
        const pl_q8 *x = (const void *)(p->a + t * p->stride);
        double xi =
            p->q8 ? (double)x[i / 32].d * x[i / 32].q[i % 32] : (double)((const float *)(const void *)x)[i];
        sum += v[i] * xi;
        magnitude += (fabs(lo[i]) + 2 * fabs(hi[i])) * fabs(xi);
      }
      double roundings = (p->q8 ? (double)p->k / 32 * 2 : (double)p->k) + 6;
      near_enough(y[t * PL_PANEL + r], sum, roundings * 0x1p-24 * magnitude,
                  text("%s: row %d, token %d", what, (int)r, (int)t));
    }
  }
}

void check_mm(const entry *e) {
  make_orders();
  int block = pl_type_block(e->type_id);
  for (int32_t nr = 1; nr <= PL_PANEL; nr++)
    for (int i = 0; i < 6; i++) {
      int32_t nt = some_nt[(nr * 6 + i) % 11];
      int64_t k = block == 1 ? rnd_int(1, 70) : block * rnd_int(1, block == 256 ? 3 : 9);
      const char *what = title("nr %d, nt %d, k %lld", (int)nr, (int)nt, (long long)k);
      problem p = make(e->type_id, nr, nt, k, NORMAL, NORMAL, 0);
      is_ref(e) ? against_double(e, &p, what) : against_ref(e, &p, what);
      consistent(e, &p, what);
      in_parts(e, &p, what);
      scattered(e, &p, what);
    }
  for (int wm = 0; wm < N_MOODS; wm++)
    for (int am = 0; am < N_MOODS; am++)
      for (int extreme = 0; extreme < 2; extreme++) {
        int32_t nt = some_nt[rnd_int(0, 8)];
        int64_t k = block == 1 ? 70 : block == 256 ? 512 : 160;
        const char *what = title("%s weights, %s activations%s, nt %d", mood_name((enum mood)wm),
                                 mood_name((enum mood)am), extreme ? ", extreme codes" : "", (int)nt);
        problem p = make(e->type_id, PL_PANEL, nt, k, (enum mood)wm, (enum mood)am, extreme);
        if (!is_ref(e)) against_ref(e, &p, what);
        consistent(e, &p, what);
      }
  problem p = make(e->type_id, PL_PANEL, 9, 2048, NORMAL, NORMAL, 1);
  is_ref(e) ? against_double(e, &p, "k 2048, extreme") : against_ref(e, &p, "k 2048, extreme");
}

/* Two panels at once give what mm gives for each, whatever the data, in any rows of y and none but those, and with k in
 * one call or in parts. */
static void as_pair(const entry *e, int32_t nt, int64_t k, enum mood wm, enum mood am, int extreme,
                    const char *what) {
  const pl_kern_table *t = pl_kern_at(e->level_id);
  const int64_t block = pl_type_block(e->type_id);
  problem p = make(e->type_id, 2 * PL_PANEL, nt, k, wm, am, extreme);
  int64_t next = t->panel_bytes[p.type](k) + 64 * rnd_int(0, 2);
  uint8_t *w = buffer(SLOT_PANEL, (size_t)(next + t->panel_bytes[p.type](k)), 64);
  float *want = buffer(SLOT_WANT, sizeof(float[MAX_NT][PL_PANEL]), 4);
  float *y = buffer(SLOT_OUT, sizeof(float[MAX_NT][2][PL_PANEL]), 4);
  for (int i = 0; i < MAX_NT * 2 * PL_PANEL; i++) y[i] = (float)(i % 7) - 3.0f;
  for (int i = 0; i < 2; i++)
    t->pack[p.type](p.w + i * PL_PANEL * p.row_bytes, p.row_bytes, PL_PANEL, k, w + i * next);
  if (nt % 3 || k == block) {
    ((pl_mm2_fn *)e->fn)(w, next, k, p.a, p.stride, nt, in_disorder, y);
  } else { /* in two calls, the second going on where the first ended */
    const int64_t first = rnd_int(1, (int)(k / block) - 1) * block;
    ((pl_mm2_fn *)e->fn)(w, next, first, p.a, p.stride, nt, in_disorder, y);
    ((pl_mm2_fn *)e->fn)(w + first / block * (t->panel_bytes[p.type](64 * block) / 64), next, k - first,
                         p.a + first / 32 * (int64_t)sizeof(pl_q8), p.stride, nt, in_disorder, y);
  }
  called(y, sizeof(float[MAX_NT][2][PL_PANEL]), SLOT_OUT);
  for (int i = 0; i < 2; i++) {
    for (int32_t row = 0; row < MAX_NT; row++)
      for (int32_t r = 0; r < PL_PANEL; r++)
        want[row * PL_PANEL + r] = (float)(((row * 2 + i) * PL_PANEL + r) % 7) - 3.0f;
    ref()->mm[p.type](p.w + i * PL_PANEL * p.row_bytes, p.row_bytes, PL_PANEL, k, p.a, p.stride, nt, in_disorder,
                      want);
    for (int32_t row = 0; row < MAX_NT; row++)
      same_floats(y + (row * 2 + i) * PL_PANEL, want + row * PL_PANEL, PL_PANEL,
                  text("%s: panel %d, row %d", what, i, (int)row));
  }
}

void check_mm2(const entry *e) {
  make_orders();
  int block = pl_type_block(e->type_id);
  for (int32_t nt = 1; nt <= MAX_NT; nt += nt < 14 ? 1 : 10) {
    int64_t k = block * rnd_int(1, block == 256 ? 3 : 19);
    as_pair(e, nt, k, NORMAL, NORMAL, 0, title("nt %d, k %lld", (int)nt, (long long)k));
  }
  for (int wm = 0; wm < N_MOODS; wm++)
    for (int am = 0; am < N_MOODS; am++)
      for (int extreme = 0; extreme < 2; extreme++)
        as_pair(e, rnd_int(1, 9), block == 256 ? 512 : 320, (enum mood)wm, (enum mood)am, extreme,
                title("%s weights, %s activations%s", mood_name((enum mood)wm), mood_name((enum mood)am),
                      extreme ? ", extreme codes" : ""));
  as_pair(e, 9, 2048, NORMAL, NORMAL, 1, "k 2048, extreme");
}

void check_panel_bytes(const entry *e) {
  pl_panel_bytes_fn *size = (pl_panel_bytes_fn *)e->fn;
  int block = pl_type_block(e->type_id);
  for (int i = 1; i <= 128; i++) {
    int64_t k = i <= 64 ? (int64_t)block * i : 256 * (i - 64), got = size(k),
            plain = pl_row_bytes(e->type_id, k) * PL_PANEL;
    called(&got, sizeof got, SLOT_OUT);
    if (got % 64 || got < plain)
      fail("k %lld: %lld bytes for %lld", (long long)k, (long long)got, (long long)plain);
    if (k >= 2048 && (double)got > 1.06 * (double)plain)
      fail("k %lld: %lld bytes are more than 1.06 of %lld", (long long)k, (long long)got, (long long)plain);
  }
}

/* A panel depends on the rows alone: not on what lay there before, nor on what follows the rows. Its contents are
 * judged by mm. */
void check_pack(const entry *e) {
  const pl_kern_table *t = pl_kern_at(e->level_id);
  if (!t->panel_bytes[e->type_id] || !t->mm[e->type_id])
    fail("a pack kernel needs mm and panel_bytes of its level");
  for (int32_t nr = 1; nr <= PL_PANEL; nr++) {
    problem p = make(e->type_id, nr, 1, 1024, NORMAL, NORMAL, 0);
    size_t bytes = (size_t)t->panel_bytes[e->type_id](p.k);
    uint8_t *one = buffer(SLOT_OUT, bytes, 64), *two = buffer(SLOT_PANEL2, bytes, 64);
    rnd_bytes(two, bytes);
    ((pl_pack_fn *)e->fn)(p.w, p.row_bytes, p.nr, p.k, one);
    called(one, bytes, SLOT_OUT);
    ((pl_pack_fn *)e->fn)(p.w, p.row_bytes, p.nr, p.k, two);
    check_outside(SLOT_PANEL2);
    same_bytes(one, two, bytes, text("nr %d, packed twice", (int)nr));
  }
}

/* Without mm of the type: values depend on their block alone, and not on what lay there before. */
static void blocks_alone(const entry *e, const uint8_t *w, const float *y, int64_t k, const char *what) {
  int block = pl_type_block(e->type_id);
  int64_t bytes = pl_row_bytes(e->type_id, block);
  for (int64_t b = 0; b < k / block; b++) {
    float *alone = buffer(SLOT_OUT2, (size_t)block * 4, 4);
    uint8_t *copy = buffer(SLOT_B, (size_t)bytes, 2);
    memset(alone, 0xff, (size_t)block * 4);
    memcpy(copy, w + b * bytes, (size_t)bytes);
    ((pl_deq_fn *)e->fn)(copy, alone, block);
    check_outside(SLOT_OUT2);
    same_floats(y + b * block, alone, block, text("%s, block %lld alone", what, (long long)b));
  }
}

/* ref: value i agrees with the product of the block with a unit activation at i. Other levels: the bits of ref. */
void check_deq(const entry *e) {
  make_orders();
  int block = pl_type_block(e->type_id);
  pl_deq_fn *deq = (pl_deq_fn *)e->fn;
  for (int mood = 0; mood < N_MOODS; mood++)
    for (int n = 1; n <= 5; n++) {
      int64_t k = (int64_t)block * n * (block == 1 ? 7 : 1);
      problem p = make(e->type_id, 1, 1, k, (enum mood)mood, NORMAL, n == 5);
      const char *what = title("%s scales, %lld values", mood_name((enum mood)mood), (long long)k);
      float *y = buffer(SLOT_OUT, (size_t)k * 4, 4), *want = buffer(SLOT_WANT, (size_t)k * 4, 4);
      deq(p.w, y, k);
      called(y, (size_t)k * 4, SLOT_OUT);
      if (!is_ref(e)) {
        ref()->deq[e->type_id](p.w, want, k);
        same_floats(y, want, k, what);
        continue;
      }
      if (!ref()->mm[e->type_id]) {
        blocks_alone(e, p.w, y, k, what);
        continue;
      }
      if (mood != NORMAL && mood != WIDE) continue;
      for (int64_t i = 0; i < k; i++) {
        float out[PL_PANEL], x = 1;
        size_t bytes = (size_t)(p.q8 ? k / 32 * (int64_t)sizeof(pl_q8) : k * 4);
        uint8_t *a = buffer(SLOT_A, bytes, 4);
        memset(a, 0, bytes);
        if (p.q8) ((pl_q8 *)(void *)a)[i / 32] = (pl_q8){.d = 1, .s = 1, .z = -1};
        if (p.q8) {
          pl_q8 *b = &((pl_q8 *)(void *)a)[i / 32];
          b->q[i % 32] = 1;
          b->h[i % 32 / 16] = 1;
        } else {
          memcpy(a + i * 4, &x, 4);
        }
        for (int i = 0; i < PL_PANEL; i++) out[i] = 0;
        ref()->mm[e->type_id](p.w, p.row_bytes, 1, k, a, p.stride, 1, in_order, out);
        double minimum = 0;
        const struct layout *l = layout_of(e->type_id);
        if (l && l->n_half == 2) { /* d q and m are rounded apart in deq, together in mm */
          uint16_t h;
          memcpy(&h, p.w + i / block * pl_row_bytes(e->type_id, block) + l->half[1], 2);
          minimum = fabs((double)pl_f16_f32(h)) * (block == 256 ? 63 : 1);
        }
        near_enough(y[i], out[0], 0x1p-22 * (fabs((double)out[0]) + minimum),
                    text("%s, value %lld", what, (long long)i));
      }
    }
}
