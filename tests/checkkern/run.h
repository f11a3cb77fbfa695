/* run.h: what main.c sets up in tools.c. */
#ifndef RUN_H
#define RUN_H
#include <stdint.h>

void rnd_seed(uint64_t seed, const char *name);
void buffers_init(void);
/* Spoil every result: "ulp" flips the lowest bit of one float, "bit" the lowest of its exponent, "read" reads and
 * "write" writes beyond the buffer, "trap" raises a signal; NULL: do nothing. */
void break_with(const char *how);

#endif
