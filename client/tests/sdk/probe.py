"""What the tests ask of the Python module, by name of the first argument; see probe.c."""

import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python"))
import tidegate

CAUSES = [None, "age", "size", "backlog", "panic", "waiting"]
SINKS = ["busy", "freed", "idle"]


def offline(name, report_dir=None):
    return tidegate.Tuner(
        name, socket_path="/nonexistent/tidegate.sock", report_dir=report_dir, ttl_ms=1000, hold_ms=500
    )


def show(settings):
    print(settings.batch_bytes, settings.flush_interval_us, settings.generation, settings.phase, flush=True)


def look_at(tuner, path):
    tuner._page = tidegate._SettingsPage(path, ["batch_bytes", "flush_interval_us"])


def settings(path):
    tuner = offline("probe")
    look_at(tuner, path)
    for _ in sys.stdin:
        show(tuner.read())


def hammer(path):
    tuner = offline("probe")
    look_at(tuner, path)
    over, torn = threading.Event(), []

    def read():
        while not over.is_set():
            seen = tuner.read()
            steps = (seen.batch_bytes - 4096, seen.flush_interval_us - 1000)
            if seen.phase == "live" and steps != (seen.generation, seen.generation):
                torn.append(seen)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    print("reading", flush=True)
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    print("torn", len(torn))


def report(directory, name):
    with offline(name, directory) as tuner:
        page = tuner.report
        page.add(tidegate.EVENTS_IN, 7)
        page.add(tidegate.BYTES_IN, 3584)
        page.set(tidegate.QUEUE_CAPACITY, 65536)
        page.flushed("backlog", 3, 1536, 10000)
        page.flushed("waiting", 1, 512, 5999)
        page.latency(1025, 4)
        page.latency(20000000, 2)
        page.latency((1 << 64) - 1, 1)
        page.in_use(tidegate.Settings(8192, 5000, 9, "live"))
        print(page.path, flush=True)
        sys.stdin.read()


def decide():
    for line in sys.stdin:
        *numbers, kappa = line.split()
        batch, interval, nbytes, capacity, oldest, events, waited, cost, sink, now, most = map(int, numbers)
        queue = tidegate.Queue(nbytes, capacity, events, oldest, waited, cost)
        cause, take, until = tidegate.decide(
            tidegate.Settings(batch, interval), queue, SINKS[sink], now, most, float(kappa)
        )
        if cause is not None:
            until = 0
        elif until is None:
            until = (1 << 64) - 1
        print(CAUSES.index(cause), take, min(until, (1 << 64) - 1))


def batcher():
    """Nothing is lost between four senders and a flusher, and causes are those of the rule; prints what came out."""
    queue = tidegate.Batcher(settings=tidegate.Settings(500, 1000), capacity=2000, batch_max=700)
    seen = [[] for _ in range(4)]

    def send(sender):
        for n in range(2000):
            queue.push((sender, n), 1 + n % 40)

    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
    closer = threading.Thread(target=lambda: ([s.join() for s in senders], queue.close()))
    for thread in [*senders, closer]:
        thread.start()
    for batch in queue:
        assert batch.nbytes <= 700, batch.nbytes
        for sender, n in batch.items:
            seen[sender].append(n)
        batch.acknowledge()
    assert seen == [list(range(2000))] * 4
    quiet = tidegate.Batcher(settings=tidegate.Settings(1 << 20, 3600000000), kappa=1.0)
    causes = []
    for nbytes in (1 << 20, 10):
        quiet.push("x", nbytes)
        batch = quiet.next_batch()
        causes.append(batch.cause)
        batch.acknowledge()
    quiet.close()
    try:
        quiet.push("late", 1)
    except tidegate.Closed:
        causes.append("closed")
    print(*causes)


def run(socket_path, name, directory):
    tuner = tidegate.Tuner(
        name, socket_path=socket_path, report_dir=directory, mode="on", ttl_ms=1000, hold_ms=1000
    )
    page = tuner.report
    page.set(tidegate.QUEUE_CAPACITY, 64 << 20)
    with tuner:
        for _ in sys.stdin:
            now = tuner.read()
            page.add(tidegate.EVENTS_IN, 400)
            page.add(tidegate.BYTES_IN, 400 * 512)
            page.latency(20000000, 400)
            page.in_use(now)
            page.flushed("age", 400, 400 * 512, 10000000)
            print(tuner.why, end=" | ")
            show(now)


{
    "settings": settings, "hammer": hammer, "report": report, "decide": decide, "batcher": batcher, "run": run,
}[sys.argv[1]](*sys.argv[2:])
