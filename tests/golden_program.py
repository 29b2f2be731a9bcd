"""A C program that encodes tables and compares with what Python gave, on any processor.

Tables, specs and wanted inputs are written into the program as typed arrays, so that
they are in each processor's own order of bytes. ``python -m tests.golden_program FILE``
writes it; .ci/platforms.sh compiles and runs it in emulation.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from din_infer import FeatureSpec
from tests.models import SPECS, random_rows
from tests.reference_hash import INTEGERS, KEYS, OTHERS, golden

ROWS = 40
REDUCES = {"offset": 97, "mod": 64, "pmod": 97, "abs": 1 << 20}
WIDTHS = {
    **{pa.int8(): "int8_t", pa.int16(): "int16_t", pa.int32(): "int32_t"},
    **{pa.int64(): "int64_t", pa.uint8(): "uint8_t", pa.uint16(): "uint16_t"},
    **{pa.uint32(): "uint32_t", pa.uint64(): "uint64_t"},
    **{pa.float32(): "uint32_t", pa.float64(): "uint64_t"},
}
FORMATS = {
    **{pa.int8(): "c", pa.uint8(): "C", pa.int16(): "s", pa.uint16(): "S"},
    **{pa.int32(): "i", pa.uint32(): "I", pa.int64(): "l", pa.uint64(): "L"},
    **{pa.float32(): "f", pa.float64(): "g", pa.bool_(): "b", pa.null(): "n"},
    **{pa.string(): "u", pa.large_string(): "U", pa.binary(): "z"},
}

HEAD = """\
/* Written by tests/golden_program.py. */
#include <stdio.h>
#include <string.h>

#include "din_encode.h"

typedef struct wanted {
  int32_t type, rank;
  int64_t dims[2];
  const void *data;
} wanted;

