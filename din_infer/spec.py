"""FeatureSpec: what a model reads, written as TOML or JSON, kept inside the model."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from din_infer.encode import FeatureEncoder
from din_infer.errors import InputError, ModelError, reads_arguments
from din_infer.lazy import lazy
from din_infer.local_path import local_path
from din_infer.regular_file import read_text
from din_infer.spec_parsing import ACTIVATIONS, parse_spec
from din_infer.spec_parts import (
    ANY_LENGTH,
    Attention,
    Behavior,
    BehaviorField,
    Calibration,
    Dense,
    Derived,
    Encoder,
    Field,
    Input,
    Lists,
    ListText,
    Model,
    MultiHot,
    Part,
    ReadColumn,
    Scale,
    Table,
    Tower,
    inputs_of,
    required_columns,
)
from din_infer.spec_reading import RESERVED, copy, inline_files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ACTIVATIONS",
    "ANY_LENGTH",
    "RESERVED",
    "Attention",
    "Behavior",
    "BehaviorField",
    "Calibration",
    "Dense",
    "Derived",
    "Encoder",
    "FeatureSpec",
    "Field",
    "Input",
    "ListText",
    "Lists",
    "Model",
    "MultiHot",
    "Part",
    "ReadColumn",
    "Scale",
    "Table",
    "Tower",
]


@dataclass(frozen=True, eq=False, repr=False)
class FeatureSpec:
    """The fields of a model, how they are encoded, and what is built over them.

    Make one with `load`, `from_dict` or `from_json`; all of them check everything and
    raise `ModelError` naming the place. Two specs are equal when they say the same.

    Examples
    --------
    >>> spec = FeatureSpec.from_dict({
    ...     "format": 1,
    ...     "candidate": [{"name": "goods_id", "dim": 4,
    ...                    "encoder": {"type": "hash", "buckets": 100}}],
    ...     "behavior": [{"name": "history", "max_len": 50,
    ...                   "fields": {"hist_goods_id": "goods_id"}}],
    ... })
    >>> [i.name for i in spec.inputs]  # doctest: +NORMALIZE_WHITESPACE
    ['goods_id', 'hist_goods_id', 'history.lengths', 'request_of_candidate']
    """

    source: dict[str, Any]
    label: str | None
    weight: str | None
    group: str | None
    time: str | None
    user: tuple[Field, ...]
    candidate: tuple[Field, ...]
    derived: tuple[Derived, ...]
    behavior: tuple[Behavior, ...]
    multi_hot: tuple[MultiHot, ...]
    dense: tuple[Dense, ...]
    model: Model
    calibration: Calibration
    tables: dict[str, Table]
    tower_inputs: tuple[Part, ...]

    @classmethod
    @reads_arguments(ModelError)
    def load(cls, path: str | Path) -> "FeatureSpec":
        """Read a spec from a .toml or .json file.

        Raises
        ------
        ModelError
            If the file cannot be read or says something the format does not allow.
        """
        path = local_path(path, "spec", ModelError)
        try:
            text = read_text(path)
        except (OSError, ValueError) as error:
            raise ModelError("a readable file", error, str(path)) from None
        is_json = path.suffix.lower() == ".json"
        try:
            raw = json.loads(text) if is_json else tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            kind = "JSON" if is_json else "TOML"
            raise ModelError(kind, str(error), str(path)) from None
        return cls.from_dict(raw, folder=path.parent)

    @classmethod
    @reads_arguments(ModelError)
    def from_json(cls, text: str) -> "FeatureSpec":
        """Read a spec from JSON text, as kept inside a model.

        Raises
        ------
        ModelError
            If the text is not a spec.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError("JSON", str(error), "spec") from None
        return cls._parse(raw, None)

    @classmethod
    @reads_arguments(ModelError)
    def from_dict(
        cls, raw: Mapping[str, Any], folder: str | Path | None = None
    ) -> "FeatureSpec":
        """Read a spec from nested dicts and lists.

        Files it names are relative to `folder`; without one they are refused.

        Raises
        ------
        ModelError
            If the dict says something the format does not allow.
        """
        try:
            return cls._parse(copy(raw), None if folder is None else Path(folder))
        except RecursionError:
            raise ModelError("a spec", "endless nesting", "spec") from None

    @classmethod
    def _parse(cls, raw: object, folder: Path | None) -> "FeatureSpec":
        """Read nested dicts and lists, and keep them."""
        if not isinstance(raw, dict):
            raise ModelError("a table", repr(raw), "spec")
        try:
            inline_files(raw, folder)
            return cls(source=raw, **parse_spec(raw))
        except RecursionError:
            raise ModelError("a spec", "endless nesting", "spec") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as nested dicts, files inlined; a copy."""
        return dict(copy(self.source))

    def to_json(self) -> str:
        """Return the spec as JSON text; `from_json` of it is an equal spec."""
        return json.dumps(self.source, ensure_ascii=False, separators=(",", ":"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureSpec) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __reduce__(self) -> tuple[object, tuple[str]]:
        # The compiled encoder is made again where it is needed.
        return FeatureSpec.from_json, (self.to_json(),)

    def __repr__(self) -> str:
        return f"FeatureSpec({', '.join(i.name for i in self.inputs)})"

    @lazy
    def reads(self) -> tuple[ReadColumn, ...]:
        """The columns that the parts read, part by part.

        A column that several parts read occurs once for each of them.
        """
        parts: list[Field | Behavior | MultiHot | Dense] = []
        parts += (*self.user, *self.candidate)
        parts += (*self.behavior, *self.multi_hot, *self.dense)
        return tuple(column for part in parts for column in part.reads)

    @lazy
    def inputs(self) -> tuple[Input, ...]:
        """The graph's inputs, in order."""
        return inputs_of(self.reads)

    @lazy
    def columns(self) -> tuple[str, ...]:
        """The columns a batch must have for scoring, each once, in order."""
        return required_columns(self.reads)

    @lazy
    def optional_columns(self) -> tuple[str, ...]:
        """Length columns that a batch may lack: `pad_value` rules then."""
        names = dict.fromkeys(c.name for c in self.reads if c.optional)
        return tuple(n for n in names if n not in self.columns)

    @lazy
    def encoder(self) -> FeatureEncoder:
        """The compiled encoder of this spec; made once."""
        return FeatureEncoder(self.reads)

    @reads_arguments(InputError)
    def encode(
        self, batch: object, *, threads: int = 1
    ) -> "dict[str, NDArray[np.int64] | NDArray[np.float32]]":
        """Turn a table of rows (B = N) into the graph's inputs.

        Parameters
        ----------
        batch : dict of columns, list of dicts, or any frame with `__arrow_c_stream__`
            Must hold `columns`; others are ignored. Read, never kept.
        threads : int
            Threads that share a large batch; its ids do not depend on it.

        Returns
        -------
        dict
            One array per entry of `inputs`: int64 ids and lengths, float32 dense ones.
            T = min(max_len, longest history of the batch). Owned by the caller.

        Raises
        ------
        InputError
            Naming column, row and value, when the batch does not fit the spec.
        """
        return self.encoder.encode(batch, threads).inputs
