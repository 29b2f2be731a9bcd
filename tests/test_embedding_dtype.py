import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from din_converter import convert, save
from din_converter.cli import convert_main
from din_converter.model import ClickModel
from din_converter.rounding import BATCH_ROWS, measure_rounding, round_tables
from din_converter.train import evaluate
from din_converter.verify import edge_batches, random_inputs, torch_logits
from din_infer import ConversionError, DinError, InputError, Predictor, metrics
from tests.models import SPECS, random_model, random_rows, spec_dict
from tests.oldest import oldest_logits
from tests.test_train import click_log, log_spec

pytestmark = pytest.mark.slow


def rounded(model: ClickModel) -> ClickModel:
    """The float64 twin: tables in fp16, derived fields rounded where they are read."""
    exact = copy.deepcopy(model).double()
    twin = copy.deepcopy(exact)
    for table in twin.tables.parameters():
        table.data = table.float().half().double()  # float32 values: float loses none
    for d in model.spec.derived:
        lookup = twin.lookups[f"of_{d.name}"]
        unrounded = exact.tables[f"of_{d.table}"]

        def before(_: nn.Module, given: Any, table: nn.Module = unrounded) -> Any:  # noqa: ANN401
            return given[0], table

        def after(_: nn.Module, __: object, rows: Tensor) -> Tensor:
            return torch.from_numpy(rows.numpy().astype(np.float16).astype(np.float64))

        lookup.register_forward_pre_hook(before)
        lookup.register_forward_hook(after)
    return twin


def assert_close(got: Any, wanted: Any, label: str = "") -> None:  # noqa: ANN401
    assert got.shape == wanted.shape, label
    assert (np.abs(got - wanted) <= 1e-5 * np.maximum(1, np.abs(wanted))).all(), label


@pytest.mark.parametrize("name", SPECS)
def test_fp16_tables_score_as_torch_with_rounded_tables(
    name: str, tmp_path: Path
) -> None:
    model = random_model(SPECS[name], seed=5)
    report = convert(model, tmp_path / "m.onnx", embedding_dtype="fp16")
    assert report.logit_difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    twin, exact = rounded(model), copy.deepcopy(model).double()
    batches = dict(edge_batches(model.spec))
    for label in ("N=64 B=64 T=mixed", "N=33 B=2 T=max", "N=0 B=1 T=zero"):
        inputs = batches[label]
        wanted = torch_logits(twin, inputs)
        assert_close(session.run(["logit"], inputs)[0], wanted, label)
        moved = np.abs(wanted - torch_logits(exact, inputs))
        # so that unrounded tables would have been noticed
        assert len(moved) == 0 or moved.max() > 5e-5


@pytest.mark.parametrize(
    "name", ["paper", "derived", "softmax, empty is the padding row", "base mean"]
)
def test_tables_alone_are_fp16_and_any_runtime_takes_them(
    name: str, tmp_path: Path
) -> None:
    model = random_model(SPECS[name])
    convert(model, tmp_path / "m.onnx", embedding_dtype="fp16")
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)
    proto = onnx.load(tmp_path / "m.onnx")
    assert proto.ir_version == 10
    assert {(o.domain, o.version) for o in proto.opset_import} == {
        ("", 18),
        ("din_infer", 1),
    }
    tables = ("weights.table.", "weights.derived.")
    for tensor in proto.graph.initializer:
        is_table = tensor.name.startswith(tables)
        kind = TensorProto.FLOAT16 if is_table else TensorProto.FLOAT
        assert tensor.data_type == kind, tensor.name
    twin = rounded(model)
    batches = dict(edge_batches(model.spec))
    reference = ReferenceEvaluator(str(tmp_path / "m.onnx"))
    oldest = oldest_logits(tmp_path / "m.onnx", list(batches.values()))
    for (label, inputs), old in zip(batches.items(), oldest, strict=True):
        wanted = torch_logits(twin, inputs)
        with np.errstate(over="ignore"):  # its sigmoid computes both branches
            assert_close(reference.run(["logit"], inputs)[0], wanted, label)
        assert_close(old, wanted, label)


def test_fp32_tables_are_read_without_a_cast(tmp_path: Path) -> None:
    model = random_model(SPECS["paper"])
    counts = {}
    for dtype in ("fp32", "fp16"):
        convert(model, tmp_path / "m.onnx", embedding_dtype=dtype)
        proto = onnx.load(tmp_path / "m.onnx")
        counts[dtype] = [n.op_type for n in proto.graph.node].count("Cast")
    assert counts == {"fp32": 0, "fp16": 4}


