"""Check every contestant, then let them take turns.

A turn is a few calls of one contestant; turns go round (A B C A B C ..), so that a
machine that drifts drifts for all. Inputs rotate through a pool that outgrows the
last-level cache, and each contestant starts at a place of its own.
"""

import ctypes
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.graphs import Inputs, Scenario, count_valid_pairs

__all__ = [
    "Absent",
    "Contestant",
    "Outcome",
    "Race",
    "UnavailableError",
    "WrongOutputError",
    "build",
    "is_named",
    "keep_freed_memory",
    "matmul_rate",
    "race",
]

ROUNDS = 20
WARM_UP_CALLS = 3
SETTLE_S = 0.01
Exact = Callable[[Inputs], NDArray[np.float64]]


class UnavailableError(Exception):
    """A contestant cannot take part on this machine; the text says why."""


class WrongOutputError(Exception):
    """A contestant computes something else than float64 torch."""


@dataclass(frozen=True)
class Contestant:
    """One way to compute the same.

    `prepare` makes of a batch what `run` takes; it is not timed. `tolerance` bounds the
    relative error, None where it is only reported. `exact` replaces the reference for a
    contestant that is meant to compute something else.
    """

    label: str
    prepare: Callable[[Inputs], Any]
    run: Callable[[Any], NDArray[Any]]
    tolerance: float | None
    ours: bool = False
    skips_padding: bool = False
    exact: Exact | None = None


@dataclass(frozen=True)
class Absent:
    """A contestant that does not take part, and why."""

    reason: str


@dataclass(frozen=True)
class Outcome:
    """What one contestant did: its relative error, and the seconds of every call."""

    contestant: Contestant
    error: float
    seconds: list[float] = field(default_factory=list)

    def ms(self, percentile: float) -> float:
        """Return a percentile of the calls, in milliseconds."""
        return 1e3 * float(np.percentile(self.seconds, percentile))


@dataclass(frozen=True)
class Race:
    """What came out of one scenario; `valid_pairs` is V, the pool's mean."""

    scenario: Scenario
    pool_size: int
    valid_pairs: float
    outcomes: Mapping[str, Outcome | Absent]

    def finished(self) -> dict[str, Outcome]:
        """Those who took part."""
        return {k: o for k, o in self.outcomes.items() if isinstance(o, Outcome)}

    def ours(self) -> str | None:
        """Name whom the others are compared with: the first of ours that took part."""
        ours = (k for k, o in self.finished().items() if o.contestant.ours)
        return next(ours, None)

    def computed_pairs(self, key: str) -> float:
        """Pairs a contestant computes per call: V, or N * T with the padding."""
        skips = self.finished()[key].contestant.skips_padding
        return self.valid_pairs if skips else self.scenario.padded_pairs


def is_named(key: str, name: str) -> bool:
    """Whether `name` is the key of a contestant or its part before a "-"."""
    return f"{key}-".startswith(f"{name}-")


def build(
    entries: Mapping[str, Callable[[], Contestant]],
) -> dict[str, Contestant | Absent]:
    """Make the contestants.

    A rival that cannot be made leaves a row that says why; what is broken in ours
    raises.
    """
    out: dict[str, Contestant | Absent] = {}
    for key, make in entries.items():
        try:
            out[key] = make()
        except UnavailableError as error:
            out[key] = Absent(f"skipped: {error}")
        except ImportError as error:
            out[key] = Absent(f"not installed: {error}")
        except Exception as error:  # whatever a rival's library may raise
            if key.startswith("ours"):
                raise
            out[key] = _failed(error)
    return out


def _failed(error: Exception) -> Absent:
    first = next(iter(str(error).strip().splitlines()), "no message")
    return Absent(f"failed: {type(error).__name__}: {first[:100]}")


def check(contestant: Contestant, inputs: Inputs, wanted: NDArray[np.float64]) -> float:
    """Compare with float64 torch; returns ‖output - wanted‖ / ‖wanted‖.

    Raises
    ------
    WrongOutputError
        If the shape differs, or the error is not within the tolerance.
    """
    if contestant.exact is not None:
        wanted = contestant.exact(inputs)
    got = contestant.run(contestant.prepare(inputs))
    place = f"at `{contestant.label}`"
    if got.shape != wanted.shape:
        message = f"expected shape {wanted.shape}, got {got.shape} - {place}"
        raise WrongOutputError(message)
    error = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
    limit = contestant.tolerance
    # not (a <= b), so that a NaN is an error too
    if limit is not None and not error <= limit:
        message = (
            f"expected a relative error of at most {limit:g}, got {error:.2e} - {place}"
        )
        raise WrongOutputError(message)
    return error


