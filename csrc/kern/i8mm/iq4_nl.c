#include "kern/i8mm/mm.h"

PL_PACK(IQ4_NL, i8mm, pl_block_iq4_nl, 32)
PL_TILE_ZERO(BLOCK_IQ4_NL, half4, 32, 0, 0, code_iq4)
PL_MM(IQ4_NL, i8mm)
