"""Join a batching pipeline written in Python to tidegate. One module, the standard library, Linux, Python 3.9 or later.

A pipeline names its two knobs, batch size and flush interval, their bounds and its own values. From then on it runs on
what the agent finds right for its present load. Without an agent everything here runs on the pipeline's own settings, and
connects when an agent appears; when the agent falls silent the last settings are held for the time of the lease and then
given up for the pipeline's own. No call here blocks on the agent or fails because of it.

    import tidegate

    tuner = tidegate.Tuner("ingest", mode="on", report_dir="/run/user/1000")
    batcher = tidegate.Batcher(tuner)

    # any thread                          # one thread
    batcher.push(event, len(event))       for batch in batcher:
                                              sink.write(batch.items)
                                              batch.acknowledge()

A pipeline with a queue of its own uses ``tuner.read()`` and ``decide()`` alone.
"""

import collections
import http.client
import json
import mmap
import os
import re
import socket
import stat
import struct
import threading
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

__all__ = ["Batch", "Batcher", "Closed", "Knob", "Queue", "ReportPage", "Settings", "Tuner", "decide"]

DEFAULT_SOCKET = "/run/tidegate/api.sock"

# Layouts of the two pages; the Rust client's abi::page holds the same numbers.
PAGE_BYTES = 4096
SETTINGS_MAGIC = b"tg-set\0\1"
SETTINGS_ABI = 1
SETTINGS_VALUES = 8
REPORT_MAGIC = b"tg-rep\0\1"
REPORT_ABI = 2
REPORT_WORDS = 24
HISTOGRAM_AT = 32
HISTOGRAM_WORDS = 224
_SEQ, _SLOT, _SLOT_WORDS = 2, 8, 16

EVENTS_IN, EVENTS_OUT, BYTES_IN, BYTES_OUT, FLUSHES = 0, 1, 2, 3, 4
FLUSH_NS, FLUSH_ERRORS, QUEUE_EVENTS, QUEUE_BYTES, QUEUE_CAPACITY = 9, 10, 11, 12, 13
GENERATION, BATCH_BYTES, FLUSH_INTERVAL_US, UPDATED_NS, EVENTS_LOST = 14, 15, 16, 17, 18
FLUSH_BYTES_SQUARED, FLUSH_BYTES_US, FLUSH_US_SQUARED, STALLED_NS = 20, 21, 22, 23
_BY_CAUSE = {"age": 5, "size": 6, "backlog": 7, "panic": 8, "waiting": 19}

_MASK = (1 << 64) - 1
_NEVER = _MASK
_EXCHANGE_S = 3.0
_REPLY_MAX = 64 * 1024


class Knob(NamedTuple):
    """Bounds of a knob and the pipeline's own value: ``1 <= min <= own <= max``."""

    min: int
    max: int
    own: int


class Settings(NamedTuple):
    """What a pipeline runs by; ``phase`` says whose settings they are: ``live``, ``held`` or its ``own``."""

    batch_bytes: int
    flush_interval_us: int
    generation: int = 0
    phase: str = "own"


class Queue(NamedTuple):
    """The queue before the sink. The last two are for ``kappa`` only; a cost of 0 is one that is not known."""

    bytes: int
    capacity: int
    events: int
    oldest_ns: int = 0
    waited_ns: int = 0
    flush_cost_ns: int = 0


