"""A graph of ids -> the same graph of raw values: the operator Encode goes before it.

The operator reads a spec without the keys of its vocabularies, which are constants of
the graph, and the columns as Arrow lays them out: docs/raw.md. Letters: B requests, N
candidates, V elements of all lists together.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from din_converter.functions import DOMAIN
from din_converter.vectors.draw import text_of
from din_infer.device import import_runtime
from din_infer.errors import ConversionError, InputError
from din_infer.list_texts import texts_of
from din_infer.model_format import RAW_TEXTS as TEXTS
from din_infer.session import Session, ops_library
from din_infer.spec import FeatureSpec, ReadColumn

__all__ = ["TEXTS", "RawForm", "check_raw", "raw_columns", "raw_graph"]

Arrays = dict[str, NDArray[Any]]
OWNERS = "request_of_candidate"
_OFFSETS = {"arrow": TensorProto.INT32, "large": TensorProto.INT64}
_AXES = {"user": "B", "candidate": "N"}


@dataclass(frozen=True)
class RawInput:
    """One input of a raw graph; `default` stands where a caller leaves it out."""

    name: str
    type: int
    shape: tuple[str | int, ...]
    default: NDArray[Any] | None = None


@dataclass(frozen=True)
class RawColumn:
    """A column that a raw graph takes, as its first part reads it.

    `label` is what the names of its inputs begin with: the column's, and its side's
    where both sides read such a column.
    """

    name: str
    label: str
    side: str
    dtype: str
    size: int
    is_list: bool
    is_length: bool
    optional: bool
    is_written: bool  # as text that is split into a list

    @property
    def is_text(self) -> bool:
        """Whether text is given."""
        return self.dtype == "string" or self.is_written

    def inputs(self, text: str) -> Iterator[RawInput]:
        """Yield the column's inputs, where text is given as `text` says."""
        label, axis = self.label, _AXES[self.side]
        count = f"{label}.V" if self.is_list or self.optional else axis
        if self.is_text and text == "strings":
            yield RawInput(f"{label}.values", TensorProto.STRING, (count,))
        elif self.is_text:
            yield RawInput(f"{label}.bytes", TensorProto.UINT8, (f"{label}.bytes",))
            shape = (f"{label}.offsets",)
            yield RawInput(f"{label}.offsets", _OFFSETS[text], shape)
        else:
            is_int = self.dtype == "int64"
            kind = TensorProto.INT64 if is_int else TensorProto.DOUBLE
            dims = (count, self.size) if self.size > 1 else (count,)
            default = np.zeros(0, np.int64) if self.optional else None
            yield RawInput(f"{label}.values", kind, dims, default)
        if not self.is_length:
            name, nothing = f"{label}.validity", np.zeros(0, np.uint8)
            yield RawInput(name, TensorProto.UINT8, (name,), nothing)
        if self.is_list:
            name = f"{label}.row_offsets"
            kind = _OFFSETS.get(text, TensorProto.INT64)
            yield RawInput(name, kind, (name,))


@dataclass(frozen=True)
class RawForm:
    """How a raw graph takes text, and whether it gives ids too."""

    text: str = "arrow"
    ids: bool = False


def raw_columns(spec: FeatureSpec) -> list[RawColumn]:
    """List the columns of a raw graph, in the operator's order.

    Raises
    ------
    ConversionError
        Where two parts read a column in ways that no one tensor serves.
    """
    found: dict[tuple[str, str], RawColumn] = {}
    for c in spec.reads:
        made = _column(c)
        known = found.setdefault((c.side, c.name), made)
        numbers = {known.dtype, made.dtype} == {"int64", "float"}
        alike = replace(
            made, dtype=known.dtype if numbers else made.dtype, label=known.label,
            optional=known.optional, is_length=known.is_length,
        )  # fmt: skip
        if alike != known:
            rule = "a column that all parts read alike"
            got = f"{_shown(known)} and {_shown(made)}"
            raise ConversionError(rule, got, c.name)
        both = (known, made)
        found[c.side, c.name] = replace(
            known,
            dtype="int64" if numbers else known.dtype,
            optional=all(x.optional for x in both),
            is_length=all(x.is_length for x in both),
        )
    twice = {n for side, n in found if side == "user" and ("candidate", n) in found}
    return [
        replace(c, label=f"{c.side}.{c.name}" if c.name in twice else c.name)
        for c in found.values()
    ]


