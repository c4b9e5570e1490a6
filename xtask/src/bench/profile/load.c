/* A load for profilers: `load cpu THREADS`, or `load io THREADS SWITCHES_PER_SECOND`.
 *
 * Built without frame pointers, as most of what runs on a host is. Every 100 ms it prints a line of three numbers:
 * CLOCK_MONOTONIC in ns, units of work done since the start, CPU time of the whole process in ns.
 *
 * cpu: a tree of calls 24 deep that ends in one of three leaves. io: each thread reads a block, computes for a
 * little while at the bottom of the same tree, and sleeps, so that all threads together switch at the rate asked for. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LEAVE __attribute__((noinline, noclone))

struct worker {
    _Atomic uint64_t work;
    uint64_t period_ns;
    int fd;
    char apart[104];
};

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

LEAVE static uint64_t leaf_multiply(uint64_t x, int n) {
    for (int i = 0; i < n; i++) x = x * 6364136223846793005u + 1442695040888963407u;
    return x;
}
LEAVE static uint64_t leaf_divide(uint64_t x, int n) {
    for (int i = 0; i < n / 8; i++) x = x / ((x & 7) + 3) + 0x9e3779b97f4a7c15u;
    return x;
}
LEAVE static uint64_t leaf_shift(uint64_t x, int n) {
    for (int i = 0; i < n; i++) x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return x;
}

LEAVE static uint64_t descend(uint64_t x, int depth, int n) {
    if (depth > 0) {
        uint64_t below = descend(x + (uint64_t)depth, depth - 1, n);
        return below ^ (uint64_t)depth; /* Something is left to do: no tail call. */
    }
    switch (x % 3) {
    case 0: return leaf_multiply(x, n);
    case 1: return leaf_divide(x, n);
    default: return leaf_shift(x, n);
    }
}

static void *compute(void *arg) {
    struct worker *w = arg;
    uint64_t x = (uintptr_t)w;
    for (;;) {
        x = descend(x, 24, 2000);
        atomic_fetch_add_explicit(&w->work, 1 + (x == 0), memory_order_relaxed);
    }
    return NULL;
}

static void *read_and_wait(void *arg) {
    struct worker *w = arg;
    char block[4096];
    uint64_t x = (uintptr_t)w, next = clock_ns(CLOCK_MONOTONIC) + x % w->period_ns;
    for (;;) {
        if (pread(w->fd, block, sizeof block, 0) != (ssize_t)sizeof block) exit(3);
        x = descend(x + (uint64_t)block[0], 24, 500);
        atomic_fetch_add_explicit(&w->work, 1 + (x == 0), memory_order_relaxed);
        next += w->period_ns;
        struct timespec until = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
    return NULL;
}

int main(int argc, char **argv) {
    int io = argc > 1 && strcmp(argv[1], "io") == 0;
    int threads = argc > 2 ? atoi(argv[2]) : 0;
    int rate = argc > 3 ? atoi(argv[3]) : 0;
    if (threads < 1 || threads > 4096 || (io && rate < 1)) {
        fputs("usage: load cpu THREADS | load io THREADS SWITCHES_PER_SECOND\n", stderr);
        return 2;
    }
    struct worker *workers = aligned_alloc(128, sizeof *workers * (size_t)threads);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 128 * 1024);
    for (int i = 0; i < threads; i++) {
        workers[i] = (struct worker){.period_ns = io ? (uint64_t)threads * 1000000000u / (uint64_t)rate : 0};
        workers[i].fd = io ? open("/proc/self/exe", O_RDONLY | O_CLOEXEC) : -1;
        pthread_t id;
        if (pthread_create(&id, &attr, io ? read_and_wait : compute, &workers[i]) != 0) return 4;
    }
    for (;;) {
        usleep(100000);
        uint64_t work = 0;
        for (int i = 0; i < threads; i++) work += atomic_load_explicit(&workers[i].work, memory_order_relaxed);
        printf("%llu %llu %llu\n", (unsigned long long)clock_ns(CLOCK_MONOTONIC), (unsigned long long)work,
               (unsigned long long)clock_ns(CLOCK_PROCESS_CPUTIME_ID));
        fflush(stdout);
        if (getppid() == 1) return 0;
    }
}
