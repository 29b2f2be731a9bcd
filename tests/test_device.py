"""Devices that cannot be used: every refusal, and never a CPU in silence.

Long because each way to fail is a case of its own; none needs a card.
"""

import ctypes
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from din_converter import convert
from din_infer import DeviceError, ModelError, Predictor, device, session
from din_infer.cli import main
from din_infer.device import (
    Card,
    capture_output,
    find_card,
    parse_device,
)
from tests.emulated import emulated_cuda
from tests.models import SPECS, random_model, random_rows

ROOT = Path(__file__).parent
GPU = ' Run: pip install "din-infer[gpu]" (and no other onnxruntime)'
CARD = Card(0, "Fake 0", 1 << 36, 1 << 35)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("driver") / "libfake.so"
    source = ROOT / "cuda" / "fake_driver.c"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


@pytest.fixture
def says(driver: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the driver say: its version, its cards, cuInit's code, bytes free."""
    monkeypatch.setattr(device, "load_driver", lambda: ctypes.CDLL(str(driver)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def say(*values: int) -> None:
        monkeypatch.setenv("FAKE_DRIVER", " ".join(map(str, values)))

    return say


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("device") / "din.onnx"
    convert(random_model(SPECS["paper"]), path)
    return path


# ---- the driver ----


def test_a_card_is_described(says: Callable[..., None]) -> None:
    says(13010, 2, 0, 1 << 34)
    wanted = Card(1, "Fake 1", 1 << 36, 1 << 34)
    assert find_card(1) == wanted


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "DRIVER", "libno-such-driver.so.1")
    with pytest.raises(DeviceError) as caught:
        find_card(0)
    assert str(caught.value) == (
        "expected NVIDIA's driver, got no libno-such-driver.so.1 - at `cuda:0`."
        " Install NVIDIA's driver; in a container, start it with its GPUs."
    )


DRIVERS: dict[str, tuple[tuple[int, ...], int, str]] = {
    "no card": (
        (13000, 0, 100),
        0,
        "expected a card number 0, got no card - at `cuda:0`."
        " Is the card visible here?",
    ),
    "no cards": (
        (13000, 0, 0),
        0,
        "expected a card number 0, got no card - at `cuda:0`."
        " Is the card visible here?",
    ),
    "too few": (
        (13000, 2, 0),
        2,
        "expected a card number 2, got 2 cards - at `cuda:2`",
    ),
    "one card": (
        (13000, 1, 0),
        1,
        "expected a card number 1, got 1 card - at `cuda:1`",
    ),
    "old driver": (
        (12040, 1, 0),
        0,
        "expected a driver for CUDA 13 or newer, got one for 12.4 - at `cuda:0`."
        " Update NVIDIA's driver, or install onnxruntime-gpu 1.26.",
    ),
    "older driver": (
        (11080, 1, 0),
        0,
        "expected a driver for CUDA 13 or newer, got one for 11.8 - at `cuda:0`."
        " Update NVIDIA's driver.",
    ),
    "broken": (
        (13000, 1, 999),
        0,
        "expected cuInit of the driver to succeed, got error 999, unknown error"
        " - at `cuda:0`",
    ),
    "full": (
        (13000, 1, 0, -1),
        0,
        "expected cuMemGetInfo_v2 of the driver to succeed, got error 2, out of memory"
        " - at `cuda:0`",
    ),
}


@pytest.mark.parametrize("case", DRIVERS)
def test_drivers_and_cards_that_do_not_serve(
    case: str, says: Callable[..., None]
) -> None:
    values, index, wanted = DRIVERS[case]
    says(*values)
    with pytest.raises(DeviceError) as caught:
        find_card(index)
    assert str(caught.value) == wanted


def test_an_older_runtime_takes_an_older_driver(says: Callable[..., None]) -> None:
    says(12040, 1, 0)
    assert find_card(0, [1, 26]).index == 0


def test_a_hidden_card_is_told(
    says: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    says(13000, 0, 100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES is '-1'"):
        find_card(0)


@pytest.mark.parametrize(
    "text", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "auto:1"]
)
def test_other_devices_are_refused(text: str) -> None:
    with pytest.raises(DeviceError) as caught:
        parse_device(text)
    wanted = f"expected auto, cpu, cuda or cuda:<number>, got {text!r} - at `device`"
    assert str(caught.value) == wanted


def test_devices_are_split() -> None:
    assert parse_device("cuda") == ("cuda", 0)
    assert parse_device("cuda:12") == ("cuda", 12)
    assert parse_device("auto") == ("auto", 0)


def test_weights_must_fit(says: Callable[..., None]) -> None:
    says(13000, 1, 0, 1 << 30)
    card = find_card(0)
    with pytest.raises(DeviceError) as caught:
        device.check_memory(card, 3 << 30)
    assert str(caught.value) == (
        "expected 3.25 GiB free for the weights, got 1.00 GiB of 64.00 GiB"
        " - at `cuda:0 (Fake 0)`. Convert with --embedding-dtype fp16, or give"
        ' tables="host".'
    )
    says(13000, 1, 0, 4 << 30)
    device.check_memory(find_card(0), 3 << 30)


# ---- the runtime ----


ON_CUDA = ("CUDAExecutionProvider", "din_infer", "LocalActivation")


class Disguised:
    """A runtime that lists CUDA and then makes a CPU session, as the real one does.

    `prints` goes where the real one prints; `raises` is what it raises; `places` are
    (provider, domain, operator) of nodes.
    """

    def __init__(
        self,
        prints: str = "",
        raises: str = "",
        places: tuple[tuple[str, str, str], ...] = (ON_CUDA,),
        claims: str = "CPUExecutionProvider",
    ) -> None:
        self.prints, self.raises, self.places = prints, raises, places
        self.claims = claims
        self.asked: list[Any] = []
        self.lanes: list[dict[str, Any]] = []

    __version__ = "1.31.1"

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(onnxruntime, name)

    @staticmethod
    def get_available_providers() -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    @staticmethod
    def preload_dlls() -> None:
        os.write(1, b"Failed to load libcublasLt.so.13\n")

    def InferenceSession(
        self,
        path: str,
        options: Any,  # noqa: ANN401
        providers: Any,  # noqa: ANN401
        enable_fallback: int = 1,
    ) -> Any:  # noqa: ANN401
        assert bool(enable_fallback) == (len(providers) > 1)
        self.asked.append(providers[0])
        on_cuda = providers[0] != "CPUExecutionProvider"
        if on_cuda:
            os.write(2, self.prints.encode())
            if self.raises:
                raise RuntimeError(self.raises)
        real = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        if not on_cuda:
            return real
        parts = [
            SimpleNamespace(
                ep_name=provider,
                get_nodes=lambda d=domain, o=operator: [
                    SimpleNamespace(domain=d, op_type=o, name=f"the {o}")
                ],
            )
            for provider, domain, operator in self.places
        ]
        return SimpleNamespace(
            get_providers=lambda: [self.claims],
            get_provider_graph_assignment_info=lambda: parts,
            get_inputs=real.get_inputs,
            get_outputs=real.get_outputs,
            get_modelmeta=real.get_modelmeta,
            io_binding=real.io_binding,
            run_with_iobinding=real.run_with_iobinding,
            run=real.run,
        )


@pytest.fixture
def disguise(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Disguised]:
    """Make the next sessions' runtime: with a card, and operators that are emulated."""

    def make(**how: Any) -> Disguised:  # noqa: ANN401
        runtime = Disguised(**how)
        monkeypatch.setattr(session, "import_runtime", lambda: runtime)
        monkeypatch.setattr(session, "find_card", lambda *_: CARD)
        own = session.ops_library

        def library(kind: str = "cpu") -> Path | None:
            return emulated_cuda() if kind == "cuda" else own()

        monkeypatch.setattr(session, "ops_library", library)
        real = session.Lane

        def lane(*arguments: Any, **options: Any) -> session.Lane:  # noqa: ANN401
            runtime.lanes.append(options)
            return real(*arguments, **options, device_type="cpu")

        monkeypatch.setattr(session, "Lane", lane)
        return runtime

    return make


MISSING = (
    "\x1b[1;31m[E:onnxruntime] Failed to load library"
    " /x/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open"
    " shared object file: No such file or directory\n\x1b[m"
)
# As onnxruntime-gpu 1.31 prints them.
LOG = "\x1b[1;31m2026-11-27 01:32:05.67 [{}:onnxruntime:Default, x.cc:1 f] {}\n\x1b[m"
DAMAGED = (
    "/o/x.cc:2043 Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library"
    " /x/libonnxruntime_providers_cuda.so with error: /x/libcublasLt.so.13: file too"
    " short"
)
ADVICE = (
    "Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*. Please"
    " install all dependencies as mentioned in the GPU requirements page"
    " (https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html"
    "#requirements), make sure they're in the PATH, and that your GPU is supported."
)
FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "a CPU session": (
        {},
        "expected a session on CUDA, got one on CPUExecutionProvider:"
        " Failed to load libcublasLt.so.13 - at `device`." + GPU,
    ),
    "a missing library": (
        {"prints": MISSING},
        "expected the library libcublasLt.so.13, which the runtime's CUDA needs, got"
        " none - at `device`." + GPU,
    ),
    "no kernel without it": (
        {"prints": MISSING, "raises": "Could not find an implementation"},
        "expected the library libcublasLt.so.13, which the runtime's CUDA needs, got"
        " none - at `device`." + GPU,
    ),
    "a library of Windows": (
        {"prints": 'LoadLibrary failed, error 126 "" when trying "cudnn64_9.dll"\n'},
        "expected the library cudnn64_9.dll, which the runtime's CUDA needs, got none"
        " - at `device`." + GPU,
    ),
    "a failing card": (
        {"prints": "x\nCUDA failure 35: CUDA driver version is insufficient ; GPU=0\n"},
        "expected a session on CUDA, got one on CPUExecutionProvider: CUDA failure 35:"
        " CUDA driver version is insufficient - at `device`." + GPU,
    ),
    "a damaged library": (
        {"prints": LOG.format("E", DAMAGED) + LOG.format("W", ADVICE)},
        "expected a session on CUDA, got one on CPUExecutionProvider:"
        " /x/libcublasLt.so.13: file too short - at `device`." + GPU,
    ),
    "advice alone": (
        {"prints": LOG.format("W", ADVICE)},
        "expected a session on CUDA, got one on CPUExecutionProvider: "
        + ADVICE[:300]
        + " - at `device`."
        + GPU,
    ),
    "an error of the card": (
        {"raises": "CUDA failure 700: an illegal memory access ; GPU=0"},
        "expected a card that works, got CUDA failure 700: an illegal memory access"
        " - at `cuda:0`",
    ),
    "no memory": (
        {"raises": "BFCArena: Failed to allocate memory for requested buffer"},
        "expected memory on the card, got none left - at `cuda:0`. Free the card, score"
        " fewer rows at a time, convert with --embedding-dtype fp16, or give"
        ' tables="host".',
    ),
    "products on the CPU": (
        {
            "claims": "CUDAExecutionProvider",
            "places": (
                ("CPUExecutionProvider", "", "Shape"),
                ("CUDAExecutionProvider", "", "Gemm"),
                ("CPUExecutionProvider", "", "Gemm"),
                ("CPUExecutionProvider", "din_infer", "LocalActivation"),
            ),
        },
        "expected every product and attention on CUDA, got 2 on the CPU: Gemm the Gemm,"
        " LocalActivation the LocalActivation - at `cuda:0`",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_cuda_never_scores_on_the_cpu(
    case: str,
    model: Path,
    disguise: Callable[..., Disguised],
    capfd: pytest.CaptureFixture[str],
) -> None:
    how, wanted = FAILURES[case]
    disguise(**how)
    with pytest.raises(DeviceError) as caught:
        Predictor(model, device="cuda")
    assert str(caught.value) == wanted
    with pytest.warns(UserWarning, match="scoring on the CPU") as warned:
        fallen = Predictor(model, device="auto")
    assert [str(w.message) for w in warned] == [f"scoring on the CPU: {wanted}"]
    assert fallen.device == "cpu"
    rows = random_rows(fallen.spec, 20)
    own = Predictor(model, device="cpu")
    np.testing.assert_array_equal(fallen.score(rows), own.score(rows))
    assert capfd.readouterr() == ("", "")  # the error says it


def test_a_file_that_is_wrong_is_wrong_on_cuda_too(
    model: Path, disguise: Callable[..., Disguised]
) -> None:
    disguise(raises="INVALID_PROTOBUF")
    for kind in ("cuda", "auto"):
        with pytest.raises(ModelError, match="got INVALID_PROTOBUF"):
            Predictor(model, device=kind)


def test_a_session_on_cuda_scores_through_the_lane(
    model: Path,
    disguise: Callable[..., Disguised],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """All of the way but the card: options, library, precision, bindings, slices."""
    runtime = disguise(claims="CUDAExecutionProvider", prints="a warning\n")
    wanted = Predictor(model, device="cpu")
    rows = random_rows(wanted.spec, 50)
    for precision, near in (("fp32", 1e-5), ("tf32x3", 1e-5), ("bf16", 2e-2)):
        got = Predictor(model, device="cuda", precision=precision)
        assert (got.device, got.fused, got.precision) == ("cuda:0", True, precision)
        for size in (None, 7):
            np.testing.assert_allclose(
                got.score(rows, batch_size=size), wanted.score(rows), atol=near
            )
        one = got.score_requests(rows[:1], rows)
        np.testing.assert_allclose(
            one, wanted.score_requests(rows[:1], rows), atol=near
        )
        streamed = list(got.iter_score([rows, rows[:3]]))
        np.testing.assert_allclose(streamed[1], wanted.score(rows[:3]), atol=near)
    name, settings = next(a for a in runtime.asked if a != "CPUExecutionProvider")
    assert name == "CUDAExecutionProvider"
    assert settings["use_tf32"] == "0"
    assert int(settings["user_compute_stream"]) != 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "a warning" in err
    assert "Failed to load libcublasLt.so.13" in err  # and it was not needed


def test_placement_is_read_from_the_runtimes_own_objects(model: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    made = onnxruntime.InferenceSession(
        str(model), options, providers=["CPUExecutionProvider"]
    )
    if not hasattr(made, "get_provider_graph_assignment_info"):
        device.check_placement(made, 0)
        return
    with pytest.raises(DeviceError, match=r"got \d+ on the CPU: MatMul _inlfunc_Local"):
        device.check_placement(made, 0)


def test_a_predictor_that_goes_frees_its_memory(
    model: Path, disguise: Callable[..., Disguised]
) -> None:
    disguise(claims="CUDAExecutionProvider")
    got = Predictor(model, device="cuda")
    lane = got._session._lane
    assert lane is not None
    assert lane._slots or lane._replayed  # of the golden rows
    del got
    gc.collect()
    assert not lane._slots
    assert not lane._replayed


def test_a_session_that_cannot_replay_is_made_without(
    model: Path, disguise: Callable[..., Disguised], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = disguise(claims="CUDAExecutionProvider")
    make = Disguised.InferenceSession

    def refuses(self: Disguised, path: str, options: Any, providers: Any) -> Any:  # noqa: ANN401
        if "enable_cuda_graph" in providers[0][1]:
            self.asked.append(providers[0])
            message = "This session cannot use the CUDA Graph feature"
            raise RuntimeError(message)
        return make(self, path, options, providers)

    monkeypatch.setattr(Disguised, "InferenceSession", refuses)
    got = Predictor(model, device="cuda")
    assert got.fused
    assert ["enable_cuda_graph" in s for _, s in runtime.asked] == [True, False]


def test_tables_of_the_host(model: Path, disguise: Callable[..., Disguised]) -> None:
    runtime = disguise(claims="CUDAExecutionProvider")
    got = Predictor(model, device="cuda", tables="host")
    (_, settings), *others = runtime.asked
    assert not others
    names = ("gpu_external_alloc", "gpu_external_free", "gpu_external_empty_cache")
    addresses = {int(settings[name]) for name in names}
    assert len(addresses - {0}) == 3
    # the runtime refuses either beside an allocator
    assert not {"enable_cuda_graph", "user_compute_stream"} & set(settings)
    # it then computes on the default stream: so must the lane, or ids come too late
    assert [options["own_stream"] for options in runtime.lanes] == [False]
    Predictor(model, device="cuda")
    assert [options["own_stream"] for options in runtime.lanes[1:]] == [True]
    rows = random_rows(got.spec, 9)
    own = Predictor(model, device="cpu")
    np.testing.assert_allclose(got.score(rows), own.score(rows), atol=1e-5)
    assert got._session.tables == "host"


def test_a_model_that_does_not_fit_lies_on_the_host(
    model: Path, disguise: Callable[..., Disguised], monkeypatch: pytest.MonkeyPatch
) -> None:
    disguise(claims="CUDAExecutionProvider")
    full = Card(0, "Fake 0", 1 << 36, 1 << 20)
    monkeypatch.setattr(session, "find_card", lambda *_: full)
    with pytest.raises(DeviceError) as caught:
        Predictor(model, device="cuda")
    assert str(caught.value) == (
        "expected 0.25 GiB free for the weights, got 0.00 GiB of 64.00 GiB"
        " - at `cuda:0 (Fake 0)`. Convert with --embedding-dtype fp16, or give"
        ' tables="host".'
    )
    assert Predictor(model, device="cuda", tables="host").device == "cuda:0"


def test_tables_of_the_host_need_a_runtime_that_was_tested(
    model: Path, disguise: Callable[..., Disguised], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = disguise(claims="CUDAExecutionProvider")
    told = "x, cuda-plugin-ep=1.30"
    monkeypatch.setattr(runtime, "get_build_info", lambda: told, raising=False)
    assert Predictor(model, device="cuda").fused
    with pytest.raises(DeviceError) as caught:
        Predictor(model, device="cuda", tables="host")
    assert str(caught.value) == (
        "expected a runtime with CUDA built in, got one that loads it as a plugin"
        " - at `tables`"
    )


def test_memory_for_the_runtime(disguise: Callable[..., Disguised]) -> None:
    """Of the functions that tables="host" gives it: every size, from every thread."""
    disguise()
    lane = session.Lane(emulated_cuda(), 0, ())
    options = lane.memory_options()
    take = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(
        int(options["gpu_external_alloc"])
    )
    give = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(int(options["gpu_external_free"]))
    lane.enter(loads=True)
    taken = [take(size) for size in (1, 1 << 10, 1 << 24, 1 << 25)]
    assert len(set(taken)) == 4
    for address in taken:
        ctypes.memset(address, 1, 1)
        give(address)
    give(None)
    lane.close()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "tf32 on the CPU": (
        {"device": "cpu", "precision": "tf32"},
        "expected fp32 or bf16, got 'tf32' - at `precision`",
    ),
    "no such precision": (
        {"device": "auto", "precision": "fp8"},
        "expected fp32 or tf32x3 or tf32 or bf16, got 'fp8' - at `precision`",
    ),
    "tables of the host on the CPU": (
        {"device": "cpu", "tables": "host"},
        "expected device on the CPU, got 'host' - at `tables`. device=\"cuda\" has it.",
    ),
    "no such tables": (
        {"device": "cpu", "tables": "disk"},
        "expected device or host, got 'disk' - at `tables`",
    ),
    "bf16 without operators": (
        {"device": "cpu", "precision": "bf16", "fused": False},
        "expected the native operators on a CPU with AMX, got fused=False on cpu"
        " - at `precision`",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_device_does_not_have_is_refused(case: str, model: Path) -> None:
    how, wanted = REFUSED[case]
    with pytest.raises(DeviceError) as caught:
        Predictor(model, **how)
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    ("how", "got", "name"),
    [
        ({"fused": False, "precision": "tf32"}, "fused=False", "precision"),
        ({"fused": False, "tables": "host"}, "fused=False", "tables"),
    ],
)
def test_what_needs_the_operators_is_refused_without(
    model: Path,
    disguise: Callable[..., Disguised],
    how: dict[str, Any],
    got: str,
    name: str,
) -> None:
    disguise(claims="CUDAExecutionProvider")
    with pytest.raises(DeviceError) as caught:
        Predictor(model, device="cuda", **how)
    wanted = f"expected the native operators for CUDA, got {got} - at `{name}`"
    assert str(caught.value) == wanted


def test_a_package_built_without_the_operators(
    model: Path, disguise: Callable[..., Disguised], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models run on their functions there, and it is said."""
    disguise(claims="CUDAExecutionProvider")
    monkeypatch.setattr(session, "ops_library", lambda *_: None)
    got = Predictor(model, device="cuda")
    assert (got.device, got.fused) == ("cuda:0", False)
    with pytest.raises(DeviceError, match="got a package not built with them"):
        Predictor(model, device="cuda", precision="tf32")


def test_a_wheel_of_operators_must_be_of_the_same_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(session, "__file__", str(tmp_path / "session.py"))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(session, "__version__", "1.2.0")
    assert session.ops_library("cuda") is None
    (tmp_path / "din_infer_cuda.dist-info").mkdir()
    metadata = tmp_path / "din_infer_cuda.dist-info" / "METADATA"
    metadata.write_text("Name: din-infer-cuda\nVersion: 1.1.0\n")
    with pytest.raises(DeviceError) as caught:
        session.ops_library("cuda")
    assert str(caught.value) == (
        "expected 1.2.0, as din-infer, got 1.1.0 - at `din-infer-cuda`."
        ' Run: pip install "din-infer[gpu]==1.2.0"'
    )
    metadata.write_text("Name: din-infer-cuda\nVersion: 1.2.0\n")
    found = session.ops_library("cuda")
    assert found == tmp_path / "din_infer_cuda" / "_ops_cuda.so"


@pytest.mark.parametrize("content", [b"no library", None])
def test_operators_of_another_build_are_told(
    content: bytes | None,
    model: Path,
    driver: Path,
    disguise: Callable[..., Disguised],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    disguise(claims="CUDAExecutionProvider")
    path = tmp_path / "_ops_cuda.so"
    path.write_bytes(content or driver.read_bytes())
    own = session.ops_library
    monkeypatch.setattr(
        session, "ops_library", lambda kind="cpu": path if kind == "cuda" else own(kind)
    )
    with pytest.raises(DeviceError) as caught:
        Predictor(model, device="cuda")
    said = "undefined symbol: din_lane_open" if content is None else "file too short"
    assert str(caught.value) == (
        f"expected the native operators of this din-infer, got {path}: {said}"
        f" - at `{path}`. Reinstall din-infer."
    )
    with pytest.warns(UserWarning, match="scoring on the CPU: expected the native"):
        assert Predictor(model, device="auto").device == "cpu"


def test_a_model_too_wide_for_the_card_runs_on_its_functions(
    model: Path, disguise: Callable[..., Disguised], monkeypatch: pytest.MonkeyPatch
) -> None:
    disguise(claims="CUDAExecutionProvider")
    monkeypatch.setenv("DIN_EMULATE_SHARED", "1000")
    with pytest.warns(UserWarning, match="functions") as warned:
        got = Predictor(model, device="cuda")
    assert [str(w.message) for w in warned] == [
        "running the model's functions: expected layers that fit into a multiprocessor,"
        " got wider ones"
    ]
    assert not got.fused
    rows = random_rows(got.spec, 9)
    own = Predictor(model, device="cpu", fused=False)
    np.testing.assert_allclose(got.score(rows), own.score(rows), atol=1e-6)
    for how, name in (
        ({"precision": "tf32"}, "precision"),
        ({"tables": "host"}, "tables"),
    ):
        with pytest.raises(DeviceError) as caught:
            Predictor(model, device="cuda", **how)
        assert str(caught.value) == (
            "expected the native operators for CUDA, got a model too wide for them"
            " (expected layers that fit into a multiprocessor, got wider ones)"
            f" - at `{name}`"
        )


@pytest.mark.parametrize(
    ("flag", "value", "wanted"),
    [
        ("--precision", "tf32", "expected fp32 or bf16, got 'tf32' - at `precision`"),
        ("--tables", "host", "expected device on the CPU, got 'host' - at `tables`."),
    ],
)
def test_din_score_says_it_too(
    flag: str,
    value: str,
    wanted: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    words = [str(model), "rows.parquet", "--out", str(out), "--device", "cpu"]
    assert main([*words, flag, value]) != 0
    assert wanted in capsys.readouterr().err
    assert not out.exists()


# ---- what is printed ----


def test_what_c_code_prints_is_captured(capfd: pytest.CaptureFixture[str]) -> None:
    with capture_output() as printed:
        os.write(1, b"one\n")
        os.write(2, b"\x1b[1;31mtwo\x1b[m\n")
    assert printed.text == "one\ntwo\n"

    def fails() -> None:
        nonlocal printed
        with capture_output() as printed:
            os.write(2, b"three")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert printed.text == "three"
    os.write(1, b"four")
    assert capfd.readouterr() == ("four", "")
    device.reprint("five")
    device.reprint("")
    assert capfd.readouterr() == ("", "five\n")


def test_what_python_buffers_is_captured(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `preload_dlls` prints, into a pipe."""
    with open(1, "w", closefd=False) as stream:
        monkeypatch.setattr("sys.stdout", stream)
        stream.write("before\n")
        with capture_output() as printed:
            stream.write("within\n")
        stream.flush()
        monkeypatch.undo()
    assert printed.text == "within\n"
    assert capfd.readouterr().out == "before\n"


@pytest.mark.skipif(sys.platform != "linux", reason="in memory on Linux alone")
def test_captures_without_a_folder_to_write_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    with capture_output() as printed:
        os.write(2, b"x")
    assert printed.text == "x"


def test_captures_without_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with capture_output() as printed:
        os.write(2, b"x")
    assert printed.text == "x"


# ---- with a card ----


@pytest.mark.gpu
@pytest.mark.parametrize("name", SPECS)
def test_every_model_on_a_card_equals_the_cpu(name: str, tmp_path: Path) -> None:
    path = tmp_path / "din.onnx"
    convert(random_model(SPECS[name]), path)
    wanted = Predictor(path, device="cpu")
    for fused in (True, False):
        got = Predictor(path, device="cuda", fused=fused)
        assert got.device == "cuda:0"
        for count in (1, 2, 4096):
            rows = random_rows(wanted.spec, count)
            np.testing.assert_allclose(
                got.score(rows), wanted.score(rows), rtol=1e-5, atol=1e-5
            )
        for _ in range(4):  # replayed from the third on
            np.testing.assert_allclose(
                got.score_requests(rows[:1], rows[:50]),
                wanted.score_requests(rows[:1], rows[:50]),
                rtol=1e-5,
                atol=1e-5,
            )


@pytest.mark.parametrize(
    ("cause", "wanted"), [("KeyboardInterrupt", KeyboardInterrupt), ("OSError", None)]
)
def test_an_import_that_is_interrupted_is_no_runtime_that_is_missing(
    cause: str,
    wanted: type[BaseException] | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    lines = ["try:", f"    raise {cause}", f"except {cause} as error:"]
    lines += ["    raise ImportError('initialization failed') from error"]
    (tmp_path / "onnxruntime.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime")
    with pytest.raises(wanted or DeviceError):
        device.import_runtime()
