#include "kern/dotprod/mm.h"

PL_PANEL_BYTES(IQ4_XS, dotprod, 256)
PL_PACK(IQ4_XS, dotprod, pl_block_iq4_xs, 256)
PL_TILE_XS(SUB_IQ4_XS, code_iq4)
PL_MM(IQ4_XS, dotprod)
