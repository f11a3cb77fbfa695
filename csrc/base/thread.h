/* thread.h: threads, mutex and condition variable of the operating system under one set of names. */
#ifndef PL_THREAD_H
#define PL_THREAD_H

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <process.h>
#include <windows.h>

typedef HANDLE pl_thread;
typedef SRWLOCK pl_mutex;
typedef CONDITION_VARIABLE pl_cond;
#define PL_THREAD_FN(name, arg) static unsigned __stdcall name(void *arg)
typedef unsigned(__stdcall *pl_thread_fn)(void *);

static inline int pl_thread_start(pl_thread *t, pl_thread_fn fn, void *arg) {
  *t = (HANDLE)_beginthreadex(NULL, 0, fn, arg, 0, NULL);
  return *t ? 0 : -1;
}
static inline void pl_thread_join(pl_thread t) {
  WaitForSingleObject(t, INFINITE);
  CloseHandle(t);
}
static inline void pl_mutex_init(pl_mutex *m) { InitializeSRWLock(m); }
static inline void pl_mutex_free(pl_mutex *m) { (void)m; }
static inline void pl_mutex_lock(pl_mutex *m) { AcquireSRWLockExclusive(m); }
static inline void pl_mutex_unlock(pl_mutex *m) { ReleaseSRWLockExclusive(m); }
static inline void pl_cond_init(pl_cond *c) { InitializeConditionVariable(c); }
static inline void pl_cond_free(pl_cond *c) { (void)c; }
static inline void pl_cond_wait(pl_cond *c, pl_mutex *m) { SleepConditionVariableSRW(c, m, INFINITE, 0); }
static inline void pl_cond_broadcast(pl_cond *c) { WakeAllConditionVariable(c); }
static inline int pl_cpus(void) {
  SYSTEM_INFO s;
  GetSystemInfo(&s);
  return (int)s.dwNumberOfProcessors;
}
#else
#include <pthread.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

typedef pthread_t pl_thread;
typedef pthread_mutex_t pl_mutex;
typedef pthread_cond_t pl_cond;
#define PL_THREAD_FN(name, arg) static void *name(void *arg)
typedef void *(*pl_thread_fn)(void *);

static inline int pl_thread_start(pl_thread *t, pl_thread_fn fn, void *arg) {
  return pthread_create(t, 0, fn, arg);
}
static inline void pl_thread_join(pl_thread t) { pthread_join(t, 0); }
static inline void pl_mutex_init(pl_mutex *m) { pthread_mutex_init(m, 0); }
static inline void pl_mutex_free(pl_mutex *m) { pthread_mutex_destroy(m); }
static inline void pl_mutex_lock(pl_mutex *m) { pthread_mutex_lock(m); }
static inline void pl_mutex_unlock(pl_mutex *m) { pthread_mutex_unlock(m); }
static inline void pl_cond_init(pl_cond *c) { pthread_cond_init(c, 0); }
static inline void pl_cond_free(pl_cond *c) { pthread_cond_destroy(c); }
static inline void pl_cond_wait(pl_cond *c, pl_mutex *m) { pthread_cond_wait(c, m); }
static inline void pl_cond_broadcast(pl_cond *c) { pthread_cond_broadcast(c); }
static inline int pl_cpus(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }
#endif

static inline void pl_pause(void) {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

#endif
