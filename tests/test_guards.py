"""What a graph refuses by itself: ids, lengths and requests out of their ranges, and
calls that a server has joined, in every runtime.

Above 400 lines: one list of faults serves every way to run a model.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from din_converter import convert
from din_converter.verify import random_inputs
from din_infer import InputError, Predictor
from din_infer.encoded import check_encoded
from din_infer.spec import FeatureSpec
from tests import ops, reference_ops
from tests.models import SPECS, random_model, random_rows, spec_dict
from tests.ops import Graph, guard_feeds, guard_graph

Arrays = dict[str, NDArray[Any]]
LOWEST, HIGHEST = -(2**63), 2**63 - 1
EXTREMES = (-1, LOWEST, HIGHEST)
# user fields that the tower alone reads are in most of them
MODELS = {
    "paper": SPECS["paper"],
    "base mean": SPECS["base mean"],
    "softmax": SPECS["softmax"],
    "attended padding": SPECS["attended padding"],
    "derived": SPECS["derived"],
    "three sequences": SPECS["three sequences"],
    "candidate only": SPECS["candidate only"],
    "users are histories": spec_dict(user=[], dense=[], multi_hot=[]),
    "users are numbers": spec_dict(
        user=[],
        behavior=[],
        multi_hot=[],
        dense=[{"name": "profile", "side": "user", "dim": 3}],
    ),
}


class ReadingAnything(OpRun):
    """The Gather of runtimes that read something instead of failing, as CUDA's does."""

    op_domain, __name__ = "", "Gather"

    def _run(self, x: Any, indices: Any, axis: int = 0) -> Any:  # noqa: ANN401
        size = x.shape[axis]
        index = np.where(indices < 0, indices + size, indices)
        inside = (index >= 0) & (index < size)
        if size == 0:
            shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
            return (np.zeros(shape, x.dtype),)
        rows = np.take(x, np.where(inside, index, 0), axis=axis)
        shape = (1,) * axis + inside.shape + (1,) * (x.ndim - axis - 1)
        return (np.where(inside.reshape(shape), rows, np.zeros((), x.dtype)),)


ReadingAnything.__name__ = "Gather"


