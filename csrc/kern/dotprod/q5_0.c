#include "kern/dotprod/mm.h"

PL_PANEL_BYTES(Q5_0, dotprod, 32)
PL_PACK(Q5_0, dotprod, pl_block_q5_0, 32)
PL_TILE_ZERO(BLOCK_Q5_0, half4, 32, 0, 3, code_s5)
PL_MM(Q5_0, dotprod)
