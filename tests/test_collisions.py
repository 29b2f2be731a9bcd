import itertools
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from benchmarks import collisions
from tests.reference_hash import BITS, HASHES, reduce

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[1] / "docs" / "model.md"


def measure_slowly(keys: list[str], num_buckets: int, name: str) -> float:
    """The twin: a dict of how many keys each bucket has."""
    buckets = [
        reduce(HASHES[name](key.encode(), 0), num_buckets, "offset", BITS[name])
        for key in keys
    ]
    count = Counter(buckets)
    return sum(count[bucket] > 1 for bucket in buckets) / len(keys)


@pytest.mark.parametrize("name", collisions.HASHES)
@pytest.mark.parametrize("n", [1, 2, 3, 400])
@pytest.mark.parametrize("times", [1, 2, 10])
def test_the_share_measured_is_that_of_a_dict(name: str, n: int, times: int) -> None:
    m = max(2, times * n)
    keys = collisions.make_keys(n)
    share = collisions.measure(keys, m, name)
    assert share == pytest.approx(measure_slowly(keys.to_pylist(), m, name), abs=1e-12)
    if n == 400:
        assert 0 < share < 1


def test_all_hashes_of_the_package_are_measured() -> None:
    assert set(collisions.HASHES) == set(HASHES)


@pytest.mark.parametrize(("n", "buckets"), [(2, 3), (3, 4), (5, 3), (4, 6)])
def test_chance_and_its_spread_are_those_of_all_ways_to_throw(
    n: int, buckets: int
) -> None:
    shares = []
    for thrown in itertools.product(range(buckets), repeat=n):
        count = Counter(thrown)
        shares.append(sum(count[b] > 1 for b in thrown) / n)
    # The bucket that is left for missing comes on top.
    expected, error = (
        f(n, buckets + 1) for f in (collisions.chance, collisions.standard_error)
    )
    assert expected == pytest.approx(statistics.fmean(shares), rel=1e-12)
    assert error == pytest.approx(statistics.pstdev(shares), rel=1e-9)


def test_the_table_of_the_page_is_the_one_that_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert collisions.main([]) == 0
    _, table, _ = PAGE.read_text(encoding="utf-8").split("<!-- collisions -->\n")
    assert table == capsys.readouterr().out


def test_a_hash_that_does_not_spread_ends_with_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = collisions.hash_buckets

    def number(keys: pa.Array, num_buckets: int, *, hash: str) -> NDArray[np.int64]:
        """By all but one hash, give every key a bucket of its own, unlike chance."""
        if hash == "farmhash64":
            return good(keys, num_buckets, hash=hash)
        return np.arange(len(keys)) % (num_buckets - 1) + 1

    monkeypatch.setattr(collisions, "hash_buckets", number)
    assert collisions.main(["--keys", "1000", "--times", "2"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith("| 2 n | 39.34% | 0.00% | ")
    assert [line.split(" - at ")[1] for line in said.err.splitlines()] == [
        "`xxh64`",
        "`xxh3_64`",
        "`murmur3_32`",
    ]
    assert said.err.splitlines()[0] == (
        "error: expected 39.3393% of 1,000 keys to share one of 2,000 buckets, "
        "got 0.0000%, 21.6 standard errors off - at `xxh64`"
    )


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--keys", "999"], "expected 1000 or more, got 999 - at `--keys`"),
        (["--times", "2", "0"], "expected 1 or more, got 0 - at `--times`"),
    ],
)
def test_too_small_numbers_are_refused(
    arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        collisions.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {fault}\n")
