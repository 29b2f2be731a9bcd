"""The operators for CUDA against their float64 twins, emulated, and on a card.

Long because every mode, precision and edge is a case of its own.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from din_infer.session import ops_library
from tests import ops, reference_ops
from tests.emulated import emulated_cuda
from tests.ops import (
    ACTIVATIONS,
    OVERFLOWS,
    Arrays,
    Graph,
    attention_feeds,
    attention_graph,
    bag_graph,
    overflowing_graph,
    refused,
    with_mask,
)
from tests.test_ops import MODES, relative, twin

pytestmark = pytest.mark.slow

# what a factor of a product is rounded to, with room for four layers of them
TOLERANCES = {"fp32": 2e-6, "tf32x3": 6e-6, "tf32": 4e-3, "bf16": 2e-2}


@pytest.fixture(
    autouse=True, params=["emulated", pytest.param("card", marks=pytest.mark.gpu)]
)
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The emulation; and a card, where there is one."""
    if request.param == "emulated":
        monkeypatch.setattr(ops, "library", emulated_cuda)
    else:
        settings = ("CUDAExecutionProvider", {"use_tf32": "0"})
        monkeypatch.setattr(ops, "PROVIDERS", [settings, "CPUExecutionProvider"])
        monkeypatch.setattr(ops, "library", lambda: ops_library("cuda"))
    return str(request.param)


