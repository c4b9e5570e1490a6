/* A storm of short processes: forked ones that go on as they are, and ones that become another program, as shells make
   them: they borrow their parent's memory until then. */
#define _GNU_SOURCE
#include "key.h"
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile uint64_t sink;

APART static void forked_part(uint64_t rounds) { sink += churn(sink, rounds); sink++; }
/* Not the same as the other one: compilers fold functions that are. */
APART static void replaced_part(uint64_t rounds) { sink ^= churn(sink + 7, rounds); sink--; }

static uint64_t used(const struct rusage *u) {
    return ((uint64_t)u->ru_utime.tv_sec + (uint64_t)u->ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)u->ru_utime.tv_usec + (uint64_t)u->ru_stime.tv_usec) * 1000u;
}

/* A child writes what its part took; all else it took is start-up. */
static uint64_t child(int replace, char *self, uint64_t *whole) {
    int pipes[2];
    uint64_t took = 0;
    if (pipe(pipes)) exit(1);
    pid_t pid = replace ? vfork() : fork();
    if (pid == 0) {
        dup2(pipes[1], 3);
        if (replace) {
            execl(self, self, "child", (char *)0);
            _exit(1);
        }
        uint64_t begin = cpu_ns();
        forked_part(6000000);
        took = cpu_ns() - begin;
        if (write(3, &took, sizeof took) != sizeof took) _exit(1);
        _exit(0);
    }
    struct rusage usage;
    int status;
    close(pipes[1]);
    if (read(pipes[0], &took, sizeof took) != sizeof took) exit(1);
    wait4(pid, &status, 0, &usage);
    close(pipes[0]);
    *whole += used(&usage);
    return took;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "child") == 0) {
        uint64_t begin = cpu_ns();
        replaced_part(3000000);
        uint64_t took = cpu_ns() - begin;
        return write(3, &took, sizeof took) != sizeof took;
    }
    uint64_t length = argc > 1 ? strtoull(argv[1], 0, 10) * 1000000u : 1000000000u;
    uint64_t forked = 0, replaced = 0, whole = 0, processes = 0;
    say("ready");
    while (whole < length) {
        forked += child(0, argv[0], &whole);
        replaced += child(1, argv[0], &whole);
        processes += 2;
    }
    char text[256];
    snprintf(text, sizeof text, "{\"forked_part\":%llu,\"replaced_part\":%llu,\"rest\":%llu,\"processes\":%llu}", (unsigned long long)forked,
             (unsigned long long)replaced, (unsigned long long)(whole - forked - replaced), (unsigned long long)processes);
    say(text);
    return 0;
}
