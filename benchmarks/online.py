"""Time requests as a server gets them: strings of one user, N candidates to scores [N].

The user is a dict in Python: user_id and two lists of T strings; the candidates are a
dict of two lists of N. All strings have 13 bytes, are drawn Zipf and hashed by XXH64
into tables of 100,000, 1,000,000 and 1,000 rows, 32 wide; the model is that of
benchmarks.model. Requests rotate through a pool that outgrows the last-level cache.
Every contestant is first compared with torch in float64 on ids that python-xxhash made;
one that is off by more than 1e-5 (ours) or 1e-4 (a rival), relative to a score that may
stand alone and be small, ends the run with status 1. Then all take turns.

contestants:
  ours          Predictor.score_requests from raw strings, nothing kept between calls
  ours-cached   score_requests for a user that encode_request has encoded before
  ours-session  the bare session on ids that are ready: what is left is Python and
                encoding
  plain         ids by python-xxhash and NumPy, a copy of the user per candidate, then
                torch.onnx.export of a textbook module in ONNX Runtime
  eager         the same ids, the textbook module in torch

callers: so many threads share each contestant and call without a pause, so that more
callers than cores wait for each other; its sessions have --threads threads.

not timed: making the requests; the ids of `ours-session`; encode_request.

allocation: glibc is told to keep freed memory, which spares torch page faults.

columns: `times ours` compares medians with `ours`.

example:
  python -m benchmarks.online --scenario 500-t50 1-t50 --json out.json
  python -m benchmarks.online --only ours --seconds 20
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from benchmarks import ours, timing
from benchmarks.command import Benchmark, Entries, Setting, run
from benchmarks.draw import pool_size, zipf
from benchmarks.graphs import Inputs, Sizes, exact_model, exact_score, make_model
from benchmarks.report import Wanted
from benchmarks.rivals import MODEL_INPUTS, Rivals, textbook_din
from benchmarks.subject import Subject
from benchmarks.timing import Contestant, UnavailableError, keep_freed_memory, within
from din_converter import DIN, convert
from din_converter.layers import Mlp
from din_infer import Predictor
from din_infer.session import ops_library

__all__ = ["Request", "draw", "encode", "main", "open_subject"]

PACKAGES = ("torch", "onnx", "onnxruntime", "xxhash")
SIZES = Sizes()
OPTIONS = (
    ("--rows", SIZES.goods, "rows of the goods table, and different goods"),
    ("--cate-rows", SIZES.cates, "rows of the category table"),
    ("--user-rows", SIZES.users, "rows of the user table"),
)
CANDIDATES = (1, 10, 100, 500, 1000)
POSITIONS = (50, 200)
CALLERS = (1, 2, 8)
BYTES_PER_STRING = 72  # 49 of the object, 13 of text and its place in the list, aligned
WEIGHT = 0.1  # of a behavior, against that of benchmarks.model
AT_ONCE = 100  # candidates that the reference computes together: it is wide
CHECK = within(1e-5)
WANTED = (
    Wanted("500-t50", "ours-session", "ours", at_least=0.85),
    Wanted("500-t50", None, "ours", tail=1.5),
    Wanted("1-t50", "ours-session", "ours", us_more=50),
)


class Request(NamedTuple):
    """One user as a row of raw values, N candidates as columns of them."""

    user: dict[str, Any]
    items: dict[str, list[str]]


@dataclass(frozen=True)
class Scenario(timing.Scenario):
    """N candidates for one user with T behaviors."""

    candidates: int
    positions: int
    unit: str = field(default="candidate", kw_only=True)


def _scenario(callers: int, t: int, n: int) -> Scenario:
    some = "" if callers == 1 else f"-{callers}callers"
    plural = "" if n == 1 else "s"
    about = f"{n:,} candidate{plural}, T={t}, {callers} caller{'s'[: callers > 1]}"
    return Scenario(
        f"{n}-t{t}{some}", about, n, t, time_unit="us", callers=callers, tail=True
    )


SCENARIOS = tuple(
    _scenario(callers, t, n)
    for callers in CALLERS
    for t in POSITIONS
    for n in CANDIDATES
)


def sizes_of(args: argparse.Namespace) -> Sizes:
    """Read the sizes of the tables."""
    return Sizes(args.user_rows, args.rows, args.cate_rows)


@contextmanager
def open_subject(sizes: Sizes, threads: int, seed: int) -> Iterator[Subject]:
    """Make the model and its file."""
    torch.set_num_threads(threads)
    model = make_model(sizes, max(POSITIONS), seed, "hash")
    # else a sum over 200 behaviors takes every score to 0, and no error would show
    weight = cast("Mlp", model.attentions["of_history"].mlp).output
    with torch.no_grad():
        for value in weight.parameters():
            value.mul_(WEIGHT)
    with tempfile.TemporaryDirectory(prefix="din-benchmark-") as folder:
        subject = Subject(model, Path(folder) / "model.onnx", threads)
        convert(model, subject.path)
        yield subject


def draw(sizes: Sizes, n: int, t: int, count: int, seed: int) -> list[Request]:
    """Draw requests of 13-byte strings, Zipf."""
    rng = np.random.default_rng(seed)

    def texts(prefix: str, rows: int, length: int) -> list[str]:
        return [f"{prefix}_{k:07d}" for k in zipf(rng, rows, (length,)).tolist()]

    return [
        Request(
            {
                "user_id": texts("users", sizes.users, 1)[0],
                "hist_goods_id": texts("goods", sizes.goods, t),
                "hist_cate_id": texts("categ", sizes.cates, t),
            },
            {
                "goods_id": texts("goods", sizes.goods, n),
                "cate_id": texts("categ", sizes.cates, n),
            },
        )
        for _ in range(count)
    ]


def encode(sizes: Sizes, request: Request) -> Inputs:
    """Hash by python-xxhash, reduce and pad in NumPy: 1 + h % (rows - 1)."""
    digest = xxhash.xxh64_intdigest

    def ids(texts: list[str], rows: int) -> NDArray[np.int64]:
        hashes = np.array([digest(text.encode()) for text in texts], dtype=np.uint64)
        return (1 + hashes % np.uint64(rows - 1)).astype(np.int64)

    user, items = request
    length = len(user["hist_goods_id"])
    padded = np.zeros((2, 1, length), dtype=np.int64)
    padded[0, 0] = ids(user["hist_goods_id"], sizes.goods)
    padded[1, 0] = ids(user["hist_cate_id"], sizes.cates)
    return {
        "user_id": ids([user["user_id"]], sizes.users),
        "goods_id": ids(items["goods_id"], sizes.goods),
        "cate_id": ids(items["cate_id"], sizes.cates),
        "hist_goods_id": padded[0],
        "hist_cate_id": padded[1],
        "history.lengths": np.array([length]),
        "request_of_candidate": np.zeros(len(items["goods_id"]), dtype=np.int64),
    }


def _exact(model: DIN, sizes: Sizes, request: Request) -> NDArray[np.float64]:
    """Score in float64, some candidates after the others."""
    user, items = request
    parts = []
    for start in range(0, len(items["goods_id"]), AT_ONCE):
        some = {k: v[start : start + AT_ONCE] for k, v in items.items()}
        parts.append(exact_score(model, encode(sizes, Request(user, some))))
    return np.concatenate(parts)


def _as_it_is(request: Request) -> Request:
    return request


def entries(subject: Subject, sizes: Sizes) -> dict[str, Callable[[], Contestant]]:
    """List who takes part, ours first."""
    to_ids = partial(encode, sizes)

    @cache
    def predictor() -> Predictor:
        if ops_library() is None:
            message = "this build has no native ops"
            raise UnavailableError(message)
        return Predictor(subject.path, device="cpu", threads=subject.threads)

    def by_predictor(
        label: str, prepare: Callable[[Request], Any], run: Callable[[Any], Any]
    ) -> Contestant:
        return Contestant(label, prepare, run, CHECK, ours=True, skips_padding=True)

    def raw() -> Contestant:
        score = predictor().score_requests
        run = lambda r: score([r.user], r.items)  # noqa: E731
        return by_predictor("score_requests, raw strings", _as_it_is, run)

    def cached() -> Contestant:
        p = predictor()

        def prepare(request: Request) -> tuple[Any, dict[str, list[str]]]:
            return p.encode_request([request.user]), request.items

        run = lambda pair: p.score_requests(*pair)  # noqa: E731
        return by_predictor("score_requests, user encoded before", prepare, run)

    def session() -> Contestant:
        bare = ours.session(
            "native, bare session on ids",
            subject.path,
            (*MODEL_INPUTS, "request_of_candidate"),
            "score",
            subject.threads,
        )
        return replace(bare, prepare=lambda r: bare.prepare(to_ids(r)), check=CHECK)

    rivals = Rivals(
        textbook_din(subject.model),
        MODEL_INPUTS,
        subject.path.with_name("plain.onnx"),
        subject.threads,
    )

    def from_raw(label: str, make: Callable[[str], Contestant]) -> Contestant:
        rival = make(label)
        run = lambda r: rival.run(rival.prepare(to_ids(r)))  # noqa: E731
        return replace(rival, prepare=_as_it_is, run=run)

    return {
        "ours": raw,
        "ours-cached": cached,
        "ours-session": session,
        "plain": partial(
            from_raw, "NumPy encoding, plain export, ONNX Runtime", rivals.plain
        ),
        "eager": partial(from_raw, "NumPy encoding, torch eager", rivals.eager),
    }


@contextmanager
def open_setting(args: argparse.Namespace) -> Iterator[Setting]:
    """Make requests and contestants from the arguments."""
    sizes = sizes_of(args)
    with open_subject(sizes, args.threads, args.seed) as subject:
        made: Entries = {k: cache(m) for k, m in entries(subject, sizes).items()}

        def pool(scenario: Scenario, size: int) -> Sequence[Request]:
            n, t = scenario.candidates, scenario.positions
            count = pool_size(size, BYTES_PER_STRING * 2 * (n + t))
            return draw(sizes, n, t, count, args.seed)

        yield Setting(
            entries=lambda _: made,
            pool=pool,
            exact=partial(_exact, exact_model(subject.model), sizes),
            count=lambda request: len(request.items["goods_id"]),
            wanted=WANTED if args.threads == 1 else (),
        )


BENCHMARK = Benchmark(
    name="online",
    about=__doc__,
    packages=PACKAGES,
    options=OPTIONS,
    scenarios=lambda _: SCENARIOS,
    open=open_setting,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    return run(BENCHMARK, argv)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
