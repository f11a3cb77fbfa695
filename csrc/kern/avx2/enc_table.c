#include "kern/avx2/lanes.h"

#define LEVEL avx2
#include "quant/enc/table.h"
