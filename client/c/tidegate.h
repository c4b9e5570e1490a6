/* tidegate.h: join a batching pipeline written in C to tidegate. One header, C11, Linux, nothing but libc (link with
 * -pthread). SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A pipeline names its two knobs, batch size and flush interval, their bounds and its own values. From then on it runs on
 * what the agent finds right for its present load. Without an agent everything here runs on the pipeline's own settings,
 * and connects when an agent appears; when the agent falls silent the last settings are held for the time of the lease and
 * then given up for the pipeline's own. Nothing here blocks on the agent or fails because of it: one thread of its own
 * talks to it.
 *
 *     tg_options options = tg_defaults("ingest");
 *     options.mode = "on";
 *     options.report_dir = "/run/user/1000";
 *     tg_pipeline *pipeline = tg_open(&options, error, sizeof error);
 *     ...
 *     tg_settings now = tg_read(pipeline);              // for every event: a few nanoseconds
 *     tg_verdict verdict = tg_decide(&now, &queue, TG_SINK_IDLE, tg_now_ns(), batch_max, 0);
 *     ...
 *     tg_flushed(pipeline, verdict.cause, events, bytes, took_ns);
 *     tg_close(pipeline);
 *
 * Include it before any system header, or compile with -D_GNU_SOURCE. tg_read and the counters may be used on any thread;
 * tg_flushed by one at a time, as one flush is in flight. */
#ifndef TIDEGATE_H
#define TIDEGATE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* ---- layouts; the Rust client's abi::page holds the same numbers ---- */

#define TG_PAGE_BYTES 4096
#define TG_SETTINGS_ABI 1
#define TG_REPORT_ABI 2
#define TG_SETTINGS_MAGIC "tg-set\0\1"
#define TG_REPORT_MAGIC "tg-rep\0\1"
#define TG_SETTINGS_VALUES 8
#define TG_REPORT_WORDS 24
#define TG_REPORT_HISTOGRAM_AT 32
#define TG_REPORT_HISTOGRAM_WORDS 224

/* Words of the report page, cumulative unless said otherwise. */
typedef enum tg_word {
    TG_EVENTS_IN = 0,
    TG_EVENTS_OUT = 1,
    TG_BYTES_IN = 2,
    TG_BYTES_OUT = 3,
    TG_FLUSHES = 4,
    TG_FLUSHES_BY_AGE = 5,
    TG_FLUSHES_BY_SIZE = 6,
    TG_FLUSHES_BY_BACKLOG = 7,
    TG_FLUSHES_BY_PANIC = 8,
    TG_FLUSH_NS = 9,
    TG_FLUSH_ERRORS = 10,
    TG_QUEUE_EVENTS = 11,      /* now */
    TG_QUEUE_BYTES = 12,       /* now */
    TG_QUEUE_CAPACITY = 13,    /* now */
    TG_GENERATION = 14,        /* now */
    TG_BATCH_BYTES = 15,       /* now */
    TG_FLUSH_INTERVAL_US = 16, /* now */
    TG_UPDATED_NS = 17,        /* now, CLOCK_BOOTTIME */
    TG_EVENTS_LOST = 18,
    TG_FLUSHES_BY_WAITING = 19,
    TG_FLUSH_BYTES_SQUARED = 20,
    TG_FLUSH_BYTES_US = 21,
    TG_FLUSH_US_SQUARED = 22,
    TG_STALLED_NS = 23
} tg_word;

/* ---- what a pipeline says and gets ---- */

typedef struct tg_range {
    uint64_t min, max, own; /* own: the pipeline's value without an agent; 1 <= min <= own <= max */
} tg_range;

typedef struct tg_options {
    const char *name;   /* 1 to 64 of a-z A-Z 0-9 . _ -, not starting with a dot */
    const char *socket; /* NULL: TIDEGATE_SOCKET, or /run/tidegate/api.sock */
    tg_range batch_bytes;
    tg_range flush_interval_us;
    const char *mode;       /* "observe" (advice only), "canary", "on" or "manual" */
    const char *policy;     /* NULL: the agent's choice; "static", "greedy", "regime" or "model" */
    const char *report_dir; /* absolute; NULL: no report page, and the agent sees less */
    uint64_t p99_ms;        /* wanted 99th percentile of the latency; 0: none */
    uint64_t lease_ttl_ms, lease_hold_ms;
    bool hold_for_ever; /* keep the last settings when lease and hold have run out */
} tg_options;

typedef enum tg_phase { TG_OWN = 0, TG_LIVE = 1, TG_HELD = 2 } tg_phase;

typedef struct tg_settings {
    uint64_t batch_bytes;
    uint64_t flush_interval_us;
    uint64_t generation; /* 0 for the pipeline's own */
    tg_phase phase;      /* whose settings they are */
} tg_settings;