def decide(
    settings: Settings, queue: Queue, sink: str, now_ns: int, batch_max: int, kappa: float = 0.0
) -> Tuple[Optional[str], int, Optional[int]]:
    """Whether to flush: ``(cause, bytes, None)``, or ``(None, 0, when to ask again)``.

    ``sink`` is ``busy``, ``freed`` (the flush in flight has just ended) or ``idle``. A flush begins when the queue is four
    fifths full (``panic``), more than a batch has gathered behind the flush before (``backlog``), a batch is full
    (``size``), the oldest event is a flush interval old (``age``), or, where ``kappa`` is above 0, all queued events
    together have waited that many flush costs (``waiting``). It takes all that is queued, up to ``batch_max``.
    """
    if sink == "busy" or queue.events == 0:
        return None, 0, None
    due = min(queue.oldest_ns + settings.flush_interval_us * 1000, _NEVER)
    batch = min(settings.batch_bytes, batch_max)
    cause = None
    if queue.bytes >= queue.capacity - queue.capacity // 5:
        cause = "panic"
    elif queue.bytes > batch and sink == "freed":
        cause = "backlog"
    elif queue.bytes >= batch:
        cause = "size"
    elif now_ns >= due:
        cause = "age"
    elif kappa > 0 and queue.flush_cost_ns > 0:
        wanted = kappa * queue.flush_cost_ns
        enough = int(wanted) if wanted < 9e18 else _NEVER
        if queue.waited_ns >= enough:
            cause = "waiting"
        else:
            due = min(due, now_ns + -((queue.waited_ns - enough) // queue.events))
    if cause is None:
        return None, 0, due
    return cause, min(queue.bytes, batch_max), None


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class _SettingsPage:
    """The settings page of a pipeline, read-only."""

    def __init__(self, path: str, values: List[str]):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            meta = os.fstat(fd)
            if not stat.S_ISREG(meta.st_mode) or meta.st_size != PAGE_BYTES:
                raise OSError(f"settings page {path}: is no plain file of {PAGE_BYTES} bytes")
            self._map = mmap.mmap(fd, PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(fd)
        self.identity = (meta.st_dev, meta.st_ino, tuple(values))
        self._words = memoryview(self._map).cast("Q")
        abi, in_use = struct.unpack_from("=II", self._map, 8)
        places = [values.index("batch_bytes"), values.index("flush_interval_us")]
        if self._map[:8] != SETTINGS_MAGIC or abi != SETTINGS_ABI or not max(places) < in_use <= SETTINGS_VALUES:
            raise OSError(f"settings page {path}: of another version (bring agent and pipeline to one)")
        self._batch, self._interval = (2 + place for place in places)

    def read(self) -> Optional[Tuple[int, int, int, int]]:
        """End of the lease, generation and both values, of one instant; None when a writer was at work each time."""
        words = self._words
        for _ in range(64):
            seq = words[_SEQ]
            at = _SLOT + _SLOT_WORDS * (seq & 1)
            copy = words[at], words[at + 1], words[at + self._batch], words[at + self._interval]
            # Python has no fences: a copy that is taken twice alike, under one sequence, stands in for one.
            again = words[at], words[at + 1], words[at + self._batch], words[at + self._interval]
            if copy == again and words[_SEQ] == seq:
                return copy
        return None


def bucket(latency_ns: int) -> int:
    """Bucket of a latency: units of 1,024 ns, eight buckets an octave."""
    units = latency_ns >> 10
    shift = max(units.bit_length() - 1 - 3, 0)
    return min((shift << 3) + (units >> shift), HISTOGRAM_WORDS - 1)


class ReportPage:
    """What a pipeline did, in a file that the agent reads. Its file goes away with ``close``."""

    def __init__(self, directory: str, name: str):
        self.path = os.path.join(directory, f"{name}.report")
        # A fresh file each time: a reader that still holds the one of a predecessor never sees counts that fall.
        fresh = os.path.join(directory, f".{name}.report.new")
        try:
            os.unlink(fresh)
        except FileNotFoundError:
            pass
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)
            os.ftruncate(fd, PAGE_BYTES)
            meta = os.fstat(fd)
            self._map = mmap.mmap(fd, PAGE_BYTES)
        finally:
            os.close(fd)
        self._identity = (meta.st_dev, meta.st_ino)
        struct.pack_into("=8sII", self._map, 0, REPORT_MAGIC, REPORT_ABI, REPORT_WORDS)
        self._words = memoryview(self._map).cast("Q")
        self._lock = threading.Lock()
        os.rename(fresh, self.path)

    def add(self, word: int, n: int) -> None:
        """Adds to a cumulative word."""
        with self._lock:
            self._words[2 + word] = (self._words[2 + word] + n) & _MASK

    def set(self, word: int, value: int) -> None:
        """Sets a word that says how things stand now."""
        self._words[2 + word] = min(value, _MASK)

    def latency(self, latency_ns: int, events: int = 1) -> None:
        """Counts events of one latency, from arrival to acknowledgement."""
        self.add(HISTOGRAM_AT + bucket(latency_ns), events)

    def flushed(self, cause: str, events: int, nbytes: int, took_ns: int) -> None:
        """Counts an acknowledged flush."""
        us = (took_ns + 500) // 1000  # to the nearest: cutting would bend what is learnt from it
        counts = (
            (EVENTS_OUT, events),
            (BYTES_OUT, nbytes),
            (FLUSHES, 1),
            (FLUSH_NS, took_ns),
            (FLUSH_BYTES_SQUARED, nbytes * nbytes),
            (FLUSH_BYTES_US, nbytes * us),
            (FLUSH_US_SQUARED, us * us),
            (_BY_CAUSE[cause], 1),
        )
        with self._lock:
            for word, n in counts:
                self._words[2 + word] = (self._words[2 + word] + n) & _MASK
        self.touch()

    def in_use(self, settings: Settings) -> None:
        """Says which settings are in use."""
        self.set(GENERATION, settings.generation)
        self.set(BATCH_BYTES, settings.batch_bytes)
        self.set(FLUSH_INTERVAL_US, settings.flush_interval_us)

    def touch(self) -> None:
        """Notes the time of an update."""
        self.set(UPDATED_NS, _boottime_ns())

    def close(self) -> None:
        """Takes the file away, unless a successor has put its own in the place."""
        try:
            meta = os.lstat(self.path)
            if (meta.st_dev, meta.st_ino) == self._identity:
                os.unlink(self.path)
        except FileNotFoundError:
            pass


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str):
        super().__init__("tidegate", timeout=_EXCHANGE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_EXCHANGE_S)
        self.sock.connect(self._path)


class Tuner:
    """Registers a pipeline in the background and reads its settings."""

    def __init__(
        self,
        name: str,
        *,
        batch_bytes: Knob = Knob(4096, 524288, 262144),
        flush_interval_us: Knob = Knob(1000, 250000, 250000),
        mode: str = "observe",
        policy: Optional[str] = None,
        p99_ms: Optional[int] = None,
        report_dir: Optional[str] = None,
        socket_path: Optional[str] = None,
        ttl_ms: int = 10000,
        hold_ms: int = 60000,
        on_expiry: str = "default",
    ):
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", name):
            raise ValueError(f"pipeline name {name!r}: want 1 to 64 of a-z A-Z 0-9 . _ -, not starting with a dot")
        for knob, (low, high, own) in (("batch_bytes", batch_bytes), ("flush_interval_us", flush_interval_us)):
            if not 1 <= low <= own <= high <= _MASK:
                raise ValueError(f"{knob}: min {low}, own {own}, max {high} (want 1 <= min <= own <= max)")
        if ttl_ms < 1:
            raise ValueError("ttl_ms: 0 (want at least 1, usually 10000)")
        self.name, self.knobs = name, (batch_bytes, flush_interval_us)
        self._own = Settings(batch_bytes.own, flush_interval_us.own)
        self._hold_ns = hold_ms * 1000000 if on_expiry == "default" else None
        self._socket = socket_path or os.environ.get("TIDEGATE_SOCKET") or DEFAULT_SOCKET
        self.report = ReportPage(report_dir, name) if report_dir is not None else None
        ranges = {
            key: {"min": knob.min, "max": knob.max, "default": knob.own}
            for key, knob in (("batch_bytes", batch_bytes), ("flush_interval_us", flush_interval_us))
        }
        registration: Dict[str, Any] = {
            "knobs": ranges,
            "mode": mode,
            "lease": {"ttl_ms": ttl_ms, "hold_ms": hold_ms, "on_expiry": on_expiry},
        }
        if policy is not None:
            registration["policy"] = policy
        if p99_ms is not None:
            registration["objective"] = {"p99_ms": p99_ms}
        if self.report is not None:
            registration["report"] = os.path.abspath(self.report.path)
        self._body = json.dumps(registration)
        renewal = min(ttl_ms * 1000000 // 3, 1000000000)
        self._patience_ns = renewal * 5 // 2
        self._page: Optional[_SettingsPage] = None
        #: Why the pipeline runs on its own settings; empty when the agent's are at hand.
        self.why = "not registered yet"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._talk, name="tidegate-tuner", daemon=True)
        self._thread.start()

    def read(self) -> Settings:
        """Settings to run by now: within the pipeline's own bounds whatever the page says."""
        page = self._page
        said = page.read() if page is not None else None
        if said is None:
            return self._own
        expires, generation, batch, interval = said
        phase = self._phase(expires, _boottime_ns())
        if phase == "own":
            return self._own
        sizes, times = self.knobs
        batch = max(min(batch, sizes.max), sizes.min)
        return Settings(batch, max(min(interval, times.max), times.min), generation, phase)

    def close(self) -> None:
        """Ends the thread and takes the report page away. The agent sees the process end."""
        self._ended.set()
        self._thread.join()
        if self.report is not None:
            self.report.close()

    def __enter__(self) -> "Tuner":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _phase(self, expires: int, now: int) -> str:
        if expires == 0:
            return "own"
        if now < expires:
            return "live"
        return "held" if self._hold_ns is None or now < expires + self._hold_ns else "own"

    def _talk(self) -> None:
        """Registers, watches over the lease, and registers anew when it is no longer renewed."""
        backoff, following, expires = 50000000, 0, 0
        while True:
            said = self._page.read() if self._page is not None else None
            now = _boottime_ns()
            if said is not None and said[0] != expires:
                expires = said[0]
                following = max(following, now + self._patience_ns)
            if now >= following:
                well = self._register()
                now = _boottime_ns()
                following = now + (self._patience_ns if well else backoff)
                backoff = 50000000 if well else min(backoff * 2, 1000000000)
            # Looked at each second at least: a wait is counted on a clock that stops in suspend, a lease is not.
            if self._ended.wait(min(max(following - now, 0) / 1e9, 1.0)):
                return

    def _register(self) -> bool:
        try:
            connection = _Connection(self._socket)
            try:
                headers = {"Content-Type": "application/json", "Connection": "close"}
                connection.request("PUT", f"/v1/pipelines/{self.name}", self._body, headers)
                answer = connection.getresponse()
                reply = json.loads(answer.read(_REPLY_MAX))
            finally:
                connection.close()
            if not 200 <= answer.status < 300:
                self.why = f"the agent refused {self.name}: {reply.get('detail', answer.status)} ({reply.get('fix', '')})"
                return False
            page = _SettingsPage(reply["settings_page"], reply["values"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, http.client.HTTPException) as error:
            self.why = f"ask the agent at {self._socket}: {error!r} (is `tidegate agent` running?)"
            return False
        if self._page is None or self._page.identity != page.identity:
            self._page = page
        self.why = ""
        return True


class Closed(Exception):
    """The batcher has been closed."""


class _FlushCost:
    """What a flush costs whatever is in it: the intercept of a line through sizes and durations, older ones fading."""

    def __init__(self) -> None:
        self.fixed_ns = 0
        self._weight = self._bytes = self._ns = self._squared = self._product = 0.0

    def observe(self, nbytes: int, took_ns: int) -> None:
        faded = self._weight * 0.97
        self._weight = faded + 1.0
        over, late = nbytes - self._bytes, took_ns - self._ns
        self._bytes += over / self._weight
        self._ns += late / self._weight
        share = faded / self._weight
        self._squared = self._squared * 0.97 + share * over * over
        self._product = self._product * 0.97 + share * over * late
        fixed = self._ns
        if (self._squared / self._weight) ** 0.5 > 0.1 * self._bytes:
            fixed -= self._bytes * self._product / self._squared
        self.fixed_ns = int(max(min(fixed, self._ns), 0.0))


class Batch:
    """Events on their way to the sink. While it is in flight no other flush begins."""

    def __init__(self, batcher: "Batcher", cause: str, began_ns: int):
        self.items: List[Any] = []
        self.nbytes = 0
        self.cause = cause
        self._arrivals: List[int] = []
        self._began_ns, self._batcher, self._done = began_ns, batcher, False

    def acknowledge(self) -> None:
        """The sink has the events: ends the flush."""
        self._end(True)

    def drop(self) -> None:
        """The events are lost: ends the flush."""
        self._end(False)

    def note_failure(self) -> None:
        """Counts a write that failed and will be tried again."""
        if self._batcher.report is not None:
            self._batcher.report.add(FLUSH_ERRORS, 1)

    def _end(self, acknowledged: bool) -> None:
        if self._done:
            return
        self._done = True
        now, report = time.monotonic_ns(), self._batcher.report
        if report is not None:
            if acknowledged:
                report.flushed(self.cause, len(self.items), self.nbytes, now - self._began_ns)
                for latency, events in collections.Counter(bucket(now - at) for at in self._arrivals).items():
                    report.add(HISTOGRAM_AT + latency, events)
            else:
                report.add(FLUSH_ERRORS, 1)
                report.add(EVENTS_LOST, len(self.items))
                report.touch()
        self._batcher._landed(self.nbytes, now - self._began_ns, acknowledged)


class Batcher:
    """A bounded queue with the flush rule at its end: events go in on any thread, batches come out on one.

    Loses nothing: a full queue makes the sender wait.
    """

    def __init__(
        self,
        tuner: Optional[Tuner] = None,
        *,
        settings: Settings = Settings(262144, 250000),
        batch_max: Optional[int] = None,
        capacity: int = 64 << 20,
        kappa: float = 0.0,
    ):
        self._tuner, self._settings, self._kappa = tuner, settings, kappa
        self.batch_max = batch_max or (tuner.knobs[0].max if tuner is not None else 524288)
        self.report = tuner.report if tuner is not None else None
        self.capacity = capacity
        self._queue: "collections.deque[Tuple[Any, int, int]]" = collections.deque()
        self._bytes = self._arrivals = 0
        self._cost, self._sink, self._closed = _FlushCost(), "idle", False
        self._planned: Optional[int] = None
        lock = threading.Lock()
        self._ready, self._room = threading.Condition(lock), threading.Condition(lock)
        if self.report is not None:
            self.report.set(QUEUE_CAPACITY, capacity)
            self.report.in_use(self.settings())

    def settings(self) -> Settings:
        """Settings in use now."""
        return self._tuner.read() if self._tuner is not None else self._settings

    def push(self, item: Any, nbytes: int) -> None:
        """Queues one event of so many bytes; waits while the queue is full."""
        with self._ready:
            if not self._closed and not self._has_room(nbytes):
                began = time.monotonic_ns()
                self._ready.notify()
                self._room.wait_for(lambda: self._closed or self._has_room(nbytes))
                if self.report is not None:
                    self.report.add(STALLED_NS, time.monotonic_ns() - began)
            if self._closed:
                raise Closed("the batcher is closed (push before close, or start another)")
            now = time.monotonic_ns()
            self._queue.append((item, nbytes, now))
            self._bytes += nbytes
            self._arrivals += now
            if self.report is not None:
                self.report.add(EVENTS_IN, 1)
                self.report.add(BYTES_IN, nbytes)
                self._report_queue()
            cause, _, until = self._decide(now)
            if cause is not None or (until is not None and (self._planned is None or until < self._planned)):
                self._ready.notify()

    def next_batch(self) -> Optional[Batch]:
        """Waits until the rule says flush and hands out the batch; None once the batcher is closed and empty."""
        with self._ready:
            while True:
                if self._closed and not self._queue and self._sink != "busy":
                    return None
                now = time.monotonic_ns()
                cause, take, until = self._decide(now)
                if cause is not None:
                    return self._take(cause, take, now)
                if self._sink == "freed":
                    # The first look after a flush has been taken: from here on a full batch is a batch, not a backlog.
                    self._sink = "idle"
                self._planned = until
                self._ready.wait(None if until is None else max(until - now, 0) / 1e9)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            batch = self.next_batch()
            if batch is None:
                return
            yield batch

    def close(self) -> None:
        """Takes no more events; what is queued is still flushed, without waiting for its time."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
            self._room.notify_all()

    def _has_room(self, nbytes: int) -> bool:
        return self._bytes == 0 or self._bytes + nbytes <= self.capacity

    def _decide(self, now: int) -> Tuple[Optional[str], int, Optional[int]]:
        settings = self.settings()
        if self._closed:
            settings = settings._replace(flush_interval_us=0)
        events = len(self._queue)
        oldest = self._queue[0][2] if events else 0
        waited = events * now - self._arrivals
        queue = Queue(self._bytes, self.capacity, events, oldest, waited, self._cost.fixed_ns)
        return decide(settings, queue, self._sink, now, self.batch_max, self._kappa)

    def _take(self, cause: str, take: int, now: int) -> Batch:
        batch = Batch(self, cause, now)
        while self._queue and (not batch.items or batch.nbytes + self._queue[0][1] <= take):
            item, nbytes, arrived = self._queue.popleft()
            batch.items.append(item)
            batch.nbytes += nbytes
            batch._arrivals.append(arrived)
            self._bytes -= nbytes
            self._arrivals -= arrived
        self._sink = "busy"
        if self.report is not None:
            self._report_queue()
            self.report.in_use(self.settings())
        self._room.notify_all()
        return batch

    def _landed(self, nbytes: int, took_ns: int, acknowledged: bool) -> None:
        with self._ready:
            self._sink = "freed"
            if acknowledged:
                self._cost.observe(nbytes, took_ns)
            self._ready.notify_all()

    def _report_queue(self) -> None:
        assert self.report is not None
        self.report.set(QUEUE_EVENTS, len(self._queue))
        self.report.set(QUEUE_BYTES, self._bytes)
        self.report.touch()
