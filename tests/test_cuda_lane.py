"""The way of a batch to the card and back, with the card emulated: tests/cuda/."""

import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from din_converter import convert
from din_infer import DeviceError, Predictor
from din_infer.cuda import LAUNCHING, Lane, Pending
from din_infer.session import Session
from din_infer.slicing import run_in_slices
from din_infer.spec import FeatureSpec
from tests.emulated import emulated_cuda
from tests.models import SPECS, random_model, random_rows

pytestmark = pytest.mark.slow

Arrays = dict[str, NDArray[Any]]


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.register_custom_ops_library(str(emulated_cuda()))
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lane")


class Card:
    """A converted model, with and without the lane."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:  # noqa: ANN401
        path = folder / f"{name.replace(' ', '-').replace(',', '')}.onnx"
        if not path.exists():
            convert(random_model(SPECS[name]), path, **options)
        self.predictor = Predictor(path, device="cpu")
        self.spec: FeatureSpec = self.predictor.spec
        self.session = open_session(path)
        pads = bool(options.get("explain"))
        self.lane = Lane(
            emulated_cuda(), 0, self.spec.inputs, pads=pads, device_type="cpu"
        )

    def encode(self, count: int, seed: int = 0) -> Arrays:
        return self.spec.encode(random_rows(self.spec, count, seed))

    def run(self, inputs: Arrays, *names: str) -> list[NDArray[np.float32]]:
        return self.lane.submit(self.session, inputs, names or ("score",)).result()


@pytest.fixture(params=SPECS)
def card(folder: Path, request: pytest.FixtureRequest) -> Iterator[Card]:
    made = Card(folder, request.param)
    yield made
    made.lane.close()


@pytest.mark.parametrize("count", [0, 1, 2, 70])
def test_every_model_scores_the_same_through_the_lane(card: Card, count: int) -> None:
    inputs = card.encode(count) if count else card.spec.encode([])
    logit, score = card.run(inputs, "logit", "score")
    for got, raw in ((logit, True), (score, False)):
        wanted = card.predictor.score_encoded(inputs, raw=raw)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
        assert got.dtype == np.float32
        assert got.flags.owndata


@pytest.mark.parametrize("count", [1, 5, 17, 100])
def test_requests_run_at_fixed_places(folder: Path, count: int) -> None:
    """One request, in sizes that are replayed: candidates and ids are filled up."""
    card = Card(folder, "paper")
    card.lane.replays = True
    users = random_rows(card.spec, 4, seed=1)
    items = random_rows(card.spec, count, seed=2)
    encode = card.spec.encoder.encode_requests
    for user in (*users, *users):
        inputs = encode([user], items, None).inputs
        wanted = card.predictor.score_encoded(inputs)
        np.testing.assert_allclose(card.run(inputs)[0], wanted, rtol=1e-5, atol=1e-5)
    assert 1 <= len(card.lane._replayed) <= 4
    places = [slot.places for slot in card.lane._replayed.values()]
    assert len({tuple(p) for p in places}) == len(places)
    inputs = card.encode(30)  # many requests are not replayed
    before = len(card.lane._replayed)
    np.testing.assert_allclose(
        card.run(inputs)[0], card.predictor.score_encoded(inputs), rtol=1e-5, atol=1e-5
    )
    assert len(card.lane._replayed) == before
    card.lane.close()


def test_what_cannot_be_captured_still_runs(folder: Path) -> None:
    card = Card(folder, "paper")
    card.lane.replays = True
    inputs = card.encode(1)

    class Refuses:
        def io_binding(self) -> object:
            return card.session.io_binding()

        def run_with_iobinding(self, binding: object, options: Any) -> None:  # noqa: ANN401
            if options.get_run_config_entry("gpu_graph_id") != "-1":
                message = "CUDA failure 900: operation not permitted"
                raise RuntimeError(message)
            card.session.run_with_iobinding(binding, options)

    for refusals in range(1, 5):
        (got,) = card.lane.submit(Refuses(), inputs, ["score"]).result()
        np.testing.assert_allclose(got, card.predictor.score_encoded(inputs), atol=1e-6)
        assert card.lane.replays == (refusals < 3)
    assert not card.lane._replayed
    assert len(card.lane._slots) == 3
    card.lane.close()


def test_a_slot_that_was_given_up_is_not_used_by_who_waited_for_it(
    folder: Path,
) -> None:
    """Another thread may have taken it from the pool meanwhile."""
    card = Card(folder, "paper")
    card.lane.replays = True
    batch = card.encode(1)
    (wanted,) = card.run(batch)
    (slot,) = card.lane._replayed.values()
    made: list[NDArray[np.float32]] = []
    waiting = threading.Thread(target=lambda: made.extend(card.run(batch)))
    with slot.lock:
        waiting.start()
        time.sleep(0.3)
        assert waiting.is_alive()
        card.lane._give_up(card.lane._plan(batch, ["score"], True), slot)
        card.lane._slots.remove(slot)  # as another thread takes it
    waiting.join()
    np.testing.assert_array_equal(made, [wanted])
    assert slot.binding is None
    card.lane._slots.append(slot)
    card.lane.close()


def test_models_that_explain_are_sent_with_their_padding(folder: Path) -> None:
    convert(random_model(SPECS["paper"]), folder / "shown.onnx", explain=True)
    card = Card(folder, "paper", explain=True)
    session = open_session(folder / "shown.onnx")
    inputs = card.encode(9)
    (got,) = card.lane.submit(session, inputs, ["score"]).result()
    np.testing.assert_allclose(got, card.predictor.score_encoded(inputs), atol=1e-6)
    card.lane.close()


def test_several_runs_are_under_way_at_a_time(folder: Path) -> None:
    card = Card(folder, "paper")
    batches = [card.encode(n, seed=n) for n in (3, 50, 1, 20)]
    wanted = [card.predictor.score_encoded(b) for b in batches]
    pending = [card.lane.submit(card.session, b, ["score"]) for b in batches * 2]
    for run, right in zip(pending, wanted * 2, strict=True):
        np.testing.assert_allclose(run.result()[0], right, rtol=1e-5, atol=1e-5)
    assert len(card.lane._slots) == 8  # kept for the next
    wrong: list[int] = []

    def work(which: int) -> None:
        for _ in range(5):
            (got,) = card.run(batches[which])
            if not np.allclose(got, wanted[which], rtol=1e-5, atol=1e-5):
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(card.lane._slots) == 8
    card.lane.close()


def test_a_run_after_one_that_found_no_memory_is_sound(folder: Path) -> None:
    """The runtime keeps an error for the thread until it is asked for it."""
    card = Card(folder, "paper")
    inputs = card.encode(3)
    (wanted,) = card.run(inputs)
    (slot,) = card.lane._slots
    failed = card.lane._library.din_slot_reserve(slot.handle, 1 << 55, 1)
    assert failed == b"out of memory"
    np.testing.assert_array_equal(card.run(inputs)[0], wanted)
    card.lane.close()


def test_a_session_is_destroyed_while_nothing_is_launched(folder: Path) -> None:
    """What the runtime frees on the card would end a capture of another thread's."""
    card = Card(folder, "paper")
    (wanted,) = card.run(card.encode(3))
    session = Session.__new__(Session)
    session._lane, session._session = card.lane, card.session
    destroyed = weakref.ref(card.session)
    card.session = None  # type: ignore[assignment]
    held = [session]
    del session
    with LAUNCHING:
        collecting = threading.Thread(target=held.clear)
        collecting.start()
        time.sleep(0.3)
        assert collecting.is_alive()
        assert destroyed() is not None
    collecting.join()
    assert destroyed() is None
    assert not card.lane._slots
    assert len(wanted) == 3
    card.lane.close()


