"""Write fuzz/specs.jsonl and the seeds of the targets, from the specs of the tests.

python fuzz/make_seeds.py
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))

from din_infer.spec import FeatureSpec  # noqa: E402
from tests.models import SPECS  # noqa: E402
from tests.raw import HARD  # noqa: E402

MOST_BYTES = 4096  # of a seed
PART = 3  # fields


def main() -> None:
    """Write all files anew, but the seeds that a run has found."""
    lines = [
        json.dumps(json.loads(FeatureSpec.from_dict(part).to_json()))
        for raw in HARD.values()
        for part in parts_of(raw)
    ]
    (FOLDER / "specs.jsonl").write_text("".join(f"{line}\n" for line in lines))
    for name, raw in {**SPECS, **HARD}.items():
        text = FeatureSpec.from_dict(raw).to_json()
        if len(text.encode()) <= MOST_BYTES:
            write("spec", name.replace(" ", "_"), text.encode())
    rng = random.Random(0)
    for i in range(8):
        for target in ("arrow_c", "arrow_python", "hash_pad"):
            honest = bytes([i & 1, i, *rng.randbytes(200)])
            write(target, f"drawn_{i}", honest)


def parts_of(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Cut a spec into such as take microseconds: a few fields of each section."""
    sections = ("user", "candidate", "behavior", "multi_hot", "dense")
    least = {"name": "least", "dim": 1, "encoder": {"type": "hash", "buckets": 5}}
    for section in sections:
        fields = raw.get(section, [])
        while fields:
            part, fields = list(fields[:PART]), fields[PART:]
            names = {field["name"] for field in part}
            together = [field for field in fields if field.get("shares") in names]
            fields = [field for field in fields if field not in together]
            made = {"format": raw["format"], section: [*part, *together]}
            yield made if section == "candidate" else {**made, "candidate": [least]}


def write(target: str, name: str, data: bytes) -> None:
    """Write a seed."""
    path = FOLDER / "seeds" / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    main()
