/* mm.h: what matmuls of one matrix (mm.c) and of many (moe.c) share. */
#ifndef PL_MM_H
#define PL_MM_H
#include "prog/program.h"

enum {
  PL_Y_ROWS = 96,      /* activation rows per kernel call */
  PL_LISTED_ABOVE = 4, /* tokens for which a list of second terms does not pay */
  PL_PAIRS_FROM = 33   /* activation rows from which two panels at once pay */
};
/* [PL_Y_ROWS] 0, 1, 2, ...: rows of y for kernels that fill them one after the other. */
extern const int32_t pl_in_order[];

/* Where the mm kernel will find a panel. */
typedef struct pl_source {
  const pl_view *w;
  int32_t type;      /* type the kernel runs on: the weight's, or F32 when the weight is widened */
  int32_t widen;     /* dequantize to plain float rows first */
  int32_t repack;    /* pack plain rows before the kernel */
  int64_t row_bytes; /* of the plain rows that the kernel or the packer reads */
} pl_source;

pl_source pl_source_of(const pl_kern_table *k, const pl_op *op, const pl_view *w);
/* Bytes that one panel, or two that are not widened, need. */
int64_t pl_source_scratch(const pl_op *op, const pl_view *w);
/* Bytes in a panel (or, where the kernel reads plain rows, in each row) of a unit of so many blocks of 32 values. */
int64_t pl_unit_bytes(const pl_run_ctx *c, const pl_source *s, int32_t unit);
/* Whether a unit of second terms has any. */
static inline uint8_t pl_has_unit(const pl_q8 *lo, int32_t unit) {
  for (int32_t b = 0; b < unit; b++)
    if (lo[b].d != 0) return 1;
  return 0;
}
/* One panel or two neighbours (never of widened weights), as the kernels read them. */
typedef struct pl_panels {
  const uint8_t *w;
  int64_t next;     /* bytes from the first to the second; 0: there is one */
  int32_t nr, cols; /* rows of the first that exist; columns of y, 16 or 32 */
} pl_panels;

/* Panels p and, if n is 2, p + 1, with nr and nr2 rows; scratch: where they are made if need be. */
pl_panels pl_get_panels(const pl_run_ctx *c, const pl_source *s, int64_t p, int64_t n, int32_t nr, int32_t nr2,
                        uint8_t *scratch);
/* y [at[t]][cols] += nt rows of activations times k columns of the panels, from byte w of the first. */
void pl_run_panels(const pl_run_ctx *c, const pl_source *s, const pl_panels *v, int64_t w, int64_t k,
                   const void *a, int64_t a_stride, int32_t nt, const int32_t *at, float *y);

#endif
