/* Faults at the system calls that write: preloaded into a process, it makes the n-th call of a kind on a matching path
 * fail as a full disk, a quota or a read-only folder would, or ends the process there as a power cut would.
 *
 * faults_arm sets one fault, faults_trace logs every call to a file descriptor; both apply to paths below one root.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX], pattern[PATH_MAX], kind[16];
static long countdown;      /* matching calls left until the fault; 0: none is armed */
static int fault;           /* errno, or -1: the process is killed */
static int lasting;         /* whether every later call below the root fails as well, on any path */
static int broken;          /* whether the fault has occurred */
static int trace = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void faults_arm(const char *new_root, const char *new_kind, const char *new_pattern, long nth, int error, int lasts) {
    snprintf(root, sizeof root, "%s", new_root);
    snprintf(kind, sizeof kind, "%s", new_kind);
    snprintf(pattern, sizeof pattern, "%s", new_pattern);
    fault = error, lasting = lasts, broken = 0, countdown = nth;
}

void faults_trace(const char *new_root, int descriptor) {
    snprintf(root, sizeof root, "%s", new_root);
    trace = descriptor;
}

static void absolute(int folder, const char *path, char *into) {
    char link[64];
    ssize_t length = -1;
    if (path[0] != '/') {
        if (folder == AT_FDCWD)
            length = getcwd(into, PATH_MAX) ? (ssize_t)strlen(into) : -1;
        else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            length = readlink(link, into, PATH_MAX - 1);
        }
    }
    length = length < 0 ? 0 : length;
    snprintf(into + length, PATH_MAX - length, "%s%s", length ? "/" : "", path);
}

/* Returns the errno that a call must fail with; 0 lets it through. half: set if a write may write half its bytes first. */
static int decide(const char *call, const char *path, int *half) {
    if (trace < 0 && !countdown && !(broken && lasting))
        return 0;
    if (strncmp(path, root, strlen(root)))
        return 0;
    int error = 0;
    pthread_mutex_lock(&lock);
    if (trace >= 0) {
        char line[PATH_MAX + 32];
        int length = snprintf(line, sizeof line, "%s %s\n", call, path);
        syscall(SYS_write, trace, line, length < (int)sizeof line ? length : (int)sizeof line - 1);
    }
    if (!strcmp(call, "unlink") && fault > 0 && fault != EROFS)
        error = 0; /* removing needs no space: it fails in a read-only folder only */
    else if (broken && lasting && fault > 0)
        error = fault;
    else if (countdown && (!kind[0] || !strcmp(kind, call)) && !fnmatch(pattern, path, 0) && !--countdown) {
        broken = 1;
        error = fault;
    }
    if (error && half)
        *half = 1;
    pthread_mutex_unlock(&lock);
    return error;
}

static int ends(int error) {
    if (error < 0) {
        kill(getpid(), SIGKILL);
        pause();
    }
    errno = error;
    return -1;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define PATH_FAULT(call, folder, path) \
    do { \
        char full[PATH_MAX]; \
        absolute(folder, path, full); \
        int error = decide(call, full, NULL); \
        if (error) return ends(error); \
    } while (0)

static int fd_fault(const char *call, int descriptor, int *half) {
    char link[64], path[PATH_MAX];
    int saved = errno;
    if ((trace < 0 && !countdown && !(broken && lasting)) || descriptor == trace)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length <= 0 || path[0] != '/')
        return 0;
    path[length] = 0;
    return decide(call, path, half);
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = va_arg(list, mode_t); \
        va_end(list); \
        if (flags & (O_CREAT | O_WRONLY | O_RDWR)) PATH_FAULT("open", AT_FDCWD, path); \
        return real(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(name); \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = va_arg(list, mode_t); \
        va_end(list); \
        if (flags & (O_CREAT | O_WRONLY | O_RDWR)) PATH_FAULT("open", folder, path); \
        return real(folder, path, flags, mode); \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

#define FOPENS(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(name); \
        char full[PATH_MAX]; \
        int error = 0; \
        if (strpbrk(mode, "wa+")) { \
            absolute(AT_FDCWD, path, full); \
            error = decide("open", full, NULL); \
        } \
        if (error) { ends(error); return NULL; } \
        return real(path, mode); \
    }
FOPENS(fopen)
FOPENS(fopen64)

/* A full disk takes what still fits: half of the bytes are written before the call fails or the process is killed. */
ssize_t write(int descriptor, const void *bytes, size_t count) {
    REAL(write);
    int half = 0, error = fd_fault("write", descriptor, &half);
    if (!error)
        return real(descriptor, bytes, count);
    if (half && count > 1)
        real(descriptor, bytes, count / 2);
    return ends(error);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    REAL(writev);
    int error = fd_fault("write", descriptor, NULL);
    return error ? ends(error) : real(descriptor, parts, count);
}

#define PWRITES(name, offset_type) \
    ssize_t name(int descriptor, const void *bytes, size_t count, offset_type offset) { \
        REAL(name); \
        int error = fd_fault("write", descriptor, NULL); \
        return error ? ends(error) : real(descriptor, bytes, count, offset); \
    }
PWRITES(pwrite, off_t)
PWRITES(pwrite64, off64_t)

ssize_t sendfile64(int out, int in, off64_t *offset, size_t count);
ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
    REAL(sendfile);
    int error = fd_fault("write", out, NULL);
    return error ? ends(error) : real(out, in, offset, count);
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t count) {
    REAL(sendfile64);
    int error = fd_fault("write", out, NULL);
    return error ? ends(error) : real(out, in, offset, count);
}

#define ON_DESCRIPTOR(name) \
    int name(int descriptor) { \
        REAL(name); \
        int error = fd_fault("sync", descriptor, NULL); \
        return error ? ends(error) : real(descriptor); \
    }
ON_DESCRIPTOR(fsync)
ON_DESCRIPTOR(fdatasync)

#define TRUNCATES(name, length_type) \
    int name(int descriptor, length_type length) { \
        REAL(name); \
        int error = fd_fault("truncate", descriptor, NULL); \
        return error ? ends(error) : real(descriptor, length); \
    }
TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

int rename(const char *from, const char *to) {
    REAL(rename);
    PATH_FAULT("rename", AT_FDCWD, to);
    return real(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    REAL(renameat);
    PATH_FAULT("rename", to_folder, to);
    return real(from_folder, from, to_folder, to);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    PATH_FAULT("mkdir", AT_FDCWD, path);
    return real(path, mode);
}

int link(const char *from, const char *to) {
    REAL(link);
    PATH_FAULT("link", AT_FDCWD, to);
    return real(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    REAL(linkat);
    PATH_FAULT("link", to_folder, to);
    return real(from_folder, from, to_folder, to, flags);
}

int symlink(const char *from, const char *to) {
    REAL(symlink);
    PATH_FAULT("symlink", AT_FDCWD, to);
    return real(from, to);
}

int unlink(const char *path) {
    REAL(unlink);
    PATH_FAULT("unlink", AT_FDCWD, path);
    return real(path);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat);
    PATH_FAULT("unlink", folder, path);
    return real(folder, path, flags);
}

int rmdir(const char *path) {
    REAL(rmdir);
    PATH_FAULT("unlink", AT_FDCWD, path);
    return real(path);
}
