#include "kern/dotprod/mm.h"

PL_PANEL_BYTES(Q2_K, dotprod, 256)
PL_PACK(Q2_K, dotprod, pl_block_q2_K, 256)
PL_TILE_16(64, SUB_Q2_K, 0, 0, code_u2, low_scale, PL_MINIMUMS)
PL_MM(Q2_K, dotprod)
