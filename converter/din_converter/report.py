"""The report of a conversion: what was written, proven and measured.

Letters: N candidates, T positions, D width of a behavior, H hidden units.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from din_converter.fusing.cost import Block, layer_flops, operator_flops
from din_converter.prune import Leftovers
from din_converter.rounding import Rounding
from din_converter.verify import Case
from din_infer.formatting import one_line
from din_infer.model_format import TOLERANCE
from din_infer.spec import Behavior

__all__ = ["Report", "Timing", "block_of", "median_ms"]

SECONDS_PER_TIMING = 0.05
FLOAT_BYTES = 4
NOTHING_LEFT = Leftovers()


@dataclass(frozen=True)
class Timing:
    """Median milliseconds of one batch on this machine, in the same minute.

    `before` is torch, and for a module also ONNX Runtime on its plain export; `after`
    the file: on native operators if there are any, and on its function bodies.
    """

    rows: int
    positions: int
    threads: int
    before: dict[str, float]
    after: dict[str, float]

    def __str__(self) -> str:
        ways = [*self.before.items(), *self.after.items()]
        times = ", ".join(f"{way} {ms:.2f} ms" for way, ms in ways)
        behaviors = f" of {self.positions} behaviors" if self.positions else ""
        return f"{self.rows} rows{behaviors}, {self.threads} threads: {times}"


def median_ms(run: Callable[[], object]) -> float:
    """Time a call: the median of at least three runs, in milliseconds."""
    run()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - started < SECONDS_PER_TIMING:
        before = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - before))
    return statistics.median(times)


def block_of(sequence: Behavior, positions: int) -> Block:
    """Describe a sequence of a spec as an attention block.

    Before: what an export of the formula as it is written computes, for every behavior
    [q, k, q - k, q * k] through all layers. After: the first layer folded per
    candidate.
    """
    a, d = sequence.attention, sequence.width
    pairwise_blocks = [d * d if i == "outer" else d for i in a.interactions]
    wide = 2 * d + sum(pairwise_blocks)
    written = wide + d + sum(pairwise_blocks) + 2 * (sum(a.hidden) + 1) + d
    folds = sum(i != "difference" for i in a.interactions)
    return Block(
        name=sequence.name,
        fused=True,
        part="whole",
        width=d,
        hidden=a.hidden,
        activation=a.activation,
        softmax=a.softmax,
        mask="lengths" if sequence.padding == "masked" else "none",
        reads="tables",
        positions=positions,
        flops_before=positions * (2 * d + layer_flops(wide, a.hidden)),
        flops_after=operator_flops(d, a.hidden, folds, positions),
        bytes_before=FLOAT_BYTES * positions * written,
        bytes_after=FLOAT_BYTES * d,
    )


def _bytes(count: int) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.4g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return ""


@dataclass(frozen=True)
class Report:
    """The result of a conversion; `str()` renders it as a table.

    `source` is what was converted: "din-infer", a library's name, or "module".
    `notes` say what the owner of a module may not expect: sizes that it fixes, values
    that are no numbers. `leftovers` are data files in the folder that earlier
    conversions left behind, and `repository` the files that a server reads. `raw` says
    how a graph of raw columns takes text; None: it takes ids.
    """

    path: Path
    data_path: Path | None
    model_id: str
    num_weights: int
    weight_bytes: int
    cases: tuple[Case, ...]
    rounding: Rounding | None = None
    source: str = "din-infer"
    blocks: tuple[Block, ...] = ()
    timing: Timing | None = None
    leftovers: Leftovers = NOTHING_LEFT
    raw: str | None = None
    notes: tuple[str, ...] = ()
    repository: tuple[Path, ...] = ()

    @property
    def ways(self) -> tuple[str, ...]:
        """How the file was run: by "native" ops if there are any, "function bodies"."""
        return tuple(dict.fromkeys(c.way for c in self.cases))

    @property
    def logit_difference(self) -> float:
        """Largest |ONNX Runtime - torch| over all logits compared."""
        return max(c.logit_difference for c in self.cases)

    @property
    def score_difference(self) -> float:
        """Largest |ONNX Runtime - torch| over all scores compared."""
        return max(c.score_difference for c in self.cases)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "path": str(self.path),
            "data_path": str(self.data_path) if self.data_path else None,
            "model_id": self.model_id,
            "source": self.source,
            "num_weights": self.num_weights,
            "weight_bytes": self.weight_bytes,
            "raw": self.raw,
            "leftovers": asdict(self.leftovers),
            "repository": [str(file) for file in self.repository],
            **self.measured(),
        }

    def measured(self) -> dict[str, Any]:
        """Return what goes into the model: blocks, parity, time, rounding."""
        out: dict[str, Any] = {
            "tolerance": TOLERANCE,
            "ways": list(self.ways),
            "logit_difference": self.logit_difference,
            "score_difference": self.score_difference,
            "batches": [asdict(c) for c in self.cases],
            "blocks": [b.to_dict() for b in self.blocks],
            "timing": asdict(self.timing) if self.timing else None,
            "notes": list(self.notes),
        }
        if self.rounding is not None:
            out["embedding_dtype"] = self.rounding.to_dict()
        return out

    def __str__(self) -> str:
        files = str(self.path) + (f" + {self.data_path.name}" if self.data_path else "")
        lines = [
            f"wrote     {files}",
            f"model id  {self.model_id}",
            f"weights   {self.num_weights:,} values, {self.weight_bytes / 1e6:.1f} MB",
            *self._attention(),
            *self._parity(),
            *(f"note      {note}" for note in self.notes),
        ]
        if self.raw is not None:
            how = {
                "arrow": "bytes and int32 offsets",
                "large": "bytes and int64 offsets",
            }
            text = how.get(self.raw, "string tensors")
            lines.insert(1, f"takes     raw columns, text as {text}: docs/raw.md")
        if self.timing is not None:
            lines.append(f"time      {self.timing}")
        if self.rounding is not None:
            first, second = str(self.rounding).splitlines()
            lines += [f"tables    {first}", f"          {second}"]
        for label, file in zip(("triton", *[""] * 9), self.repository, strict=False):
            lines.append(f"{label:<9} {file}")
        return "\n".join(map(one_line, [*lines, *self._leftovers()]))

    def _leftovers(self) -> list[str]:
        left, deleted = self.leftovers.left, self.leftovers.deleted
        lines = []
        for label, files, more in (
            ("unused", left, "" if self.leftovers.reason else "; --prune deletes them"),
            ("deleted", deleted, ""),
        ):
            if files:
                size = _bytes(sum(n for _, n in files))
                lines.append(f"{label:<9} {size} that no .onnx here names{more}")
                lines += [f"          {name}, {_bytes(n)}" for name, n in files]
        if self.leftovers.reason:
            lines.append(f"unused    {self.leftovers.reason}")
        return lines

    def _attention(self) -> list[str]:
        if not self.blocks:
            return ["attention none found"]
        fused = sum(b.fused for b in self.blocks)
        lines = [f"attention {fused} of {len(self.blocks)} blocks fused"]
        for b in self.blocks:
            if not b.fused:
                lines.append(
                    f"          {b.name}: left as it is, because of {b.reason}"
                )
                lines += [f"          at {b.place}"] if b.place else []
                continue
            layers = " -> ".join(map(str, (b.width, *b.hidden, 1)))
            softmax = ", softmax" if b.softmax else ""
            lines.append(
                f"          {b.name}: {layers}, {b.activation}{softmax}; per candidate"
                f" of {b.positions} behaviors"
            )
            if b.part == "scores":
                lines.append(f"          its scores alone, because of {b.reason}")
                lines += [f"          at {b.place}"] if b.place else []
            lines.append(
                f"          {b.flops_before:,} -> {b.flops_after:,} FLOPs,"
                f" {_bytes(b.bytes_before)} -> {_bytes(b.bytes_after)} written"
            )
        return lines

    def _parity(self) -> list[str]:
        batches = [c for c in self.cases if c.way == self.ways[0]]
        rows = sum(c.rows for c in batches)
        truth = "torch" if self.source == "module" else "torch float64"
        lines = [
            f"parity    {rows} rows in {len(batches)} batches, {truth} against"
            f" ONNX Runtime; allowed {TOLERANCE:g} * max(1, |value|)"
        ]
        for way in self.ways:
            cases = [c for c in self.cases if c.way == way]
            worst = max(cases, key=lambda c: c.logit_difference)
            found = f"logits within {worst.logit_difference:.1e}, scores within"
            found += f" {max(c.score_difference for c in cases):.1e}"
            if self.source == "module":
                found = f"outputs within {worst.logit_difference:.1e}"
            lines.append(f"          {way}: {found}; worst batch {worst.name}")
        return lines
