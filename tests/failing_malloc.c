/* Preloaded into a process: fails one allocation of a thread, counts those that it makes, and what is not freed.
 *
 * fail_at(n, where) fails the n-th from now on of those that a library asks for whose path has `where` in it.
 * seen() tells how many there have been since; live(), how many bytes the process holds.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <string.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static __thread long target, count;
static __thread int armed, inside;
static __thread char wanted[64];
static long bytes;

void fail_at(long n, const char *where)
{
    strncpy(wanted, where, sizeof(wanted) - 1);
    target = n, count = 0, armed = 1;
}

long seen(void)
{
    armed = 0;
    return count;
}

long live(void)
{
    return __atomic_load_n(&bytes, __ATOMIC_RELAXED);
}

static int is_wanted(void *caller)
{
    Dl_info info;
    int found;
    inside = 1; /* dladdr may allocate */
    found = dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, wanted);
    inside = 0;
    return found;
}

static int fails(void *caller)
{
    if (!armed || inside || !is_wanted(caller) || ++count != target)
        return 0;
    errno = ENOMEM;
    return 1;
}

static void *noted(void *memory)
{
    __atomic_fetch_add(&bytes, malloc_usable_size(memory), __ATOMIC_RELAXED);
    return memory;
}

void *malloc(size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : noted(__libc_malloc(size));
}

void *calloc(size_t n, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : noted(__libc_calloc(n, size));
}

void *realloc(void *old, size_t size)
{
    size_t before = malloc_usable_size(old);
    void *memory = fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
    if (memory || !size)
        __atomic_fetch_sub(&bytes, before, __ATOMIC_RELAXED);
    return noted(memory);
}

void *memalign(size_t alignment, size_t size)
{
    return noted(__libc_memalign(alignment, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return noted(__libc_memalign(alignment, size));
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    *memory = noted(__libc_memalign(alignment, size));
    return *memory ? 0 : ENOMEM;
}

void free(void *memory)
{
    __atomic_fetch_sub(&bytes, malloc_usable_size(memory), __ATOMIC_RELAXED);
    __libc_free(memory);
}
