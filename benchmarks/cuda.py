"""Time LocalActivation on a card, and whole models where ONNX Runtime has CUDA.

Needs no operators for CUDA, and no runtime with CUDA, for the kernels: nvcc compiles
them into a library of their own, which takes torch's tensors. What a bare checkout
needs beside torch and nvcc stands under `example`. Every output is compared with torch
in float64 first; one that is further off than its precision allows ends the run with
status 1. Times are medians of events around each launch, in turns, over several
batches. A rival that fails is left out, and named.

contestants:
  fp32, tf32x3, tf32, bf16   ours, histories packed; -padded: with their padding
  eager, compile             the textbook module in torch, and compiled
  model-*                    the whole model from encoded ids, in ONNX Runtime: ours by
                             Predictor(device="cuda"), `plain` the textbook's export
  strings-*                  the same from raw columns of strings, encoding included

ceilings: a large copy on the device, and square products in each precision, measured in
the same run; `of peak` is a contestant's rate over the product's of its precision.

--emulate compiles the kernels for this processor instead (tests/cuda/): it shows that
the harness and the kernels are right, and its times mean nothing.

example:
  pip install numpy onnx onnxruntime tqdm pyyaml cython setuptools
  DIN_NVCC= python setup.py build_ext --inplace
  PYTHONPATH=converter python -m benchmarks.cuda --json out.json
"""

import argparse
import ctypes
import json
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.graphs import (
    Inputs,
    Scenario,
    Sizes,
    cut_attention,
    exact_interest,
    exact_model,
    make_model,
    make_pool,
)
from benchmarks.rivals import (
    ATTENTION_INPUTS,
    MODEL_INPUTS,
    textbook_attention,
    textbook_din,
)
from din_converter import DIN, convert
from din_infer.whole_file import write_whole

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "csrc" / "ops"
# in the order of din_precision, with what each may be off by: |error| / |exact|
PRECISIONS = {"fp32": 1e-6, "bf16": 1e-2, "tf32": 3e-3, "tf32x3": 1e-5}
PEAK_OF = {"fp32": "fp32", "bf16": "bf16", "tf32": "tf32", "tf32x3": "tf32"}
ID_FIELDS = (("hist_goods_id", "goods_id"), ("hist_cate_id", "cate_id"))
Run = Callable[[], Any]


def build(folder: Path, emulate: bool) -> Any:  # noqa: ANN401
    """Compile the kernels and the harness into one library."""
    library = folder / "harness.so"
    listed = tomllib.loads((ROOT / "csrc" / "libraries.toml").read_text())["ops_cuda"]
    sources = [ROOT / name for name in listed if name.endswith(".cu")]
    sources.append(ROOT / "benchmarks" / "cuda_harness.cu")
    if emulate:
        command = [
            shutil.which("c++") or "c++",
            "-std=c++17",
            "-O2",
            "-fPIC",
            "-shared",
        ]
        command += ["-DDIN_EMULATE", "-Wno-unknown-pragmas", "-include"]
        command += [str(ROOT / "tests" / "cuda" / "emulation.h"), "-x", "c++"]
    else:
        nvcc = shutil.which("nvcc", path="/usr/local/cuda/bin") or "nvcc"
        nvcc = shutil.which("nvcc") or nvcc
        command = [nvcc, "-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC"]
        command += ["-gencode", "arch=compute_80,code=sm_80", "-lineinfo"]
        command += ["-gencode", "arch=compute_90,code=sm_90"]
    command += [f"-I{SOURCES}", "-o", str(library), *map(str, sources)]
    subprocess.run(command, check=True)
    made = ctypes.CDLL(str(library))
    made.harness_create.restype = made.harness_run.restype = ctypes.c_char_p
    return made


def check(failed: bytes | None) -> None:
    """End the run with what the library says."""
    if failed is not None:
        raise SystemExit(failed.decode())