typedef enum tg_cause {
    TG_CAUSE_NONE = 0,
    TG_CAUSE_AGE,
    TG_CAUSE_SIZE,
    TG_CAUSE_BACKLOG,
    TG_CAUSE_PANIC,
    TG_CAUSE_WAITING
} tg_cause;

typedef enum tg_sink { TG_SINK_BUSY, TG_SINK_FREED, TG_SINK_IDLE } tg_sink;

typedef struct tg_queue {
    uint64_t bytes, capacity;
    uint64_t oldest_ns;     /* arrival of the oldest event, on the clock of `now`; of no meaning while events is 0 */
    uint64_t events;
    uint64_t waited_ns;     /* what all queued events have waited so far, together; for kappa only */
    uint64_t flush_cost_ns; /* cost of a flush whatever is in it; 0: not known; for kappa only */
} tg_queue;

typedef struct tg_verdict {
    tg_cause cause;    /* TG_CAUSE_NONE: wait */
    uint64_t take;     /* bytes to flush at most; a single larger event goes alone */
    uint64_t until_ns; /* ask again then, or when something happens; UINT64_MAX: only when something happens */
} tg_verdict;

typedef struct tg_pipeline tg_pipeline;

static inline uint64_t tg_clock(clockid_t id) {
    struct timespec t;
    if (clock_gettime(id, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* The monotonic clock: the clock of arrivals and of tg_decide. */
static inline uint64_t tg_now_ns(void) { return tg_clock(CLOCK_MONOTONIC); }

static inline uint64_t tg_min_(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t tg_max_(uint64_t a, uint64_t b) { return a > b ? a : b; }
static inline uint64_t tg_add_(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }
static inline uint64_t tg_mul_(uint64_t a, uint64_t b) { return b != 0 && a > UINT64_MAX / b ? UINT64_MAX : a * b; }

/* ---- L0: when to flush, and how much ----
 * Flush when the sink is free and the queue is four fifths full (panic), more than a batch has gathered behind the flush
 * before (backlog), a batch is full (size), the oldest event is a flush interval old (age), or, where kappa is above 0, all
 * queued events together have waited kappa flush costs. A flush takes all that is queued, up to batch_max. */
static inline tg_verdict tg_decide(const tg_settings *settings, const tg_queue *queue, tg_sink sink, uint64_t now_ns,
                                   uint64_t batch_max, double kappa) {
    tg_verdict wait = {TG_CAUSE_NONE, 0, UINT64_MAX};
    if (sink == TG_SINK_BUSY || queue->events == 0)
        return wait;
    uint64_t due = tg_add_(queue->oldest_ns, tg_mul_(settings->flush_interval_us, 1000));
    uint64_t batch = tg_min_(settings->batch_bytes, batch_max);
    tg_verdict flush = {TG_CAUSE_NONE, tg_min_(queue->bytes, batch_max), 0};
    if (queue->bytes >= queue->capacity - queue->capacity / 5)
        flush.cause = TG_CAUSE_PANIC;
    else if (queue->bytes > batch && sink == TG_SINK_FREED)
        flush.cause = TG_CAUSE_BACKLOG;
    else if (queue->bytes >= batch)
        flush.cause = TG_CAUSE_SIZE;
    else if (now_ns >= due)
        flush.cause = TG_CAUSE_AGE;
    else if (kappa > 0 && queue->flush_cost_ns > 0) {
        double wanted = kappa * (double)queue->flush_cost_ns;
        uint64_t enough = wanted < 9e18 ? (uint64_t)wanted : UINT64_MAX;
        if (queue->waited_ns >= enough)
            flush.cause = TG_CAUSE_WAITING;
        else {
            uint64_t left = enough - queue->waited_ns;
            uint64_t each = left / queue->events + (left % queue->events != 0);
            due = tg_min_(due, tg_add_(now_ns, each));
        }
    }
    if (flush.cause != TG_CAUSE_NONE)
        return flush;
    wait.until_ns = due;
    return wait;
}

/* ---- pages ---- */

struct tg_page_ {
    _Atomic uint64_t *words;
    dev_t dev;
    ino_t ino;
    unsigned batch, interval; /* where among the values the knobs lie */
    struct tg_page_ *next;    /* earlier pages: unmapped only at the end, because a reader may still look at one */
};

struct tg_pipeline {
    tg_options options;
    char name[65];
    char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char mode[16], policy[16];
    char *report_path;
    _Atomic uint64_t *report;
    dev_t report_dev;
    ino_t report_ino;
    _Atomic(struct tg_page_ *) page;
    /* The clock costs ten times a read of the page: it is asked at every 64th read, and when the lease has moved. */
    _Atomic uint32_t reads;
    _Atomic uint64_t seen_expires;
    _Atomic int phase;
    pthread_t thread;
    pthread_mutex_t lock; /* of `error` and `ended` */
    pthread_cond_t wake;
    bool ended;
    char error[256];
};

static inline void tg_say_(char *error, size_t size, const char *what, const char *where, const char *why) {
    /* What does not fit is cut: the beginning says enough. */
    if (error != NULL && size > 0 && snprintf(error, size, "%s %s: %s", what, where, why) < 0)
        error[0] = '\0';
}

static inline uint32_t tg_half_(uint64_t word, int upper) {
    uint32_t halves[2];
    memcpy(halves, &word, sizeof word);
    return halves[upper];
}

/* The lease of settings that end at `expires`: live, held, or the pipeline's own again. */
static inline tg_phase tg_lease_(const tg_options *o, uint64_t expires, uint64_t now) {
    if (expires == 0)
        return TG_OWN;
    if (now < expires)
        return TG_LIVE;
    if (o->hold_for_ever || now < tg_add_(expires, tg_mul_(o->lease_hold_ms, 1000000)))
        return TG_HELD;
    return TG_OWN;
}

/* One consistent copy of expiry, generation and both values; false when a writer was at work each time. The slot in force
 * is never the one that is written, and the sequence tells when it has ceased to be the one in force. */
static inline bool tg_copy_(struct tg_page_ *page, uint64_t out[4]) {
    for (int tries = 0; tries < 4096; tries++) {
        uint64_t before = atomic_load_explicit(&page->words[2], memory_order_acquire);
        _Atomic uint64_t *slot = &page->words[8 + 16 * (before & 1)];
        /* Acquiring each word keeps the second look at the sequence behind it; a fence would do, and sanitizers see none. */
        out[0] = atomic_load_explicit(&slot[0], memory_order_acquire);
        out[1] = atomic_load_explicit(&slot[1], memory_order_acquire);
        out[2] = atomic_load_explicit(&slot[2 + page->batch], memory_order_acquire);
        out[3] = atomic_load_explicit(&slot[2 + page->interval], memory_order_acquire);
        if (atomic_load_explicit(&page->words[2], memory_order_relaxed) == before)
            return true;
    }
    return false;
}

static inline uint64_t tg_within_(uint64_t value, const tg_range *range) {
    return tg_max_(tg_min_(value, range->max), range->min);
}

/* Settings to run by now: within the pipeline's own bounds whatever the page says. */
static inline tg_settings tg_read(tg_pipeline *p) {
    tg_settings own = {p->options.batch_bytes.own, p->options.flush_interval_us.own, 0, TG_OWN};
    struct tg_page_ *page = atomic_load_explicit(&p->page, memory_order_acquire);
    uint64_t said[4];
    if (page == NULL || !tg_copy_(page, said))
        return own;
    uint32_t reads = atomic_load_explicit(&p->reads, memory_order_relaxed) + 1;
    tg_phase phase = (tg_phase)atomic_load_explicit(&p->phase, memory_order_relaxed);
    if (reads >= 64 || said[0] != atomic_load_explicit(&p->seen_expires, memory_order_relaxed)) {
        reads = 0;
        phase = tg_lease_(&p->options, said[0], tg_clock(CLOCK_BOOTTIME));
        atomic_store_explicit(&p->phase, (int)phase, memory_order_relaxed);
        atomic_store_explicit(&p->seen_expires, said[0], memory_order_relaxed);
    }
    atomic_store_explicit(&p->reads, reads, memory_order_relaxed);
    if (phase == TG_OWN)
        return own;
    tg_settings found = {tg_within_(said[2], &p->options.batch_bytes),
                         tg_within_(said[3], &p->options.flush_interval_us), said[1], phase};
    return found;
}

/* Opens the settings page at `path`: NULL with the cause in `error`. */
static inline struct tg_page_ *tg_page_open_(const char *path, unsigned batch, unsigned interval, char *error,
                                             size_t size) {
    struct tg_page_ *page = NULL;
    struct stat meta;
    void *map = MAP_FAILED;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        tg_say_(error, size, "open settings page", path, strerror(errno));
        return NULL;
    }
    if (fstat(fd, &meta) != 0 || !S_ISREG(meta.st_mode) || meta.st_size != TG_PAGE_BYTES)
        tg_say_(error, size, "settings page", path, "is no plain file of 4096 bytes");
    else if ((map = mmap(NULL, TG_PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
        tg_say_(error, size, "map settings page", path, strerror(errno));
    else if ((page = calloc(1, sizeof *page)) == NULL)
        tg_say_(error, size, "settings page", path, strerror(ENOMEM));
    close(fd);
    if (page == NULL) {
        if (map != MAP_FAILED)
            munmap(map, TG_PAGE_BYTES);
        return NULL;
    }
    page->words = map;
    page->dev = meta.st_dev;
    page->ino = meta.st_ino;
    page->batch = batch;
    page->interval = interval;
    uint64_t magic = atomic_load_explicit(&page->words[0], memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&page->words[1], memory_order_relaxed);
    uint32_t in_use = tg_half_(head, 1);
    if (memcmp(&magic, TG_SETTINGS_MAGIC, 8) == 0 && tg_half_(head, 0) == TG_SETTINGS_ABI && in_use <= TG_SETTINGS_VALUES &&
        batch < in_use && interval < in_use)
        return page;
    tg_say_(error, size, "settings page", path, "of another version (bring agent and pipeline to one)");
    munmap(map, TG_PAGE_BYTES);
    free(page);
    return NULL;
}

/* ---- the report page ---- */

/* Adds to a cumulative word. */
static inline void tg_add(tg_pipeline *p, tg_word word, uint64_t n) {
    if (p->report != NULL)
        atomic_fetch_add_explicit(&p->report[2 + word], n, memory_order_relaxed);
}

/* Sets a word that says how things stand now. */
static inline void tg_set(tg_pipeline *p, tg_word word, uint64_t value) {
    if (p->report != NULL)
        atomic_store_explicit(&p->report[2 + word], value, memory_order_relaxed);
}

/* Bucket of a latency: units of 1,024 ns, eight buckets an octave. */
static inline unsigned tg_bucket(uint64_t ns) {
    uint64_t units = ns >> 10;
    unsigned log = 0;
    while (units >> log > 1)
        log++;
    unsigned shift = log > 3 ? log - 3 : 0;
    uint64_t bucket = ((uint64_t)shift << 3) + (units >> shift);
    return (unsigned)tg_min_(bucket, TG_REPORT_HISTOGRAM_WORDS - 1);
}

/* Counts `events` of one latency, from arrival to acknowledgement. */
static inline void tg_latency(tg_pipeline *p, uint64_t ns, uint64_t events) {
    if (p->report != NULL)
        atomic_fetch_add_explicit(&p->report[2 + TG_REPORT_HISTOGRAM_AT + tg_bucket(ns)], events,
                                  memory_order_relaxed);
}

static inline void tg_add_alone_(tg_pipeline *p, tg_word word, uint64_t n) {
    _Atomic uint64_t *at = &p->report[2 + word];
    atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + n, memory_order_relaxed);
}

/* Counts an acknowledged flush: by one thread at a time. */
static inline void tg_flushed(tg_pipeline *p, tg_cause cause, uint64_t events, uint64_t bytes, uint64_t took_ns) {
    static const tg_word by[] = {TG_FLUSHES_BY_AGE,     TG_FLUSHES_BY_AGE,   TG_FLUSHES_BY_SIZE,
                                 TG_FLUSHES_BY_BACKLOG, TG_FLUSHES_BY_PANIC, TG_FLUSHES_BY_WAITING};
    if (p->report == NULL)
        return;
    uint64_t us = tg_add_(took_ns, 500) / 1000; /* to the nearest: cutting would bend what is learnt from it */
    tg_add_alone_(p, TG_EVENTS_OUT, events);
    tg_add_alone_(p, TG_BYTES_OUT, bytes);
    tg_add_alone_(p, TG_FLUSHES, 1);
    tg_add_alone_(p, TG_FLUSH_NS, took_ns);
    tg_add_alone_(p, TG_FLUSH_BYTES_SQUARED, bytes * bytes);
    tg_add_alone_(p, TG_FLUSH_BYTES_US, bytes * us);
    tg_add_alone_(p, TG_FLUSH_US_SQUARED, us * us);
    if (cause > TG_CAUSE_NONE && cause <= TG_CAUSE_WAITING)
        tg_add_alone_(p, by[cause], 1);
    tg_set(p, TG_UPDATED_NS, tg_clock(CLOCK_BOOTTIME));
}

/* Says which settings are in use. */
static inline void tg_in_use(tg_pipeline *p, const tg_settings *s) {
    tg_set(p, TG_GENERATION, s->generation);
    tg_set(p, TG_BATCH_BYTES, s->batch_bytes);
    tg_set(p, TG_FLUSH_INTERVAL_US, s->flush_interval_us);
}

/* Where the report page lies; NULL where there is none. */
static inline const char *tg_report_path(const tg_pipeline *p) { return p->report_path; }

/* A fresh file each time: a reader that still holds the one of a predecessor never sees counts that fall. */
static inline bool tg_report_create_(tg_pipeline *p, const char *dir, char *error, size_t size) {
    size_t room = strlen(dir) + strlen(p->name) + 16;
    char *fresh = malloc(room);
    struct stat meta;
    int fd = -1;
    void *map = MAP_FAILED;
    p->report_path = malloc(room);
    if (fresh == NULL || p->report_path == NULL) {
        tg_say_(error, size, "report page in", dir, strerror(ENOMEM));
        free(fresh);
        return false;
    }
    snprintf(p->report_path, room, "%s/%s.report", dir, p->name);
    snprintf(fresh, room, "%s/.%s.report.new", dir, p->name);
    unlink(fresh);
    if ((fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600)) < 0 || fchmod(fd, 0600) != 0 ||
        ftruncate(fd, TG_PAGE_BYTES) != 0 || fstat(fd, &meta) != 0 ||
        (map = mmap(NULL, TG_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
        goto failed;
    uint32_t head[2] = {TG_REPORT_ABI, TG_REPORT_WORDS};
    uint64_t words[2];
    memcpy(&words[0], TG_REPORT_MAGIC, 8);
    memcpy(&words[1], head, 8);
    p->report = map;
    atomic_store_explicit(&p->report[0], words[0], memory_order_relaxed);
    atomic_store_explicit(&p->report[1], words[1], memory_order_relaxed);
    p->report_dev = meta.st_dev;
    p->report_ino = meta.st_ino;
    if (rename(fresh, p->report_path) != 0)
        goto failed;
    close(fd);
    free(fresh);
    return true;
failed:
    tg_say_(error, size, "create report page", p->report_path, strerror(errno));
    if (map != MAP_FAILED)
        munmap(map, TG_PAGE_BYTES);
    p->report = NULL;
    if (fd >= 0) {
        close(fd);
        unlink(fresh);
    }
    free(fresh);
    return false;
}

/* ---- JSON: enough to read one reply ---- */

static inline const char *tg_blank_(const char *s) {
    while (*s == ' ' || *s == '\t' || *s == '\n' || *s == '\r')
        s++;
    return s;
}

/* Past a string; its text goes to `out` unless that is NULL. NULL when it is none, or does not fit. */
static inline const char *tg_string_(const char *s, char *out, size_t size) {
    size_t used = 0;
    if (*s++ != '"')
        return NULL;
    while (*s != '"') {
        char text[4];
        size_t length = 1;
        text[0] = *s;
        if ((unsigned char)*s < 0x20)
            return NULL; /* the end, too */
        if (*s == '\\') {
            const char *plain = "\"\\/bfnrt", *meant = "\"\\/\b\f\n\r\t";
            s++;
            const char *at = *s != '\0' ? strchr(plain, *s) : NULL;
            if (at != NULL)
                text[0] = meant[at - plain];
            else if (*s == 'u') {
                unsigned code = 0;
                for (int i = 0; i < 4; i++) {
                    s++;
                    unsigned digit = *s >= '0' && *s <= '9'   ? (unsigned)(*s - '0')
                                     : *s >= 'a' && *s <= 'f' ? (unsigned)(*s - 'a') + 10
                                     : *s >= 'A' && *s <= 'F' ? (unsigned)(*s - 'A') + 10
                                                              : 16;
                    if (digit > 15)
                        return NULL;
                    code = code * 16 + digit;
                }
                /* The agent writes other characters as they are: an escape is a control character. */
                if (code == 0 || code > 0x7f)
                    return NULL;
                text[0] = (char)code;
            } else
                return NULL;
        }
        s++;
        if (out != NULL) {
            if (used + length >= size)
                return NULL;
            memcpy(out + used, text, length);
            used += length;
        }
    }
    if (out != NULL && size > 0)
        out[used] = '\0';
    return s + 1;
}

/* Past a value of any kind; NULL when it is none. */
static inline const char *tg_value_(const char *s, int depth) {
    s = tg_blank_(s);
    if (*s == '"')
        return tg_string_(s, NULL, 0);
    if (*s == '{' || *s == '[') {
        char close = *s == '{' ? '}' : ']';
        bool object = *s == '{';
        s = tg_blank_(s + 1);
        if (*s == close)
            return s + 1;
        while (depth < 32) {
            if (object) {
                if ((s = tg_string_(tg_blank_(s), NULL, 0)) == NULL || *(s = tg_blank_(s)) != ':')
                    return NULL;
                s++;
            }
            if ((s = tg_value_(s, depth + 1)) == NULL)
                return NULL;
            s = tg_blank_(s);
            if (*s == close)
                return s + 1;
            if (*s++ != ',')
                return NULL;
        }
        return NULL;
    }
    const char *begin = s;
    while ((*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'z') || *s == '-' || *s == '+' || *s == '.' || *s == 'E')
        s++;
    return s > begin ? s : NULL;
}

/* The value of a member of an object; NULL when there is none. */
static inline const char *tg_member_(const char *s, const char *name) {
    char key[64];
    s = tg_blank_(s);
    if (*s != '{')
        return NULL;
    do {
        s = tg_blank_(s + 1);
        const char *after = tg_string_(s, key, sizeof key);
        bool found = after != NULL && strcmp(key, name) == 0;
        if (after == NULL && (after = tg_string_(s, NULL, 0)) == NULL)
            return NULL;
        after = tg_blank_(after);
        if (*after != ':')
            return NULL;
        if (found)
            return tg_blank_(after + 1);
        if ((s = tg_value_(after + 1, 0)) == NULL)
            return NULL;
        s = tg_blank_(s);
    } while (*s == ',');
    return NULL;
}

/* Index of a text in an array of texts; -1 when it is not among the first eight. */
static inline int tg_index_(const char *s, const char *wanted) {
    char text[64];
    if (s == NULL || *s != '[')
        return -1;
    for (int i = 0; i < TG_SETTINGS_VALUES; i++) {
        s = tg_blank_(s + 1);
        if (tg_string_(s, text, sizeof text) != NULL && strcmp(text, wanted) == 0)
            return i;
        if ((s = tg_value_(s, 0)) == NULL || *(s = tg_blank_(s)) != ',')
            return -1;
    }
    return -1;
}

/* Writes `text` as a JSON string; false when it does not fit. */
static inline bool tg_quote_(const char *text, char *out, size_t size) {
    size_t used = 0;
    if (size < 3)
        return false;
    out[used++] = '"';
    for (; *text != '\0'; text++) {
        char piece[8];
        unsigned char c = (unsigned char)*text;
        int n = c == '"' || c == '\\' ? snprintf(piece, sizeof piece, "\\%c", c)
                : c < 0x20            ? snprintf(piece, sizeof piece, "\\u%04x", c)
                                      : snprintf(piece, sizeof piece, "%c", c);
        if (n < 0 || used + (size_t)n + 2 > size)
            return false;
        memcpy(out + used, piece, (size_t)n);
        used += (size_t)n;
    }
    out[used++] = '"';
    out[used] = '\0';
    return true;
}

/* ---- talking to the agent ---- */

#define TG_EXCHANGE_NS UINT64_C(3000000000)
#define TG_REPLY_MAX (80 * 1024)

static inline bool tg_patience_(int fd, int which, uint64_t deadline) {
    uint64_t now = tg_now_ns();
    uint64_t left = now < deadline ? deadline - now : 0;
    struct timeval time = {(time_t)(left / 1000000000), (suseconds_t)(left % 1000000000 / 1000)};
    if (left < 1000) {
        errno = ETIMEDOUT;
        return false;
    }
    return setsockopt(fd, SOL_SOCKET, which, &time, sizeof time) == 0;
}

/* One request; the reply, ended by a zero, or NULL. Its body begins at *body. */
static inline char *tg_exchange_(const char *path, const char *request, size_t length, int *status, char **body) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint64_t deadline = tg_now_ns() + TG_EXCHANGE_NS;
    char *reply = NULL;
    size_t got = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (!tg_patience_(fd, SO_SNDTIMEO, deadline) ||
        connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        goto failed;
    while (length > 0) {
        ssize_t sent = tg_patience_(fd, SO_SNDTIMEO, deadline) ? send(fd, request, length, MSG_NOSIGNAL) : -1;
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            goto failed;
        request += sent;
        length -= (size_t)sent;
    }
    if ((reply = malloc(TG_REPLY_MAX + 1)) == NULL)
        goto failed;
    while (got < TG_REPLY_MAX) {
        ssize_t read = tg_patience_(fd, SO_RCVTIMEO, deadline) ? recv(fd, reply + got, TG_REPLY_MAX - got, 0) : -1;
        if (read < 0 && errno == EINTR)
            continue;
        if (read < 0)
            goto failed;
        if (read == 0)
            break;
        got += (size_t)read;
    }
    reply[got] = '\0';
    if (strlen(reply) != got || sscanf(reply, "HTTP/1.1 %3d", status) != 1 ||
        (*body = strstr(reply, "\r\n\r\n")) == NULL) {
        errno = EPROTO;
        goto failed;
    }
    *body += 4;
    close(fd);
    return reply;
failed:
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINPROGRESS)
        errno = ETIMEDOUT;
    free(reply);
    close(fd);
    return NULL;
}

static inline void tg_note_(tg_pipeline *p, const char *what, const char *where, const char *why) {
    pthread_mutex_lock(&p->lock);
    tg_say_(p->error, sizeof p->error, what, where, why);
    pthread_mutex_unlock(&p->lock);
}

/* Why the pipeline runs on its own settings, or "" when the agent's are at hand. */
static inline void tg_why(tg_pipeline *p, char *out, size_t size) {
    pthread_mutex_lock(&p->lock);
    snprintf(out, size, "%s", p->error);
    pthread_mutex_unlock(&p->lock);
}

static inline bool tg_register_(tg_pipeline *p) {
    const tg_options *o = &p->options;
    char report[8192] = "", objective[64] = "", policy[64] = "", body[12288], head[256], detail[200], where[4096];
    char why[256];
    if (p->report_path != NULL) {
        memcpy(report, ",\"report\":", 11);
        if (!tg_quote_(p->report_path, report + 10, sizeof report - 10)) {
            tg_note_(p, "register", p->name, "the path of the report page is too long");
            return false;
        }
    }
    if (o->p99_ms > 0)
        snprintf(objective, sizeof objective, ",\"objective\":{\"p99_ms\":%" PRIu64 "}", o->p99_ms);
    if (p->policy[0] != '\0')
        snprintf(policy, sizeof policy, ",\"policy\":\"%s\"", p->policy);
    int length = snprintf(body, sizeof body,
                          "{\"knobs\":{\"batch_bytes\":{\"min\":%" PRIu64 ",\"max\":%" PRIu64 ",\"default\":%" PRIu64
                          "},\"flush_interval_us\":{\"min\":%" PRIu64 ",\"max\":%" PRIu64 ",\"default\":%" PRIu64
                          "}},\"mode\":\"%s\",\"lease\":{\"ttl_ms\":%" PRIu64 ",\"hold_ms\":%" PRIu64
                          ",\"on_expiry\":\"%s\"}%s%s%s}",
                          o->batch_bytes.min, o->batch_bytes.max, o->batch_bytes.own, o->flush_interval_us.min,
                          o->flush_interval_us.max, o->flush_interval_us.own, p->mode, o->lease_ttl_ms,
                          o->lease_hold_ms, o->hold_for_ever ? "hold" : "default", objective, policy, report);
    int heading = snprintf(head, sizeof head,
                           "PUT /v1/pipelines/%s HTTP/1.1\r\nHost: tidegate\r\nConnection: close\r\n"
                           "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n",
                           p->name, length);
    char *request = length > 0 && (size_t)length < sizeof body ? malloc((size_t)heading + (size_t)length) : NULL;
    if (request == NULL) {
        tg_note_(p, "register", p->name, "the request is too long");
        return false;
    }
    memcpy(request, head, (size_t)heading);
    memcpy(request + heading, body, (size_t)length);
    int status = 0;
    char *found = NULL;
    char *reply = tg_exchange_(p->socket, request, (size_t)(heading + length), &status, &found);
    free(request);
    if (reply == NULL) {
        tg_note_(p, "ask the agent at", p->socket, strerror(errno));
        return false;
    }
    bool registered = false;
    const char *values = tg_member_(found, "values"), *page_at = tg_member_(found, "settings_page");
    int batch = tg_index_(values, "batch_bytes"), interval = tg_index_(values, "flush_interval_us");
    if (status < 200 || status > 299) {
        const char *said = tg_member_(found, "detail");
        if (said == NULL || tg_string_(said, detail, sizeof detail) == NULL)
            snprintf(detail, sizeof detail, "status %d", status);
        tg_note_(p, "the agent refused", p->name, detail);
    } else if (page_at == NULL || tg_string_(page_at, where, sizeof where) == NULL || batch < 0 || interval < 0)
        tg_note_(p, "register", p->name, "the agent's reply lacks a page or a knob");
    else {
        struct tg_page_ *old = atomic_load(&p->page);
        struct tg_page_ *page = tg_page_open_(where, (unsigned)batch, (unsigned)interval, why, sizeof why);
        if (page == NULL)
            tg_note_(p, "register", p->name, why);
        else {
            if (old != NULL && old->dev == page->dev && old->ino == page->ino && old->batch == page->batch &&
                old->interval == page->interval) {
                munmap((void *)page->words, TG_PAGE_BYTES);
                free(page);
            } else {
                page->next = old;
                atomic_store(&p->page, page);
            }
            pthread_mutex_lock(&p->lock);
            p->error[0] = '\0';
            pthread_mutex_unlock(&p->lock);
            registered = true;
        }
    }
    free(reply);
    return registered;
}

/* The thread: registers, watches over the lease, and registers anew when it is no longer renewed. */
static inline void *tg_talk_(void *argument) {
    tg_pipeline *p = argument;
    uint64_t renewal = tg_min_(tg_mul_(p->options.lease_ttl_ms, 1000000) / 3, 1000000000);
    uint64_t patience = renewal * 5 / 2, backoff = 50000000, expires = 0, next = 0;
    for (;;) {
        uint64_t said[4], now = tg_clock(CLOCK_BOOTTIME);
        struct tg_page_ *page = atomic_load(&p->page);
        if (page != NULL && tg_copy_(page, said) && said[0] != expires) {
            expires = said[0];
            next = tg_max_(next, now + patience);
        }
        if (now >= next) {
            bool well = tg_register_(p);
            now = tg_clock(CLOCK_BOOTTIME);
            next = now + (well ? patience : backoff);
            backoff = well ? 50000000 : tg_min_(backoff * 2, 1000000000);
        }
        /* Looked at each second at least: a wait is counted on a clock that stops in suspend, a lease is not. */
        uint64_t pause = tg_min_(next > now ? next - now : 0, 1000000000), until = tg_now_ns() + pause;
        struct timespec at = {(time_t)(until / 1000000000), (long)(until % 1000000000)};
        pthread_mutex_lock(&p->lock);
        while (!p->ended && tg_now_ns() < until)
            pthread_cond_timedwait(&p->wake, &p->lock, &at);
        bool ended = p->ended;
        pthread_mutex_unlock(&p->lock);
        if (ended)
            return NULL;
    }
}

/* 4 to 512 KiB and 1 to 250 ms; 256 KiB and 250 ms without an agent; advice only; the usual lease. */
static inline tg_options tg_defaults(const char *name) {
    tg_options options = {.name = name,
                          .batch_bytes = {4096, 524288, 262144},
                          .flush_interval_us = {1000, 250000, 250000},
                          .mode = "observe",
                          .lease_ttl_ms = 10000,
                          .lease_hold_ms = 60000};
    return options;
}

static inline bool tg_word_fits_(const char *text, char *out, size_t size, const char *more) {
    size_t length = text != NULL ? strlen(text) : 0;
    for (size_t i = 0; i < length; i++)
        if (!((text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z') ||
              (text[i] >= '0' && text[i] <= '9') || strchr(more, text[i]) != NULL))
            return false;
    if (length >= size)
        return false;
    memcpy(out, text != NULL ? text : "", length + 1);
    return true;
}

static inline void tg_close(tg_pipeline *p);

/* A pipeline that runs on its own settings and registers in the background. NULL, with the cause in `error`, only for what
 * no agent could make good: a bad name, bounds that contradict each other, a report page that cannot be created. */
static inline tg_pipeline *tg_open(const tg_options *options, char *error, size_t size) {
    const char *socket = options->socket != NULL ? options->socket : getenv("TIDEGATE_SOCKET");
    const tg_range *ranges[2] = {&options->batch_bytes, &options->flush_interval_us};
    tg_pipeline *p = calloc(1, sizeof *p);
    if (p == NULL) {
        tg_say_(error, size, "open", "pipeline", strerror(ENOMEM));
        return NULL;
    }
    p->options = *options;
    socket = socket != NULL ? socket : "/run/tidegate/api.sock";
    const char *bad = NULL;
    if (!tg_word_fits_(options->name, p->name, sizeof p->name, "._-") || p->name[0] == '\0' || p->name[0] == '.')
        bad = "name: want 1 to 64 of a-z A-Z 0-9 . _ -, not starting with a dot";
    else if (!tg_word_fits_(options->mode, p->mode, sizeof p->mode, "") || p->mode[0] == '\0' ||
             !tg_word_fits_(options->policy, p->policy, sizeof p->policy, ""))
        bad = "mode or policy: want one of the words of the documentation";
    else if (strlen(socket) >= sizeof p->socket)
        bad = "socket: the path is too long for one";
    else if (options->lease_ttl_ms == 0)
        bad = "lease_ttl_ms: 0 (want at least 1, usually 10000)";
    for (int i = 0; i < 2 && bad == NULL; i++)
        if (ranges[i]->min < 1 || ranges[i]->min > ranges[i]->own || ranges[i]->own > ranges[i]->max)
            bad = "knobs: want 1 <= min <= own <= max";
    if (bad != NULL) {
        tg_say_(error, size, "open", "pipeline", bad);
        free(p);
        return NULL;
    }
    memcpy(p->socket, socket, strlen(socket) + 1);
    /* What the caller's strings hold was copied: nothing of them is kept. */
    p->options.name = p->options.socket = p->options.mode = p->options.policy = p->options.report_dir = NULL;
    memcpy(p->error, "not registered yet", 19);
    if (options->report_dir != NULL && !tg_report_create_(p, options->report_dir, error, size)) {
        free(p->report_path);
        free(p);
        return NULL;
    }
    pthread_condattr_t monotonic;
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int failed = pthread_create(&p->thread, NULL, tg_talk_, p);
    if (failed != 0) {
        tg_say_(error, size, "start the thread of", p->name, strerror(failed));
        p->ended = true;
        tg_close(p);
        return NULL;
    }
    return p;
}

/* Ends the thread, and takes the report page along unless a successor has put its own in the place. The agent is told
 * nothing: it sees the process end. No other thread may use the pipeline any more. */
static inline void tg_close(tg_pipeline *p) {
    struct stat meta;
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->lock);
    bool running = !p->ended;
    p->ended = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    if (running)
        pthread_join(p->thread, NULL);
    for (struct tg_page_ *page = atomic_load(&p->page), *next; page != NULL; page = next) {
        next = page->next;
        munmap((void *)page->words, TG_PAGE_BYTES);
        free(page);
    }
    if (p->report != NULL) {
        if (lstat(p->report_path, &meta) == 0 && meta.st_dev == p->report_dev && meta.st_ino == p->report_ino)
            unlink(p->report_path);
        munmap((void *)p->report, TG_PAGE_BYTES);
    }
    free(p->report_path);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

#endif
