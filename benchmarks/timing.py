"""Check every contestant, then let them take turns.

A turn is a few calls of one contestant; turns go round (A B C A B C ..), so that a
machine that drifts drifts for all. Inputs rotate through a pool that outgrows the
last-level cache, and each contestant starts at a place of its own.
"""

import ctypes
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

__all__ = [
    "Absent",
    "Check",
    "Contestant",
    "Outcome",
    "Race",
    "Scenario",
    "UnavailableError",
    "WrongOutputError",
    "build",
    "is_named",
    "keep_freed_memory",
    "race",
    "within",
]

ROUNDS = 20
WARM_UP_CALLS = 3
SETTLE_S = 0.01
Check = Callable[[Any, Any], float | None]


class UnavailableError(Exception):
    """A contestant cannot take part on this machine; the text says why."""


class WrongOutputError(Exception):
    """A contestant computes something else than the reference."""


@dataclass(frozen=True)
class Scenario:
    """One shape of input; time is given per `unit` of it, in `time_unit`.

    So many `callers` at once share a contestant, each in a thread of its own. With
    `tail`, p99.9 is told as well.
    """

    name: str
    about: str
    _: KW_ONLY
    unit: str
    time_unit: Literal["ns", "us"] = "ns"
    callers: int = 1
    tail: bool = False

    @property
    def padded(self) -> int | None:
        """Units with the padding, of one who does not skip it; None for no such."""
        return None


@dataclass(frozen=True)
class Contestant:
    """One way to compute the same.

    `prepare` makes of a batch what `run` takes; it is not timed. `check` takes what
    `run` returned and the reference; it returns the relative error, None where there is
    none to speak of, or raises `WrongOutputError`. `exact` replaces the reference for a
    contestant that is meant to compute something else.
    """

    label: str
    prepare: Callable[[Any], Any]
    run: Callable[[Any], Any]
    check: Check
    ours: bool = False
    skips_padding: bool = False
    exact: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Absent:
    """A contestant that does not take part, and why."""

    reason: str


@dataclass(frozen=True)
class Outcome:
    """What one contestant did: its relative error, the seconds of calls and turns."""

    contestant: Contestant
    error: float | None
    seconds: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)

    def ms(self, percentile: float) -> float:
        """Return a percentile of the calls, in milliseconds."""
        return 1e3 * float(np.percentile(self.seconds, percentile))


@dataclass(frozen=True)
class Race:
    """What came out of one scenario; `units` is what a batch has, the pool's mean."""

    scenario: Scenario
    pool_size: int
    units: float
    outcomes: Mapping[str, Outcome | Absent]

    def finished(self) -> dict[str, Outcome]:
        """Those who took part."""
        return {k: o for k, o in self.outcomes.items() if isinstance(o, Outcome)}

    def ours(self) -> str | None:
        """Name whom the others are compared with: the first of ours that took part."""
        ours = (k for k, o in self.finished().items() if o.contestant.ours)
        return next(ours, None)

    def computed(self, key: str) -> float:
        """Units a contestant computes per call, with the padding or without."""
        padded = self.scenario.padded
        skips = self.finished()[key].contestant.skips_padding
        return self.units if skips or padded is None else padded


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


def within(tolerance: float | None) -> Check:
    """Make the check of floats: the relative error ‖output - wanted‖ / ‖wanted‖.

    It raises `WrongOutputError` if the shape differs, or the error is not within the
    tolerance; without one it is only reported.
    """

    def check(got: NDArray[Any], wanted: NDArray[np.float64]) -> float:
        if got.shape != wanted.shape:
            message = f"expected shape {wanted.shape}, got {got.shape}"
            raise WrongOutputError(message)
        error = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
        # not (a <= b), so that a NaN is an error too
        if tolerance is not None and not error <= tolerance:
            rule = f"expected a relative error of at most {tolerance:g}"
            message = f"{rule}, got {error:.2e}"
            raise WrongOutputError(message)
        return error

    return check


