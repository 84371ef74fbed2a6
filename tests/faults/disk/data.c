/* The calls that change and sync what is in a file. */
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HERE ((off_t)-1) /* at the offset of the descriptor */

static ssize_t plain(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    if (offset == HERE && !flags) return syscall(SYS_writev, fd, parts, count);
    return syscall(SYS_pwritev2, fd, parts, count, offset, 0L, flags);
}

static off_t place_of(int fd, off_t offset) {
    struct stat found;
    if (!(fcntl(fd, F_GETFL) & O_APPEND)) return offset == HERE ? syscall(SYS_lseek, fd, 0, SEEK_CUR) : offset;
    return syscall(SYS_newfstatat, fd, "", &found, AT_EMPTY_PATH) ? 0 : found.st_size;
}

static bool is_synced(int fd, int flags) {
    return (flags & (RWF_SYNC | RWF_DSYNC)) || (fcntl(fd, F_GETFL) & O_DSYNC);
}

static void note_sync(uint8_t kind, uint64_t inode, uint64_t until) {
    note((struct record){.kind = kind, .inode = inode, .number = (int64_t)until}, NULL, NULL, NULL, 0, 0);
}

static ssize_t put(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    struct stat found;
    char path[PATH_MAX];
    if (!inside(fd, &found, path)) return plain(fd, parts, count, offset, flags);
    int error = fault(WRITING, path);
    struct iovec half = {NULL, 0};
    if (error == ENOSPC && orders->failed == 1 && count && parts[0].iov_len > 1) {
        /* The last block of a disk takes a part of the write, without an error. */
        half = (struct iovec){parts[0].iov_base, parts[0].iov_len / 2};
        parts = &half;
        count = 1;
    } else if (error) {
        errno = error;
        return -1;
    }
    lock();
    off_t at = place_of(fd, offset);
    ssize_t written = plain(fd, parts, count, offset, flags);
    if (written > 0) {
        struct record record = {.kind = WRITE, .inode = found.st_ino, .number = at};
        note(record, NULL, NULL, parts, count, (size_t)written);
        if (is_synced(fd, flags)) note_sync(SYNC, found.st_ino, journal_size());
    }
    unlock();
    return written;
}

static int sync_file(int number, int fd) {
    struct stat found;
    char path[PATH_MAX];
    if (!inside(fd, &found, path)) return (int)syscall(number, fd);
    uint64_t until = journal_size(); /* what others write from now on is not waited for */
    int error = fault(SYNCING, path);
    delay();
    if (orders->lies && !error) return 0;
    lock();
    note_sync(error ? FAILED : SYNC, found.st_ino, until);
    unlock();
    if (error) errno = error;
    return error ? -1 : 0;
}

static int resize(int fd, off_t size, bool grows_only, int (*change)(int, off_t, off_t, int), off_t offset, int mode) {
    struct stat found;
    char path[PATH_MAX];
    if (!inside(fd, &found, path)) return change(fd, offset, size, mode);
    int error = fault(WRITING, path);
    if (error) {
        errno = error;
        return -1;
    }
    lock();
    int result = change(fd, offset, size, mode);
    struct stat now;
    if (!result && !syscall(SYS_newfstatat, fd, "", &now, AT_EMPTY_PATH) &&
        (!grows_only || now.st_size != found.st_size))
        note((struct record){.kind = TRUNCATE, .inode = now.st_ino, .number = now.st_size}, NULL, NULL, NULL, 0, 0);
    unlock();
    return result;
}

static int cut(int fd, off_t offset, off_t size, int mode) {
    (void)offset, (void)mode;
    return (int)syscall(SYS_ftruncate, fd, size);
}

static int reserve(int fd, off_t offset, off_t size, int mode) {
    return (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

ssize_t write(int fd, const void *data, size_t length) {
    struct iovec part = {(void *)data, length};
    return put(fd, &part, 1, HERE, 0);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    struct iovec part = {(void *)data, length};
    return put(fd, &part, 1, offset, 0);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) { return put(fd, parts, count, HERE, 0); }

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags) {
    return put(fd, parts, count, offset, flags);
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return put(fd, parts, count, offset, flags);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    return put(fd, parts, count, offset, 0);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return put(fd, parts, count, offset, 0); }

int fsync(int fd) { return sync_file(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_file(SYS_fdatasync, fd); }

int syncfs(int fd) {
    lock();
    note_sync(SYNC, 0, journal_size());
    unlock();
    return (int)syscall(SYS_syncfs, fd);
}

void sync(void) {
    if (orders) {
        lock();
        note_sync(SYNC, 0, journal_size());
        unlock();
    } else {
        syscall(SYS_sync);
    }
}

/* It promises nothing after a power failure, as its manual says: no record. */
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned int flags) {
    return (int)syscall(SYS_sync_file_range, fd, offset, length, flags);
}

int ftruncate64(int fd, off64_t size) { return resize(fd, size, false, cut, 0, 0); }
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int fallocate64(int fd, int mode, off64_t offset, off64_t size) { return resize(fd, size, true, reserve, offset, mode); }
int fallocate(int fd, int mode, off_t offset, off_t size) { return fallocate64(fd, mode, offset, size); }
int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    int before = errno;
    int result = fallocate64(fd, 0, offset, size) ? errno : 0;
    errno = before;
    return result;
}
int posix_fallocate(int fd, off_t offset, off_t size) { return posix_fallocate64(fd, offset, size); }

int truncate64(const char *path, off64_t size) {
    int fd = open64(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    int result = ftruncate64(fd, size), error = errno;
    close(fd);
    errno = error;
    return result;
}
int truncate(const char *path, off_t size) { return truncate64(path, size); }

/* Whoever copies within the kernel is asked to read and write, as where the kernel cannot. */
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t length, unsigned int flags) {
    struct stat found;
    char path[PATH_MAX];
    if (!inside(out, &found, path)) return syscall(SYS_copy_file_range, in, in_at, out, out_at, length, flags);
    errno = ENOSYS;
    return -1;
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t length) {
    struct stat found;
    char path[PATH_MAX];
    if (!inside(out, &found, path)) return syscall(SYS_sendfile, out, in, offset, length);
    errno = EINVAL;
    return -1;
}
ssize_t sendfile(int out, int in, off_t *offset, size_t length) { return sendfile64(out, in, offset, length); }

/* What is written through a map is not seen here. SQLite's index of its log is, and is made anew
 * from the log by whoever comes after a crash. */
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset) {
    struct stat found;
    char path[PATH_MAX];
    if ((flags & MAP_TYPE) != MAP_PRIVATE && (protection & PROT_WRITE) && inside(fd, &found, path)) {
        size_t end = strlen(path);
        if (end < 4 || strcmp(path + end - 4, "-shm")) {
            lock();
            note((struct record){.kind = PROBLEM}, "mapped to be written", path, NULL, 0, 0);
            unlock();
        }
    }
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}
void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    return mmap64(at, length, protection, flags, fd, offset);
}
