#include "kern/dotprod/mm.h"

PL_PANEL_BYTES(Q4_1, dotprod, 32)
PL_PACK(Q4_1, dotprod, pl_block_q4_1, 32)
PL_TILE_MIN(BLOCK_Q4_1, 0, 0, code_u4)
PL_MM(Q4_1, dotprod)