class Kernels:
    """One LocalActivation of the harness, on torch's tensors."""

    def __init__(
        self,
        library: Any,  # noqa: ANN401
        path: Path,
        model: DIN,
        precision: str,
        device: str,
    ) -> None:
        self.library, self.device = library, device
        _, cut = cut_attention(path)
        graph = onnx.load(cut).graph
        node = next(n for n in graph.node if n.op_type == "LocalActivation")
        arrays = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        first = next(i for i, n in enumerate(node.input) if n.endswith("weight_query"))
        weights = [np.ascontiguousarray(arrays[n]) for n in node.input[first:]]
        self.width = weights[0].shape[0]
        hidden = (ctypes.c_int64 * 2)(weights[0].shape[1], weights[7].shape[1])
        places = (ctypes.c_void_p * len(weights))(*(w.ctypes.data for w in weights))
        self.handle = ctypes.c_void_p()
        arithmetic = list(PRECISIONS).index(precision)
        check(
            library.harness_create(
                ctypes.c_int64(self.width),
                hidden,
                ctypes.c_int64(2),
                places,
                arithmetic,
                ctypes.byref(self.handle),
            )
        )
        names = ("goods_id", "cate_id")
        self.tables = [
            cast("torch.Tensor", model.tables[f"of_{n}"].weight).detach().to(device)
            for n in names
        ]

    def prepare(self, inputs: Inputs, packed: bool) -> tuple[Run, torch.Tensor]:
        """Put a batch on the device; returns what runs it, and the interest."""
        lengths = inputs["history.lengths"]
        batch = {k: v for k, v in inputs.items() if k != "user_id"}
        if packed:
            valid = np.arange(batch["hist_goods_id"].shape[1]) < lengths[:, None]
            batch["history.lengths"] = np.concatenate([[0], lengths.cumsum()])
            for name, _ in ID_FIELDS:
                batch[name] = batch[name][valid][None]
        on = {k: torch.from_numpy(v).to(self.device) for k, v in batch.items()}
        count = len(inputs["request_of_candidate"])
        interest = torch.full((count, self.width), float("nan"), device=self.device)
        addresses = [on["request_of_candidate"], on["history.lengths"], interest]
        shapes: list[int] = []
        for (ids, candidate), table in zip(ID_FIELDS, self.tables, strict=True):
            addresses += [on[ids], on[candidate], table]
            shapes += table.shape
        places = (ctypes.c_void_p * len(addresses))(*(a.data_ptr() for a in addresses))
        sizes = (ctypes.c_int64 * 4)(
            count, len(lengths), on[ID_FIELDS[0][0]].shape[1], int(packed)
        )
        tables = (ctypes.c_int64 * 4)(*shapes)

        def run() -> list[torch.Tensor]:
            stream = None
            if self.device == "cuda":
                stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            check(
                self.library.harness_run(
                    self.handle, sizes, places, tables, ctypes.c_int64(2), stream
                )
            )
            return addresses  # alive as long as this is

        return run, interest