def _column(c: ReadColumn) -> RawColumn:
    is_list = c.size is None
    size = 1 if c.text is not None else c.size or 1
    return RawColumn(
        c.name, c.name, c.side, c.dtype, size, is_list and c.text is None,
        c.is_length, c.optional, c.text is not None,
    )  # fmt: skip


def _shown(c: RawColumn) -> str:
    how = "text with lists of " if c.is_written else "lists of " if c.is_list else ""
    return f"{how}{c.dtype}" + (f" [{c.size}]" if c.size > 1 else "")


def _encoders(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the encoders of a spec."""
    for key in ("user", "candidate", "derived", "multi_hot"):
        yield from (part["encoder"] for part in raw.get(key, []) if "encoder" in part)
    for sequence in raw.get("behavior", []):
        for f in sequence["fields"].values():
            if isinstance(f, dict) and "encoder" in f:
                yield f["encoder"]


def _split_vocabularies(spec: FeatureSpec) -> tuple[str, list[int], Arrays]:
    """Return the operator's spec, the kinds of its vocabularies, and their keys."""
    raw = spec.to_dict()
    for derived in raw.get("derived", []):
        derived["lookup"] = []
        derived.pop("weights", None)
    kinds: list[int] = []
    keys: Arrays = {}
    for encoder in _encoders(raw):
        values = encoder.get("values")
        if not values:
            continue
        name = f"weights.vocabulary.{len(kinds)}"
        is_text = isinstance(values[0], str)
        encoder["values"] = len(kinds)
        kinds.append(int(is_text))
        if is_text:
            texts = [v.encode() for v in values]
            data = np.frombuffer(b"".join(texts), np.uint8)
            keys[f"{name}.bytes"] = data
            keys[f"{name}.offsets"] = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        else:
            keys[f"{name}.values"] = np.array(values, np.int64)
    text = json.dumps(raw, ensure_ascii=False, separators=(",", ":"))
    return text, kinds, keys


def raw_graph(
    proto: onnx.ModelProto, spec: FeatureSpec, form: RawForm
) -> tuple[onnx.ModelProto, Arrays]:
    """Make the graph of raw values of one of ids.

    Parameters
    ----------
    proto : ModelProto
        Left as it is.
    spec : FeatureSpec
        Its spec, fitted.
    form : RawForm

    Returns
    -------
    ModelProto
        Its new initializers are without data.
    dict of arrays
        Their data: vocabularies, and what stands for inputs that are left out.

    Raises
    ------
    ConversionError
        Where no graph of raw values can be made.
    """
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph = made.graph
    text, kinds, data = _split_vocabularies(spec)
    constants = list(data)
    inputs = [i for c in raw_columns(spec) for i in c.inputs(form.text)]
    data |= {i.name: i.default for i in inputs if i.default is not None}
    encoded = {i.name: i for i in spec.inputs if i.name != OWNERS}
    infos = [info for info in graph.input if info.name in encoded]
    others = [info for info in graph.input if info.name not in encoded]
    taken = {i.name for i in graph.initializer} | {
        n for x in graph.node for n in x.output
    }
    taken |= {info.name for info in graph.input}
    for i in inputs:
        if i.name in taken:
            rule = "a column whose inputs have names of their own"
            raise ConversionError(rule, repr(i.name), "raw")
        taken.add(i.name)
    node = helper.make_node(
        "Encode",
        [*constants, OWNERS, *(i.name for i in inputs)],
        [info.name for info in infos],
        name="encode",
        domain=DOMAIN,
        spec=text,
        text="strings" if form.text == "strings" else "arrow",
    )
    node.attribute.append(
        helper.make_attribute("vocabularies", kinds, attr_type=onnx.AttributeProto.INTS)
    )
    del graph.input[:]
    graph.input.extend(
        helper.make_tensor_value_info(i.name, i.type, i.shape) for i in inputs
    )
    graph.input.extend(others)
    graph.node.insert(0, node)
    graph.value_info.extend(infos)
    for name, array in data.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=array.shape)
        graph.initializer.append(tensor)
    if form.ids:
        graph.output.extend(infos)
    return made, data


