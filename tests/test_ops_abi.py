"""The slice of ONNX Runtime's ABI in csrc/ops/ort_abi.h, in the oldest and the newest
supported runtime: each in a process of its own, through every function that is used.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from din_infer import FeatureSpec
from din_infer.session import ops_library
from tests import reference_ops
from tests.oldest import oldest_runtime
from tests.ops import (
    Arrays,
    Graph,
    attention_feeds,
    attention_graph,
    bag_graph,
    guard_feeds,
    guard_graph,
    tower_feeds,
    tower_graph,
)
from tests.raw import encode_graph

ROOT = Path(__file__).resolve().parents[1]

# Runs every case of a folder with the runtime of this process. A wrong place in the
# table would crash it, or give another result.
SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
import onnxruntime

folder, library = Path(sys.argv[1]), sys.argv[2]
cases = json.loads((folder / "cases.json").read_text())
answers = {"version": onnxruntime.__version__}
for name, case in cases.items():
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 4
        for key, value in case["config"].items():
            options.add_session_config_entry(key, value)
        options.register_custom_ops_library(library)
        session = onnxruntime.InferenceSession(
            str(folder / f"{name}.onnx"), options, ["CPUExecutionProvider"]
        )
        feeds = dict(np.load(folder / f"{name}.npz"))
        np.savez(folder / f"{name}.out.npz", *session.run(None, feeds))
        answers[name] = None
    except Exception as error:
        answers[name] = str(error)
(folder / "answers.json").write_text(json.dumps(answers))
"""

# What goes wrong, or is not reached, when the function's place is another's.
NEEDED_BY = {
    "CreateStatus": "wrong id",
    "GetErrorMessage": "no attribute",
    "CreateCustomOpDomain": "attention",
    "CustomOpDomain_Add": "attention",
    "AddCustomOpDomain": "attention",
    "GetTensorMutableData": "attention",
    "GetStringTensorDataLength": "strings",
    "GetStringTensorContent": "strings",
    "GetTensorElementType": "attention",
    "GetDimensionsCount": "attention",
    "GetDimensions": "attention",
    "GetTensorTypeAndShape": "attention",
    "KernelInfoGetAttribute_float": "bag",
    "KernelInfoGetAttribute_int64": "attention",
    "KernelInfoGetAttribute_string": "attention",
    "KernelContext_GetInput": "attention",
    "KernelContext_GetOutput": "attention",
    "ReleaseStatus": "no attribute",
    "ReleaseTensorTypeAndShapeInfo": "attention",
    "ReleaseCustomOpDomain": "",  # only when a runtime refuses an operator's domain
    "KernelInfoGetAttributeArray_int64": "attention",
    "KernelContext_GetGPUComputeStream": "",  # of CUDA; tests/test_cuda_ops.py calls it
    "KernelInfo_GetInputCount": "attention",
    "KernelInfo_GetOutputCount": "attention",
    "HasSessionConfigEntry": "attention",
    "GetSessionConfigEntry": "wrong precision",
    "KernelInfoGetConstantInput_tensor": "attention",
    "KernelContext_ParallelFor": "attention",
}


def test_every_function_of_the_header_is_needed_by_a_case() -> None:
    text = (ROOT / "csrc/ops/ort_abi.h").read_text()
    assert set(re.findall(r"ORT_PLACE\((\w+), \d+\)", text)) == set(NEEDED_BY)
    assert set(NEEDED_BY.values()) - {""} <= set(cases())


class Strings:
    """A graph that hashes string tensors."""

    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [
                {"name": "x", "dim": 1, "encoder": {"type": "hash", "buckets": 999}}
            ],
        }
    )
    keys = ("a", "", "é", "x" * 99)

    def model(self, _: Arrays) -> bytes:
        return encode_graph(self.spec, "strings")

    def wanted(self) -> list[Any]:
        return [self.spec.encode({"x": list(self.keys)})["x"]]


def cases() -> dict[str, tuple[Graph | Strings, Arrays, dict[str, str]]]:
    attention = attention_graph(dims=(20, 9), hidden=[30, 10], half=(True, False))
    feeds = attention_feeds(attention, 900, 300, 30)
    bag = bag_graph("mean", empty=0.5)
    bag_feeds: Arrays = {
        "ids": np.random.default_rng(0).integers(0, 30, (700, 8)),
        "lengths": np.arange(700) % 9,
    }
    bad = {**feeds, "ids_1": feeds["ids_1"] + 40}
    guard = guard_graph()
    joined = guard_feeds(guard, 9, 4) | {"request_of_candidate": np.zeros(9, np.int64)}
    without = attention_graph()
    del without.attributes["softmax"]
    texts: Arrays = {
        "x.values": np.array(Strings.keys),
        "request_of_candidate": np.arange(len(Strings.keys)),
    }
    return {
        "strings": (Strings(), texts, {}),
        "attention": (attention, feeds, {}),
        "bag": (bag, bag_feeds, {"din_infer.precision": "fp32"}),
        "tower": (tower_graph((21, 4)), tower_feeds((21, 4), 999), {}),
        "guard": (guard, guard_feeds(guard, 900, 30), {}),
        "joined": (guard, joined, {}),
        "wrong id": (attention, bad, {}),
        "no attribute": (without, attention_feeds(without, 3, 3, 3), {}),
        "wrong precision": (bag, bag_feeds, {"din_infer.precision": "fp8"}),
    }


def wanted_of(graph: Graph | Strings, feeds: Arrays) -> list[Any]:
    if isinstance(graph, Strings):
        return graph.wanted()
    if graph.name == "LocalActivation":
        inputs = {**graph.constants, **feeds}
        return list(reference_ops.local_activation(graph.attributes, inputs))
    if graph.name == "EmbeddingBag":
        table = graph.constants["table"]
        return [reference_ops.embedding_bag(graph.attributes, **feeds, table=table)]
    if graph.name == "Guard":
        return [np.zeros(len(feeds["request_of_candidate"]))]
    return [reference_ops.tower(graph.attributes, {**graph.constants, **feeds})]


@pytest.mark.parametrize("runtime", ["oldest", "newest"])
def test_every_function_works_in(runtime: str, tmp_path: Path) -> None:
    made = cases()
    for name, (graph, feeds, _) in made.items():
        (tmp_path / f"{name}.onnx").write_bytes(graph.model(feeds))
        np.savez(tmp_path / f"{name}.npz", **feeds)
    configs = {name: {"config": config} for name, (_, _, config) in made.items()}
    (tmp_path / "cases.json").write_text(json.dumps(configs))
    path = {"PYTHONPATH": str(oldest_runtime())} if runtime == "oldest" else {}
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(ops_library())],
        env={**os.environ, **path},
        check=True,
        timeout=300,
    )
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert answers.pop("version").startswith("1.20." if runtime == "oldest" else "1.")
    for name in ("strings", "attention", "bag", "guard", "tower"):
        assert answers.pop(name) is None
        graph, feeds, _ = made[name]
        with np.load(tmp_path / f"{name}.out.npz") as got:
            for output, exact in zip(
                got.values(), wanted_of(graph, feeds), strict=True
            ):
                atol = 2e-6 * np.abs(exact).max()
                np.testing.assert_allclose(output, exact, rtol=0, atol=atol)
    assert "- at `LocalActivation input ids_1[" in answers.pop("wrong id")
    assert "expected a candidate of request 3, the last" in answers.pop("joined")
    missing = answers.pop("no attribute")
    assert "expected such an attribute, got: " in missing
    assert missing.endswith("- at `LocalActivation attribute softmax`")
    wrong = answers.pop("wrong precision")
    assert wrong.endswith("expected fp32 or bf16, got fp8 - at `din_infer.precision`")
    assert not answers
