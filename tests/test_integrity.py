import hashlib
import io
import json
from itertools import pairwise

import numpy as np
import onnx
import pytest

from din_infer.integrity import (
    BLOCK_BYTES,
    SAMPLE_SHARES,
    Record,
    digest_of,
    sample_of,
    samples_of,
    sealed,
)
from din_infer.model_format import FILE_KEY
from din_infer.onnx_header import Place

DATA = np.random.default_rng(0).bytes(700_001)


def test_a_sample_reads_the_first_and_the_last_byte() -> None:
    wanted = sample_of(DATA, 5_000, 300_000, 7)
    for position in (5_000, 304_999):
        changed = bytearray(DATA)
        changed[position] ^= 1
        assert sample_of(changed, 5_000, 300_000, 7) != wanted


@pytest.mark.parametrize("length", [1, 511, 512, 513, 1024, 100_000])
def test_samples_stay_inside_their_tensor(length: int) -> None:
    ((blocks, digest),) = samples_of(DATA, [Place("t", 17, length)]).values()
    assert blocks == min(SAMPLE_SHARES + 1, -(-length // BLOCK_BYTES))
    parts = [DATA[17 : 17 + length]]
    if length == 100_000:
        starts = [(length - 512) * i // (blocks - 1) for i in range(blocks)]
        parts = [DATA[17 + s : 17 + s + 512] for s in starts]
    assert digest == hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def test_every_tensor_has_its_share_and_at_least_two_blocks() -> None:
    places = [Place("big", 0, 600_000), Place("small", 600_000, 3_000)]
    counts = {k: n for k, (n, _) in samples_of(DATA, places).items()}
    assert counts == {"big": 101, "small": 2}


@pytest.mark.parametrize("count", [1, 3, 66, 100])
def test_a_hole_of_one_percent_lies_on_a_sample(count: int) -> None:
    size = len(DATA)
    ends = [size * k // count for k in range(count + 1)]
    places = [Place(str(k), a, b - a) for k, (a, b) in enumerate(pairwise(ends))]
    wanted = samples_of(DATA, places)
    hole = size // 100
    rng = np.random.default_rng(count)
    for start in [0, size - hole, *rng.integers(0, size - hole, 200)]:
        holed = bytearray(DATA)
        holed[start : start + hole] = bytes(hole)
        assert samples_of(holed, places) != wanted


def test_digest_of_reads_as_many_bytes_as_asked() -> None:
    seen: list[int] = []
    found = digest_of(io.BytesIO(DATA), 500_000, seen.append)
    assert found == hashlib.sha256(DATA[:500_000]).hexdigest()
    assert sum(seen) == 500_000


def test_a_sealed_model_is_the_same_model_with_one_entry_more() -> None:
    graph = onnx.helper.make_graph([], "g", [], [])
    model = onnx.helper.make_model(graph)
    model.metadata_props.add(key="a", value="b" * 300)
    plain = model.SerializeToString()
    found = onnx.load_model_from_string(sealed(plain))
    (own, last) = found.metadata_props
    assert (own.key, last.key) == ("a", FILE_KEY)
    record = Record.from_json(last.value)
    assert record.num_bytes == len(plain)
    assert record.sha256 == hashlib.sha256(plain).hexdigest()
    assert record == Record.from_json(record.to_json())
    del found.metadata_props[1]
    assert found == model


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{}",
        json.dumps({"bytes": "3", "sha256": "a", "samples": {}}),
        json.dumps({"bytes": 3, "sha256": 4, "samples": {}}),
        json.dumps({"bytes": 3, "sha256": "a", "samples": []}),
        json.dumps({"bytes": 3, "sha256": "a", "samples": {"t": 3}}),
        json.dumps({"bytes": 3, "sha256": "a", "samples": {"t": [10**9, "a"]}}),
        json.dumps({"bytes": 3, "sha256": "a", "samples": {"t": [1, None]}}),
        "[" * 100_000,
    ],
)
def test_a_record_of_another_form_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the caller says what was wrong
        Record.from_json(text)