class Model:
    """A converted model and the ways to run it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name.replace(' ', '-')}.onnx"
        model = random_model(MODELS[name])
        if not self.path.exists():
            convert(model, self.path)
        self.spec: FeatureSpec = model.spec
        self.content = self.path.read_bytes()
        self.has_requests = any(i.shape[0] == "B" for i in self.spec.inputs)
        self._made: dict[str, Callable[[Arrays], Any]] = {}

    def way(self, name: str) -> Callable[[Arrays], NDArray[np.float32]]:
        """Score by the native operators, by functions, or by an evaluator of onnx."""
        if name not in self._made:
            self._made[name] = self._open(name)
        return self._made[name]

    def _open(self, name: str) -> Callable[[Arrays], NDArray[np.float32]]:
        if name in ("native", "functions"):
            session = ops.session(self.content, fused=name == "native")
            return lambda inputs: session.run(["score"], inputs)[0]
        replaced: list[Any] = [ReadingAnything] if name == "reads anything" else []
        evaluator = ReferenceEvaluator(onnx.load_from_string(self.content))
        if replaced:
            inlined = onnx.inliner.inline_local_functions(
                onnx.load_from_string(self.content)
            )
            evaluator = ReferenceEvaluator(inlined, new_ops=replaced)

        def run(inputs: Arrays) -> NDArray[np.float32]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's of NaN
                made: NDArray[np.float32] = evaluator.run(["score"], inputs)[0]
            return made

        return run

    def inputs(self, n: int = 5, b: int = 3, kind: str = "mixed") -> Arrays:
        return random_inputs(self.spec, np.random.default_rng(1), n, b, kind)

    def faults(self) -> list[tuple[str, Arrays, int]]:
        """Inputs with one fault each, where candidates see it; which request has it."""
        good, out = self.inputs(kind="max"), []

        def spoiled(name: str, at: tuple[int, ...], value: int, owner: int) -> None:
            bad = {k: v.copy() for k, v in good.items()}
            bad[name][at] = value
            out.append((f"{name}[{at}] = {value}", bad, owner))

        owners = good["request_of_candidate"]
        for i in self.spec.inputs:
            row = len(good[i.name]) - 1  # the last request has a candidate
            owner = row if i.shape[0] == "B" else int(owners[row])
            if i.rows is not None:
                for value in (*EXTREMES, -i.rows, i.rows):
                    spoiled(i.name, (row,) + (0,) * (len(i.shape) - 1), value, owner)
            if i.lengths is not None:
                for value in (*EXTREMES, -3, good[i.name].shape[1] + 1):
                    spoiled(i.lengths, (row,), value, owner)
        if self.has_requests:
            for value in (*EXTREMES, 3):
                spoiled("request_of_candidate", (0,), value, -1)
        return out


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    folder, made = tmp_path_factory.mktemp("guards"), {}

    def get(name: str) -> Model:
        if name not in made:
            made[name] = Model(folder, name)
        return made[name]

    return get


@pytest.mark.parametrize("way", ["native", "functions", "evaluator"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_out_of_range_is_an_error(
    name: str, way: str, models: Callable[[str], Model]
) -> None:
    model = models(name)
    run = model.way(way)
    good = model.inputs(kind="max")
    assert np.isfinite(run(good)).all()
    faults = model.faults()
    assert len(faults) >= 5
    for fault, inputs, _ in faults[:: 3 if way == "evaluator" else 1]:
        with pytest.raises(InputError):  # what a Predictor checks, a graph does, too
            check_encoded(model.spec, inputs)
        with pytest.raises(Exception, match=r"expected|bounds") as failed:
            run(inputs)
        if way == "native":
            assert "expected" in str(failed.value), fault


@pytest.mark.parametrize("name", ["paper", "base mean", "three sequences"])
def test_a_runtime_that_reads_anything_gives_nan_to_those_it_concerns(
    name: str, models: Callable[[str], Model]
) -> None:
    model = models(name)
    run = model.way("reads anything")
    good = model.inputs(kind="max")
    wanted = run(good)
    assert np.isfinite(wanted).all()
    for fault, inputs, owner in model.faults():
        got = run(inputs)
        changed = np.isnan(got)
        assert changed.any(), fault
        same = got[~changed] == wanted[~changed]
        assert same.all(), fault
        if owner >= 0:  # the candidates of other requests keep their scores
            others = good["request_of_candidate"] != owner
            assert not changed[others].any(), fault


@pytest.mark.parametrize("way", ["native", "functions", "evaluator"])
@pytest.mark.parametrize("name", ["paper", "base mean", "softmax"])
def test_padding_may_hold_anything(
    name: str, way: str, models: Callable[[str], Model]
) -> None:
    model = models(name)
    run = model.way(way)
    inputs = model.inputs(kind="one")
    wider = dict(inputs)
    for i in model.spec.inputs:
        if i.lengths is not None:
            shape = (len(inputs[i.name]), 2)
            padding = np.full(shape, LOWEST)
            padding[:, 1] = HIGHEST
            wider[i.name] = np.concatenate([inputs[i.name], padding], axis=1)
    np.testing.assert_allclose(run(wider), run(inputs), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("way", ["native", "functions", "evaluator"])
@pytest.mark.parametrize("name", MODELS)
def test_the_last_request_must_have_a_candidate(
    name: str, way: str, models: Callable[[str], Model]
) -> None:
    model = models(name)
    run = model.way(way)
    inputs = model.inputs(n=4, b=3)
    for owners in ([2, 0, 1, 0], [0, 2, 0, 0]):  # in any order; some may have none
        inputs["request_of_candidate"] = np.array(owners)
        assert np.isfinite(run(inputs)).all()
    none = model.inputs(n=0, b=3)
    assert run(none).shape == (0,)
    inputs["request_of_candidate"] = np.array([1, 0, 1, 0])
    if not model.has_requests:
        assert np.isfinite(run(inputs)).all()
        return
    with pytest.raises(Exception, match=r"of request 2, the last|bounds"):
        run(inputs)


@pytest.mark.parametrize("fused", [True, False])
def test_a_predictor_scores_requests_of_which_the_last_have_no_candidate(
    fused: bool, models: Callable[[str], Model]
) -> None:
    model = models("paper")
    predictor = Predictor(model.path, device="cpu", fused=fused)
    rows = random_rows(model.spec, 9, seed=3)
    wanted = predictor.score_requests(rows[:2], rows[4:], [1, 0, 1, 1, 0])
    for b in (2, 3, 4):
        got = predictor.score_requests(rows[:b], rows[4:], [1, 0, 1, 1, 0])
        np.testing.assert_array_equal(got, wanted)
    inputs = model.inputs(n=6, b=5)
    inputs["request_of_candidate"] = np.array([0, 2, 1, 0, 2, 2])
    all_rows = predictor.score_encoded(inputs)
    np.testing.assert_allclose(
        predictor.score_encoded(inputs, batch_size=1), all_rows, rtol=1e-5, atol=1e-6
    )


def test_the_number_of_requests_is_an_output_of_one_shape(
    models: Callable[[str], Model],
) -> None:
    for name in MODELS:
        model = models(name)
        outputs = {o.name: o.shape for o in ops.session(model.content).get_outputs()}
        if not model.has_requests:
            assert set(outputs) == {"logit", "score"}
            continue
        assert list(outputs)[:2] == ["logit", "score"]
        assert outputs["din_infer.requests"] == [1]
        session = ops.session(model.content)
        (count,) = session.run(["din_infer.requests"], model.inputs(n=5, b=3))
        assert count.tolist() == [3]


def test_optimizations_keep_the_guard(models: Callable[[str], Model]) -> None:
    """A guard that nothing needs would be removed."""
    model = models("paper")
    inputs = model.inputs()
    inputs["user_id"][-1] = -1
    for level in (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    ):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            model.content, options, ["CPUExecutionProvider"]
        )
        for output in ("logit", "score"):
            with pytest.raises(Exception, match="id_length_or_request_out_of_range"):
                session.run([output], inputs)


# ---- the operator ----


def num_requests(feeds: Arrays) -> int:
    return len(feeds.get("user 0", feeds.get("lengths", ())))


def twin(graph: Graph, feeds: Arrays) -> NDArray[np.bool_]:
    op = graph.op
    return reference_ops.guard(
        op.fields, op.num_user_fields, feeds, num_requests(feeds)
    )


def is_refused(graph: Graph, feeds: Arrays, **options: Any) -> bool:  # noqa: ANN401
    try:
        (penalty,) = graph.run(feeds, **options)
    except Exception as error:
        if "expected" in str(error) or "bounds" in str(error):
            return True
        raise
    assert penalty.shape == feeds["request_of_candidate"].shape
    assert not penalty.any()
    return False


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_guard_refuses_what_its_twin_does(data: st.DataObject) -> None:
    users = data.draw(st.lists(st.integers(1, 4), max_size=2))
    candidates = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))
    graph = guard_graph(users, candidates)
    n, b = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 3))
    feeds = guard_feeds(graph, n, b, data.draw(st.integers(0, 9)))
    names = ["request_of_candidate", *(name for name, _ in graph.op.fields)]
    for name in data.draw(st.lists(st.sampled_from(names), max_size=2)):
        if feeds[name].size:
            at = data.draw(st.integers(0, feeds[name].size - 1))
            feeds[name][at] = data.draw(st.sampled_from((-1, 0, 1, 2, 3, *EXTREMES)))
    wanted = twin(graph, feeds).any()
    assert is_refused(graph, feeds) == wanted
    assert is_refused(graph, feeds, fused=False) == wanted


@settings(max_examples=60, deadline=None)
@given(
    calls=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=2, max_size=4
    ),
    users=st.sampled_from([(), (9, 5)]),
)
def test_joined_calls_are_refused_or_right(
    calls: list[tuple[int, int]], users: tuple[int, ...]
) -> None:
    """Of any sizes: right is where each candidate still has the request it had."""
    graph = guard_graph(users)
    made = [
        guard_feeds(graph, n if b else 0, b, seed) for seed, (b, n) in enumerate(calls)
    ]
    for feeds in made:
        assert not is_refused(graph, feeds)
    joined = {k: np.concatenate([feeds[k] for feeds in made]) for k in made[0]}
    firsts = np.cumsum([0, *(num_requests(feeds) for feeds in made)])
    right = np.concatenate(
        [f["request_of_candidate"] + at for f, at in zip(made, firsts, strict=False)]
    )
    is_right = np.array_equal(joined["request_of_candidate"], right)
    for fused in (True, False):
        assert is_refused(graph, joined, fused=fused) or is_right


REFUSALS: dict[str, tuple[str, int, int]] = {
    "expected an id in [0, 9), got 9 - at `user 0[1]`": ("user 0", 1, 9),
    "expected an id in [0, 5), got -1 - at `user 1[0]`": ("user 1", 0, -1),
    f"expected an id in [0, 7), got {LOWEST} - at `candidate 0[2]`": (
        "candidate 0",
        2,
        LOWEST,
    ),
    "expected a request in [0, 2), got -1 - at `request_of_candidate[0]`": (
        "request_of_candidate",
        0,
        -1,
    ),
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_a_native_guard_names_field_place_and_value(sentence: str) -> None:
    graph = guard_graph()
    feeds = guard_feeds(graph, 3, 2)
    feeds["request_of_candidate"][:] = [0, 0, 1]
    name, at, value = REFUSALS[sentence]
    feeds[name][at] = value
    with ops.refused(sentence):
        graph.run(feeds)


def test_a_native_guard_says_what_joined_calls_look_like() -> None:
    graph = guard_graph()
    feeds = guard_feeds(graph, 3, 2)
    feeds["request_of_candidate"][:] = 0
    sentence = (
        "expected a candidate of request 1, the last, got requests up to 0 - at"
        " `request_of_candidate`. Calls cannot be joined on their first axis:"
        " configure the server not to batch."
    )
    with ops.refused(sentence):
        graph.run(feeds)


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("num_user_fields", 4, "attributes that fit 6 inputs, got 3 fields"),
        ("num_user_fields", -1, "attributes that fit 6 inputs, got 3 fields"),
        ("has_requests", 0, "attributes that fit 6 inputs, got 3 fields"),
        ("fields", "9 a\n5 b", "attributes that fit 6 inputs, got 2 fields"),
        ("fields", "9 a\n5 b\n", "attributes that fit 6 inputs, got 2 fields"),
        ("fields", "9 a\n5 b\n0 c", "rows and a name, got 0 c"),
        ("fields", "9 a\nb\n7 c", "rows and a name, got b"),
        ("fields", "9 a\n5 b\n99999999999999999999", "rows and a name, got 9999999"),
    ],
)
def test_a_malformed_guard_is_refused(
    attribute: str, value: int | str, sentence: str
) -> None:
    graph = guard_graph()
    graph.attributes[attribute] = value
    with ops.refused(f"expected {sentence}"):
        graph.run(guard_feeds(graph, 3, 2))


def test_inputs_of_other_sizes_are_refused() -> None:
    graph = guard_graph()
    feeds = guard_feeds(graph, 3, 2)
    with ops.refused("expected shape [2], got [1] - at `Guard input user 1`"):
        graph.run({**feeds, "user 1": feeds["user 1"][:1]})
    with ops.refused("expected shape [3], got [2] - at `Guard input candidate 0`"):
        graph.run({**feeds, "candidate 0": feeds["candidate 0"][:2]})
    with ops.refused("expected int64, got float32 - at `Guard input user 1`"):
        graph.run({**feeds, "user 1": feeds["user 1"].astype(np.float32)})


def test_a_guard_of_many_fields_with_long_names() -> None:
    graph = guard_graph([3] * 40, [4] * 50)
    long = tuple((f"{name} {'x' * 300}", rows) for name, rows in graph.op.fields)
    graph.attributes["fields"] = "\n".join(f"{rows} {name}" for name, rows in long)
    feeds = guard_feeds(graph, 5, 5)
    assert not graph.run(feeds)[0].any()
    feeds["user 39"][0] = 3
    feeds["request_of_candidate"][0] = 0
    with ops.refused("expected an id in [0, 3), got 3 - at `user 39 xxx"):
        graph.run(feeds)


@pytest.mark.slow
@pytest.mark.parametrize("n", [0, 1, 255, 256, 700])
@pytest.mark.parametrize("users", [(), (9, 5)])
def test_on_cuda_bad_candidates_are_nan(
    users: tuple[int, ...], n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.emulated import emulated_cuda

    monkeypatch.setattr(ops, "library", emulated_cuda)
    graph = guard_graph(users, (7, 3))
    for seed in range(4):
        feeds = guard_feeds(graph, n, 5, seed)
        assert not graph.run(feeds)[0].any()
        for name, array in feeds.items():
            if array.size and name not in ("lengths", "ids"):
                rng = np.random.default_rng(seed)
                bad = rng.integers(0, array.size, 2)
                wrong = {**feeds, name: array.copy()}
                wrong[name][bad] = (-1, LOWEST, HIGHEST, 9)[seed]
                got = np.isnan(graph.run(wrong)[0])
                np.testing.assert_array_equal(got, twin(graph, wrong))
        if n:
            joined = {**feeds, "request_of_candidate": np.zeros(n, np.int64)}
            assert np.isnan(graph.run(joined)[0]).all()


@pytest.mark.slow
def test_on_cuda_packed_histories_tell_how_many_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.emulated import emulated_cuda

    monkeypatch.setattr(ops, "library", emulated_cuda)
    graph = guard_graph(())
    feeds = guard_feeds(graph, 6, 3)
    feeds |= {"lengths": np.array([0, 2, 4, 6]), "ids": np.zeros((1, 6), np.int64)}
    assert not graph.run(feeds)[0].any()
    feeds["request_of_candidate"][:] = 1
    assert np.isnan(graph.run(feeds)[0]).all()
    feeds["request_of_candidate"][:] = 3
    assert np.isnan(graph.run(feeds)[0]).all()
