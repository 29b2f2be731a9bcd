"""Error sentences that no other file of tests names: each is all that is said."""

import argparse
import contextlib
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import duckdb
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import TensorProto, helper

import din_infer.c_api
from din_converter import build_model, convert, save, train
from din_converter.cli import train_main
from din_converter.importers.unpickle import read_plain
from din_converter.raw import raw_columns
from din_converter.run import read_events
from din_converter.train_options import _rate, _strength, _whole
from din_converter.triton import config_text
from din_converter.verify import golden_rows
from din_infer import (
    ConversionError,
    DeviceError,
    FeatureSpec,
    InputError,
    ModelError,
    Predictor,
    hash_buckets,
    pad,
)
from din_infer.cli import column_value, num_threads, positive, row_range
from din_infer.columns import to_column
from din_infer.integrity import Record
from din_infer.jobs.files import score_files
from din_infer.jobs.forms import output_schema
from din_infer.jobs.history.job import build as build_history
from din_infer.jobs.history.reading import asking
from din_infer.jobs.init.first_spec import first_spec
from din_infer.jobs.readers import open_reader
from din_infer.jobs.roles import TIME_RULE, numbers_of, times_of
from din_infer.jobs.sources import find_table, find_tables
from din_infer.local_path import local_path
from din_infer.model_file import ModelFile
from din_infer.regular_file import read_text
from tests.models import SPECS, random_model

Json = dict[str, Any]
HASH: Json = {"type": "hash", "buckets": 9}
EVENTS: Json = {"user": ["u"] * 4, "item": list("abcd"), "time": [1, 2, 3, 4]}


def spec_of(*fields: Json, **sections: object) -> FeatureSpec:
    field = {"name": "c", "dim": 2, "encoder": HASH}
    candidate = list(fields) or [field]
    return FeatureSpec.from_dict({"format": 1, "candidate": candidate, **sections})


def tower(*inputs: str) -> FeatureSpec:
    return spec_of(model={"tower": {"inputs": list(inputs)}})


def history(**options: Any) -> None:  # noqa: ANN401
    build_history("none.parquet", "out", progress=False, **options)


def graph_of(kind: int) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", kind, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    y = helper.make_tensor_value_info("y", kind, [1])
    return helper.make_model(helper.make_graph([node], "g", [x], [y]))


