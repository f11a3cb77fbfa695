#include "kern/dotprod/mm.h"

PL_PANEL_BYTES(Q6_K, dotprod, 256)
PL_PACK(Q6_K, dotprod, pl_block_q6_K, 256)
PL_TILE_16(32, SUB_Q6_K, 0, 2, code_s6, signed_scale, PL_NO_MORE)
PL_MM(Q6_K, dotprod)
