#include "kern/i8mm/mm.h"

PL_PACK(IQ4_XS, i8mm, pl_block_iq4_xs, 256)
PL_TILE_XS(SUB_IQ4_XS, code_iq4)
PL_MM(IQ4_XS, i8mm)
