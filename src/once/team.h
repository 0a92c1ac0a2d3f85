/* How many threads a parallel region can have.
 *
 * An OpenMP runtime that cannot start a thread ends the process: limits on processes and on memory, as containers
 * have them, are then fatal. So whoever wants more threads than its last team had starts that many first, to no
 * purpose, and is content with those that there were. The runtime keeps the threads of a team, which is why this
 * is done once a thread and size; and they take the stacks that the first ones leave. What another thread of
 * the system takes in between cannot be known.
 */
#ifndef CYROIALIGN_TEAM_H
#define CYROIALIGN_TEAM_H

#if defined(_OPENMP) && !defined(_WIN32)

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

#define SPARE_BYTES (1 << 16) /* a thread, of the runtime's own memory */

/* Blocks until whoever started it holds the lock no longer, so that all are there at once. */
static void *wait_for_lock(void *lock)
{
    pthread_mutex_lock((pthread_mutex_t *)lock);
    pthread_mutex_unlock((pthread_mutex_t *)lock);
    return NULL;
}

/* The stack of a thread as OMP_STACKSIZE asks for it: a number with a unit, K if it has none. 0: the usual. */
static size_t stack_bytes(void)
{
    const char *text = getenv("OMP_STACKSIZE");
    char *unit = NULL;
    size_t bytes = text ? strtoul(text, &unit, 10) : 0;
    if (!bytes)
        return 0;
    while (*unit == ' ')
        ++unit;
    switch (*unit) {
    case 'b': case 'B': return bytes;
    case 'm': case 'M': return bytes << 20;
    case 'g': case 'G': return bytes << 30;
    default: return bytes << 10;
    }
}

/* Start up to so many threads at once, end them, and tell how many there were. */
static int probe_threads(int wanted)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_attr_t attributes;
    pthread_t *threads = malloc(wanted * sizeof(pthread_t));
    void *spare = malloc((size_t)wanted * SPARE_BYTES);
    int started = 0;
    size_t stack = stack_bytes();
    if (threads && spare && !pthread_attr_init(&attributes)) {
        if (stack)
            pthread_attr_setstacksize(&attributes, stack); /* what is too small stays the usual */
        pthread_mutex_lock(&lock);
        while (started < wanted && !pthread_create(threads + started, &attributes, wait_for_lock, &lock))
            ++started;
        pthread_mutex_unlock(&lock);
        for (int i = 0; i < started; ++i)
            pthread_join(threads[i], NULL);
        pthread_attr_destroy(&attributes);
    }
    free(spare);
    free(threads);
    return started;
}

/* How many threads this one's next team can have, of those wanted; that team has to be made. */
static inline int threads_to_be_had(int wanted)
{
    static __thread int team = 1;
    if (wanted > 1) {
        if (wanted > team)
            wanted = team + probe_threads(wanted - team);
        team = wanted; /* a smaller team lets the others go */
    }
    return wanted;
}

#else

static inline int threads_to_be_had(int wanted) { return wanted; }

#endif
#endif
