/* Makes the n-th call that changes files below a directory fail, as a broken or a full disk would.
 *
 * Preloaded into a process; its children inherit it. What to do is in a file that all of them map,
 * named by FAILING_CALLS, so that one counter counts for all threads and processes, and so that it
 * can be armed and disarmed while they run. `fail_calls.py` has the same layout.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct plan {
    atomic_long armed;    /* 0: every call is let through, and not counted */
    atomic_long count;    /* calls so far */
    long target;          /* the call that fails, counted from 1 */
    long all_from_there;  /* and whether all after it do, too */
    long full;            /* 1: a full disk, ENOSPC where room is needed; 0: a broken one, EIO */
    atomic_long hits;     /* calls that were made to fail */
    char hit[512];        /* the first of them */
    char below[512];      /* the directory */
};

static struct plan *plan;

__attribute__((constructor)) static void map_plan(void)
{
    const char *path = getenv("FAILING_CALLS");
    int saved = errno;
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd >= 0) {
        void *mapped = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        plan = mapped == MAP_FAILED ? NULL : mapped;
        close(fd);
    }
    errno = saved;
}

static int is_below(const char *path)
{
    size_t length = strlen(plan->below);
    return strncmp(path, plan->below, length) == 0 && (path[length] == '/' || !path[length]);
}

/* Counts the call `name` on `path`; returns whether it has to fail. errno is set then. */
static int fails(const char *name, const char *path, int needs_room)
{
    if (!is_below(path) || (plan->full && !needs_room))
        return 0;
    long number = atomic_fetch_add(&plan->count, 1) + 1;
    if (number != plan->target && !(plan->all_from_there && number > plan->target))
        return 0;
    if (atomic_fetch_add(&plan->hits, 1) == 0)
        snprintf(plan->hit, sizeof plan->hit, "%s %s", name, path);
    errno = plan->full ? ENOSPC : EIO;
    return 1;
}

static int is_armed(void)
{
    return plan && atomic_load(&plan->armed);
}

static int fails_at(const char *name, int fd, int needs_room)
{
    char link[64], path[PATH_MAX];
    int saved = errno;

    if (!is_armed())
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(name, path, needs_room);
}

static int fails_in(const char *name, int directory, const char *path, int needs_room)
{
    char link[64], full[2 * PATH_MAX], base[PATH_MAX] = "";
    int saved = errno;

    if (!is_armed())
        return 0;
    if (path[0] == '/')
        return fails(name, path, needs_room);
    if (directory == AT_FDCWD)
        strcpy(link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, base, sizeof base - 1);
    errno = saved;
    if (length < 0)
        return 0;
    base[length] = 0;
    snprintf(full, sizeof full, "%s/%s", base, path);
    return fails(name, full, needs_room);
}

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) \
        next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define ON_FD(needs_room, name, parameters, arguments, type) \
    type name parameters \
    { \
        NEXT(name); \
        return fails_at(#name, fd, needs_room) ? -1 : next arguments; \
    }

ON_FD(1, write, (int fd, const void *data, size_t size), (fd, data, size), ssize_t)
ON_FD(1, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), ssize_t)
ON_FD(1, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), ssize_t)
ON_FD(1, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), ssize_t)
ON_FD(1, pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at), ssize_t)
ON_FD(1, pwritev64, (int fd, const struct iovec *parts, int count, off64_t at), (fd, parts, count, at), ssize_t)
ON_FD(1, pwritev2, (int fd, const struct iovec *parts, int count, off_t at, int flags), (fd, parts, count, at, flags), ssize_t)
ON_FD(1, pwritev64v2, (int fd, const struct iovec *parts, int count, off64_t at, int flags), (fd, parts, count, at, flags), ssize_t)
ON_FD(1, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size), int)
ON_FD(1, fallocate64, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size), int)
ON_FD(0, ftruncate, (int fd, off_t size), (fd, size), int)
ON_FD(0, ftruncate64, (int fd, off64_t size), (fd, size), int)
ON_FD(0, fsync, (int fd), (fd), int)
ON_FD(0, fdatasync, (int fd), (fd), int)

/* They return the error, and leave errno alone. */
int posix_fallocate(int fd, off_t at, off_t size)
{
    NEXT(posix_fallocate);
    return fails_at("posix_fallocate", fd, 1) ? errno : next(fd, at, size);
}

int posix_fallocate64(int fd, off64_t at, off64_t size)
{
    NEXT(posix_fallocate64);
    return fails_at("posix_fallocate64", fd, 1) ? errno : next(fd, at, size);
}

int rename(const char *from, const char *to)
{
    NEXT(rename);
    return fails_in("rename", AT_FDCWD, to, 1) ? -1 : next(from, to);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    NEXT(renameat);
    return fails_in("renameat", to_fd, to, 1) ? -1 : next(from_fd, from, to_fd, to);
}

int unlink(const char *path)
{
    NEXT(unlink);
    return fails_in("unlink", AT_FDCWD, path, 0) ? -1 : next(path);
}

int unlinkat(int directory, const char *path, int flags)
{
    NEXT(unlinkat);
    return fails_in("unlinkat", directory, path, 0) ? -1 : next(directory, path, flags);
}

/* A full disk makes nothing new, and opens what is there. */
static int fails_to_make(const char *name, int directory, const char *path)
{
    int saved = errno;

    if (!is_armed())
        return 0;
    int is_there = faccessat(directory, path, F_OK, 0) == 0;
    errno = saved;
    return !(plan->full && is_there) && fails_in(name, directory, path, 1);
}

int mkdir(const char *path, mode_t mode)
{
    NEXT(mkdir);
    return fails_to_make("mkdir", AT_FDCWD, path) ? -1 : next(path, mode);
}

int mkdirat(int directory, const char *path, mode_t mode)
{
    NEXT(mkdirat);
    return fails_to_make("mkdirat", directory, path) ? -1 : next(directory, path, mode);
}

/* The mode is only there where a file may be made. */
#define OPENING(name, directory, parameters, ...) \
    int name parameters \
    { \
        mode_t mode = 0; \
        NEXT(name); \
        if (flags & O_CREAT) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
            if (fails_to_make(#name, directory, path)) \
                return -1; \
        } \
        return next(__VA_ARGS__, mode); \
    }

OPENING(open, AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPENING(open64, AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPENING(openat, directory, (int directory, const char *path, int flags, ...), directory, path, flags)
OPENING(openat64, directory, (int directory, const char *path, int flags, ...), directory, path, flags)
