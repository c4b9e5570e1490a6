/* What the workloads in C and C++ share: they wait to be told, spend CPU time by parts, and know how much each part got. */
#ifndef KEY_H
#define KEY_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define APART __attribute__((noinline, noclone))

/* CPU time of this thread, ns. */
static inline uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Says that it is ready and waits for a line, or says what it has to say and does so. */
static inline void say(const char *text) {
    static char line[64];
    puts(text);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) exit(0);
}

/* Work that no compiler takes out. */
static inline uint64_t churn(uint64_t x, uint64_t rounds) {
    for (uint64_t i = 0; i < rounds; i++) {
        x = x * 6364136223846793005u + i;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}
#endif
