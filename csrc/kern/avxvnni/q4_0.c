#include "kern/avxvnni/mm.h"

PL_TILE_ZERO(16 * sizeof(pl_block_q4_0), half8, 2, 8, code_u4)
PL_MM(Q4_0, avxvnni)
