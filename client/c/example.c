/* A pipeline that batches numbers from standard input and writes them to standard output, joined to tidegate.
 *     cc -std=c11 -O2 -pthread example.c -o example && seq 1 100000 | ./example */
#include "tidegate.h"

#define BATCH_MAX (512 * 1024)

int main(void) {
    char error[256], line[256];
    tg_options options = tg_defaults("example-c");
    options.mode = "on";
    options.report_dir = "/tmp";
    tg_pipeline *tide = tg_open(&options, error, sizeof error);
    if (tide == NULL) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    static char batch[BATCH_MAX + sizeof line];
    tg_queue queue = {.capacity = sizeof batch};
    while (fgets(line, sizeof line, stdin) != NULL) {
        size_t length = strlen(line);
        if (queue.events++ == 0)
            queue.oldest_ns = tg_now_ns();
        memcpy(batch + queue.bytes, line, length);
        queue.bytes += length;
        tg_add(tide, TG_EVENTS_IN, 1);
        tg_add(tide, TG_BYTES_IN, length);
        tg_settings now = tg_read(tide);
        uint64_t began = tg_now_ns();
        tg_verdict verdict = tg_decide(&now, &queue, TG_SINK_IDLE, began, BATCH_MAX, 0);
        if (verdict.cause == TG_CAUSE_NONE)
            continue;
        fwrite(batch, 1, queue.bytes, stdout);
        fflush(stdout);
        tg_in_use(tide, &now);
        tg_latency(tide, tg_now_ns() - queue.oldest_ns, queue.events);
        tg_flushed(tide, verdict.cause, queue.events, queue.bytes, tg_now_ns() - began);
        queue.events = queue.bytes = 0;
    }
    fwrite(batch, 1, queue.bytes, stdout);
    tg_close(tide);
    return 0;
}