@pytest.fixture
def small(where: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Give the emulated card another amount of shared memory."""
    if where != "emulated":
        pytest.skip("a card has what it has")
    return lambda size: monkeypatch.setenv("DIN_EMULATE_SHARED", str(size))


def check(graph: Graph, feeds: Arrays, precision: str = "fp32") -> None:
    got = graph.run(feeds, precision=precision)
    for name, array, exact in zip(graph.outputs, got, twin(graph, feeds), strict=False):
        assert array.shape == exact.shape
        assert np.isfinite(array).all()
        assert relative(array, exact) <= TOLERANCES[precision], name


def pack(feeds: Arrays) -> Arrays:
    """Take the padding out: ids [1, V], and offsets [B + 1] in place of lengths."""
    lengths = feeds["lengths"]
    packed = {**feeds, "lengths": np.concatenate([[0], lengths.cumsum()])}
    for name, array in feeds.items():
        if array.ndim == 2:
            rows = [row[:n] for row, n in zip(array, lengths, strict=True)]
            packed[name] = np.concatenate([*rows, []]).astype(np.int64)[None]
    return packed


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_equals_its_twin(mode: str, precision: str) -> None:
    graph = attention_graph(**MODES[mode])
    check(graph, attention_feeds(graph, 11, 5, 7), precision)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_equals_its_twin(activation: str, precision: str) -> None:
    graph = attention_graph(hidden=[17, 12], activation=activation, dims=(12, 8))
    check(graph, attention_feeds(graph, 7, 7, 9), precision)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("mode", OVERFLOWS)
def test_no_activation_hides_an_overflow(
    mode: str, sign: float, precision: str
) -> None:
    graph, feeds = overflowing_graph(mode, sign)
    interest, weight = graph.run(feeds, precision=precision)
    exact, _ = twin(graph, feeds)
    assert np.isfinite(exact).all()
    assert not np.isfinite(interest[1]).any()
    assert not np.isfinite(weight[1, 2])
    assert relative(interest[[0, 2]], exact[[0, 2]]) <= TOLERANCES[precision]


@pytest.mark.parametrize("precision", ["fp32", "tf32x3", "bf16"])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 65])
def test_histories_of_every_length_around_a_tile(length: int, precision: str) -> None:
    graph = attention_graph(dims=(8,), softmax=True)
    check(graph, attention_feeds(graph, 3, 3, length, lengths="max"), precision)


@pytest.mark.parametrize("n", [0, 1, 2, 70])
@pytest.mark.parametrize("lengths", ["zero", "one", "max", "mixed"])
@pytest.mark.parametrize("softmax", [False, True])
def test_edges_of_a_batch(n: int, lengths: str, softmax: bool) -> None:
    behavior = {"empty_softmax": "padding_row"}
    graph = attention_graph(softmax=softmax, behavior=behavior)
    for b, t in ((n, 4), (1, 4), (3, 1)):
        if b or not n:
            check(graph, attention_feeds(graph, n, b, t, lengths=lengths))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("length", [1, 5, 32, 37])
@pytest.mark.parametrize(
    "dims", [(8, 12), (4, 3, 8), (7,), (33, 1), (64, 4), (100, 132), (260,)]
)
def test_tables_of_every_width_and_type(
    dims: tuple[int, ...], length: int, precision: str
) -> None:
    """Fours of columns, or single ones behind an odd width; of float16 and float32."""
    for half in (False, True):
        types = tuple((i % 2 == 0) is half for i in range(len(dims)))
        graph = attention_graph(dims=dims, half=types, hidden=[9])
        check(graph, attention_feeds(graph, 3, 2, length, lengths="max"), precision)


def test_no_positions_at_all() -> None:
    graph = attention_graph()
    check(graph, attention_feeds(graph, 3, 3, 0))


@pytest.mark.parametrize("precision", ["fp32", "tf32x3", "tf32", "bf16"])
@pytest.mark.parametrize(
    "hidden", [[40], [80, 40], [88, 96], [200, 81, 17], [5, 170], [33, 1]]
)
def test_layers_of_every_width(hidden: list[int], precision: str) -> None:
    """From a tile to several chunks of ten; 5 tiles, and odd numbers of units."""
    graph = attention_graph(hidden=hidden, dims=(20, 4))
    check(graph, attention_feeds(graph, 3, 3, 5), precision)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_weights_that_do_not_fit_into_shared_memory(
    precision: str, small: Callable[[int], None]
) -> None:
    """Then columns are folded a few at a time, and layers read from global memory."""
    small(40000)
    graph = attention_graph(hidden=[100, 90], dims=(64,), softmax=True)
    check(graph, attention_feeds(graph, 3, 3, 35, lengths="max"), precision)


def test_layers_that_no_multiprocessor_holds_are_refused(
    small: Callable[[int], None],
) -> None:
    small(4000)
    graph = attention_graph(hidden=[100], dims=(64,))
    wanted = (
        "din_infer.too_wide[expected layers that fit into a multiprocessor, got wider"
        " ones] - at `LocalActivation`"
    )
    with refused(wanted):
        graph.run(attention_feeds(graph, 1, 1, 1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("lengths", ["mixed", "max", "one", "zero"])
def test_long_histories_of_few_candidates_are_cut(
    lengths: str, softmax: bool, precision: str
) -> None:
    """T above 512: chunks of 256 behaviors, added up by the warp that ends last."""
    graph = attention_graph(dims=(4,), hidden=[8], softmax=softmax)
    check(graph, attention_feeds(graph, 4, 3, 700, lengths=lengths), precision)


def test_sums_of_chunks_take_a_bounded_memory(where: str) -> None:
    """Candidates of a long history have fewer, longer chunks: see docs/cuda.md."""
    graph = attention_graph(dims=(1024,), hidden=[8], explain=False, interactions=[])
    feeds = attention_feeds(graph, 7, 7, 400_000, lengths="one")
    feeds["lengths"][:2] = 1100, 512
    feeds["request_of_candidate"] = np.arange(7)
    session = graph.session(feeds)
    if where == "emulated":
        emulated = ctypes.CDLL(str(emulated_cuda()))
        emulated.din_emulated_bytes.restype = ctypes.c_size_t
        emulated.din_emulated_bytes()
    (got,) = session.run(None, feeds)
    if where == "emulated":
        assert 2**25 < emulated.din_emulated_bytes() <= 2**26 + 4 * 7
    few = {k: v[:3] if v.ndim == 1 else v[:3, :1100] for k, v in feeds.items()}
    assert relative(got[:3], twin(graph, few)[0]) < 2e-6


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_few_candidates_are_spread_over_all_multiprocessors(n: int, where: str) -> None:
    if where != "emulated":
        pytest.skip("a card does not tell")
    graph = attention_graph(explain=False)
    feeds = attention_feeds(graph, n, n, 5)
    check(graph, feeds)
    blocks = ctypes.CDLL(str(emulated_cuda())).din_emulated_blocks()
    assert blocks == min(n, 2)  # of this card's


def test_a_long_history_is_added_up_in_double() -> None:
    graph = attention_graph(dims=(4,), hidden=[4], explain=False)
    feeds = attention_feeds(graph, 200, 1, 2000, lengths="max")
    feeds["request_of_candidate"][:] = 0
    (got,) = graph.run(feeds)
    few = {k: v[:3] if k.startswith(("req", "cand")) else v for k, v in feeds.items()}
    assert relative(got[:3], twin(graph, few)[0]) < 3e-7


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("softmax", [False, True])
def test_packed_histories_score_as_padded_ones(softmax: bool, precision: str) -> None:
    graph = attention_graph(softmax=softmax, explain=False)
    feeds = attention_feeds(graph, 30, 12, 9)
    (padded,) = graph.run(feeds, precision=precision)
    (packed,) = graph.run(pack(feeds), precision=precision)
    np.testing.assert_array_equal(packed, padded)
    more = pack(feeds)  # behind the last offset, anything may stand
    for name in [n for n in more if n.startswith("ids_")]:
        more[name] = np.append(more[name], [[10**9, -1]], axis=1)
    np.testing.assert_array_equal(graph.run(more, precision=precision)[0], padded)


def test_one_packed_request() -> None:
    graph = attention_graph(explain=False)
    feeds = attention_feeds(graph, 5, 1, 6)
    np.testing.assert_array_equal(graph.run(pack(feeds))[0], graph.run(feeds)[0])


def test_packed_histories_where_positions_matter_are_refused() -> None:
    graph = attention_graph(explain=True)
    with refused("expected padded histories, got packed ones - at `LocalActivation`"):
        graph.run(pack(attention_feeds(graph, 4, 4, 3)))


WRONG: dict[str, tuple[str, Any, int]] = {
    "id": ("ids_0", (1, 0), 40),
    "negative id": ("ids_1", (1, 1), -1),
    "huge id": ("ids_0", (1, 2), 2**40),
    "candidate's id": ("candidate_ids_0", 1, 40),
    "request": ("request_of_candidate", 1, 3),
    "negative request": ("request_of_candidate", 1, -1),
    "length": ("lengths", 1, 5),
    "negative length": ("lengths", 1, -1),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("softmax", [False, True])
def test_what_is_out_of_range_is_not_a_number(
    what: str, softmax: bool, packed: bool
) -> None:
    """A card refuses nothing after the copy; no other candidate is touched."""
    graph = attention_graph(softmax=softmax, explain=not packed)
    feeds = attention_feeds(graph, 3, 3, 4, lengths="max")
    right = graph.run(feeds)
    name, place, value = WRONG[what]
    wrong = {**feeds, name: feeds[name].copy()}
    wrong[name][place] = value
    if packed:
        feeds = wrong
        wrong = pack({**wrong, "lengths": np.full(3, 4)})
        if name == "lengths":
            wrong["lengths"] = np.array([0, 4, 13 if value > 0 else 3, 12])
    got = graph.run(wrong)
    for array, exact in zip(got, right, strict=True):
        assert np.isnan(array[1]).all()
        np.testing.assert_array_equal(array[0], exact[0])
        if not (packed and name == "lengths"):  # the next one begins where this ends
            np.testing.assert_array_equal(array[2], exact[2])


@pytest.mark.parametrize("long", [False, True])
def test_a_wrong_id_in_a_long_history(long: bool) -> None:
    graph = attention_graph(dims=(4,), hidden=[4], softmax=True)
    feeds = attention_feeds(graph, 2, 2, 700 if long else 40, lengths="max")
    feeds["ids_0"][1, 33] = 40
    interest, weight = graph.run(feeds)
    assert np.isfinite(interest[0]).all()
    assert np.isnan(interest[1]).all()
    assert np.isnan(weight[1]).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("softmax", [False, True])
def test_masks(softmax: bool, precision: str) -> None:
    graph = with_mask(attention_graph(softmax=softmax, explain=False))
    feeds = attention_feeds(graph, 8, 5, 40)
    del feeds["lengths"]
    rng = np.random.default_rng(0)
    feeds["mask"] = (rng.random((5, 40)) < 0.5).astype(np.float32)
    feeds["mask"][2] = 0
    feeds["ids_0"][feeds["mask"] == 0] = 10**6  # never read
    inside = {**feeds, "ids_0": np.where(feeds["mask"] == 0, 0, feeds["ids_0"])}
    (got,) = graph.run(feeds, precision=precision)
    assert relative(got, twin(graph, inside)[0]) <= TOLERANCES[precision]
    feeds["mask"][0, 3] = 0.5
    (got,) = graph.run(feeds, precision=precision)
    assert np.isnan(got[feeds["request_of_candidate"] == 0]).all()
    assert np.isfinite(got[feeds["request_of_candidate"] != 0]).all()


@pytest.mark.parametrize("pooling", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", ["masked", "attended"])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("dim", [1, 7, 40])
def test_bags_equal_their_twin(
    pooling: str, padding: str, half: bool, dim: int
) -> None:
    graph = bag_graph(pooling, padding, 0.25, dim=dim, half=half)
    rng = np.random.default_rng(0)
    for rows, t in ((0, 3), (1, 1), (9, 40), (3, 0)):
        feeds: Arrays = {
            "ids": rng.integers(0, 30, (rows, t)),
            "lengths": rng.integers(0, t + 1, rows),
        }
        (got,) = graph.run(feeds)
        wanted = reference_ops.embedding_bag(
            graph.attributes, feeds["ids"], feeds["lengths"], graph.constants["table"]
        )
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)
        if padding == "masked" and rows:
            np.testing.assert_array_equal(graph.run(pack(feeds))[0], got)


def test_bags_of_what_is_out_of_range() -> None:
    graph = bag_graph()
    feeds = {
        "ids": np.array([[1, 2], [3, 30], [-1, 0], [4, 5]]),
        "lengths": np.full(4, 2),
    }
    (got,) = graph.run(feeds)
    assert np.isnan(got).all(axis=1).tolist() == [False, True, True, False]
    feeds["lengths"] = np.array([2, 3, -1, 1])
    (got,) = graph.run(feeds)
    assert np.isnan(got).all(axis=1).tolist() == [False, True, True, False]


REVERSED = """
import numpy as np
from tests import ops
from tests.emulated import emulated_cuda
from tests.ops import attention_feeds, attention_graph
ops.library = emulated_cuda
made = []
for precision in ("fp32", "tf32x3", "bf16"):
    for hidden in ([20, 12], [100, 8]):
        for activation in ("dice", "row_dice"):
            graph = attention_graph(hidden=hidden, activation=activation, softmax=True)
            feeds = attention_feeds(graph, 9, 6, 40)
            made += [a.tobytes() for a in graph.run(feeds, precision=precision)]
import hashlib
print(hashlib.sha256(b"".join(made)).hexdigest())
"""


def test_lanes_in_any_order_make_the_same() -> None:
    """A barrier that is missing shows in one of the orders; sums keep their order."""
    made: list[str] = []
    for reverse in ("", "1"):
        environment = {
            k: v for k, v in os.environ.items() if k != "DIN_EMULATE_REVERSE"
        }
        if reverse:
            environment["DIN_EMULATE_REVERSE"] = reverse
        run = subprocess.run(
            [sys.executable, "-c", REVERSED],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        made.append(run.stdout)
    assert made[0] == made[1]
    assert len(made[0]) > 60


DESTROYED = """
import os
from tests import ops
from tests.emulated import emulated_cuda
from tests.ops import attention_feeds, attention_graph
ops.library = emulated_cuda
graph = attention_graph()
session = graph.session(attention_feeds(graph, 2, 2, 3))
os.environ["DIN_EMULATE_CAPTURE"] = "1"
del session
print("went on")
"""


def test_an_operator_is_destroyed_beside_a_capture() -> None:
    """Another thread's capture would end with what this one asks of the driver."""
    command = [sys.executable, "-c", DESTROYED]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout == "went on\n", done.stderr


def test_more_fields_than_the_card_takes_are_refused() -> None:
    graph = attention_graph(dims=(1,) * 25)
    wanted = (
        "din_infer.too_wide[expected at most 24 fields of a sequence, got more]"
        " - at `LocalActivation`"
    )
    with refused(wanted):
        graph.run(attention_feeds(graph, 1, 1, 1))


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("what", ["request", "length", "candidate", "mask"])
def test_what_is_wrong_with_a_cut_history_is_not_lost(what: str, softmax: bool) -> None:
    """A chunk without any row that can be read says so to the one that adds up."""
    graph = attention_graph(dims=(4,), hidden=[4], softmax=softmax, explain=False)
    feeds = attention_feeds(graph, 3, 3, 700, lengths="max")
    if what == "mask":
        graph = with_mask(graph)
        feeds["mask"] = np.ones((3, 700), np.float32)
        del feeds["lengths"]
        feeds["mask"][1, 300:] = 0
        feeds["mask"][1, 600] = 2
    elif what == "candidate":
        feeds["lengths"][1] = 0
        feeds["candidate_ids_0"][1] = 99
    else:
        feeds["request_of_candidate" if what == "request" else "lengths"][1] = 10**6
    (got,) = graph.run(feeds)
    assert np.isnan(got).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("length", [0, 100, 600, 1000])
def test_one_long_packed_history_is_cut_too(length: int) -> None:
    graph = attention_graph(dims=(4,), hidden=[8], softmax=True, explain=False)
    feeds = attention_feeds(graph, 5, 1, 1000)
    feeds["lengths"][0] = length
    (got,) = graph.run(pack(feeds))
    assert relative(got, twin(graph, feeds)[0]) < 2e-6
    more = pack(feeds)  # as requests that are replayed are filled up
    more["ids_0"] = np.append(more["ids_0"], np.full((1, 1024), 10**9), axis=1)
    np.testing.assert_allclose(graph.run(more)[0], got, rtol=1e-6, atol=1e-6)


def random_case(rng: np.random.Generator) -> tuple[Graph, NDArray[np.int64]]:
    kinds = np.array(["dice", "prelu", "relu", "silu", "row_dice"])
    graph = attention_graph(
        dims=tuple(int(d) for d in rng.integers(1, 24, rng.integers(1, 4))),
        hidden=[int(h) for h in rng.integers(1, 100, rng.integers(0, 4))],
        activation=str(rng.choice(kinds)),
        softmax=bool(rng.integers(2)),
        seed=int(rng.integers(1000)),
    )
    return graph, rng.integers(1, 50, 3)


@pytest.mark.parametrize("seed", range(24))
def test_random_operators(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph, (n, b, t) = random_case(rng)
    feeds = attention_feeds(graph, int(n) % 9 + 1, int(b) % 5 + 1, int(t))
    check(graph, feeds, ["fp32", "tf32x3"][seed % 2])
