/* Stands between the kernels and GNU's OpenMP runtime: notes each piece that a dynamic loop hands out, and
 * the processor time that its thread spent on it. Compiled, loaded and read by scaling.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

enum { MOST = 1 << 20 };

struct piece {
    long first; /* iteration of the loop */
    long nanoseconds;
};

struct piece pieces[MOST]; /* in the order in which they were handed out */
long handed_out;

static _Thread_local struct piece *current;
static _Thread_local long began;

static long now(void)
{
    struct timespec t; /* the thread's own clock stands still while other threads have the processor */
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static bool begin(bool more, const long *first)
{
    long number = more ? __atomic_fetch_add(&handed_out, 1, __ATOMIC_RELAXED) : MOST;
    current = number < MOST ? &pieces[number] : NULL;
    if (current) {
        current->first = *first;
        began = now();
    }
    return more;
}

static void *real(const char *name)
{
    static void *runtime;
    if (!runtime)
        runtime = dlopen("libgomp.so.1", RTLD_LAZY);
    return dlsym(runtime, name);
}

bool GOMP_loop_nonmonotonic_dynamic_start(
    long start, long end, long step, long chunk, long *first, long *last)
{
    static bool (*start_loop)(long, long, long, long, long *, long *);
    if (!start_loop)
        start_loop = real("GOMP_loop_nonmonotonic_dynamic_start");
    return begin(start_loop(start, end, step, chunk, first, last), first);
}

bool GOMP_loop_nonmonotonic_dynamic_next(long *first, long *last)
{
    static bool (*next)(long *, long *);
    if (current)
        current->nanoseconds = now() - began;
    if (!next)
        next = real("GOMP_loop_nonmonotonic_dynamic_next");
    return begin(next(first, last), first);
}
