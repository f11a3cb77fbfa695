#include "kern/avx512/lanes.h"

#define LEVEL avx512
#include "quant/enc/table.h"
