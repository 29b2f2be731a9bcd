"""Start a command and write what it took: ``launch.py FILE CPUS COMMAND ..``.

A small process between a benchmark and what it measures: on Linux the peak memory of a
process begins at that of whoever started it, and a benchmark is large. So nothing large
is imported here. CPUS is how many CPUs the command may use.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main", "memory_mb"]

SAMPLE_S = 0.02
KINDS = {"VmRSS": "rss_mb", "RssAnon": "anonymous_mb", "RssFile": "mapped_mb"}


def memory_mb(pid: int | str = "self") -> dict[str, float]:
    """Return the resident memory of a process: all, anonymous, and mapped files'.

    Nothing where there is no ``/proc``, or the process is gone.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":") for line in lines)
    return {KINDS[k]: int(v.split()[0]) / 1024 for k, v in pairs if k in KINDS}


def _watch(pid: int, peaks: dict[str, float], done: threading.Event) -> None:
    """Keep the largest memory of each kind that is seen."""
    while not done.wait(SAMPLE_S):
        for kind, value in memory_mb(pid).items():
            peaks[kind] = max(peaks.get(kind, 0.0), value)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    file, cpus, *command = argv
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[: int(cpus)])
    peaks: dict[str, float] = {}
    done = threading.Event()
    before = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ)
    watcher = threading.Thread(target=_watch, args=(pid, peaks, done))
    watcher.start()
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - before
    done.set()
    watcher.join()
    unit = 1 if sys.platform == "darwin" else 1024
    found = {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss * unit / (1 << 20),
        "peak_anonymous_mb": peaks.get("anonymous_mb"),
        "peak_mapped_mb": peaks.get("mapped_mb"),
    }
    Path(file).write_text(json.dumps(found), encoding="utf-8")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
