/* A program whose stacks are known. It says "ready", acts on a line of input, says how its time was divided, and ends on
   another line: `mix MS` recursion 60 deep and calls of the kernel; `dlopen MS FILE` the same in a library; `signal MS` in
   a signal handler; `exec MS` as another program; `storm MS` in children that live for a few milliseconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

__attribute__((noinline)) long spin(long rounds) {
    volatile long x = 0;
    for (long i = 0; i < rounds; i++) x += i;
    return x;
}

__attribute__((noinline)) long recurse(int depth, long rounds) {
    return depth == 0 ? spin(rounds) : recurse(depth - 1, rounds) + 1;
}

__attribute__((noinline)) long ask_the_kernel(int rounds) {
    long sum = 0;
    char bytes[4096];
    for (int i = 0; i < rounds; i++) sum += syscall(SYS_getrandom, bytes, sizeof bytes, 0);
    return sum;
}

/* Each part adds the CPU time that it took to its own account. */
static double deep, asked;

__attribute__((noinline)) static void mix(double until) {
    while (seconds(CLOCK_MONOTONIC) < until) {
        double begin = seconds(CLOCK_THREAD_CPUTIME_ID);
        recurse(60, 300000);
        double middle = seconds(CLOCK_THREAD_CPUTIME_ID);
        ask_the_kernel(100);
        deep += middle - begin;
        asked += seconds(CLOCK_THREAD_CPUTIME_ID) - middle;
    }
}

static void on_alarm(int number) {
    (void)number;
    recurse(20, 2000000);
}

static void wait_for_line(void) {
    char line[16];
    if (!fgets(line, sizeof line, stdin)) exit(1);
}

static void say(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("%.6f %.6f %.0f %ld\n", deep, asked, seconds(CLOCK_PROCESS_CPUTIME_ID) * 1e9, used.ru_nvcsw + used.ru_nivcsw);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    const char *what = argv[1];
    double length = atof(argv[2]) / 1e3;
    if (strcmp(what, "changed") != 0) {
        puts("ready");
        fflush(stdout);
        wait_for_line();
    }
    double until = seconds(CLOCK_MONOTONIC) + length;
    if (strcmp(what, "mix") == 0 || strcmp(what, "changed") == 0) {
        mix(until);
    } else if (strcmp(what, "dlopen") == 0) {
        void *library = dlopen(argv[3], RTLD_NOW);
        long (*late)(long) = library ? (long (*)(long))dlsym(library, "late_outer") : NULL;
        if (!late) return 3;
        while (seconds(CLOCK_MONOTONIC) < until) late(300000);
    } else if (strcmp(what, "signal") == 0) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_handler = on_alarm;
        sigaction(SIGALRM, &action, NULL);
        struct itimerval every = {{0, 10000}, {0, 10000}};
        setitimer(ITIMER_REAL, &every, NULL);
        while (seconds(CLOCK_MONOTONIC) < until) recurse(10, 300000);
    } else if (strcmp(what, "exec") == 0) {
        execl("/proc/self/exe", "paths", "changed", argv[2], NULL);
        return 4;
    } else if (strcmp(what, "storm") == 0) {
        while (seconds(CLOCK_MONOTONIC) < until) {
            if (fork() == 0) {
                recurse(30, 3000000);
                _exit(0);
            }
            wait(NULL);
        }
    }
    say();
    wait_for_line();
    return 0;
}
