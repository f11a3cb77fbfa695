#include "kern/avx512/mm.h"

PL_TILE_FLOAT(4, _mm512_loadu_ps)
PL_MM8(F32)