def test_fp16_takes_half_the_file(tmp_path: Path) -> None:
    raw = spec_dict()
    raw["candidate"][0]["encoder"]["buckets"] = 200_000
    model = random_model(raw)
    sizes = {}
    for dtype in ("fp32", "fp16"):
        path = tmp_path / f"{dtype}.onnx"
        report = convert(model, path, embedding_dtype=dtype)
        assert report.data_path is not None
        sizes[dtype] = report.data_path.stat().st_size
        assert report.weight_bytes == pytest.approx(sizes[dtype], rel=0.02)
    assert sizes["fp16"] == pytest.approx(sizes["fp32"] / 2, rel=0.01)
    predictor = Predictor(tmp_path / "fp16.onnx")
    rows = random_rows(model.spec, 50)
    wanted = torch_logits(rounded(model), model.spec.encode(rows))
    assert_close(predictor.score(rows, raw=True), wanted)
    assert wanted.std() > 0.1


@pytest.mark.parametrize(
    ("value", "got"), [(65504.004, "65504.0039"), (-1e30, "-1.00000002e+30")]
)
def test_values_beyond_fp16_are_refused_and_nothing_is_written(
    value: float, got: str, tmp_path: Path
) -> None:
    model = random_model(SPECS["paper"])
    with torch.no_grad():
        model.tables["of_goods_id"].weight[7, 2] = value
    with pytest.raises(ConversionError) as caught:
        convert(model, tmp_path / "m.onnx", embedding_dtype="fp16")
    assert str(caught.value) == (
        f"expected a value in [-65504, 65504], as fp16 needs, got {got} - at"
        " `table goods_id`, row 7"
    )
    assert not list(tmp_path.iterdir())


def test_a_derived_row_beyond_fp16_is_named(tmp_path: Path) -> None:
    raw = copy.deepcopy(SPECS["derived"])
    (derived,) = raw["derived"]
    derived["pooling"] = "sum"
    model = random_model(raw)
    with torch.no_grad():
        model.tables["of_brand"].weight.zero_()[8] = 60000  # times 1.3, the weight of 8
    with pytest.raises(ConversionError) as caught:
        convert(model, tmp_path / "m.onnx", embedding_dtype="fp16")
    counts = [row.count(8) for row in derived["lookup"]]
    row = counts.index(max(1, *counts[: counts.index(1) + 1]))
    assert str(caught.value) == (
        f"expected a value in [-65504, 65504], as fp16 needs, got {78000 * counts[row]}"
        f" - at `table brand`, row {row}"
    )


def test_the_largest_fp16_value_and_subnormals_are_kept(tmp_path: Path) -> None:
    model = random_model(SPECS["paper"])
    with torch.no_grad():
        model.tables["of_user_id"].weight[7, :3] = torch.tensor([65504, 6e-8, 1e-9])
    convert(model, tmp_path / "m.onnx", embedding_dtype="fp16")
    (table,) = (
        onnx.numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "m.onnx").graph.initializer
        if t.name == "weights.table.user_id"
    )
    assert table[7, :3].tolist() == [65504, 2**-24, 0]


# ------------------------------------------------------------------ what rounding costs


