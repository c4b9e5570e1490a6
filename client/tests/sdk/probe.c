/* What the tests ask of the C header, by name of the first argument. */
#include "../../c/tidegate.h"

static int usage(void) {
    fputs("probe: settings PAGE | report DIRECTORY NAME | decide | run SOCKET NAME DIRECTORY | hammer PAGE\n", stderr);
    return 2;
}

static tg_pipeline *offline(const char *name, const char *dir) {
    char error[256] = "";
    tg_options options = tg_defaults(name);
    options.socket = "/nonexistent/tidegate.sock";
    options.report_dir = dir;
    options.lease_ttl_ms = 1000;
    options.lease_hold_ms = 500;
    tg_pipeline *p = tg_open(&options, error, sizeof error);
    if (p == NULL)
        fprintf(stderr, "%s\n", error);
    return p;
}

static const char *word(tg_phase phase) { return phase == TG_LIVE ? "live" : phase == TG_HELD ? "held" : "own"; }

static void show(tg_settings s) {
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n", s.batch_bytes, s.flush_interval_us, s.generation, word(s.phase));
    fflush(stdout);
}

static bool look_at(tg_pipeline *p, const char *path) {
    char error[256];
    struct tg_page_ *page = tg_page_open_(path, 0, 1, error, sizeof error);
    if (page == NULL) {
        fprintf(stderr, "%s\n", error);
        return false;
    }
    page->next = atomic_load(&p->page);
    atomic_store(&p->page, page);
    return true;
}

/* Prints the settings for each line of standard input, as 64 reads in a row come to see them. */
static int settings(const char *path) {
    tg_pipeline *p = offline("probe", NULL);
    if (p == NULL || !look_at(p, path)) {
        tg_close(p);
        return 1;
    }
    char line[16];
    while (fgets(line, sizeof line, stdin) != NULL) {
        tg_settings s = {0};
        for (int i = 0; i < 64; i++)
            s = tg_read(p);
        show(s);
    }
    tg_close(p);
    return 0;
}

static _Atomic bool over;

static void *reader(void *argument) {
    uint64_t torn = 0;
    while (!atomic_load(&over)) {
        tg_settings s = tg_read(argument);
        /* The writer keeps them in step. */
        if (s.phase == TG_LIVE && (s.batch_bytes != 4096 + s.generation || s.flush_interval_us != 1000 + s.generation))
            torn++;
    }
    return (void *)(uintptr_t)torn;
}

/* Four threads read until standard input ends; prints what they saw torn. */
static int hammer(const char *path) {
    pthread_t threads[4];
    uint64_t torn = 0;
    tg_pipeline *p = offline("probe", NULL);
    if (p == NULL || !look_at(p, path)) {
        tg_close(p);
        return 1;
    }
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, reader, p);
    puts("reading");
    fflush(stdout);
    while (getchar() != EOF) {
    }
    atomic_store(&over, true);
    for (int i = 0; i < 4; i++) {
        void *seen;
        pthread_join(threads[i], &seen);
        torn += (uintptr_t)seen;
    }
    printf("torn %" PRIu64 "\n", torn);
    tg_close(p);
    return 0;
}

/* A known report, kept until standard input ends. */
static int report(const char *dir, const char *name) {
    tg_pipeline *p = offline(name, dir);
    if (p == NULL)
        return 1;
    tg_add(p, TG_EVENTS_IN, 7);
    tg_add(p, TG_BYTES_IN, 3584);
    tg_set(p, TG_QUEUE_CAPACITY, 65536);
    tg_flushed(p, TG_CAUSE_BACKLOG, 3, 1536, 10000);
    tg_flushed(p, TG_CAUSE_WAITING, 1, 512, 5999);
    tg_latency(p, 1025, 4);
    tg_latency(p, 20000000, 2);
    tg_latency(p, UINT64_MAX, 1);
    tg_in_use(p, &(tg_settings){8192, 5000, 9, TG_LIVE});
    puts(tg_report_path(p));
    fflush(stdout);
    while (getchar() != EOF) {
    }
    tg_close(p);
    return 0;
}

/* Verdicts of the rule: one case a line, in the order of the fields. */
static int decide(void) {
    tg_settings s = {0};
    tg_queue q = {0};
    int sink;
    uint64_t now, max;
    double kappa;
    while (scanf("%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
                 " %d %" SCNu64 " %" SCNu64 " %lf",
                 &s.batch_bytes, &s.flush_interval_us, &q.bytes, &q.capacity, &q.oldest_ns, &q.events, &q.waited_ns,
                 &q.flush_cost_ns, &sink, &now, &max, &kappa) == 12) {
        tg_verdict v = tg_decide(&s, &q, (tg_sink)sink, now, max, kappa);
        printf("%d %" PRIu64 " %" PRIu64 "\n", (int)v.cause, v.take, v.until_ns);
    }
    return 0;
}

/* Registers and reports events; says for each line of standard input how things stand. */
static int run(const char *socket, const char *name, const char *dir) {
    char error[256] = "", line[16];
    tg_options options = tg_defaults(name);
    options.socket = socket;
    options.report_dir = dir;
    options.mode = "on";
    options.lease_ttl_ms = 1000;
    options.lease_hold_ms = 1000;
    tg_pipeline *p = tg_open(&options, error, sizeof error);
    if (p == NULL) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    tg_set(p, TG_QUEUE_CAPACITY, 64 << 20);
    while (fgets(line, sizeof line, stdin) != NULL) {
        tg_settings now = {0};
        for (int i = 0; i < 64; i++)
            now = tg_read(p);
        tg_add(p, TG_EVENTS_IN, 400);
        tg_add(p, TG_BYTES_IN, 400 * 512);
        tg_latency(p, 20000000, 400);
        tg_in_use(p, &now);
        tg_flushed(p, TG_CAUSE_AGE, 400, 400 * 512, 10000000);
        tg_why(p, error, sizeof error);
        printf("%s | ", error);
        show(now);
    }
    tg_close(p);
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "settings") == 0 && argc == 3)
        return settings(argv[2]);
    if (strcmp(what, "hammer") == 0 && argc == 3)
        return hammer(argv[2]);
    if (strcmp(what, "report") == 0 && argc == 4)
        return report(argv[2], argv[3]);
    if (strcmp(what, "decide") == 0)
        return decide();
    if (strcmp(what, "run") == 0 && argc == 5)
        return run(argv[2], argv[3], argv[4]);
    return usage();
}
