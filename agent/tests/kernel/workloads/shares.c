/* C without frame pointers. Parts: one leaf reached by two ways, recursion 60 deep, and time inside of a system call. */
#define _GNU_SOURCE
#include "key.h"
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { PARTS = 4, DEPTH = 60 };
static const char *const NAMES[PARTS] = {"by_the_long_way", "by_the_short_way", "sixty_deep", "inside_a_call"};
/* Hundredths of the time that each part is to get. */
static const uint64_t SHARES[PARTS] = {40, 15, 27, 18};

static volatile uint64_t sink;
static char *buffer;
static int zero;

APART static void leaf(uint64_t rounds) { sink += churn(sink, rounds); }
APART static void middle(uint64_t rounds) { leaf(rounds); sink++; }
APART static void by_the_long_way(void) { middle(20000); sink++; }
APART static void by_the_short_way(void) { leaf(20000); sink++; }
APART static void down(int left) {
    if (left > 0) down(left - 1); else leaf(20000);
    sink++;
}
APART static void sixty_deep(void) { down(DEPTH - 1); sink++; }
APART static void inside_a_call(void) { sink += (uint64_t)read(zero, buffer, 1 << 18); }

int main(int argc, char **argv) {
    static void (*const parts[PARTS])(void) = {by_the_long_way, by_the_short_way, sixty_deep, inside_a_call};
    uint64_t length = argc > 1 ? strtoull(argv[1], 0, 10) * 1000000u : 1000000000u, spent[PARTS] = {0}, all = 0;
    buffer = malloc(1 << 18);
    memset(buffer, 1, 1 << 18);
    zero = open("/dev/zero", O_RDONLY);
    say("ready");
    while (all < length) {
        /* The part that lags behind its share most. */
        int next = 0;
        for (int i = 1; i < PARTS; i++)
            if (spent[i] * SHARES[next] < spent[next] * SHARES[i]) next = i;
        uint64_t begin = cpu_ns();
        for (int i = 0; i < 20; i++) parts[next]();
        uint64_t took = cpu_ns() - begin;
        spent[next] += took;
        all += took;
    }
    char text[256];
    int at = 0;
    for (int i = 0; i < PARTS; i++) at += snprintf(text + at, sizeof text - at, "%c\"%s\":%llu", i ? ',' : '{', NAMES[i], (unsigned long long)spent[i]);
    snprintf(text + at, sizeof text - at, "}");
    say(text);
    return 0;
}
