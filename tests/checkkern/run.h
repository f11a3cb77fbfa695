/* run.h: what main.c sets up in tools.c. */
#ifndef RUN_H
#define RUN_H
#include <stdint.h>

void rnd_seed(uint64_t seed, const char *name);
void buffers_init(void);
/* Spoil every result: "bit", "read", "write" or "trap"; NULL: do not. */
void break_with(const char *how);

#endif
