"""No wrong call of the public face raises anything but a DinError or TypeError."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import din_converter
from din_converter import convert
from din_infer import DinError, FeatureSpec, Predictor, hash_buckets, metrics, pad
from din_infer.errors import UNREADABLE
from din_infer.jobs.files import score_files
from tests.hostile_objects import objects
from tests.models import SPECS, random_model, random_rows, spec_dict

Call = Callable[..., Any]
ANY = objects()


@pytest.fixture(scope="module")
def predictors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Predictor]:
    made = {}
    for name, options in (("paper", {"explain": True}), ("candidate only", {})):
        path = tmp_path_factory.mktemp("model") / "m.onnx"
        convert(random_model(SPECS[name]), path, **options)  # type: ignore[arg-type]
        made[name] = Predictor(path, device="cpu", threads=1)
    return made


def tried(call: Call, *args: Any, **options: Any) -> None:  # noqa: ANN401
    """Call; only results, DinErrors and TypeErrors come out, and str of these works."""
    error: Exception | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = call(*args, **options)
            if hasattr(made, "__next__"):
                list(made)
        except (DinError, TypeError) as caught:
            error = caught
        except MemoryError:
            return  # an array of 2^60 values
    assert error is None or str(error)
    if getattr(error, "rule", "") == UNREADABLE:  # what the caller's object raised
        cause = error.__cause__  # not a slip of our own
        assert not isinstance(cause, AttributeError | NameError | LookupError), error


def options_of(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Some of these options, each of any value."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, ANY))


quick = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    deadline=None,
)
KEYS = ANY | st.just(["a", "b"])


@quick
@given(KEYS, ANY | st.just(10), options_of("hash", "seed", "reduce", "int_as", "x"))
def test_hash_buckets(keys: object, rows: object, options: dict[str, Any]) -> None:
    tried(hash_buckets, keys, rows, **options)


@quick
@given(
    ANY | st.just(np.arange(3)), ANY | st.just(np.array([0, 1, 3])), ANY | st.just(2)
)
def test_pad(values: object, offsets: object, max_len: object) -> None:
    tried(pad, values, offsets, max_len)


NUMBERS = ANY | st.just([0, 1, 1]) | st.just(np.array([0.5, 0.2, 0.1]))


@quick
@pytest.mark.parametrize("name", metrics.__all__)
@given(args=st.lists(NUMBERS, max_size=4))
def test_metrics(name: str, args: list[Any]) -> None:
    tried(getattr(metrics, name), *args)


@quick
@given(ANY)
def test_specs(value: Any) -> None:  # noqa: ANN401
    for call in (FeatureSpec.from_dict, FeatureSpec.from_json, FeatureSpec.load):
        tried(call, value)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401
    """List where values stand in nested dicts and lists."""
    out = [path]
    if not isinstance(value, dict | list):
        return out
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inner:
        out += places(part, (*path, key))
    return out


PLACES = places(spec_dict())[1:]


@quick
@given(st.sampled_from(PLACES), ANY)
def test_a_spec_with_any_value_anywhere(path: tuple[Any, ...], value: object) -> None:
    spec = spec_dict()
    at: Any = spec
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    tried(FeatureSpec.from_dict, spec)


ROWS = random_rows(FeatureSpec.from_dict(SPECS["paper"]), 3)
TABLE = {name: [row[name] for row in ROWS] for name in ROWS[0]}


@quick
@given(ANY)
def test_any_batch(predictors: dict[str, Predictor], batch: object) -> None:
    for p in predictors.values():
        tried(p.score, batch)
        tried(p.spec.encode, batch)
        tried(p.encode_request, batch)


@quick
@given(st.sampled_from(sorted(TABLE)), ANY)
def test_any_column(predictors: dict[str, Predictor], name: str, value: object) -> None:
    p = predictors["paper"]
    for call in (p.score, p.explain, p.spec.encode):
        tried(call, TABLE | {name: value})
    tried(p.score, [ROWS[0], ROWS[1] | {name: value}])


@quick
@given(ANY, ANY, ANY, options_of("raw", "batch_size", "request_of_candidate", "x"))
def test_any_call(
    predictors: dict[str, Predictor],
    a: object,
    b: object,
    c: object,
    options: dict[str, Any],
) -> None:
    p = predictors["paper"]
    tried(p.score, TABLE, **options)
    tried(p.score_requests, a, b, **options)
    tried(p.score_requests, TABLE, TABLE, c)
    tried(p.score_encoded, a, **options)
    tried(p.explain_requests, a, b, c)
    tried(p.warmup, a)
    tried(p.warmup, **options)


@quick
@given(st.sampled_from(["history", "hist_goods_id", "user_id", "price", "x"]), ANY)
def test_any_encoded_input(
    predictors: dict[str, Predictor], name: str, value: object
) -> None:
    p = predictors["paper"]
    inputs = p.spec.encode(TABLE)
    tried(p.score_encoded, {**inputs, name: value})


@quick
@given(
    ANY,
    options_of(
        "device", "threads", "fused", "precision", "tables", "verify", "mmap", "x"
    ),
    options_of("data_root"),
)
def test_any_predictor(
    predictors: dict[str, Predictor],
    source: object,
    options: dict[str, Any],
    root: dict[str, Any],
) -> None:
    tried(Predictor, source)
    path = predictors["candidate only"].path
    tried(Predictor, path, **options, **root)


@quick
@given(
    ANY, ANY, options_of("explain", "embedding_dtype", "max_len", "source", "inline")
)
def test_any_conversion(
    tmp_path_factory: pytest.TempPathFactory,
    model: object,
    path: object,
    options: dict[str, Any],
) -> None:
    out = tmp_path_factory.mktemp("out") / "m.onnx"
    tried(convert, model, out)
    tried(din_converter.load, model)
    tried(din_converter.save, model, out)
    tried(din_converter.build_model, model)
    if not isinstance(path, str | bytes):  # others would be written to
        tried(convert, "nowhere.pt", path, **options)


@quick
@given(ANY, ANY, ANY)
def test_any_argument_of_the_layers(a: object, b: object, c: object) -> None:
    # a width of 2^40 takes no time to refuse, and a layer of it all memory
    for width in (v for v in (a, b) if not isinstance(v, int) or v < 99):
        tried(din_converter.Dice, width)
        tried(din_converter.LocalActivationUnit, width)
    tried(din_converter.LocalActivationUnit, 4, a)
    tried(din_converter.DIN, a)
    tried(din_converter.BaseModel, a)
    tried(din_converter.count_samples, a, b)
    tried(din_converter.MiniBatchAwareRegularizer, a, b, c)
    tried(metrics.ClickMetrics().merge, a)


@quick
@given(ANY, ANY, options_of("raw", "batch_size", "errors"))
def test_any_encoded(
    predictors: dict[str, Predictor],
    encoded: object,
    counts: object,
    options: dict[str, Any],
) -> None:
    p = predictors["paper"]
    tried(p.scores_of, encoded, **options)
    tried(p.count, counts)


JOB = ("keep", "explode", "on_error", "max_bad_rows", "batch_size", "format")
JOB += ("separator", "delimiter", "columns", "null_texts", "escape", "quoted_empty")


VALUES = [None, 5, -1, 2**63, 1.5, "x", b"x", [], [5], ["x"], {}, object(), np.int64(3)]
VALUES += [np.arange(2), np.bool_(1), float("nan")]
PLAIN = st.sampled_from(VALUES)  # with a repr


@quick
@given(
    PLAIN,
    st.sampled_from(["paper", "candidate only"]),
    st.fixed_dictionaries({}, optional=dict.fromkeys([*JOB, "workers"], PLAIN)),
)
def test_any_job(
    predictors: dict[str, Predictor],
    tmp_path_factory: pytest.TempPathFactory,
    value: object,
    name: str,
    options: dict[str, Any],
) -> None:
    folder = tmp_path_factory.mktemp("job")
    p, quiet = predictors[name], {"progress": False, "overwrite": True}
    used = {n: TABLE[n] for n in predictors["paper"].spec.columns}
    pq.write_table(pa.table(used), folder / "in.parquet")
    rows, out = folder / "in.parquet", folder / "out"
    tried(score_files, value, rows, out, **quiet)
    tried(score_files, p, value, out, **quiet)
    tried(score_files, p, rows, out, **quiet, **options)


@quick
@given(options_of("explain", "single_file", "raw", "raw_text", "vectors", "triton"))
def test_any_option_of_a_conversion(options: dict[str, Any]) -> None:
    options = {k: v for k, v in options.items() if not isinstance(v, str)}
    tried(convert, Path("nowhere.pt"), "m.onnx", **options)