static int check(const char *name, const char *json, const struct ArrowSchema *schema,
                 const struct ArrowArray *array, const wanted *w, int64_t count) {
  char error[400];
  din_encode_spec *spec =
      din_encode_open(json, (int64_t)strlen(json), error, sizeof error);
  din_encode_batch *batch =
      spec ? din_encode_table(spec, schema, array, error, sizeof error) : NULL;
  if (batch == NULL) return printf("%s: %s\\n", name, error), 1;
  if (din_encode_num_inputs(spec) != count) return printf("%s: inputs\\n", name), 1;
  for (int64_t i = 0; i < count; ++i) {
    din_encode_tensor t = din_encode_input(batch, i);
    int64_t n = 1, same = t.type == w[i].type && t.rank == w[i].rank;
    for (int d = 0; same && d < t.rank; ++d) {
      same = t.dims[d] == w[i].dims[d];
      n *= t.dims[d];
    }
    size_t bytes = (size_t)n * (t.type == DIN_ENCODE_INT64 ? 8 : 4);
    if (!same || (bytes && memcmp(t.data, w[i].data, bytes))) {
      return printf("%s: %s differs\\n", name, t.name), 1;
    }
    values += n;
  }
  din_encode_release(batch);
  din_encode_close(spec);
  return 0;
}
"""


def _numbers(values: np.ndarray[Any, Any]) -> str:
    """Write integers as a list that C reads."""
    kind = values.dtype
    if kind.kind == "f":
        values = values.view(f"u{kind.itemsize}")
    suffix = "u" if values.dtype.kind == "u" else ""
    if values.dtype.itemsize == 8:
        suffix += "ll"
    least = np.iinfo(np.int64).min
    texts = [
        "(-9223372036854775807ll - 1)" if int(v) == least else f"{int(v)}{suffix}"
        for v in values.ravel()
    ]
    return ", ".join(texts) or "0"


def _text(text: str) -> str:
    """Write a text as a literal of C, in pieces."""
    data = "".join(f"\\{byte:03o}" for byte in text.encode())
    pieces = [data[i : i + 4000] for i in range(0, len(data), 4000)] or [""]
    return "\n    ".join(f'"{p}"' for p in pieces)


class _Arrays:
    """Writes Arrow arrays as static structs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0
        self._known: dict[tuple[str, str], str] = {}

    def _name(self) -> str:
        self._count += 1
        return f"a{self._count}"

    def static(self, kind: str, values: str) -> str:
        """Write values; the name of those that are there already."""
        name = self._known.get((kind, values))
        if name is None:
            name = self._known[kind, values] = self._name()
            self.lines.append(f"static const {kind} {name}[] = {{{values}}};")
        return name

    def add(self, array: pa.Array, label: str) -> tuple[str, str]:
        """Write an array; returns the names of its schema and array."""
        array = pa.concat_arrays([array])
        children: list[tuple[str, str]] = []
        dictionary: tuple[str, str] | None = None
        kind, buffers = array.type, array.buffers()
        made = [self._bits(buffers[0], len(array))] if buffers[0] else ["NULL"]
        if pa.types.is_dictionary(kind):
            dictionary = self.add(array.dictionary, "")
            made.append(self._values(array.indices))
            form = FORMATS[kind.index_type]
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            wide = pa.types.is_large_list(kind)
            offsets = np.frombuffer(buffers[1], np.int64 if wide else np.int32)
            offsets = offsets[: len(array) + 1]
            made.append(self.static(f"int{64 if wide else 32}_t", _numbers(offsets)))
            children.append(self.add(array.values, "item"))
            form = "+L" if wide else "+l"
        elif pa.types.is_struct(kind):
            form = "+s"
            for i, field in enumerate(kind):
                children.append(self.add(array.field(i), field.name))
        elif kind in (pa.string(), pa.binary(), pa.large_string()):
            form, wide = FORMATS[kind], kind == pa.large_string()
            offsets = np.frombuffer(buffers[1], np.int64 if wide else np.int32)
            offsets = offsets[: len(array) + 1]
            made.append(self.static(f"int{64 if wide else 32}_t", _numbers(offsets)))
            data = np.frombuffer(buffers[2] or b"", np.uint8)
            made.append(self.static("uint8_t", _numbers(data)))
        elif kind == pa.null():
            form, made = "n", []
        else:
            form = FORMATS[kind]
            made.append(self._values(array))
        return self._structs(array, form, label, made, children, dictionary)

    def _values(self, array: pa.Array) -> str:
        data = array.buffers()[1]
        if array.type == pa.bool_():
            return self._bits(data, len(array))
        kind = array.type.to_pandas_dtype()
        values = np.frombuffer(data, kind)[: len(array)]
        return self.static(WIDTHS[array.type], _numbers(values))

    def _bits(self, data: pa.Buffer, count: int) -> str:
        used = np.frombuffer(data, np.uint8)[: -(-count // 8)]
        return self.static("uint8_t", _numbers(used))

    def _structs(
        self,
        array: pa.Array,
        form: str,
        label: str,
        buffers: list[str],
        children: list[tuple[str, str]],
        dictionary: tuple[str, str] | None,
    ) -> tuple[str, str]:
        schema, made = self._name(), self._name()
        inner = ["NULL", "NULL"]
        if children:
            inner = []
            for k, kind in enumerate(("Schema", "Array")):
                name = self._name()
                places = ", ".join(f"&{c[k]}" for c in children)
                self.lines.append(
                    f"static struct Arrow{kind} *{name}[] = {{{places}}};"
                )
                inner.append(name)
        given = [f"&{d}" for d in dictionary] if dictionary else ["NULL", "NULL"]
        held = self._name()
        self.lines.append(
            f"static const void *{held}[] = {{{', '.join(buffers) or 'NULL'}}};"
        )
        self.lines.append(
            f'static struct ArrowSchema {schema} = {{"{form}", {_text(label)}, NULL, 2,'
            f" {len(children)}, {inner[0]}, {given[0]}, NULL, NULL}};"
        )
        self.lines.append(
            f"static struct ArrowArray {made} = {{{len(array)}, {array.null_count}, 0,"
            f" {len(buffers)}, {len(children)}, {held}, {inner[1]}, {given[1]}, NULL,"
            " NULL};"
        )
        return schema, made


def _hash_cases() -> Iterator[tuple[str, FeatureSpec, pa.Table]]:
    """Every hash with each reduction, of keys of every length and of integers."""
    seeds: list[tuple[str, Any]] = [("siphash24", [1, 2])]
    seeds += [(name, 7) for name in OTHERS if name != "siphash24"]
    seeds += list(dict.fromkeys((name, seed) for name, seed, *_ in golden()))
    columns = {
        "string": pa.array(KEYS["lengths"], pa.binary()),
        "int64": pa.array(INTEGERS, pa.int64()),
    }
    for name, seed in seeds:
        for dtype, column in columns.items():
            fields = []
            for reduce, buckets in REDUCES.items():
                encoder: dict[str, Any] = {
                    "type": "hash",
                    "buckets": buckets,
                    "hash": name,
                }
                encoder |= {"reduce": reduce}
                if name == "murmur3_32_vw" and dtype == "int64":
                    encoder["int_as"] = "text"
                if name != "farmhash64":
                    encoder["seed"] = seed
                field = {"name": reduce, "column": "key", "dtype": dtype, "dim": 1}
                fields.append({**field, "encoder": encoder})
            spec = FeatureSpec.from_dict({"format": 1, "candidate": fields})
            yield f"{name} {seed} {dtype}", spec, pa.table({"key": column})


def table_of(spec: FeatureSpec, seed: int) -> pa.Table:
    """Make rows as a table, without what the spec does not read."""
    rows = random_rows(spec, ROWS, seed=seed)
    return pa.Table.from_pylist([{k: r[k] for k in r if k != "extra"} for r in rows])


def cases() -> Iterator[tuple[str, FeatureSpec, pa.Table]]:
    """Tables of mixed types and their specs."""
    for name, raw in SPECS.items():
        spec = FeatureSpec.from_dict(raw)
        yield name, spec, table_of(spec, 5)
    spec = FeatureSpec.from_dict(SPECS["paper"])
    table = table_of(spec, 6)
    coded = {
        name: column.combine_chunks().dictionary_encode()
        for name, column in zip(table.column_names, table.columns, strict=True)
        if column.type == pa.string()
    }
    for name, column in coded.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.chunked_array([column]))
    yield "dictionaries", spec, table
    yield from _hash_cases()


def program() -> str:
    """Return the text of the program."""
    arrays, calls = _Arrays(), []
    arrays.lines.append("static int64_t values;")
    for name, spec, table in cases():
        columns = [c.combine_chunks() for c in table.columns]
        whole = pa.StructArray.from_arrays(columns, names=table.column_names)
        schema, array = arrays.add(whole, "")
        made = spec.encode(table)
        wanted = []
        for value in made.values():
            kind = "int64_t" if value.dtype == np.int64 else "uint32_t"
            data = arrays.static(kind, _numbers(value))
            dims = [*value.shape, 0][:2]
            wanted.append(
                f"{{{int(value.dtype == np.int64)}, {value.ndim},"
                f" {{{dims[0]}, {dims[1]}}}, {data}}}"
            )
        inputs = arrays.static("wanted", ", ".join(wanted))
        calls.append(
            f"  failed |= check({_text(name)}, {_text(spec.to_json())}, &{schema},"
            f" &{array}, {inputs}, {len(wanted)});"
        )
    first, *rest = arrays.lines
    head, _, check = HEAD.partition("static int check(")
    body = [head, first, "static int check(" + check, *rest]
    main = [
        "int main(void) {",
        "  int failed = 0;",
        *calls,
        '  printf("%lld values of %d tables are equal\\n", (long long)values, '
        f"{len(calls)});",
        "  return failed;",
        "}",
        "",
    ]
    return "\n".join([*body, *main])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(program())