CALLS: dict[str, tuple[type[Exception], Callable[[], object]]] = {
    "expected a whole number below 2**31, got 2147483648 - at `max_len`": (
        InputError,
        lambda: pad([1], [0, 1], 2**31),
    ),
    "expected 64-bit signed integers, got 18446744073709551615 - at `values`": (
        InputError,
        lambda: pad(np.array([2**64 - 1], np.uint64), [0, 1], 1),
    ),
    "expected seed 0, since farmhash64 takes none, got 7 - at `seed`": (
        InputError,
        lambda: hash_buckets(["a"], 9, hash="farmhash64", seed=7),
    ),
    "expected an array of 1 or 2 axes, got 0 - at `x`": (
        InputError,
        lambda: to_column(np.array(None, object), "x"),
    ),
    "expected at least one input, got none - at `model.tower.inputs`": (
        ModelError,
        lambda: tower(),
    ),
    "expected no `dim` beside a shared table, got dim - at `candidate[1].dim`": (
        ModelError,
        lambda: spec_of(
            {"name": "c", "dim": 2, "encoder": HASH},
            {"name": "d", "dim": 2, "shares": "c"},
        ),
    ),
    "expected an earlier field with a table (c), got 'x' - at `candidate[1].shares`": (
        ModelError,
        lambda: spec_of(
            {"name": "c", "dim": 2, "encoder": HASH}, {"name": "d", "shares": "x"}
        ),
    ),
    "expected a string, got nothing - at `candidate[0].name`. Is `names` meant to be "
    "`name`?": (ModelError, lambda: spec_of({"names": "c", "dim": 2, "encoder": HASH})),
    "expected JSON, got Expecting value: line 1 column 1 (char 0) - at `spec`": (
        ModelError,
        lambda: FeatureSpec.from_json("no"),
    ),
    "expected values of dtype string, got 7 - at `derived[0].lookup[0]`": (
        ModelError,
        lambda: spec_of(
            derived=[{"name": "d", "from": "c", "shares": "c", "lookup": [7] * 9}]
        ),
    ),
    "expected a path on this machine, without a NUL, got 'a\\x00b' - at `out`": (
        InputError,
        lambda: local_path("a\0b", "out"),
    ),
    "expected fp32 or bf16, got 'x' - at `precision`": (
        DeviceError,
        lambda: Predictor("none.onnx", device="cpu", precision="x"),
    ),
    "expected device or host, got 'x' - at `tables`": (
        DeviceError,
        lambda: Predictor("none.onnx", device="cpu", tables="x"),
    ),
    "expected at least 1 thread, got 0 - at `threads`": (
        DeviceError,
        lambda: Predictor("none.onnx", device="cpu", threads=0),
    ),
    "expected at most 1024 threads, got 2147483648 - at `threads`": (
        DeviceError,
        lambda: Predictor("none.onnx", device="cpu", threads=2**31),
    ),
    "expected a path on this machine, got '' - at `out`": (
        InputError,
        lambda: local_path("", "out"),
    ),
    "expected resume or overwrite, got both - at `resume`": (
        InputError,
        lambda: score_files(
            cast("Predictor", None), "in", "out", resume=True, overwrite=True
        ),
    ),
    "expected files, since they are read more than once, got stdin - at `-`. Write it "
    "into a file first.": (InputError, lambda: find_tables(["-"])),
    "expected a share of at least 0 and below 1, got 1.0 - at `--test-fraction`": (
        InputError,
        lambda: history(test_fraction=1.0),
    ),
    "expected shares that leave rows to train on, and some to validate on, got 0.5 and "
    "0.5 - at `--valid-fraction, --test-fraction`": (
        InputError,
        lambda: history(valid_fraction=0.5, test_fraction=0.5),
    ),
    "expected a number, got 'x' - at `n`, row 1": (
        InputError,
        lambda: numbers_of(pa.table({"n": ["1", "x"]}), "n"),
    ),
    f"expected {TIME_RULE}, got 'soon' - at `t`, row 1": (
        InputError,
        lambda: times_of(pa.table({"t": ["2026-01-01", "soon"]}), "t"),
    ),
    "expected digests of another form": (
        ValueError,
        lambda: Record.from_json('{"bytes": 1, "sha256": 2, "samples": {}}'),
    ),
    "expected a DIN or BaseModel, got int - at `model`": (
        TypeError,
        lambda: save(7, "model.pt"),  # type: ignore[arg-type]
    ),
    "expected a FeatureSpec, got dict - at `spec`": (
        TypeError,
        lambda: build_model({}),  # type: ignore[arg-type]
    ),
    "expected the folder of a repository, for where a server finds it, got '/x' - at "
    "`triton`": (
        ConversionError,
        lambda: convert(
            random_model(SPECS["candidate only"]), "din.onnx", triton_path="/x"
        ),
    ),
    "expected tensors of a type that Triton knows, got COMPLEX64 - at `x`": (
        ConversionError,
        lambda: config_text(graph_of(TensorProto.COMPLEX64), "m", "lib.so"),
    ),
}