def race(
    scenario: Scenario,
    contestants: Mapping[str, Contestant | Absent],
    pool: Sequence[Inputs],
    exact: Exact,
    seconds: float,
) -> Race:
    """Check all contestants on the first and the last batch, warm up, take turns.

    `seconds` is what each contestant gets, cut into 20 turns of at least one call.

    Raises
    ------
    WrongOutputError
        As `check`: then nothing is timed.
    """
    total = len(contestants) * (1 + ROUNDS)
    with tqdm(total=total, desc=scenario.name, disable=None) as bar:
        checked = [(inputs, exact(inputs)) for inputs in (pool[0], pool[-1])]
        outcomes: dict[str, Outcome | Absent] = {}
        for key, c in contestants.items():
            bar.set_postfix_str(f"checking {key}")
            outcomes[key] = c if isinstance(c, Absent) else _enter(c, checked)
            bar.update()
        running = {k: o for k, o in outcomes.items() if isinstance(o, Outcome)}
        calls = _line_up([o.contestant for o in running.values()], pool)
        for _ in range(ROUNDS):
            for (key, outcome), one in zip(running.items(), calls, strict=True):
                bar.set_postfix_str(key)
                time.sleep(SETTLE_S)  # idle pools of threads spin for a while
                stop = time.perf_counter() + seconds / ROUNDS
                outcome.seconds.append(next(one))
                while time.perf_counter() < stop:
                    outcome.seconds.append(next(one))
                bar.update()
    valid = float(np.mean([count_valid_pairs(inputs) for inputs in pool]))
    return Race(scenario, len(pool), valid, outcomes)


def _enter(
    contestant: Contestant,
    checked: Sequence[tuple[Inputs, NDArray[np.float64]]],
) -> Outcome | Absent:
    """Check a contestant; a rival that breaks down is absent."""
    try:
        error = max(check(contestant, *one) for one in checked)
    except WrongOutputError:
        raise
    except Exception as failure:  # whatever a rival's library may raise
        if contestant.ours:
            raise
        return _failed(failure)
    return Outcome(contestant, error)


def _line_up(
    contestants: Sequence[Contestant], pool: Sequence[Inputs]
) -> list[Iterator[float]]:
    """Prepare everyone's inputs and warm up; each starts at a place of its own."""
    prepared: dict[Callable[[Inputs], Any], list[Any]] = {}
    calls = []
    for place, c in enumerate(contestants):
        if c.prepare not in prepared:
            prepared[c.prepare] = [c.prepare(inputs) for inputs in pool]
        start = place * len(pool) // len(contestants)
        calls.append(_time_calls(c.run, prepared[c.prepare], start))
    for one in calls:
        for _ in range(WARM_UP_CALLS):
            next(one)
    return calls


def _time_calls(
    run: Callable[[Any], object], pool: Sequence[Any], at: int
) -> Iterator[float]:
    """Call for ever, from place `at` of the pool on; yields each call's seconds."""
    while True:
        before = time.perf_counter()
        run(pool[at])
        yield time.perf_counter() - before
        at = (at + 1) % len(pool)


def keep_freed_memory() -> None:
    """Tell glibc never to give memory back; elsewhere, do nothing.

    Otherwise torch pays page faults for its large intermediates, or does not, by luck
    of who ran before: twice the time, where they are dear. This is its better case. For
    a process of its own: it is not undone.
    """
    trim_threshold, mmap_max = -1, -4  # of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(trim_threshold, -1)
    mallopt(mmap_max, 0)


def matmul_rate(size: int) -> float:
    """Multiply square float32 matrices on one thread: FLOP/s of the best of 20 runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a, b, out = (torch.rand(size, size) for _ in range(3))
    best = float("inf")
    for _ in range(20):
        before = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - before)
    torch.set_num_threads(threads)
    return float(2 * size**3 / best)
