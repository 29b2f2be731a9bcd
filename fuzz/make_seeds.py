"""Write what fuzzing starts from: specs and seeds, of the tests' own, and spec.dict.

python fuzz/make_seeds.py
"""

import json
import random
import re
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
# Pieces of JSON, as libFuzzer writes them: ends of ranges, escapes.
PIECES = [
    "{}", "[]", "null", "true", "false", "[[1], [2]]", "-1", "0.5", "1e308", "1e-400",
    "2147483647", "2147483648", "9223372036854775807", "-9223372036854775808",
    "18446744073709551615", "18446744073709551616", "99999999999999999999999",
    r"\\u00e9", r"\\ud83d\\udc0d", r"\\ud800", r"\\\x22",
]  # fmt: skip


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
    parser = FOLDER.parent / "csrc"
    words = {
        word
        for name in ("spec.c", "spec_encoders.c", "spec_values.c")
        for word in re.findall(r'"([a-z0-9_]{2,20})"', (parser / name).read_text())
    }
    quoted = [f"\\x22{word}\\x22" for word in sorted(words)]
    lines = [f'"{text}"\n' for text in [*quoted, *PIECES]]
    (FOLDER / "spec.dict").write_text("".join(lines))
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
