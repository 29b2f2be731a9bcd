"""Write fuzz/specs.jsonl and the seeds of the targets, from the specs of the tests.

python fuzz/make_seeds.py
"""

import json
import random
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))

from din_infer.spec import FeatureSpec  # noqa: E402
from tests.models import SPECS  # noqa: E402
from tests.raw import HARD  # noqa: E402

MOST_BYTES = 4096  # of a seed


def main() -> None:
    """Write all files anew, but the seeds that a run has found."""
    named = {**HARD, "three sequences": SPECS["three sequences"]}
    made = {name: FeatureSpec.from_dict(raw).to_json() for name, raw in named.items()}
    lines = [json.dumps(json.loads(text), ensure_ascii=False) for text in made.values()]
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


def write(target: str, name: str, data: bytes) -> None:
    """Write a seed."""
    path = FOLDER / "seeds" / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    main()
