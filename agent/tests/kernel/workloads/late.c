/* A library that is loaded while it is watched. */
__attribute__((noinline)) static long late_inner(long rounds) {
    volatile long x = 0;
    for (long i = 0; i < rounds; i++) x += i;
    return x;
}

long late_outer(long rounds) { return late_inner(rounds) + 1; }