@pytest.mark.parametrize("sentence", CALLS)
def test_a_call_is_refused(
    sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, call = CALLS[sentence]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as caught:
        call()
    said = str(caught.value)
    assert said == sentence or "expected " + said == sentence
    assert not list(tmp_path.iterdir())


def refused(error: type[Exception], sentence: str) -> Any:  # noqa: ANN401
    """Whoever calls hears exactly this."""
    return pytest.raises(error, match=f"^{re.escape(sentence)}$")


def test_options_of_commands() -> None:
    for parse, text, sentence in (
        (positive, "0", "must be at least 1"),
        (positive, "9223372036854775808", "must be at most 9223372036854775807"),
        (num_threads, "3000000000", "must be at most 1024"),
        (_rate, "1e400", "must be above 0 and below 1000"),
        (_strength, "1e300", "must be at least 0 and below 1000000"),
        (_whole, "9223372036854775808", "must be in [0, 2**63)"),
        (row_range, "x", "must be a row K, or rows A:B"),
        (row_range, "5:5", "must be 1 to 1000 rows A:B"),
        (column_value, "a", "must be COL=VALUE"),
    ):
        with refused(argparse.ArgumentTypeError, sentence):
            parse(text)


def test_a_build_without_operators_has_no_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(din_infer.c_api, "ops_library", lambda: None)
    sentence = (
        "expected the native operators, whose library has the C interface too, got a "
        "build of din-infer without them - at `library`"
    )
    with refused(DeviceError, sentence):
        din_infer.c_api.library_path()


def test_files_that_are_no_files(tmp_path: Path) -> None:
    with refused(InputError, "expected a log that can be read, got [Errno 21] Is a "
                 f"directory: '{tmp_path}' - at `{tmp_path}`"):  # fmt: skip
        read_events(tmp_path)
    with refused(ModelError, "expected weights, got [Errno 21] Is a directory: "
                 f"'{tmp_path}' - at `{tmp_path}`"):  # fmt: skip
        read_plain(tmp_path, "weights")
    with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as made:
        made.bind("s")
        with refused(OSError, "a socket"):
            read_text("s")
    (tmp_path / "spec.toml").write_text("a = ")
    with pytest.raises(ModelError, match=r"^expected TOML, got "):
        FeatureSpec.load(tmp_path / "spec.toml")


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(9)}, path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ModelError, match="got a file that is cut off or damaged"):
        read_plain(path, "weights")


