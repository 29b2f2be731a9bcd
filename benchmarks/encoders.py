"""Who makes padded ids of raw behaviors: ours, and what others would run.

Rivals get their keys the way they like them best, made outside the timing. Those that
do not pad scatter their ids by one boolean mask in NumPy, the fastest way found.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks import forms
from benchmarks.checks import (
    check_counts,
    check_each,
    check_equal,
    check_private,
)
from benchmarks.command import Entries
from benchmarks.forms import Ragged
from benchmarks.keys import (
    BUCKETS,
    CANDIDATE,
    HASHES,
    HISTORY,
    TWO_FIELDS,
    USER,
    Hash,
    Padded,
    Request,
    Source,
    flatten,
    to_bytes,
)
from benchmarks.lookups import check_vocab, vocab_rivals
from benchmarks.padding import by_field, ceilings, count, padding
from benchmarks.timing import Check, Contestant
from din_infer import FeatureSpec

__all__ = ["entries"]

LOOPS = {"python-xxhash": "xxh64", "mmh3": "murmur3_32", "farmhash": "farmhash64"}
RANGE = BUCKETS - 1


def entries(source: Source, threads: int) -> Entries:
    """List who takes part in a scenario, ours first."""
    name = source.scenario.name
    own = ("vocab",) if name == "vocab" else tuple(HASHES)
    ours = {f"ours-{how}": partial(_ours, source, how, threads) for how in own}
    if threads > 1:
        ours[f"ours-{own[0]}-1"] = partial(_ours, source, own[0], 1)
    make = {"vocab": vocab_rivals, "request": _request_rivals}.get(name, _hash_rivals)
    return {**ours, **make(source, threads)}


def _hash_rivals(source: Source, threads: int) -> Entries:
    rivals: dict[str, Callable[[], Contestant]] = {
        "polars": _polars,
        "polars-enum": _polars_enum,
        "pandas": _pandas,
        "pandas-plain": partial(_pandas, categorize=False),
        "duckdb": partial(_duckdb, threads),
        **{key: partial(_loop, HASHES[name]) for key, name in LOOPS.items()},
        "feature-hasher": _feature_hasher,
        "tensorflow": partial(_tensorflow, threads),
        "keras": partial(_keras, threads),
    }
    name = source.scenario.name
    of_texts = {"pandas-plain", "feature-hasher", "tensorflow", "keras"}
    left_out = {"dictionary": of_texts, "int64": {"polars-enum", *of_texts}}
    without = left_out.get(name, {"polars-enum"})
    taking_part = {key: make for key, make in rivals.items() if key not in without}
    if name == TWO_FIELDS:
        taking_part = {
            key: partial(by_field, make) for key, make in taking_part.items()
        }
    return {**taking_part, **ceilings(threads)}


def _request_rivals(source: Source, threads: int) -> Entries:  # noqa: ARG001
    return {
        "polars": _request_polars,
        "pandas": _request_pandas,
        **{key: partial(_request_loop, HASHES[name]) for key, name in LOOPS.items()},
    }


def _ours(source: Source, how: str, threads: int) -> Contestant:
    """Encode by a spec; for lists one whose only other column is an int64 zero."""
    encoder: dict[str, Any]
    if how == "vocab":
        encoder = {"type": "vocab", "values": source.vocabulary}
        check = check_vocab(source)
    else:
        named = HASHES[how]
        encoder = {"type": "hash", "buckets": BUCKETS, "hash": how}
        encoder["reduce"] = named.reduce
        check = _check_hash(named)
    spec = FeatureSpec.from_dict(_describe(source, encoder))

    def run_lists(batch: pa.RecordBatch) -> Padded:
        out: Any = spec.encode(batch, threads=threads)
        return out[HISTORY[0]], out["history.lengths"]

    def run_fields(batch: pa.RecordBatch) -> list[Padded]:
        out: Any = spec.encode(batch, threads=threads)
        return [(out[name], out["history.lengths"]) for name in HISTORY[:2]]

    def run_request(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401
        return spec.encode(rows, threads=threads)

    label = f"FeatureSpec.encode, {how}, {count(threads)}"
    if source.scenario.name == "request":
        return Contestant(label, forms.as_rows_of_one, run_request, check, ours=True)
    if source.scenario.name == TWO_FIELDS:
        every = check_each(check)
        return Contestant(label, forms.as_batch, run_fields, every, ours=True)
    return Contestant(label, forms.as_batch, run_lists, check, ours=True)


def _describe(source: Source, encoder: dict[str, Any]) -> dict[str, Any]:
    """Write the spec of a scenario."""
    history: dict[str, Any] = {"name": "history", "max_len": source.t}
    if source.scenario.name == "request":
        fields = [{"name": n, "dim": 1, "encoder": encoder} for n in (*CANDIDATE, USER)]
        history["fields"] = dict(zip(HISTORY, CANDIDATE, strict=True))
        return {
            "format": 1,
            "user": fields[-1:],
            "candidate": fields[:-1],
            "behavior": [history],
        }
    dtype = "int64" if source.scenario.kind == "int64" else "string"
    field = {"dim": 1, "dtype": dtype, "encoder": encoder}
    names = HISTORY[: 2 if source.scenario.name == TWO_FIELDS else 1]
    history["fields"] = dict.fromkeys(names, field)
    zero = {"name": "zero", "dim": 1, "encoder": {"type": "identity", "buckets": 1}}
    return {"format": 1, "candidate": [zero], "behavior": [history]}


def _check_hash(named: Hash) -> Check:
    """Compare with the named hash of each key, reduced in Python integers."""
    function = named.load()
    return check_equal(lambda key: named.to_bucket(function(key)))


def _hash_series(series: Any) -> NDArray[Any]:  # noqa: ANN401
    ids: NDArray[Any] = (series.hash() % RANGE + 1).to_numpy()
    return ids


def _polars() -> Contestant:
    import polars as pl

    label = f"Series.hash, %; {count(pl.thread_pool_size())}"
    return padding(label, forms.as_polars, lambda lists: _hash_series(lists.explode()))


def _polars_enum() -> Contestant:
    import polars as pl

    def to_ids(lists: Any) -> NDArray[Any]:  # noqa: ANN401
        enum = lists.explode()
        ids = enum.dtype.categories.hash() % RANGE + 1
        out: NDArray[Any] = ids.gather(enum.to_physical()).to_numpy()
        return out

    label = f"hash of the categories, gather; {count(pl.thread_pool_size())}"
    return padding(label, forms.as_polars_enum, to_ids)


def _pandas(*, categorize: bool = True) -> Contestant:
    hash_array = import_module("pandas").util.hash_array

    def to_ids(keys: NDArray[Any]) -> NDArray[Any]:
        ids: NDArray[Any] = 1 + hash_array(keys, categorize=categorize) % RANGE
        return ids

    label = "util.hash_array" + ("" if categorize else ", categorize=False")
    return padding(label, forms.as_array, to_ids)


def _duckdb(threads: int) -> Contestant:
    import duckdb

    connection = duckdb.connect(config={"threads": threads})

    def to_ids(table: pa.Table) -> NDArray[Any]:
        result = connection.from_arrow(table).project(f"1 + hash(key) % {RANGE} AS id")
        ids: NDArray[Any] = result.fetchnumpy()["id"]
        return ids

    return padding(f"SQL hash, %; {count(threads)}", forms.as_table, to_ids)


def _hash_loop(named: Hash) -> Callable[[list[bytes]], NDArray[Any]]:
    """Hash key by key in Python, reduce in NumPy."""
    function = named.load()
    dtype = np.int64 if named.reduce == "abs" else np.uint64

    def to_ids(keys: list[bytes]) -> NDArray[Any]:
        hashes = np.fromiter(map(function, keys), dtype, len(keys))
        ids: NDArray[Any] = named.to_bucket(hashes)
        return ids

    return to_ids


def _loop(named: Hash) -> Contestant:
    label = f"{named.module}.{named.function}, key by key"
    return padding(label, forms.as_bytes, _hash_loop(named), _check_hash(named))


def _feature_hasher() -> Contestant:
    module = import_module("sklearn.feature_extraction")
    hasher = module.FeatureHasher(
        n_features=BUCKETS, input_type="string", alternate_sign=False
    )
    named = HASHES["murmur3_32"]
    function = named.load()
    check = check_counts(lambda key: named.to_bucket(function(key)))
    label = "FeatureHasher, murmur3_32: counts, not padded"
    return Contestant(label, forms.as_rows, hasher.transform, check)


def _tensorflow(threads: int) -> Contestant:
    tensorflow = import_module("tensorflow")
    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)

    def run(x: Ragged) -> Padded:
        ids = tensorflow.strings.to_hash_bucket_fast(x.keys, BUCKETS)
        ragged = tensorflow.RaggedTensor.from_row_splits(ids, x.offsets, validate=False)
        return ragged.to_tensor().numpy(), np.diff(x.offsets)

    label = f"to_hash_bucket_fast, RaggedTensor; {count(threads)}"
    return Contestant(label, forms.as_tensor, run, _check_hash(HASHES["farmhash64"]))


def _keras(threads: int) -> Contestant:
    _tensorflow(threads)
    layer = import_module("keras").layers.Hashing(num_bins=BUCKETS)
    return padding(
        f"layers.Hashing; {count(threads)}",
        forms.as_tensor,
        lambda keys: np.asarray(layer(keys)),
        _check_hash(HASHES["farmhash64"]),
    )


def _by_row(
    label: str,
    to_ids: Callable[[list[str]], NDArray[Any]],
    check: Check | None = None,
) -> Contestant:
    """Hash all keys of a request at once, then hand them to their fields.

    Without a check, each id must be that of its key hashed alone: too few keys repeat
    in one request to tell otherwise.
    """

    def run(row: dict[str, Any]) -> dict[str, NDArray[Any]]:
        ids = to_ids(flatten(row))
        t = len(row[HISTORY[0]])
        out = {n: ids[None, t * i : t * (i + 1)] for i, n in enumerate(HISTORY)}
        for i, name in enumerate((*CANDIDATE, USER), len(HISTORY) * t):
            out[name] = ids[i : i + 1]
        return out

    alone = check_equal(lambda key: int(to_ids([key.decode()])[0]))

    def check_both(output: Any, request: Request) -> None:  # noqa: ANN401
        check_private(output, request)
        alone(output, request)

    return Contestant(label, attrgetter("row"), run, check or check_both)


def _request_polars() -> Contestant:
    import polars as pl

    label = f"Series.hash, %; {count(pl.thread_pool_size())}"
    return _by_row(label, lambda keys: _hash_series(pl.Series(keys)))


def _request_pandas() -> Contestant:
    hash_array = import_module("pandas").util.hash_array

    def to_ids(keys: list[str]) -> NDArray[Any]:
        hashes = hash_array(np.array(keys, object), categorize=False)
        ids: NDArray[Any] = 1 + hashes % RANGE
        return ids

    return _by_row("util.hash_array, categorize=False", to_ids)


def _request_loop(named: Hash) -> Contestant:
    to_ids = _hash_loop(named)
    label = f"{named.module}.{named.function}, key by key"
    return _by_row(label, lambda keys: to_ids(to_bytes(keys)), _check_hash(named))
