/* cpu.h: which instruction-set levels this CPU has. */
#ifndef PL_CPU_H
#define PL_CPU_H
#include <stdint.h>

/* The best level (enum pl_level in kern/kern.h) that CPU and operating system support. */
int pl_cpu_detect(void);

#endif
