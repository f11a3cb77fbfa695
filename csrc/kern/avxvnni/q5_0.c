#include "kern/avxvnni/mm.h"

PL_TILE_ZERO(16 * sizeof(pl_block_q5_0), half8, 2, 16, code_u5)
PL_MM(Q5_0, avxvnni)