def measured(path: Path) -> dict[str, Any]:
    """The model's own record, which must be JSON without NaN."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    found = {p.key: p.value for p in onnx.load(path).metadata_props}
    parity = json.loads(found["din_infer.parity"], parse_constant=refuse)
    return dict(parity["embedding_dtype"])


def test_the_cost_on_weighted_rows_is_weighted() -> None:
    table = click_log(300)
    model = random_model(log_spec(weight="weight"), seed=1)
    cost = measure_rounding(copy.deepcopy(model).double(), rounded(model), table)
    scores = evaluate(copy.deepcopy(model).double(), table, calibrated=False)
    labels, mass = (np.asarray(table[n]) for n in ("label", "weight"))
    wanted = metrics.auc(labels, scores, weights=mass.astype(np.float32))
    assert cost.auc_unrounded == pytest.approx(wanted, abs=1e-3)
    assert abs(wanted - metrics.auc(labels, scores)) > 2e-3
    assert cost.source == "weighted validation rows"
    first, second = str(cost).splitlines()
    assert first == "fp16, measured on 300 weighted validation rows"
    assert f"; weighted AUC {cost.auc_unrounded:.6f}, rounded " in second


@pytest.mark.parametrize("as_file", [True, False])
def test_the_cost_is_measured_on_validation_rows(as_file: bool, tmp_path: Path) -> None:
    table = click_log(2 * BATCH_ROWS + 9)
    pq.write_table(table, tmp_path / "valid.parquet")
    model = random_model(log_spec(calibration={"scale": 0.5, "offset": -1.0}), seed=1)
    valid = tmp_path / "valid.parquet" if as_file else table
    report = convert(model, tmp_path / "m.onnx", embedding_dtype="fp16", valid=valid)
    before, after = (
        evaluate(m, table, calibrated=False)
        for m in (copy.deepcopy(model).double(), rounded(model))
    )
    labels = table["label"].to_numpy()
    inputs = model.spec.encode(table)
    change = torch_logits(rounded(model), inputs)
    change -= torch_logits(model.double(), inputs)
    cost = report.rounding
    assert cost is not None
    assert (cost.dtype, cost.source) == ("fp16", "validation rows")
    assert (cost.rows, cost.clicks) == (len(labels), labels.sum())
    assert cost.logit_change == pytest.approx(np.abs(change).max(), rel=1e-9)
    assert cost.logit_change > 1e-4
    # rows that are alike tie in one batch and differ in the last digit in others
    few_pairs = 5 / (cost.clicks * (cost.rows - cost.clicks))
    wanted = [metrics.auc(labels, z) for z in (before, after)]
    assert [cost.auc_unrounded, cost.auc_rounded] == pytest.approx(
        wanted, rel=0, abs=few_pairs
    )
    assert cost.auc_change == cost.auc_rounded - cost.auc_unrounded
    assert measured(tmp_path / "m.onnx") == {
        "dtype": "fp16",
        "source": "validation rows",
        "rows": cost.rows,
        "clicks": cost.clicks,
        "logit_change": cost.logit_change,
        "auc_unrounded": cost.auc_unrounded,
        "auc_rounded": cost.auc_rounded,
        "auc_change": cost.auc_change,
    }
    assert str(report).splitlines()[-2:] == [
        f"tables    fp16, measured on {cost.rows} validation rows",
        f"          rounding moves logits by up to {cost.logit_change:.1e};"
        f" AUC {cost.auc_unrounded:.6f}, rounded {cost.auc_rounded:.6f}"
        f" ({cost.auc_change:+.1e})",
    ]


@pytest.mark.parametrize("name", ["calibrated", "identity link"])
def test_without_rows_labels_are_drawn_from_the_unrounded_scores(
    name: str, tmp_path: Path
) -> None:
    model = random_model(SPECS[name], seed=4)
    report = convert(model, tmp_path / "m.onnx", embedding_dtype="fp16")
    cost = report.rounding
    assert cost is not None
    assert (cost.rows, cost.source) == (4096, "generated rows")
    assert "4,096 generated rows, labels drawn from unrounded scores" in str(report)
    rng = np.random.default_rng(0)
    batches = [
        random_inputs(model.spec, rng, BATCH_ROWS, BATCH_ROWS, "mixed")
        for _ in range(4096 // BATCH_ROWS)
    ]
    twin, exact = rounded(model), model.double()
    logits = np.concatenate([torch_logits(exact, b) for b in batches])
    change = np.concatenate([torch_logits(twin, b) for b in batches]) - logits
    assert cost.logit_change == pytest.approx(np.abs(change).max(), rel=1e-9)
    c = model.spec.calibration
    p = 1 / (1 + np.exp(-(c.scale * logits + c.offset)))
    # of labels with these probabilities: how many are 1, and the AUC to be expected
    assert abs(cost.clicks - p.sum()) < 4 * math.sqrt((p * (1 - p)).sum())
    pairs = np.outer(p, 1 - p)
    expected = pairs[p[:, None] > p].sum() / (pairs.sum() - np.trace(pairs))
    assert cost.auc_unrounded == pytest.approx(expected, abs=0.03)
    assert expected > 0.7
    assert cost.auc_rounded == pytest.approx(cost.auc_unrounded, abs=1e-3)
    assert cost.auc_rounded != cost.auc_unrounded


@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_class_leave_no_auc(label: int, tmp_path: Path) -> None:
    table = click_log(50)
    labels = pa.array(np.full(50, label, np.int8))
    table = table.set_column(table.schema.get_field_index("label"), "label", labels)
    report = convert(
        random_model(log_spec()),
        tmp_path / "m.onnx",
        embedding_dtype="fp16",
        valid=table,
    )
    assert str(report).endswith(f"; no AUC, since all labels are {label}")
    cost = measured(tmp_path / "m.onnx")
    assert cost["auc_unrounded"] is cost["auc_rounded"] is cost["auc_change"] is None
    assert cost["logit_change"] > 1e-4


def test_tables_may_overflow_where_nothing_reads_them() -> None:
    model = random_model(SPECS["derived"])
    with torch.no_grad():
        model.tables["of_brand"].weight[3] = 1e5
    assert round_tables(model).tables["of_brand"](torch.tensor(3)).isinf().all()


def without_label() -> ClickModel:
    raw = log_spec().to_dict()
    del raw["label"]
    return random_model(raw)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            "none",
            {"embedding_dtype": "int8"},
            "expected fp32 or fp16, got 'int8' - at `embedding_dtype`",
        ),
        (
            "none",
            {"embedding_dtype": "fp32"},
            "expected no validation rows, since fp32 tables are not rounded, got some"
            " - at `valid`",
        ),
        ("no label", {}, "expected a `label` column, got none - at `spec.label`"),
        ("no rows", {}, "expected at least one validation row, got 0 - at `valid`"),
        (
            "label",
            {},
            "expected a label 0 or 1, got 2.0 - at `label`, row 299 of the validation"
            " rows",
        ),
        (
            "ids",
            {},
            "expected a column of strings, got int64 - at `goods_id` of the validation"
            ' rows. Say dtype = "int64" in the spec, or cast the column to strings: the'
            " ids differ.",
        ),
    ],
)
def test_validation_rows_that_cannot_measure_are_refused(
    change: str, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    table = click_log(300)
    model = without_label() if change == "no label" else random_model(log_spec())
    if change == "no rows":
        table = table.slice(0, 0)
    if change == "label":
        labels = table["label"].to_pylist()[:-1]
        table = table.set_column(3, "label", pa.array([*labels, 2]))
    if change == "ids":
        table = table.set_column(1, "goods_id", pa.array(range(300)))
    options = {"embedding_dtype": "fp16", **options}
    with pytest.raises(DinError) as caught:
        convert(model, tmp_path / "m.onnx", valid=table, **options)
    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())


def test_a_wrong_validation_row_is_named_by_its_place_in_the_file(
    tmp_path: Path,
) -> None:
    raw = log_spec().to_dict()
    raw["candidate"].append(
        {"name": "n", "dim": 2, "encoder": {"type": "identity", "buckets": 290}}
    )
    table = click_log(300).append_column("n", pa.array(range(300)))
    with pytest.raises(InputError) as caught:
        convert(
            random_model(raw),
            tmp_path / "m.onnx",
            embedding_dtype="fp16",
            valid=table,
        )
    assert str(caught.value) == (
        "expected an id in [0, 290), got 290 - at `n`, row 290 of the validation rows"
    )


# --------------------------------------------------------------------- from the shell


def test_din_convert_measures_a_validation_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(click_log(300), tmp_path / "valid.parquet")
    save(random_model(log_spec()), tmp_path / "m.pt")
    words = f"{tmp_path}/m.pt --out {tmp_path}/m.onnx --embedding-dtype fp16"
    assert convert_main([*words.split(), "--valid", f"{tmp_path}/valid.parquet"]) == 0
    assert "fp16, measured on 300 validation rows" in capsys.readouterr().out
    assert measured(tmp_path / "m.onnx")["rows"] == 300
    assert convert_main([*words.split(), "--valid", f"{tmp_path}/none.parquet"]) == 1
    assert "expected a readable Parquet file, got " in capsys.readouterr().err


def test_the_help_explains_both_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        convert_main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--embedding-dtype {fp32,fp16} how tables are stored" in text
    assert "--valid FILE labeled rows on which to measure the AUC" in text
    assert "--embedding-dtype fp16 --valid valid.parquet half the file" in text


def test_only_a_validation_file_needs_the_batch_extra(tmp_path: Path) -> None:
    save(random_model(log_spec()), tmp_path / "m.pt")
    words = f"{tmp_path}/m.pt --out {tmp_path}/m.onnx --embedding-dtype fp16".split()
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from din_converter.cli import convert_main as run\n"
        f"print(run({words!r}), run({[*words, '--valid', 'v.parquet']!r}))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = 'needs the package pyarrow. Run: pip install "din-infer[cpu,batch,convert]"'
    assert done.stdout.endswith("\n0 1\n")
    assert done.stderr == f"din-convert: {line}\n"
