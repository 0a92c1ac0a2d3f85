/* Preloaded into a process: fails one allocation of a thread, and counts those that it makes.
 *
 * fail_at(n, own) fails the n-th from now on, or none where n is 0; with `own`, of those that the compiled
 * modules of the package ask for. seen() tells how many there have been since.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static __thread long target, count;
static __thread int armed, only_own, inside;

void fail_at(long n, int own)
{
    target = n, count = 0, only_own = own, armed = 1;
}

long seen(void)
{
    armed = 0;
    return count;
}

static int is_own(void *caller)
{
    Dl_info info;
    int own;
    inside = 1; /* dladdr may allocate */
    own = dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "/cyroialign/_kernels/");
    inside = 0;
    return own;
}

static int fails(void *caller)
{
    if (!armed || inside || (only_own && !is_own(caller)) || ++count != target)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}
