/* The calls that make, move and remove names. */
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static void note_name(uint8_t kind, const struct place *place, uint64_t inode, int64_t mode) {
    struct record record = {.kind = kind, .parent = place->inode, .inode = inode, .number = mode};
    note(record, place->name, NULL, NULL, 0, 0);
}

static int fails(int error) {
    errno = error;
    return -1;
}

static bool changes(int flags) {
    return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
}

/* A file without a name: `path` is its folder. */
static int open_unnamed(int at, const char *path, int flags, mode_t mode) {
    struct stat found;
    char name[PATH_MAX];
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    if (fd < 0 || !inside(fd, &found, name)) return fd;
    int error = fault(OPENING, name);
    if (error) {
        syscall(SYS_close, fd);
        return fails(error);
    }
    lock();
    struct record record = {.kind = UNNAMED, .inode = found.st_ino, .number = found.st_mode};
    note(record, NULL, NULL, NULL, 0, 0);
    unlock();
    return fd;
}

static int open_at(int at, const char *path, int flags, mode_t mode) {
    struct place place;
    if ((flags & O_TMPFILE) == O_TMPFILE) return open_unnamed(at, path, flags, mode);
    if (!changes(flags) || !locate(at, path, &place)) return (int)syscall(SYS_openat, at, path, flags, mode);
    int error = fault(OPENING, place.path);
    if (error) {
        leave(&place);
        return fails(error);
    }
    lock();
    struct stat before, now;
    bool existed = look(&place, &before);
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    int after = errno;
    if (fd >= 0 && !syscall(SYS_newfstatat, fd, "", &now, AT_EMPTY_PATH) && S_ISREG(now.st_mode)) {
        if (!existed) note_name(CREATE, &place, now.st_ino, now.st_mode);
        else if ((flags & O_TRUNC) && before.st_size)
            note((struct record){.kind = TRUNCATE, .inode = now.st_ino}, NULL, NULL, NULL, 0, 0);
    }
    unlock();
    leave(&place);
    errno = after;
    return fd;
}

#define OPEN(name, parameters, at, path, flags)                 \
    int name parameters {                                       \
        mode_t mode = 0;                                        \
        if (flags & (O_CREAT | __O_TMPFILE)) {                  \
            va_list rest;                                       \
            va_start(rest, flags);                              \
            mode = va_arg(rest, mode_t);                        \
            va_end(rest);                                       \
        }                                                       \
        return open_at(at, path, flags, mode);                  \
    }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD, path, flags)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, path, flags)
OPEN(openat, (int at, const char *path, int flags, ...), at, path, flags)
OPEN(openat64, (int at, const char *path, int flags, ...), at, path, flags)

int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* What a compiler makes of open() where it checks buffers; never with a mode. */
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __openat_2(int at, const char *path, int flags) { return open_at(at, path, flags, 0); }
int __openat64_2(int at, const char *path, int flags) { return open_at(at, path, flags, 0); }

int mkdirat(int at, const char *path, mode_t mode) {
    struct place place;
    if (!locate(at, path, &place)) return (int)syscall(SYS_mkdirat, at, path, mode);
    int error = fault(NAMING, place.path);
    if (!error) {
        lock();
        struct stat found;
        if (syscall(SYS_mkdirat, place.fd, place.name, mode)) error = errno;
        else if (look(&place, &found)) note_name(CREATE, &place, found.st_ino, found.st_mode);
        unlock();
    }
    leave(&place);
    return error ? fails(error) : 0;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int unlinkat(int at, const char *path, int flags) {
    struct place place;
    if (!locate(at, path, &place)) return (int)syscall(SYS_unlinkat, at, path, flags);
    int error = fault(NAMING, place.path);
    if (!error) {
        lock();
        if (syscall(SYS_unlinkat, place.fd, place.name, flags)) error = errno;
        else note_name(REMOVE, &place, 0, 0);
        unlock();
    }
    leave(&place);
    return error ? fails(error) : 0;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int result = unlink(path);
    return result && errno == EISDIR ? rmdir(path) : result;
}

int linkat(int from, const char *old, int to, const char *new, int flags) {
    struct place place;
    if (!locate(to, new, &place)) return (int)syscall(SYS_linkat, from, old, to, new, flags);
    int error = fault(NAMING, place.path);
    if (!error) {
        lock();
        struct stat found;
        if (syscall(SYS_linkat, from, old, place.fd, place.name, flags)) error = errno;
        else if (look(&place, &found)) note_name(LINK, &place, found.st_ino, 0);
        unlock();
    }
    leave(&place);
    return error ? fails(error) : 0;
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

static int moved(struct place *from, struct place *to, unsigned int flags) {
    int error = fault(NAMING, to->path);
    if (error) return error;
    lock();
    struct stat found;
    if (syscall(SYS_renameat2, from->fd, from->name, to->fd, to->name, flags)) {
        error = errno;
    } else if (flags & RENAME_EXCHANGE) {
        note((struct record){.kind = PROBLEM}, "exchanged names", NULL, NULL, 0, 0);
    } else if (look(to, &found)) {
        struct record record = {.kind = RENAME, .parent = from->inode, .inode = found.st_ino, .other = to->inode};
        note(record, from->name, to->name, NULL, 0, 0);
    }
    unlock();
    return error;
}

int renameat2(int from, const char *old, int to, const char *new, unsigned int flags) {
    struct place source, target;
    bool is_from = locate(from, old, &source), is_to = locate(to, new, &target);
    int result;
    if (is_from && is_to) {
        int error = moved(&source, &target, flags);
        result = error ? fails(error) : 0;
    } else {
        result = (int)syscall(SYS_renameat2, from, old, to, new, flags);
        if (!result && (is_from || is_to))
            note((struct record){.kind = PROBLEM}, "renamed over the border", NULL, NULL, 0, 0);
    }
    if (is_from) leave(&source);
    if (is_to) leave(&target);
    return result;
}
int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }
int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }
