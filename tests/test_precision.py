import subprocess
import sys
from pathlib import Path

import pytest
import torch

from din_converter import convert, save
from din_converter.model import ClickModel
from din_converter.precision import computing_in
from din_converter.verify import edge_batches, torch_logits
from tests.models import SPECS, random_model, spec_dict

pytestmark = pytest.mark.slow

# VmHWM, since ru_maxrss begins with what the process that started this one held.
CHILD = """
import re, sys
from din_converter.cli import convert_main
assert convert_main(sys.argv[1:]) == 0
with open("/proc/self/status") as status:
    print(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1])
"""


def model_of(goods: int) -> ClickModel:
    raw = spec_dict()
    raw["candidate"][0] |= {"dim": 32, "encoder": {"type": "hash", "buckets": goods}}
    return random_model(raw)


def peak_bytes(model: Path, dtype: str) -> int:
    words = [str(model), "--out", str(model.with_suffix(".onnx"))]
    words += ["--embedding-dtype", dtype]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return 1024 * int(done.stdout.split()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_conversion_takes_at_most_two_and_a_half_times_its_tables(
    tmp_path: Path,
) -> None:
    size = 150_000_000
    for name, goods in (("small", 100), ("large", size // 128)):
        save(model_of(goods), tmp_path / f"{name}.pt")
    base = peak_bytes(tmp_path / "small.pt", "fp16")
    for dtype in ("fp32", "fp16"):
        assert peak_bytes(tmp_path / "large.pt", dtype) - base < 2.5 * size, dtype


@pytest.mark.parametrize("name", SPECS)
def test_shared_tables_give_the_logits_of_converted_ones(name: str) -> None:
    model = random_model(SPECS[name])
    exact = computing_in(torch.float64, model)
    for key, table in model.tables.items():
        assert exact.tables[key].weight.data_ptr() == table.weight.data_ptr()
    found = [torch_logits(exact, inputs) for _, inputs in edge_batches(model.spec)]
    again = computing_in(torch.float32, exact)
    single = [torch_logits(again, inputs) for _, inputs in edge_batches(model.spec)]
    for logits, (label, inputs) in zip(single, edge_batches(model.spec), strict=True):
        assert (logits == torch_logits(model, inputs)).all(), label
    model.double()
    for logits, (label, inputs) in zip(found, edge_batches(model.spec), strict=True):
        assert (logits == torch_logits(model, inputs)).all(), label


def test_a_model_in_half_precision_keeps_its_values(tmp_path: Path) -> None:
    model = random_model(SPECS["paper"]).bfloat16()
    convert(model, tmp_path / "m.onnx", embedding_dtype="fp16")
    exact = computing_in(torch.float64, model)
    model.double()
    for label, inputs in edge_batches(model.spec):
        assert (torch_logits(exact, inputs) == torch_logits(model, inputs)).all(), label