def test_a_file_that_has_no_spec(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    example = (torch.zeros(3, 2),)
    convert(torch.nn.Linear(2, 1), path, example_inputs=example)
    sentence = (
        "expected a model with a feature spec, which din-convert wrote, got an ONNX "
        f"file without one - at `{path}`"
    )
    with refused(ModelError, sentence):
        _ = ModelFile.read(path).spec


def test_outputs_inside_a_folder_of_inputs(tmp_path: Path) -> None:
    pq.write_table(pa.table({"c": ["a"]}), tmp_path / "a.parquet")
    model = tmp_path / "m.onnx"
    convert(random_model(SPECS["candidate only"]), model)
    out = tmp_path / "in" / "out"
    (tmp_path / "in").mkdir()
    sentence = (
        f"expected an --out folder outside of the inputs', got '{out}' - at "
        f"`{tmp_path / 'in'}`"
    )
    with refused(InputError, sentence):
        score_files(Predictor(model, device="cpu"), tmp_path / "in", out)
    assert not out.exists()


def test_columns_of_requests_and_their_forms() -> None:
    spec = spec_of()
    requests = pa.schema([("items", pa.list_(pa.struct({"c": pa.string()})))])
    with refused(InputError, "expected lists of candidates to explode, got one "
                 "candidate on each row - at `schema`"):  # fmt: skip
        output_schema(spec, pa.schema([("c", pa.string())]), explode=True)
    with refused(InputError, "expected fail or skip beside explode: a bad request has "
                 "no candidates to list, got 'null' - at `on_error`"):  # fmt: skip
        output_schema(spec, requests, explode=True, on_error="null")


def test_text_without_a_spec(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("c\na\n")
    table = find_table(tmp_path / "a.csv")
    sentence = (
        "expected a spec, which says what text means, got none - at "
        f"`{tmp_path / 'a.csv'}`"
    )
    with refused(InputError, sentence):
        open_reader(table, None)
    with refused(InputError, "expected files, since they are read more than once, got "
                 "stdin - at `-`. Write it into a file first."):  # fmt: skip
        find_table("-")


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    pq.write_table(pa.table({"c": ["a"]}), tmp_path / "a.parquet")
    with refused(InputError, "expected columns of the data, got b, d - at `--ignore`"):
        first_spec(tmp_path / "a.parquet", ignored=["b", "c", "d"])


def events(folder: Path, **changes: object) -> Path:
    pq.write_table(pa.table(EVENTS | changes), folder / "events.parquet")
    return folder / "events.parquet"


def test_events_that_are_none(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    options: Json = {"user": "user", "item": "item", "time": "time", "progress": False}
    log = events(tmp_path, time=pa.array([True] * 4))
    with refused(InputError, "expected times as integers, dates, timestamps or ISO "
                 "8601 text, got boolean - at `time`"):  # fmt: skip
        build_history(log, out, **options)
    log = events(tmp_path, time=pa.array([0] * 4, pa.timestamp("us")))
    with refused(InputError, "expected --time-unit for times that are numbers, got "
                 "timestamp in `time` - at `--time-unit`"):  # fmt: skip
        build_history(log, out, time_unit="s", **options)
    log = events(tmp_path, user=[2**64 - 1.0, 1.5, 2.0, 3.0])
    with pytest.raises(
        InputError, match=r"^expected whole numbers of 64 bits, or text"
    ):
        build_history(log, out, **options)
    for name, content, match in (
        ("events.csv.bz2", b"user,item,time\n", "text as it is, or compressed as"),
        ("events.jsonl", b"[1]\n", "events with named columns, got none"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"^expected {match}"):
            build_history(tmp_path / name, out, **options)
    assert not out.exists()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            duckdb.OutOfMemoryException("no room"),
            "expected memory and disk that suffice, got no room - at `--memory`. Give "
            "more by --memory, or an --out on a larger disk.",
        ),
        (
            UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"),
            "expected paths in UTF-8, which DuckDB needs, got '\\udcff' - at `here`. "
            "Rename it.",
        ),
    ],
)
def test_what_duckdb_lacks(error: Exception, sentence: str) -> None:
    with refused(InputError, sentence), asking("rows", "here"):
        raise error


def test_a_column_that_two_parts_read_in_ways_of_their_own() -> None:
    spec = spec_of(dense=[{"name": "d", "side": "candidate", "column": "c"}])
    with pytest.raises(ConversionError, match="a column that all parts read alike"):
        raw_columns(spec)
    with refused(ConversionError, "expected a spec for which raw rows can be made, got "
                 "none that it accepts - at `spec`"):  # fmt: skip
        golden_rows(build_model(spec))


def test_a_loss_that_is_not_finite() -> None:
    spec = spec_of(label="y", dense=[{"name": "x", "side": "candidate", "dim": 1}])
    table = pa.table({"c": ["a"] * 64, "x": [3e38] * 64, "y": [0, 1] * 32})
    settings = train.Settings(
        epochs=2, batch_size=8, learning_rate=1e30, progress=False, threads=1
    )
    with refused(InputError, "expected a finite loss, got nan - at `epoch 1`. Training "
                 "diverged: lower the learning rate."):  # fmt: skip
        train.train(spec, table, table, settings)


def test_where_din_train_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, rows = tmp_path / "spec.toml", tmp_path / "rows.csv"
    for options, said in (
        (["--out", rows], f"a file other than the rows, the spec and the run folder, "
         f"got {rows} - at `--out`"),
        (["--out", tmp_path / "m.pt", "--run", tmp_path / "no" / "run"], "a folder, or "
         f"one to be made in an existing folder, got {tmp_path / 'no' / 'run'} - at "
         "`--run`"),
    ):  # fmt: skip
        given = [rows, "--spec", spec, *options]
        assert train_main([str(o) for o in given]) == 1
        assert capsys.readouterr().err == f"din-train: expected {said}\n"
