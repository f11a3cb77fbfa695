#include "kern/avxvnni/mm.h"

PL_TILE_K(288, code_u4)
PL_MM(Q4_K, avxvnni)
