/* A disk that tests rule over: an LD_PRELOAD library for a process that writes below one folder.
 *
 * It keeps a journal, outside that folder, of every change of a file or a folder with its data, and
 * of every sync. After the process was killed `journal.py` makes of it what a power failure may
 * leave: what was synced, and of the rest nothing, or any part. Nothing is really synced, so the
 * journal is the only disk there is; what it does not have is lost, and a change that it cannot
 * describe (a file mapped to be written) is noted as a problem, which fails the test.
 *
 * By orders in a shared file (`struct orders`, written by `disk.py`) writes, syncs and changes of
 * names fail, and syncs take long; that is turned on and off while the process runs.
 *
 * No state but the journal is kept here: whether a descriptor is below the folder is asked of /proc
 * each time. So it does not matter who duplicated, inherited or closed it. Everything is asked of
 * the kernel itself, without the functions of libc that this library takes the place of. */
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;
static int journal = -1;
struct orders *orders;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("FAULTS_FOLDER");
    const char *log = getenv("FAULTS_JOURNAL");
    const char *control = getenv("FAULTS_ORDERS");
    if (!folder || !log || !control || strlen(folder) >= sizeof root) return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) _exit(120);
    void *map = (void *)syscall(SYS_mmap, NULL, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    journal = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
    if (map == MAP_FAILED || journal < 0) _exit(121);
    orders = map;
    strcpy(root, folder);
    root_length = strlen(root);
}

void lock(void) { pthread_mutex_lock(&mutex); }
void unlock(void) { pthread_mutex_unlock(&mutex); }

bool is_below(const char *path) {
    return root_length && !strncmp(path, root, root_length) &&
           (path[root_length] == '/' || path[root_length] == '\0');
}

bool fd_path(int fd, char *path) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length < 0) return false;
    path[length] = '\0';
    return true;
}

/* Whether a descriptor is a file or folder of the disk. */
bool inside(int fd, struct stat *found, char *path) {
    if (!root_length || fd < 0) return false;
    int before = errno;
    bool is = !syscall(SYS_newfstatat, fd, "", found, AT_EMPTY_PATH) &&
              (S_ISREG(found->st_mode) || S_ISDIR(found->st_mode)) && fd_path(fd, path) && is_below(path);
    errno = before;
    return is;
}

/* Takes a path apart into its folder, opened, and the name there; false when it is elsewhere. */
bool locate(int at, const char *path, struct place *place) {
    if (!root_length || !path || !*path) return false;
    char folder[PATH_MAX];
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    if (length >= sizeof folder) return false;
    memcpy(folder, path, length);
    folder[length] = '\0';
    char *slash = strrchr(folder, '/');
    const char *name = slash ? slash + 1 : folder;
    if (strlen(name) > NAME_MAX) return false;
    strcpy(place->name, name);
    if (slash) slash[slash == folder ? 1 : 0] = '\0';
    int before = errno;
    place->fd = (int)syscall(SYS_openat, at, slash ? folder : ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    errno = before;
    if (place->fd < 0) return false;
    struct stat found;
    if (!fd_path(place->fd, place->path) || !is_below(place->path) ||
        syscall(SYS_newfstatat, place->fd, "", &found, AT_EMPTY_PATH)) {
        leave(place);
        return false;
    }
    place->inode = found.st_ino;
    size_t used = strlen(place->path);
    snprintf(place->path + used, sizeof place->path - used, "/%s", place->name);
    return true;
}

void leave(struct place *place) { syscall(SYS_close, place->fd); }

bool look(const struct place *place, struct stat *found) {
    int before = errno;
    bool is = !syscall(SYS_newfstatat, place->fd, place->name, found, AT_SYMLINK_NOFOLLOW);
    errno = before;
    return is;
}

/* The error that an operation has to fail with now, or 0. */
int fault(uint32_t kind, const char *path) {
    if (!orders || !(orders->what & kind)) return 0;
    if (orders->match[0] && !strstr(path, orders->match)) return 0;
    uint32_t number = __atomic_fetch_add(&orders->matched, 1, __ATOMIC_SEQ_CST);
    if (number < orders->after || (orders->times && number >= orders->after + orders->times)) return 0;
    __atomic_fetch_add(&orders->failed, 1, __ATOMIC_SEQ_CST);
    return (int)orders->error;
}

void delay(void) {
    uint32_t ms = orders ? orders->sync_ms : 0;
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    if (ms) nanosleep(&time, NULL);
}

uint64_t journal_size(void) {
    struct stat found;
    return syscall(SYS_newfstatat, journal, "", &found, AT_EMPTY_PATH) ? 0 : (uint64_t)found.st_size;
}

/* One record, in one call: the kernel puts it behind all others. */
void note(struct record record, const char *first, const char *second, const struct iovec *data,
          int count, size_t length) {
    if (count > IOV_MAX - 3) {
        note((struct record){.kind = PROBLEM}, "too many parts in one write", NULL, NULL, 0, 0);
        return;
    }
    struct iovec parts[IOV_MAX];
    int before = errno, used = 0;
    record.first = first ? (uint16_t)strlen(first) : 0;
    record.second = second ? (uint16_t)strlen(second) : 0;
    record.total = (uint32_t)(sizeof record + record.first + record.second + length);
    parts[used++] = (struct iovec){&record, sizeof record};
    if (first) parts[used++] = (struct iovec){(char *)first, record.first};
    if (second) parts[used++] = (struct iovec){(char *)second, record.second};
    for (int at = 0; at < count && length; at++) { /* as much as was written */
        size_t part = data[at].iov_len < length ? data[at].iov_len : length;
        parts[used++] = (struct iovec){data[at].iov_base, part};
        length -= part;
    }
    if (syscall(SYS_writev, journal, parts, used) != (ssize_t)record.total) _exit(122);
    errno = before;
}
