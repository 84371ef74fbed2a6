/* What the parts of the library share; see disk.c. */
#pragma once
#define _GNU_SOURCE
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>

/* What fails: kept in step with `Fault` in disk.py. */
enum { OPENING = 1, NAMING = 2, WRITING = 4, SYNCING = 8 };

/* The shared file; kept in step with `_ORDERS` in disk.py. */
struct orders {
    uint32_t what;    /* which operations fail */
    uint32_t error;   /* with which errno */
    uint32_t after;   /* how many of them succeed first */
    uint32_t times;   /* how many fail then; 0: all */
    uint32_t sync_ms; /* how long each sync takes */
    uint32_t lies;    /* not 0: syncs do nothing, and say that they did */
    uint32_t matched; /* counted here: operations of these kinds */
    uint32_t failed;  /* counted here: how many of them failed */
    char match[100];  /* only those whose path has this in it */
};

/* Kinds of records; kept in step with journal.py. */
enum {
    WRITE = 'W',    /* inode, number: offset; data */
    TRUNCATE = 'T', /* inode, number: size */
    SYNC = 'S',     /* inode (0: all), number: the size of the journal when it began */
    FAILED = 'E',   /* as SYNC, which failed: what it had to write is never written */
    CREATE = 'C',   /* parent, inode, number: mode; name */
    UNNAMED = 'A',  /* inode, number: mode: a file without a name (O_TMPFILE) */
    LINK = 'L',     /* parent, inode; name */
    REMOVE = 'U',   /* parent; name */
    RENAME = 'R',   /* parent, inode, other; name, name in other */
    PROBLEM = 'P',  /* what it was */
};

struct record {
    uint32_t total;
    uint8_t kind;
    uint8_t padding;
    uint16_t first;  /* length of the first name */
    uint16_t second; /* length of the second name */
    uint16_t padding_too;
    uint32_t padding_last;
    uint64_t parent;
    uint64_t inode;
    uint64_t other;
    int64_t number;
};

/* A name in an open folder of the disk. */
struct place {
    int fd;
    uint64_t inode;
    char name[NAME_MAX + 1];
    char path[PATH_MAX + NAME_MAX + 2];
};

extern struct orders *orders; /* NULL outside the tests */

void lock(void);
void unlock(void);
bool is_below(const char *path);
bool fd_path(int fd, char *path);
bool inside(int fd, struct stat *found, char *path);
bool locate(int at, const char *path, struct place *place);
void leave(struct place *place);
bool look(const struct place *place, struct stat *found);
int fault(uint32_t kind, const char *path);
void delay(void);
uint64_t journal_size(void);
void note(struct record record, const char *first, const char *second, const struct iovec *data,
          int count, size_t length);
