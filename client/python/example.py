"""A pipeline that batches lines from standard input and writes them to standard output, joined to tidegate.

    seq 1 100000 | python3 example.py
"""

import sys
import threading

import tidegate

tuner = tidegate.Tuner("example-python", mode="on", report_dir="/tmp")
batcher = tidegate.Batcher(tuner)


def flush() -> None:
    for batch in batcher:
        sys.stdout.writelines(batch.items)
        sys.stdout.flush()
        batch.acknowledge()


flusher = threading.Thread(target=flush)
flusher.start()
for line in sys.stdin:
    batcher.push(line, len(line))
batcher.close()
flusher.join()
tuner.close()