def race(
    scenario: Scenario,
    contestants: Mapping[str, Contestant | Absent],
    pool: Sequence[Any],
    exact: Callable[[Any], Any],
    count: Callable[[Any], int],
    seconds: float,
) -> Race:
    """Check all contestants on the first and the last batch, warm up, take turns.

    `exact` makes the reference of a batch, `count` counts its units. `seconds` is what
    each contestant gets, cut into 20 turns of at least one call.

    Raises
    ------
    WrongOutputError
        If a contestant's check does: then nothing is timed.
    """
    total = len(contestants) * (1 + ROUNDS)
    with tqdm(total=total, desc=scenario.name, disable=None) as bar:
        checked = [(batch, exact(batch)) for batch in (pool[0], pool[-1])]
        outcomes: dict[str, Outcome | Absent] = {}
        for key, c in contestants.items():
            bar.set_postfix_str(f"checking {key}")
            outcomes[key] = c if isinstance(c, Absent) else _enter(key, c, checked)
            bar.update()
        running = {k: o for k, o in outcomes.items() if isinstance(o, Outcome)}
        entered = [o.contestant for o in running.values()]
        lines = _line_up(entered, pool, scenario.callers)
        for _ in range(ROUNDS):
            for (key, outcome), callers in zip(running.items(), lines, strict=True):
                bar.set_postfix_str(key)
                time.sleep(SETTLE_S)  # idle pools of threads spin for a while
                _take_turn(outcome, callers, seconds / ROUNDS)
                bar.update()
    units = float(np.mean([count(batch) for batch in pool]))
    return Race(scenario, len(pool), units, outcomes)


def _enter(
    key: str, contestant: Contestant, checked: Sequence[tuple[Any, Any]]
) -> Outcome | Absent:
    """Check a contestant; a rival that breaks down is absent."""
    errors = []
    try:
        for batch, wanted in checked:
            output = contestant.run(contestant.prepare(batch))
            exact = contestant.exact
            own = wanted if exact is None else exact(batch)
            errors.append(contestant.check(output, own))
    except WrongOutputError as error:
        message = f"{error} - at `{key}`"
        raise WrongOutputError(message) from None
    except Exception as failure:  # whatever a rival's library may raise
        if contestant.ours:
            raise
        return _failed(failure)
    return Outcome(contestant, max((e for e in errors if e is not None), default=None))


def _line_up(
    contestants: Sequence[Contestant], pool: Sequence[Any], callers: int
) -> list[list[Iterator[float]]]:
    """Prepare everyone's inputs and warm up; each starts at a place of its own."""
    prepared: dict[Callable[[Any], Any], list[Any]] = {}
    lines = []
    for place, c in enumerate(contestants):
        if c.prepare not in prepared:
            prepared[c.prepare] = [c.prepare(batch) for batch in pool]
        places = range(place * callers, (place + 1) * callers)
        starts = (p * len(pool) // (len(contestants) * callers) for p in places)
        lines.append([_time_calls(c.run, prepared[c.prepare], at) for at in starts])
    for one in chain.from_iterable(lines):
        for _ in range(WARM_UP_CALLS):
            next(one)
    return lines


def _take_turn(
    outcome: Outcome, callers: Sequence[Iterator[float]], seconds: float
) -> None:
    """Call for so long, each caller at least once, and note how long that took."""
    before = time.perf_counter()

    def call(one: Iterator[float]) -> list[float]:
        made = [next(one)]
        while time.perf_counter() < before + seconds:
            made.append(next(one))
        return made

    if len(callers) == 1:
        outcome.seconds.extend(call(callers[0]))
    else:
        with ThreadPoolExecutor(len(callers)) as pool:
            outcome.seconds.extend(chain.from_iterable(pool.map(call, callers)))
    outcome.turns.append(time.perf_counter() - before)


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

    Otherwise torch and NumPy pay page faults for large arrays, or do not, by luck of
    who ran before: twice the time, where they are dear. This is their better case. For
    a process of its own: it is not undone.
    """
    trim_threshold, mmap_max = -1, -4  # of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(trim_threshold, -1)
    mallopt(mmap_max, 0)
