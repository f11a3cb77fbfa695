#include "kern/dotprod/mm.h"

PL_PANEL_BYTES(Q4_K, dotprod, 256)
PL_PACK(Q4_K, dotprod, pl_block_q4_K, 256)
PL_TILE_K(SUB_Q4_K, 0, 0, code_u4)
PL_MM(Q4_K, dotprod)