def seconds_of(
    runs: Mapping[str, list[Run]], rounds: int, device: str
) -> dict[str, float]:
    """Take turns; returns the median seconds of one run of each."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 2):
        for name, some in runs.items():
            run = some[round_ % len(some)]
            if device == "cuda":
                start, end = (
                    torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
                    for _ in range(2)
                )
                start.record()
                run()
                end.record()
                torch.cuda.synchronize()
                seconds = start.elapsed_time(end) / 1e3
            else:
                before = time.perf_counter()
                run()
                seconds = time.perf_counter() - before
            if round_ >= 2:  # the first two warm up
                taken[name].append(seconds)
    return {name: float(np.median(times)) for name, times in taken.items()}


def measure_ceilings() -> dict[str, float]:
    """Bytes/s of a copy, FLOP/s of products on random data."""
    found: dict[str, float] = {}
    source = torch.rand(1 << 30, device="cuda")
    target = torch.empty_like(source)
    runs: dict[str, list[Run]] = {"copy": [lambda: target.copy_(source)]}
    size = 8192
    single = [torch.randn(size, size, device="cuda") for _ in range(2)]
    half = [x.bfloat16() for x in single]

    def product(tf32: bool) -> Run:
        def run() -> None:
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.mm(*single)
            torch.backends.cuda.matmul.allow_tf32 = False

        return run

    runs |= {"fp32": [product(False)], "tf32": [product(True)]}
    runs["bf16"] = [lambda: torch.mm(*half)]
    for name, seconds in seconds_of(runs, 10, "cuda").items():
        work = 2 * source.nbytes if name == "copy" else 2 * size**3
        found[name] = work / seconds
    return found


def attention(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare and time the kernels against torch, without ONNX Runtime."""
    device = "cpu" if args.emulate else "cuda"
    sizes = Sizes(users=100, goods=args.rows, cates=1000, dim=args.dim)
    model = make_model(sizes, args.t, args.seed)
    path = folder / "model.onnx"
    convert(model, path)
    scenario = Scenario(
        name="uniform",
        about="lengths uniform in 1..T",
        candidates=args.n,
        requests=args.n,
        positions=args.t,
        lengths="uniform",
    )
    pool = make_pool(model.spec, scenario, args.pool, args.seed)
    exact = exact_model(model)
    few = min(args.n, 2048)  # compared: all of it would take minutes in float64
    wanted = [exact_interest(exact, _first(b, few)) for b in pool[:2]]
    library = build(folder, args.emulate)
    runs: dict[str, list[Run]] = {}
    errors: dict[str, float] = {}
    left_out: dict[str, str] = {}  # contestants, with what they failed by
    for precision in PRECISIONS:
        for packed in (True, False):
            name = precision if packed else f"{precision}-padded"
            kernels = Kernels(library, path, model, precision, device)
            ready = [kernels.prepare(inputs, packed) for inputs in pool]
            runs[name] = [run for run, _ in ready]
            off = []
            for (run, interest), right in zip(ready, wanted, strict=False):
                run()
                got = interest[:few].cpu().numpy()
                off.append(np.linalg.norm(got - right) / np.linalg.norm(right))
            errors[name] = float(np.max(off))
            if not errors[name] <= PRECISIONS[precision]:
                message = f"{name} is off by {errors[name]:.1e}"
                raise SystemExit(message)
    if not args.emulate:
        textbook = textbook_attention(model).to(device)
        rivals: dict[str, Callable[[], Any]] = {
            "eager": lambda: textbook,
            "compile": lambda: torch.compile(textbook, dynamic=False),
        }
        more, wrong, left_out = try_rivals(rivals, pool, device, wanted[0])
        runs |= more
        errors |= wrong
    pairs = float(np.mean([b["history.lengths"].sum() for b in pool]))
    ceilings = {} if args.emulate else measure_ceilings()
    rows = {}
    for name, seconds in seconds_of(runs, args.rounds, device).items():
        rate = pairs * sizes.flops_per_pair / seconds
        peak = ceilings.get(PEAK_OF.get(name.partition("-")[0], "fp32"))
        rows[name] = {
            "ms": 1e3 * seconds,
            "G pairs/s": pairs / seconds / 1e9,
            "error": errors[name],
            "of peak": rate / peak if peak else None,
        }
    found = {"pairs": pairs, "ceilings": ceilings, "rows": rows}
    return found | {"left_out": left_out}


def try_rivals(
    rivals: Mapping[str, Callable[[], Any]],
    pool: list[Inputs],
    device: str,
    exact: NDArray[Any],
) -> tuple[dict[str, list[Run]], dict[str, float], dict[str, str]]:
    """Run each once on every batch; returns runs, errors, and what others failed by."""
    runs: dict[str, list[Run]] = {}
    errors: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name, make in rivals.items():
        try:
            module = make()
            mine = [_rival(module, b, device, ATTENTION_INPUTS) for b in pool]
            for run in reversed(mine):
                got = run()
            off = got[: len(exact)].cpu().numpy() - exact
        except Exception as error:  # ours are measured all the same
            said = str(error).strip().partition("\n")[0]
            left_out[name] = f"{type(error).__name__}: {said[:300]}"
            continue
        runs[name] = mine
        errors[name] = float(np.linalg.norm(off) / np.linalg.norm(exact))
    return runs, errors, left_out


def _first(inputs: Inputs, count: int) -> Inputs:
    return {k: v[:count] for k, v in inputs.items()}


def _rival(module: Any, inputs: Inputs, device: str, names: tuple[str, ...]) -> Run:  # noqa: ANN401
    on = [torch.from_numpy(inputs[n]).to(device) for n in names]

    def run() -> Any:  # noqa: ANN401
        with torch.inference_mode():
            return module(*on)

    return run


