from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.errors import InputError

class Column:
    name: str
    kind: str
    type_name: str
    fix: str
    width: int
    is_list: bool
    num_rows: int
    @property
    def num_counted(self) -> int: ...
    def __init__(self, name: str) -> None: ...
    def describe(self) -> str: ...
    def has_values(self, of_rows: bool) -> bool: ...
    def as_null(self) -> Column: ...
    def as_strings(self, as_text: bool) -> Column: ...
    def find_uuid(self, in_capitals: bool, raw: bool) -> tuple[int, bytes] | None: ...
    def as_untyped(self) -> Column: ...

HASHES: dict[str, int]

def isas() -> list[str]: ...

class Vocabulary:
    dtype: str
    def __init__(self, keys: list[Any], dtype: str, isa: str | None = None) -> None: ...
    def __len__(self) -> int: ...

class Encoder:
    dtype: str
    isa: str
    uuid_as: str | None
    def __init__(
        self,
        type: str,
        dtype: str,
        *,
        rows: int,
        hash: str = "xxh64",
        seed: int | tuple[int, ...] = 0,
        reduce: str = "offset",
        int_as: str = "bytes",
        vocabulary: Vocabulary | None = None,
        unseen: str = "error",
        boundaries: Sequence[float] = (),
        uuid_as: str | None = None,
        isa: str | None = None,
        mask_value: str | int | None = None,
        prefix: str = "",
        alternate_sign: bool = False,
        is_seeded: bool = False,
    ) -> None: ...

class Encoding:
    num_rows: int
    num_counted: int
    num_elements: int
    def run(self, first: int, stop: int) -> None: ...
    def finish(self) -> tuple[NDArray[np.int64], int, int]: ...

class Window:
    column: Column
    def __init__(self, column: Column) -> None: ...
    def trim(self, value: str | int) -> None: ...
    def drop(self, value: str | int) -> None: ...
    def take(self, lengths: Column, errors: list[InputError] | None = None) -> None: ...
    def finish(
        self, max_len: int, is_fixed: bool
    ) -> tuple[NDArray[np.int64], int, int, int]: ...
    def places(self, width: int, newest_first: bool) -> NDArray[np.int64]: ...

def import_arrow(
    source: object, place: str, wanted: AbstractSet[str] | None = None
) -> tuple[list[str], dict[str, Column], int]: ...
def describe_arrow(source: object, place: str) -> tuple[str, str]: ...
def from_numpy(array: NDArray[Any], name: str) -> Column: ...
def from_list(values: list[Any], name: str) -> Column: ...
def read_texts(column: Column) -> list[bytes | None]: ...
def split_texts(
    column: Column,
    separator: bytes,
    dtype: str,
    read: Callable[[bytes], int | float | None],
) -> tuple[Column, list[int]]: ...
def nest(values: Column, offsets: object) -> Column: ...
def check_offsets(offsets: object, num_values: int, name: str) -> NDArray[np.int64]: ...
def mark_repeats(
    column: Column, same: NDArray[np.uint8], first: int, stop: int
) -> int: ...
def take_runs(column: Column, starts: NDArray[np.int64]) -> Column: ...
def take_rows(column: Column, rows: NDArray[np.int64]) -> Column: ...
def prepare_scalars(
    column: Column,
    encoder: Encoder,
    errors: list[InputError] | None = None,
    before: Encoding | None = None,
) -> Encoding: ...
def prepare_lists(
    column: Column,
    encoder: Encoder,
    window: Window,
    width: int,
    newest_first: bool,
    errors: list[InputError] | None = None,
    before: Encoding | None = None,
) -> Encoding: ...
def encode_scalars(
    column: Column, encoder: Encoder
) -> tuple[NDArray[np.int64], int, int]: ...

class Scale:
    num_values: int
    def __init__(
        self,
        type: str,
        num_values: int,
        *,
        shift: Sequence[float] = (),
        divisor: Sequence[float] = (),
        boundaries: Sequence[Sequence[float]] = (),
    ) -> None: ...
    def apply(self, values: Sequence[float]) -> list[float]: ...

def read_dense(
    column: Column,
    num_values: int,
    missing: float | None,
    errors: list[InputError] | None = None,
    scale: Scale | None = None,
) -> tuple[NDArray[np.float32], int]: ...
def read_raw_dense(column: Column, num_values: int) -> NDArray[np.float64]: ...
def signed_log1p(values: NDArray[np.float64]) -> NDArray[np.float64]: ...
def read_float64(column: Column) -> NDArray[np.float64]: ...
def read_int64(
    column: Column, errors: list[InputError] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]: ...
def pad(
    values: NDArray[np.int64], offsets: object, max_len: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...

LINKS: dict[str, int]

def link(
    values: NDArray[np.float32], kind: str, scale: float, offset: float
) -> int: ...
