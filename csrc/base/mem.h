#ifndef PL_MEM_H
#define PL_MEM_H
#include <stdint.h>

/* Takes the pages that hold these bytes of a read-only file mapping out of this process; a later read brings them
 * back from the file. */
void pl_mem_drop(const void *p, int64_t bytes);

#endif
