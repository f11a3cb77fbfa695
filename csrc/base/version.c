#include "pyllm.h"

int32_t pl_abi_version(void) { return PL_ABI_VERSION; }