def _bits(valid: Sequence[bool]) -> NDArray[np.uint8]:
    return np.packbits(np.array(valid, bool), bitorder="little")


def raw_inputs(
    columns: Sequence[RawColumn], text: str, rows: Sequence[Mapping[str, Any]]
) -> Arrays:
    """Lay rows out as a raw graph takes them: for a check, not for speed."""
    made: Arrays = {OWNERS: np.arange(len(rows))}
    for c in columns:
        if c.optional and not all(c.name in row for row in rows):
            continue
        values: list[Any] = [row[c.name] for row in rows]
        offsets = np.int32 if text == "arrow" else np.int64
        if c.is_list:
            lists = [v or [] for v in values]
            ends = np.cumsum([0, *map(len, lists)], dtype=offsets)
            made[f"{c.label}.row_offsets"] = ends
            values = [x for own in lists for x in own]
        if c.size > 1:
            values = [x for own in values for x in (own or [None] * c.size)]
        if not c.is_length:
            made[f"{c.label}.validity"] = _bits([v is not None for v in values])
        if c.is_text and text == "strings":
            given = ["" if v is None else v for v in values]
            made[f"{c.label}.values"] = np.array(given, object)
        elif c.is_text:
            texts = [b"" if v is None else v.encode() for v in values]
            data = np.frombuffer(b"".join(texts), np.uint8)
            made[f"{c.label}.bytes"] = data
            ends = np.cumsum([0, *map(len, texts)], dtype=offsets)
            made[f"{c.label}.offsets"] = ends
        else:
            dtype = np.int64 if c.dtype == "int64" else np.float64
            numbers = np.array([0 if v is None else v for v in values], dtype)
            made[f"{c.label}.values"] = numbers.reshape(
                (-1, c.size) if c.size > 1 else -1
            )
    return made


def _with_texts(
    spec: FeatureSpec, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Write the lists of columns that may be text as text, which the operator takes.

    A row of which no text can be made is left out: `[""]` is written as `[]` is.
    """
    texts = texts_of(spec.reads)
    written = [
        {
            name: text_of(value, texts[name][0].separator)
            if name in texts and isinstance(value, list)
            else value
            for name, value in row.items()
        }
        for row in rows
    ]
    errors: list[InputError] = []
    if written:
        spec.encoder.encode(written, errors=errors)
    bad = {error.row for error in errors}
    return [row for k, row in enumerate(written) if k not in bad]


def check_raw(
    spec: FeatureSpec,
    form: RawForm,
    ids: Path,
    raw: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    inlined: bool = False,
) -> None:
    """Prove on rows that a raw file, written with ids, equals the file of ids.

    Raises
    ------
    ConversionError
        Naming the output that differs; or if the native operators are missing.
    """
    library = ops_library()
    if library is None:
        rule = "the native operators, which encode in the graph"
        raise ConversionError(rule, "a build of din-infer without them", "raw")
    onnxruntime = import_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library))
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(raw), options, providers)
    rows = _with_texts(spec, rows)
    feeds = raw_inputs(raw_columns(spec), form.text, rows)
    encoded = spec.encode(rows)
    names = [name for name in encoded if name != OWNERS]
    outputs = ["logit", "score"]
    found = session.run([*names, *outputs], feeds)
    wanted = [encoded[name] for name in names]
    wanted += Session(ids, device="cpu", threads=1, fused=not inlined).run(
        encoded, outputs
    )
    for name, a, b in zip([*names, *outputs], wanted, found, strict=True):
        if a.dtype != b.dtype or a.shape != b.shape or not np.array_equal(a, b):
            rule = f"the `{name}` of the graph of ids"
            raise ConversionError(rule, "another", f"raw graph, output {name}")
