/* How many threads are worth having, where nobody says how many.
 *
 * On cores that have other work a team waits at its end for a thread that does not run: tens of milliseconds for
 * what takes one. Threads change no bit of a result, so their number is free, and two things decide:
 *
 *     what runs now     Linux tells how many threads of the machine want a core. More of ours than there are
 *                       cores for would only take turns.
 *     what it cost      A call that took longer than its threads computed, all together, has lost that time by
 *                       having them. Calls on one thread repay it: no others have threads before they took
 *                       REPAY times as long. So a machine that tells nothing costs little more than one thread.
 */
#ifndef CYROIALIGN_LOAD_H
#define CYROIALIGN_LOAD_H

#include <stdint.h>

#if defined(__linux__)
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#endif
#if defined(_WIN32)
static inline int64_t wall_ns(void) { return 0; }
static inline int64_t thread_ns(void) { return 0; }
#else
#include <time.h>
static inline int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}
static inline int64_t wall_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
static inline int64_t thread_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); } /* that it computed */
#endif

#define REPAY 4
#define LINGER_NS INT64_C(20000000) /* that idle threads of a team may spin: GOMP_SPINCOUNT */

#ifdef __GNUC__
#define READ(variable) __atomic_load_n(&(variable), __ATOMIC_RELAXED)
#define WRITE(variable, value) __atomic_store_n(&(variable), (value), __ATOMIC_RELAXED)
#define ADD(variable, value) __atomic_add_fetch(&(variable), (value), __ATOMIC_RELAXED)
#else
#define READ(variable) (variable)
#define WRITE(variable, value) ((variable) = (value))
#define ADD(variable, value) ((variable) += (value))
#endif

static int64_t owed_ns, last_end_ns; /* of the process */
static int last_team = 1;

/* Threads of the machine that run or want to, or 0 where nothing tells. */
static int runnable(void)
{
#if defined(__linux__)
    static int file = -2;
    char text[128];
    ssize_t n;
    int opened = READ(file);
    if (opened == -2) {
        opened = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
        WRITE(file, opened);
    }
    n = opened < 0 ? 0 : pread(opened, text, sizeof text - 1, 0);
    if (n > 0) { /* three averages, then "running/all" */
        const char *at = text;
        text[n] = 0;
        for (int i = 0; i < 3 && at; ++i)
            if ((at = strchr(at, ' ')))
                ++at;
        return at ? atoi(at) : 0;
    }
#endif
    return 0;
}

static int processors(void)
{
#if defined(__linux__)
    static int known;
    int n = READ(known);
    if (!n) {
        n = (int)sysconf(_SC_NPROCESSORS_ONLN);
        WRITE(known, n > 0 ? n : 1);
    }
    return n;
#else
    return 1 << 30;
#endif
}

/* Of the threads that a call may have, those that are worth having now. */
static int threads_worth_having(int most)
{
    int running, others, spinning;
    if (READ(owed_ns) > 0)
        return 1;
    running = runnable();
    spinning = wall_ns() - READ(last_end_ns) < LINGER_NS ? READ(last_team) - 1 : 0;
    others = running - 1 - spinning;
    if (others > 0 && most > processors() - others)
        most = processors() - others;
    return most < 1 ? 1 : most;
}

/* What a call took, from begin to end and in all its threads. */
static void note_call(int threads, int64_t wall, int64_t computed)
{
    if (threads > 1) {
        WRITE(last_end_ns, wall_ns());
        WRITE(last_team, threads);
        if (computed && wall > computed)
            ADD(owed_ns, wall - computed);
    } else if (READ(owed_ns) > 0) {
        if (ADD(owed_ns, -(wall / REPAY)) < 0)
            WRITE(owed_ns, 0);
    }
}

#endif