def test_more_ids_than_an_offset_counts_are_refused(folder: Path) -> None:
    card = Card(folder, "paper")
    inputs = card.encode(2)
    for name, lengths in card.lane._lengths_of.items():
        inputs[name] = np.broadcast_to(np.zeros((1, 1), np.int64), (2, 2**30))
        inputs[lengths] = np.array([2**30, 2**30])
    with pytest.raises(DeviceError) as caught:
        card.run(inputs)
    assert str(caught.value) == (
        "expected at most 2,147,483,647 ids of one input in a run, got 2,147,483,648 of"
        f" `{next(iter(card.lane._lengths_of))}` - at `cuda:0`. Score fewer rows at a"
        " time."
    )
    card.lane.close()


def test_every_run_under_way_is_ended_when_one_fails(folder: Path) -> None:
    """Their memory is given back, and the first error raised."""
    card = Card(folder, "paper")
    ends: list[int] = []

    class Failing:
        fused, device = True, "cuda:0"

        def submit(self, part: Arrays, names: list[str]) -> Pending:
            pending = card.lane.submit(card.session, part, names)

            def finish() -> list[NDArray[np.float32]]:
                pending.result()
                ends.append(len(ends))
                message = f"run {ends[-1]} failed"
                raise RuntimeError(message)

            return Pending(finish)

    session: Any = Failing()
    with pytest.raises(RuntimeError, match="run 0 failed"):
        run_in_slices(session, card.spec, card.encode(40), ["score"], 4)
    assert ends == [0, 1, 2]
    assert len(card.lane._slots) == 3
    card.lane.close()


def test_a_failing_card_names_itself_and_leaves_its_slot(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(folder, "paper")
    inputs = card.encode(3)
    with monkeypatch.context() as patch:
        patch.setattr(
            card.lane._library, "din_slot_send", lambda *_: b"out of memory", False
        )
        for _ in range(6):  # more than there are slots
            with pytest.raises(DeviceError) as caught:
                card.run(inputs)
    assert str(caught.value) == (
        "expected memory on the card, got none left - at `cuda:0`. Free the card, score"
        " fewer rows at a time, convert with --embedding-dtype fp16, or give"
        ' tables="host".'
    )
    np.testing.assert_allclose(
        card.run(inputs)[0], card.predictor.score_encoded(inputs), atol=1e-6
    )
    card.lane.close()