def whole_model(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare and time models in ONNX Runtime on CUDA: from ids, and from strings."""
    import onnxruntime

    from din_infer import Predictor

    sizes = Sizes(users=100_000, goods=args.rows, cates=1000, dim=args.dim)
    model = make_model(sizes, args.t, args.seed, "hash")
    path = folder / "whole.onnx"
    convert(model, path)
    scenario = Scenario("uniform", "whole", args.n, args.n, args.t, "uniform")
    pool = make_pool(model.spec, scenario, args.pool, args.seed)
    textbook = textbook_din(model)
    example = tuple(torch.from_numpy(_first(pool[0], 8)[n]) for n in MODEL_INPUTS)
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in MODEL_INPUTS)
    torch.onnx.export(
        textbook,
        example,
        folder / "plain.onnx",
        input_names=list(MODEL_INPUTS),
        dynamic_shapes=shapes,
        dynamo=True,
    )
    provider = ("CUDAExecutionProvider", {"use_tf32": "0"})
    plain = onnxruntime.InferenceSession(folder / "plain.onnx", providers=[provider])
    runs: dict[str, list[Run]] = {}
    for precision in PRECISIONS:
        ours = Predictor(path, device="cuda", precision=precision)
        score = partial(ours.score_encoded, batch_size=args.n)
        runs[f"model-{precision}"] = [partial(score, b) for b in pool]

    def run_plain(inputs: Inputs) -> Any:  # noqa: ANN401
        return plain.run(None, {n: inputs[n] for n in MODEL_INPUTS})[0]

    def encode_and_run(columns: Mapping[str, Any]) -> Any:  # noqa: ANN401
        return run_plain(model.spec.encode(columns))

    runs["model-plain"] = [partial(run_plain, b) for b in pool]
    strings = _as_strings(pool[0])
    runs["strings-fp32"] = [partial(Predictor(path, device="cuda").score, strings)]
    runs["strings-plain"] = [partial(encode_and_run, strings)]
    right = np.asarray(runs["model-plain"][0]()).reshape(-1)
    rows: dict[str, dict[str, float | None]] = {}
    for name, seconds in seconds_of(runs, args.rounds, "cpu").items():
        error = None
        if name.startswith("model-"):
            got = np.asarray(runs[name][0]()).reshape(-1)
            error = float(np.abs(got - right).max())
        rows[name] = {"ms": 1e3 * seconds, "M rows/s": args.n / seconds / 1e6}
        rows[name]["error"] = error
    return {"rows": rows}


def _as_strings(inputs: Inputs) -> dict[str, Any]:
    """Make raw columns of strings for a batch, one list for each history."""

    def text(ids: NDArray[np.int64]) -> list[str]:
        return [f"key-{i}" for i in ids]

    lengths = inputs["history.lengths"]
    out: dict[str, Any] = {
        n: text(inputs[n]) for n in ("user_id", "goods_id", "cate_id")
    }
    for name, _ in ID_FIELDS:
        rows = zip(inputs[name], lengths, strict=True)
        out[name] = [text(row[:n]) for row, n in rows]
    return out


def show(title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one table."""
    columns = list(next(iter(rows.values())))
    print(f"\n{title}\n{'':16s}" + "".join(f"{c:>14s}" for c in columns))
    for name, row in rows.items():
        cells = ("" if v is None else f"{v:.4g}" for v in row.values())
        print(f"{name:16s}" + "".join(f"{c:>14s}" for c in cells))


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value, text in (
        ("--n", 65536, "candidates of a batch"),
        ("--t", 100, "positions of a history"),
        ("--rows", 1_000_000, "rows of the goods table"),
        ("--dim", 32, "width of an embedding; D is twice that"),
        ("--rounds", 30, "timed runs of each"),
        ("--seed", 0, "of weights and batches"),
        ("--pool", 1 << 29, "bytes of batches to rotate among"),
    ):
        parser.add_argument(name, type=int, default=value, help=f"{text} ({value})")
    parser.add_argument("--emulate", action="store_true", help="without a card")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()
    if not args.emulate and not torch.cuda.is_available():
        print("benchmarks.cuda: needs a card, or --emulate", file=sys.stderr)
        return 1
    device = "emulated" if args.emulate else torch.cuda.get_device_name()
    found: dict[str, Any] = {"device": device, "date": time.strftime("%Y-%m-%d")}
    found["command"] = " ".join(sys.argv[1:])

    def keep() -> None:
        if args.json:
            write_whole(args.json, json.dumps(found, indent=1) + "\n")

    with tempfile.TemporaryDirectory(prefix="din-benchmark-") as name:
        folder = Path(name)
        found["attention"] = attention(args, folder)
        keep()  # whatever becomes of the rest
        title = f"attention on {device}, N {args.n}, T {args.t}, D {2 * args.dim}"
        show(
            title + (", times mean nothing" if args.emulate else ""),
            found["attention"]["rows"],
        )
        for rival, reason in found["attention"]["left_out"].items():
            print(f"{rival} is left out: {reason}")
        if not args.emulate:
            import onnxruntime

            if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
                found["model"] = whole_model(args, folder)
                keep()
                show("whole model, ONNX Runtime on CUDA", found["model"]["rows"])
            else:
                print("\nwhole model: needs onnxruntime-gpu")
    return 0


if __name__ == "__main__":
    sys.exit(main())
