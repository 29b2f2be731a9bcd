"""The scale of dense fields: exact, the same everywhere, or refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from din_converter import build_model, convert
from din_converter.rows import Rows
from din_infer import FeatureSpec, InputError, ModelError, Predictor, _kernels
from din_infer.jobs.files import score_files
from tests import reference
from tests.models import random_model

GOODS = {"name": "goods", "dim": 4, "encoder": {"type": "hash", "buckets": 40}}
PRICE = {"name": "price", "side": "candidate"}
Scale = dict[str, Any]


def spec_of(scale: object, **dense: Any) -> FeatureSpec:  # noqa: ANN401
    field = PRICE | {"scale": scale} | dense
    raw = {"format": 1, "label": "label", "candidate": [GOODS], "dense": [field]}
    return FeatureSpec.from_dict(raw)


hard = st.sampled_from(
    [None, 0.0, -0.0, 5e-324, -1e-310, 1e300, -1e300, 3.5e38, math.nan, math.inf]
)
numbers = hard | st.floats() | st.floats(-1e4, 1e4) | st.integers(-3, 3).map(float)
finite = st.floats(-1e4, 1e4)
spreads = st.sampled_from([0.0, 1e-5, 0.1, 1.0, 3.0, 1e5, 1e300])
rising = st.lists(finite, min_size=1, max_size=6, unique=True).map(sorted)


@st.composite
def scales(draw: st.DrawFn, dim: int) -> Scale:
    def one(of: st.SearchStrategy[Any]) -> Any:  # noqa: ANN401
        values = [draw(of) for _ in range(dim)]
        return values[0] if dim == 1 else values

    kind = draw(st.sampled_from(["standard", "log1p", "minmax", "quantile"]))
    if kind == "quantile":
        return {"type": kind, "boundaries": one(rising)}
    if kind == "minmax":
        low = one(finite)
        each = [low] if dim == 1 else low
        high = [x + draw(spreads) for x in each]
        return {"type": kind, "min": low, "max": high[0] if dim == 1 else high}
    return {"type": kind, "mean": one(finite), "std": one(spreads)}


@given(data=st.data(), dim=st.integers(1, 3))
def test_scaled_values_equal_their_slow_twin(data: st.DataObject, dim: int) -> None:
    spec = spec_of(data.draw(scales(dim)), dim=dim, missing=data.draw(finite))
    each = numbers if dim == 1 else st.lists(numbers, min_size=dim, max_size=dim)
    values = data.draw(st.lists(each if dim == 1 else st.none() | each, max_size=9))
    rows = [{"goods": "a", "price": v} for v in values]
    wanted, counts = reference.encode(spec, rows)
    batches: list[Any] = [rows]
    kind = pa.float64() if dim == 1 else pa.list_(pa.float64())
    columns = {"goods": pa.array(["a"] * len(rows)), "price": pa.array(values, kind)}
    batches.append(pa.table(columns))
    for batch in batches:
        encoded = spec.encoder.encode(batch)
        assert encoded.inputs["price"].tobytes() == wanted["price"].tobytes()
        found = encoded.stats.to_dict()["price"]["nulls"]
        assert found == counts["price"]["nulls"]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_the_logarithm_is_within_a_unit_of_the_last_place(values: list[float]) -> None:
    given = np.array(values)
    found = _kernels.signed_log1p(given)
    wanted = np.array([reference.signed_log1p(x) for x in values])
    assert (np.abs(found - wanted) <= np.spacing(np.abs(wanted))).all()
    assert (_kernels.signed_log1p(-given) == -found).all()
    order = np.argsort(given)
    assert (np.diff(found[order]) >= 0).all()


def test_the_logarithm_has_the_same_bits_on_every_platform() -> None:
    given = [1e-300, 1e-9, 0.3, 0.41421356237309503, 0.5, 1.0, 42.5, -1e6, 1.7e308]
    found = _kernels.signed_log1p(np.array(given))
    assert [x.hex() for x in found.tolist()] == [
        "0x1.56e1fc2f8f359p-997",
        "0x1.12e0be801f1d9p-30",
        "0x1.0ca937be1b9dcp-2",
        "0x1.62e42fefa39efp-2",
        "0x1.9f323ecbf984cp-2",
        "0x1.62e42fefa39efp-1",
        "0x1.e2e9d4965f128p+1",
        "-0x1.ba18abb1dedc8p+3",
        "0x1.62dd08fdc6f88p+9",
    ]


def test_constants_that_are_none_crash_nothing() -> None:
    for boundaries in ([math.nan, math.nan], [3.0, -1.0, 9.0], [], [5.0, 1.0, 5.5]):
        scale = _kernels.Scale("quantile", 1, boundaries=[boundaries])
        for x in (-2.0, 0.0, 4.0, 5.2, 1e300, math.nan):
            scale.apply([x])
    scale = _kernels.Scale("minmax", 1, shift=[math.nan], divisor=[math.nan])
    assert scale.apply([1.0]) == [0.0]
    for options, message in (
        ({}, "expected constants of 2 values, got 0, 0 - at `scale`"),
        ({"shift": [1.0]}, "expected constants of 2 values, got 1, 0 - at `scale`"),
    ):
        with pytest.raises(InputError) as caught:
            _kernels.Scale("standard", 2, **options)
        assert str(caught.value) == message
    with pytest.raises(InputError) as refused:
        scale.apply([1.0, 2.0])
    assert str(refused.value) == "expected 1 values, got 2 - at `scale`"
    column = _kernels.from_list([1.0], "x")
    with pytest.raises(InputError) as wide:
        _kernels.read_dense(column, 3, None, None, scale)
    assert str(wide.value) == "expected a scale of 3 values, got 1 - at `scale`"


def test_what_is_outside_the_constants_is_clipped_or_goes_on() -> None:
    values = [-5.0, 0.0, 2.5, 10.0, 99.0]
    rows = {"goods": ["a"] * 5, "price": values}

    def scaled(scale: Scale) -> list[float]:
        return spec_of(scale).encode(rows)["price"].ravel().tolist()

    clipped = [0.0, 0.0, 0.25, 1.0, 1.0]
    assert scaled({"type": "minmax", "min": 0, "max": 10}) == clipped
    assert scaled({"type": "quantile", "boundaries": [0, 10]}) == clipped
    assert scaled({"type": "quantile", "boundaries": [0, 1, 4, 10]})[2] == 0.5
    assert scaled({"type": "standard", "mean": 0, "std": 10})[-1] == np.float32(9.9)
    # constant in training: it says nothing
    assert scaled({"type": "standard", "mean": 7, "std": 0}) == [0.0] * 5
    assert scaled({"type": "minmax", "min": 7, "max": 7}) == [0.0] * 5
    assert scaled({"type": "quantile", "boundaries": [7]}) == [0.0] * 5


def test_a_missing_value_is_replaced_in_raw_units() -> None:
    spec = spec_of({"type": "standard", "mean": 100, "std": 50}, missing=25)
    rows = {"goods": ["a"] * 3, "price": [None, math.nan, 25.0]}
    assert spec.encode(rows)["price"].ravel().tolist() == [-1.5] * 3
    strict = spec_of({"type": "standard", "mean": 0, "std": 1e-300})
    assert strict.encode({"goods": ["a"], "price": [1e-300]})["price"] == 1
    with pytest.raises(InputError) as caught:
        strict.encode({"goods": ["a", "a"], "price": [0.0, 5.5]})
    assert str(caught.value) == (
        "expected a finite number, got 5.5 - at `price`, row 1"
    )
    with pytest.raises(ModelError) as refused:
        spec_of(strict.to_dict()["dense"][0]["scale"], missing=5.5).encode([])
    assert str(refused.value) == (
        "expected a scale that float32 holds `missing` of, got 5.5 - at `price: scale`"
    )


@pytest.mark.parametrize("scale", [None, "none"])
def test_a_missing_value_is_one_that_float32_holds(scale: str | None) -> None:
    largest = float(np.finfo(np.float32).max)
    keys = (
        {"missing": largest} if scale is None else {"missing": largest, "scale": scale}
    )
    goods = {"name": "goods", "dim": 2, "encoder": {"type": "hash", "buckets": 9}}
    dense = {"name": "price", "side": "candidate", **keys}
    raw = {"format": 1, "candidate": [goods], "dense": [dense]}
    found = FeatureSpec.from_dict(raw).encode({"goods": ["a"], "price": [None]})
    assert found["price"].item() == largest
    for missing in (3.5e38, -3.5e38, 3.4028235677973366e38):
        dense["missing"] = missing
        with pytest.raises(ModelError) as caught:
            FeatureSpec.from_dict(raw)
        assert str(caught.value) == (
            f"expected a number that float32 holds, got {missing!r}"
            " - at `dense[0].missing`"
        )


def test_a_list_of_another_length_is_one_error() -> None:
    scale = {"type": "standard", "mean": [0, 0], "std": [1, 1]}
    with pytest.raises(InputError) as caught:
        spec_of(scale, dim=2).encode({"goods": ["a"], "price": [[1.0, 2.0, 3.0]]})
    assert str(caught.value) == "expected 2 values, got 3 - at `price`, row 0"


WRONG: list[tuple[object, dict[str, Any], str]] = [
    (
        "standard",
        {},
        'expected a table like { type = "standard" }, or "none", got \'standard\''
        " - at `dense[0].scale`",
    ),
    (
        {"type": "robust"},
        {},
        "expected one of standard, log1p, minmax, quantile, got 'robust'"
        " - at `dense[0].scale.type`",
    ),
    (
        {"type": "standard", "mean": 3},
        {},
        "expected both `mean` and `std`, or neither, got `mean` alone"
        " - at `dense[0].scale`",
    ),
    (
        {"type": "log1p", "mean": 3, "std": -1},
        {},
        "expected numbers of at least 0, got -1 - at `dense[0].scale.std`",
    ),
    (
        {"type": "minmax", "min": 3, "max": 2},
        {},
        "expected no less than `min`, and at a distance that a double holds, got 2"
        " - at `dense[0].scale.max`",
    ),
    (
        {"type": "minmax", "min": -1.7e308, "max": 1.7e308},
        {},
        "expected no less than `min`, and at a distance that a double holds,"
        " got 1.7e+308 - at `dense[0].scale.max`",
    ),
    (
        {"type": "standard", "mean": 1.0, "std": 1.0},
        {"dim": 2},
        "expected a list of 2 finite numbers, got 1.0 - at `dense[0].scale.mean`",
    ),
    (
        {"type": "standard", "mean": math.nan, "std": 1.0},
        {},
        "expected a finite number, got nan - at `dense[0].scale.mean`",
    ),
    (
        {"type": "quantile", "boundaries": [1, 1]},
        {},
        "expected rising finite numbers, got [1, 1] - at `dense[0].scale.boundaries`",
    ),
    (
        {"type": "quantile", "boundaries": [1, 2]},
        {"dim": 2},
        "expected 2 lists of numbers, got [1, 2] - at `dense[0].scale.boundaries`",
    ),
    (
        {"type": "quantile", "boundaries": []},
        {},
        "expected at least one number, all at distances that a double holds, got []"
        " - at `dense[0].scale.boundaries`",
    ),
    (
        {"type": "quantile", "quantiles": 1},
        {},
        "expected 2 to 10000 quantiles, got 1 - at `dense[0].scale.quantiles`",
    ),
    (
        {"type": "standard", "quantiles": 9},
        {},
        "expected one of the keys type, mean, std, got 'quantiles'"
        " - at `dense[0].scale`",
    ),
]


@pytest.mark.parametrize(("scale", "dense", "message"), WRONG)
def test_what_is_no_scale_is_refused(
    scale: object, dense: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        spec_of(scale, **dense)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("kind", "names", "give"),
    [
        ("standard", "`mean` and `std`", "`mean` and `std`"),
        ("log1p", "`mean` and `std`", "`mean` and `std`"),
        ("minmax", "`min` and `max`", "`min` and `max`"),
        ("quantile", "`boundaries`", "`boundaries`"),
    ],
)
def test_a_scale_that_is_not_fitted_scores_nothing(
    kind: str, names: str, give: str
) -> None:
    spec = spec_of({"type": kind})
    assert spec == FeatureSpec.from_json(spec.to_json())
    for use in (lambda: spec.encode([]), lambda: build_model(spec)):
        with pytest.raises(ModelError) as caught:
            use()
        assert str(caught.value) == (
            f"expected a spec with fitted {names}, got none - at `price: scale`."
            f" din-train fits them and writes them into the model; or give {give}."
        )


def test_boundaries_that_are_not_fitted_score_nothing() -> None:
    encoder = {"type": "bucketize", "boundaries": {"quantiles": 5}}
    field = {"name": "age", "dim": 2, "encoder": encoder}
    spec = FeatureSpec.from_dict({"format": 1, "candidate": [field]})
    assert spec.tables["age"].rows == 6
    with pytest.raises(ModelError) as caught:
        build_model(spec)
    assert str(caught.value) == (
        "expected a spec with fitted `boundaries`, got none - at `age: encoder`."
        " din-train fits them and writes them into the model; or give numbers as"
        " `boundaries`."
    )
    looked_up = {
        "name": "x",
        "from": "goods",
        "dim": 2,
        "lookup": [],
        "encoder": encoder,
    }
    with pytest.raises(ModelError) as refused:
        FeatureSpec.from_dict(
            {"format": 1, "candidate": [GOODS], "derived": [looked_up]}
        )
    assert str(refused.value) == (
        "expected numbers, since a lookup has no rows to fit them to, got quantiles = 5"
        " - at `derived[0].encoder.boundaries`"
    )


SCALED: list[dict[str, Any]] = [
    {**PRICE, "scale": {"type": "log1p", "mean": 3.1, "std": 0.9}},
    {
        "name": "when",
        "side": "user",
        "scale": {"type": "standard", "mean": 1.7e9, "std": 86400.0},
    },
    {
        "name": "rank",
        "side": "candidate",
        "scale": {"type": "minmax", "min": 1, "max": 9},
    },
    {
        "name": "place",
        "side": "user",
        "dim": 2,
        "missing": 0.25,
        "scale": {"type": "quantile", "boundaries": [[0, 1, 5], [-1, 0.5]]},
    },
]


def test_all_paths_have_bit_equal_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = {"format": 1, "label": "label", "candidate": [GOODS], "dense": SCALED}
    spec = FeatureSpec.from_dict(raw)
    rng = np.random.default_rng(0)
    n = 300
    place = [None if i % 9 == 0 else list(rng.normal(size=2)) for i in range(n)]
    table = pa.table(
        {
            "goods": [f"g{g}" for g in rng.integers(0, 30, n)],
            "price": rng.lognormal(3, 1, n),
            "when": np.sort(rng.integers(1_690_000_000, 1_710_000_000, n)),
            "rank": rng.integers(0, 12, n).astype(np.int8),
            "place": pa.array(place, pa.list_(pa.float32())),
            "label": rng.integers(0, 2, n),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=70)
    names = [d["name"] for d in SCALED]
    wanted = spec.encode(table)

    batches = list(Rows.open([tmp_path / "rows.parquet"], spec).batches(32))
    for name in names:
        trained = np.concatenate([b.inputs[name] for b in batches])
        assert trained.tobytes() == wanted[name].tobytes()

    convert(random_model(spec), tmp_path / "model.onnx")
    predictor = Predictor(tmp_path / "model.onnx", threads=1)
    assert predictor.spec == spec
    scores = predictor.score(table)
    assert np.ptp(scores) > 0.01
    seen: list[Any] = []
    run = Predictor.scores_of

    def watch(self: Predictor, encoded: Any, *given: Any, **options: Any) -> Any:  # noqa: ANN401
        seen.append(encoded.inputs)
        return run(self, encoded, *given, **options)

    monkeypatch.setattr(Predictor, "scores_of", watch)
    rows = table.drop(["label"]).to_pylist()
    for k, row in enumerate(rows[:20]):
        predictor.score([row])
        user = {c: row[c] for c in predictor.spec.encoder.user_columns}
        predictor.score_requests([user], [row])
        for inputs in seen[-2:]:
            for name in names:
                assert inputs[name].tobytes() == wanted[name][k : k + 1].tobytes()
    assert len(seen) == 40
    out = tmp_path / "scored"
    score_files(predictor, tmp_path / "rows.parquet", out, workers=1, progress=False)
    for name in names:
        scored = np.concatenate([inputs[name] for inputs in seen[40:]])
        assert scored.tobytes() == wanted[name].tobytes()
    found = pq.read_table(out / "rows.parquet")["score"].to_numpy()
    assert np.abs(found - scores).max() <= 1e-6
    assert "price" in predictor.describe()
    for line in (
        "log1p scale, mean = 3.1, std = 0.9",
        "standard scale, mean = 1.7e+09, std = 86400",
        "minmax scale, 1 to 9",
        "quantile scale, missing = 0.25",
    ):
        assert line in predictor.describe()
