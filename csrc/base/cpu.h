/* cpu.h: which instruction-set levels this CPU has. */
#ifndef PL_CPU_H
#define PL_CPU_H
#include <stdint.h>

/* The levels (enum pl_level in kern/kern.h) that CPU and operating system support, as bits 1 << level. */
uint32_t pl_cpu_detect(void);

#endif
