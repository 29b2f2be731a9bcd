"""Programs of torch.export for the tests, good ones and ones that run code."""

import contextlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from din_converter.importers.pt2 import load_program
from din_infer.errors import ConversionError

MODEL = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.item, self.norm = nn.Embedding(9, 4), nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 1)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            scale = torch.softmax(batch["x"], -1)
        pooled = self.item(batch["ids"]).masked_fill(batch["ids"][..., None] == 0, 0.0)
        pooled = self.norm(torch.einsum("btd,bt->bd", pooled, scale))
        return {"y": torch.where(pooled > 0, pooled, 0.1 * pooled) @ self.out.weight.T}


def inputs() -> dict[str, Tensor]:
    ids = torch.arange(12).reshape(4, 3) % 9
    return {"ids": ids, "x": torch.linspace(-1, 1, 12).reshape(4, 3)}


def save_small(path: Path) -> Path:
    """Save a program of two inputs in a dict, of open sizes."""
    torch.manual_seed(0)
    shapes = {"batch": {k: {0: Dim.AUTO, 1: Dim.AUTO} for k in inputs()}}
    program = torch.export.export(Small().eval(), (inputs(),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}


def write(path: Path, found: dict[str, bytes], root: str = "m") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in found.items():
            archive.writestr(f"{root}/{name}", data)
    return path


def edited(good: Path, path: Path, edit: Callable[[Any], None]) -> Path:
    """Change the program's JSON."""
    found = members(good)
    program = json.loads(found[MODEL])
    edit(program)
    return write(path, found | {MODEL: json.dumps(program).encode()})


def refused(path: Path, text: str) -> None:
    with pytest.raises(ConversionError) as caught:
        load_program(path)
    message = str(caught.value)
    assert message.startswith("expected a program that torch.export.save wrote, got ")
    assert text in message
    assert message.endswith(f" - at `{path}`")


class Marks:
    """Runs when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def ran(load: Callable[[], object], marker: Path) -> bool:
    """Whether torch alone runs what the file holds; the marker is gone afterwards."""
    with contextlib.suppress(Exception):
        load()
    there = marker.exists()
    marker.unlink(missing_ok=True)
    return there
