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

static inline int64_t pl_align64(int64_t n) { return (n + 63) / 64 * 64; }

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
/* Panel p of nr rows as the kernel reads it; scratch: where it is made if need be. */
const uint8_t *pl_panel(const pl_run_ctx *c, const pl_source *s, int64_t p, int32_t nr, uint8_t *scratch);

#endif
