#include "kern/dotprod/mm.h"

PL_PANEL_BYTES(Q3_K, dotprod, 256)
PL_PACK(Q3_K, dotprod, pl_block_q3_K, 256)
PL_TILE_16(32, SUB_Q3_K, 0, 5, code_s3, signed_scale, PL_NO_MORE)
PL_MM(Q3_K, dotprod)
