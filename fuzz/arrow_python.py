"""What fuzz/arrow_python.c does in Python with the Arrow data of one run.

Imported by a process whose extension is the sanitized one that it was linked with.
"""

from pathlib import Path
from typing import Any

import numpy as np

from din_infer import _kernels
from din_infer.errors import DinError
from din_infer.spec import FeatureSpec

SPECS = [
    FeatureSpec.from_json(line)
    for line in Path("fuzz/specs.jsonl").read_text(encoding="utf-8").splitlines()
]
WHOLE = 31  # of the 32 ways: FeatureSpec.encode itself, ten times as slow as the others
WANTED = [{read.name for read in spec.reads} for spec in SPECS]
WORDS = _kernels.Vocabulary(["", "a", "ab", "abc", "aab"], "string")
ENCODERS = {
    "text": [
        _kernels.Encoder("hash", "string", rows=1000),
        _kernels.Encoder("hash", "string", rows=9, prefix="p", mask_value="a"),
        _kernels.Encoder("vocab", "string", rows=7, vocabulary=WORDS, unseen="missing"),
    ],
    "number": [
        _kernels.Encoder("hash", "int64", rows=1000, hash="xxh3_64"),
        _kernels.Encoder("identity", "int64", rows=50, unseen="missing"),
        _kernels.Encoder("identity", "int64", rows=5),
        _kernels.Encoder("bucketize", "float", rows=4, boundaries=[1.0, 9.0]),
        _kernels.Encoder("hash", "float", rows=9, int_as="bytes4"),
    ],
}


class Array:
    """A source of one array."""

    def __init__(self, capsules: object) -> None:
        self.capsules = capsules

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self.capsules


class Stream:
    """A source of a stream."""

    def __init__(self, capsule: object) -> None:
        self.capsule = capsule

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.capsule


def run(capsules: object, is_stream: int, is_table: int, number: int, how: int) -> None:
    """Encode in one of the ways; what is refused is refused by our own errors."""
    source = Stream(capsules) if is_stream else Array(capsules)
    try:
        if is_table and how == WHOLE:
            SPECS[number].encode(source)
            return
        wanted = WANTED[number] if is_table else None
        _, columns, num_rows = _kernels.import_arrow(source, "x", wanted)
    except (DinError, TypeError):
        return
    for column in columns.values():
        if column.num_rows != num_rows:
            raise AssertionError(column.name)
        try:
            encode(column, how)
        except (DinError, TypeError):
            continue


def encode(column: Any, how: int) -> None:  # noqa: ANN401 - of the extension
    """Read a column as its kind allows."""
    column.describe()
    column.has_values(how & 1)
    if column.kind == "fixed":
        column = column.as_strings(column.width == 16 and how & 1)
    if how & 2 and column.num_rows:
        same = np.ones(column.num_rows, np.uint8)
        _kernels.mark_repeats(column, same, 0, column.num_rows)
        starts = np.flatnonzero(same == 0)
        if how & 4:
            column = _kernels.take_runs(column, starts)
        else:
            column = _kernels.take_rows(column, starts)
    if column.kind == "string":
        column.find_uuid(how & 1, how >> 1 & 1)
        if not column.is_list and how & 8:
            column, _ = _kernels.split_texts(column, b",", "int64", int)
    is_text = column.kind == "string"
    if not is_text and how & 16:
        _kernels.read_float64(column)
        _kernels.read_dense(column, 2 if column.is_list else 1, 0.5)
        _kernels.read_raw_dense(column, 1)
    encoders = ENCODERS["text" if is_text else "number"]
    encoder = encoders[how % len(encoders)]
    if not column.is_list:
        ids, nulls, unseen = _kernels.encode_scalars(column, encoder)
    else:
        window = _kernels.Window(column)
        if how % 3 == 1:
            window.trim("a" if is_text else 1)
        elif how % 3 == 2:
            window.drop("a" if is_text else 1)
        _, width, _, _ = window.finish(5, how & 1)
        window.places(width, how & 1)
        encoding = _kernels.prepare_lists(column, encoder, window, width, bool(how & 1))
        encoding.run(0, encoding.num_rows)
        ids, nulls, unseen = encoding.finish()
    if nulls < 0 or unseen < 0 or (ids.size and not 0 <= ids.min() <= ids.max() < 1000):
        raise AssertionError(column.name)
