"""Who looks keys up in a vocabulary, then pads."""

from functools import partial
from importlib import import_module
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks import forms
from benchmarks.checks import check_equal
from benchmarks.command import Entries
from benchmarks.keys import Source
from benchmarks.padding import ceilings, count, padding
from benchmarks.timing import Check, Contestant

__all__ = ["check_vocab", "vocab_rivals"]


def vocab_rivals(source: Source, threads: int) -> Entries:
    """List who takes part beside ours."""
    return {
        "polars": partial(_vocab_polars, source),
        "polars-join": partial(_vocab_polars_join, source),
        "pandas": partial(_vocab_pandas, source),
        "pyarrow": partial(_vocab_pyarrow, source),
        "python-dict": partial(_vocab_dict, source),
        **ceilings(threads),
    }


def check_vocab(source: Source) -> Check:
    """Compare with the place of each key, or the id of unknown ones."""
    places, unseen = source.places, source.distinct + 1
    return check_equal(lambda key: places.get(key, unseen))


def _vocab_polars(source: Source) -> Contestant:
    import polars as pl

    enum, unseen = pl.Enum(source.vocabulary), source.distinct + 1

    def to_ids(lists: Any) -> NDArray[Any]:  # noqa: ANN401
        found = lists.explode().cast(enum, strict=False).to_physical()
        ids: NDArray[Any] = (found.cast(pl.Int64) + 1).fill_null(unseen).to_numpy()
        return ids

    label = f"cast to an Enum; {count(pl.thread_pool_size())}"
    return padding(label, forms.as_polars, to_ids, check_vocab(source))


def _vocab_polars_join(source: Source) -> Contestant:
    import polars as pl

    ids, unseen = np.arange(1, source.distinct + 1), source.distinct + 1
    known = pl.DataFrame({"key": source.vocabulary, "id": ids})

    def to_ids(lists: Any) -> NDArray[Any]:  # noqa: ANN401
        keys = lists.explode().to_frame()
        both = keys.join(known, on="key", how="left", maintain_order="left")
        ids: NDArray[Any] = both["id"].fill_null(unseen).to_numpy()
        return ids

    label = f"left join; {count(pl.thread_pool_size())}"
    return padding(label, forms.as_polars, to_ids, check_vocab(source))


def _vocab_pandas(source: Source) -> Contestant:
    known = import_module("pandas").Index(source.vocabulary)

    def to_ids(keys: Any) -> NDArray[Any]:  # noqa: ANN401
        ids: NDArray[Any] = known.get_indexer(keys) + 1
        ids[ids == 0] = source.distinct + 1
        return ids

    return padding("Index.get_indexer", forms.as_index, to_ids, check_vocab(source))


def _vocab_pyarrow(source: Source) -> Contestant:
    known, unseen = pa.array(source.vocabulary), source.distinct

    def to_ids(keys: pa.Array) -> NDArray[Any]:
        found = pc.index_in(keys, value_set=known).fill_null(unseen)
        ids: NDArray[Any] = found.to_numpy() + 1
        return ids

    return padding("compute.index_in", forms.as_arrow, to_ids, check_vocab(source))


def _vocab_dict(source: Source) -> Contestant:
    places = {key: 1 + i for i, key in enumerate(source.vocabulary)}
    unseen = source.distinct + 1

    def to_ids(keys: list[str]) -> NDArray[Any]:
        found = map(places.get, keys, repeat(unseen))
        return np.fromiter(found, np.int64, len(keys))

    return padding("dict.get, key by key", forms.as_texts, to_ids, check_vocab(source))
