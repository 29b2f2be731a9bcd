"""Make click logs with planted interests, for a machine that has no data.

    python examples/click_logs/generate.py --out logs

Each user is interested in a few categories, and only the history says in which. A click
becomes likelier with every behavior in the candidate's category, if the user has been
at these very goods before, and with the goods' popularity, tags and low price; the rest
is chance. The best possible scores reach an AUC of about 0.77, those that ignore the
history about 0.64: a DIN is to come close to the first. One file, so that it can be
copied and run alone.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

NUM_CATEGORIES = 60
NUM_GOODS = 3_000
MAX_HISTORY = 50
TAGS = ("new", "sale", "gift", "eco", "premium", "refurbished")
TAG_EFFECTS = np.array([0.2, 0.5, 0.1, 0.0, -0.2, -0.5])
DAY = 86_400
END = 1_735_689_600  # 2025-01-01 00:00 UTC
SPAN = 300 * DAY  # the oldest behavior is no older
WEEKS = 28 * DAY  # the candidates were shown in the last four
SPLITS = ("train", "valid", "test")
SHARES = (0.8, 0.1, 0.1)
ROWS_PER_WRITE = 100_000

SPEC = """\
# Click logs made by examples/click_logs/generate.py.
format = 1
label = "label"
group = "user_id"  # for GAUC; not a model input: the history stands for the user
time = "time"

[[candidate]]
name = "goods_id"
dtype = "string"
dim = 16
encoder = {{ type = "hash", buckets = {goods_buckets} }}

[[candidate]]
name = "cate_id"
dtype = "string"
dim = 16
encoder = {{ type = "hash", buckets = {cate_buckets} }}

[[behavior]]
name = "history"
max_len = {max_history}
order = "oldest_first"
fields = {{ hist_goods_id = "goods_id", hist_cate_id = "cate_id" }}

[[multi_hot]]
name = "tags"
side = "candidate"
dim = 8
pooling = "sum"
max_len = {num_tags}
encoder = {{ type = "vocab", values = {tags} }}

[[dense]]
name = "price"  # 1.0 is the usual price of the category
side = "candidate"
dim = 1
missing = 1.0

[model]
attention = {{ hidden = [80, 40], activation = "dice" }}
tower = {{ hidden = [200, 80], activation = "dice" }}
"""

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("goods_id", pa.string()),
        ("cate_id", pa.string()),
        ("hist_goods_id", pa.list_(pa.string())),
        ("hist_cate_id", pa.list_(pa.string())),
        ("price", pa.float32()),
        ("tags", pa.list_(pa.string())),
        ("label", pa.int8()),
        ("time", pa.int64()),
    ]
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Goods:
    """The catalog, sorted by category; one entry per goods."""

    category: Ints
    has_category: NDArray[np.bool_]  # False: the log shows a null
    popularity: Floats  # zero on average
    price: Floats
    tags: NDArray[np.bool_]  # [goods, tags]
    has_tags: NDArray[np.bool_]


@dataclass(frozen=True)
class Logs:
    """Rows in time order, and the behaviors that their histories are windows of.

    Row i saw the behaviors begin[i] .. end[i] - 1, all before its `time`. `ideal` is
    the logit without its noise and constant; `without_history` is the part of it that
    the candidate alone explains. Neither is written.
    """

    goods: Goods
    behavior: Ints  # goods index, sorted by user and time
    behavior_user: Ints
    behavior_time: Ints
    user: Ints
    candidate: Ints
    time: Ints
    begin: Ints
    end: Ints
    has_history: NDArray[np.bool_]  # False: the log shows a null
    price: Floats  # NaN: the log shows a null
    label: NDArray[np.int8]
    ideal: Floats
    without_history: Floats


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description="Make train, valid and test.parquet, split by time, and the "
        "features.toml that din-train reads. Clicks follow interests that only the "
        "history shows, so a model that reads it well scores clearly better. The same "
        "seed gives the same logs.",
        epilog="Example: generate.py --out logs && din-train logs/train.parquet "
        "--spec logs/features.toml --valid logs/valid.parquet --out model.pt",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the four files; made when missing",
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=200_000,
        metavar="N",
        help="candidates shown, in all three files (default 200000, at least 100)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    options = parser.parse_args(arguments)
    if options.rows < 100:
        parser.error(f"expected --rows 100 or above, got {options.rows}")
    if options.seed < 0:
        parser.error(f"expected --seed 0 or above, got {options.seed}")
    start = time.perf_counter()
    logs = simulate(options.rows, options.seed)
    try:
        num_rows = write(logs, options.out)
    except OSError as error:
        sys.exit(f"generate.py: {error}")
    lengths = logs.end - logs.begin
    print(f"users {len(np.unique(logs.user)):,}, goods {NUM_GOODS:,}")
    print(
        f"clicks {logs.label.mean():.1%}, empty histories {(lengths == 0).mean():.1%}"
    )
    print(f"behaviors per history {lengths.mean():.1f}")
    for split, rows in num_rows.items():
        print(f"{split:<6} rows {rows:>10,}")
    print(f"written to {options.out} in {time.perf_counter() - start:.1f} s")


# ---------------------------------------------------------------------- simulation


def simulate(num_rows: int, seed: int) -> Logs:
    """Draw the catalog, the users, their behaviors, what they saw and clicked.

    A user has about ten rows: too few for a model to learn users by heart.
    """
    generator = np.random.default_rng(seed)
    goods = make_goods(generator)
    num_users = max(20, num_rows // 10)
    interests = generator.integers(0, NUM_CATEGORIES, (num_users, 3))
    tenure = generator.integers(DAY, SPAN, num_users)  # seconds since the first visit
    per_day = generator.lognormal(-2.6, 0.8, num_users)
    num_behaviors = generator.poisson(per_day * tenure / DAY)

    owner = np.repeat(np.arange(num_users), num_behaviors)
    age = (generator.random(len(owner)) * tenure[owner]).astype(np.int64)
    key = owner * SPAN + (SPAN - 1 - age)
    behavior = draw_goods(generator, goods, interests[owner], share=0.85)
    order = np.argsort(key, kind="stable")
    key, behavior = key[order], behavior[order]

    user = generator.integers(0, num_users, num_rows)
    ago = (generator.random(num_rows) * np.minimum(tenure[user], WEEKS)).astype(
        np.int64
    )
    since_start = SPAN - 1 - ago
    order = np.argsort(since_start, kind="stable")
    user, since_start = user[order], since_start[order]
    begin, end = find_histories(key, user, since_start)

    candidate = draw_goods(generator, goods, interests[user], share=0.4)
    again = (generator.random(num_rows) < 0.1) & (end > begin)  # shown what they know
    candidate[again] = behavior[generator.integers(begin[again], end[again])]

    has_history = generator.random(num_rows) >= 0.01
    price = goods.price[candidate] * generator.lognormal(0.0, 0.1, num_rows)
    without_history = (
        0.5 * goods.popularity[candidate]
        + (goods.tags @ TAG_EFFECTS)[candidate]
        - 0.6 * np.log(price)
    )
    same_category, same_goods = count_matches(goods, behavior, candidate, begin, end)
    interest = 0.9 * np.log1p(same_category) + 0.7 * np.minimum(same_goods, 1)
    logit = without_history + interest + generator.normal(-3.0, 0.5, num_rows)
    label = generator.random(num_rows) < 1 / (1 + np.exp(-logit))
    price[generator.random(num_rows) < 0.03] = np.nan
    return Logs(
        goods=goods,
        behavior=behavior,
        behavior_user=key // SPAN,
        behavior_time=END - SPAN + key % SPAN,
        user=user,
        candidate=candidate,
        time=END - SPAN + since_start,
        begin=begin,
        end=end,
        has_history=has_history,
        price=price,
        label=label.astype(np.int8),
        ideal=without_history + np.where(has_history, interest, 0.0),
        without_history=without_history,
    )


def make_goods(generator: np.random.Generator) -> Goods:
    """Draw the catalog; categories differ in size."""
    weights = 1 / np.sqrt(np.arange(1, NUM_CATEGORIES + 1))
    category = generator.choice(NUM_CATEGORIES, NUM_GOODS, p=weights / weights.sum())
    category[:NUM_CATEGORIES] = np.arange(NUM_CATEGORIES)  # none is empty
    return Goods(
        category=np.sort(category),
        has_category=generator.random(NUM_GOODS) >= 0.015,
        popularity=generator.normal(0.0, 1.0, NUM_GOODS),
        price=generator.lognormal(0.0, 0.4, NUM_GOODS),
        tags=generator.random((NUM_GOODS, len(TAGS))) < 0.2,
        has_tags=generator.random(NUM_GOODS) >= 0.02,
    )


def draw_goods(
    generator: np.random.Generator, goods: Goods, interests: Ints, share: float
) -> Ints:
    """Draw one goods per row of interests; `share` of them in one of the interests.

    Popular goods are likelier, within a category and overall.
    """
    num_rows, num_interests = interests.shape
    total = np.concatenate(([0.0], np.cumsum(np.exp(goods.popularity))))
    first = np.searchsorted(goods.category, np.arange(NUM_CATEGORIES + 1))
    chosen = interests[
        np.arange(num_rows), generator.integers(0, num_interests, num_rows)
    ]
    inside = generator.random(num_rows) < share
    low = np.where(inside, total[first[chosen]], 0.0)
    high = np.where(inside, total[first[chosen + 1]], total[-1])
    point = low + generator.random(num_rows) * (high - low)
    found: Ints = np.searchsorted(total, point, side="right") - 1
    return np.minimum(found, NUM_GOODS - 1)


def find_histories(key: Ints, user: Ints, since_start: Ints) -> tuple[Ints, Ints]:
    """Return begin and end of each row's history, strictly before the row.

    `key` is user * SPAN + seconds since the start of each behavior, sorted.
    """
    end = np.searchsorted(key, user * SPAN + since_start)
    return np.maximum(np.searchsorted(key, user * SPAN), end - MAX_HISTORY), end


def windows(begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Return the row and the position of every element of begin[i] .. end[i] - 1."""
    lengths = end - begin
    row = np.repeat(np.arange(len(begin)), lengths)
    before = np.cumsum(lengths) - lengths
    return row, np.arange(len(row)) + (begin - before)[row]


def blocks(rows: Ints) -> Iterator[Ints]:
    """Split rows into blocks, so that memory does not grow with the whole history."""
    for start in range(0, len(rows), ROWS_PER_WRITE):
        yield rows[start : start + ROWS_PER_WRITE]


def count_matches(
    goods: Goods, behavior: Ints, candidate: Ints, begin: Ints, end: Ints
) -> tuple[Ints, Ints]:
    """Count the behaviors in each candidate's category, and those at the very goods."""
    same_category = np.zeros(len(candidate), np.int64)
    same_goods = np.zeros(len(candidate), np.int64)
    for block in blocks(np.arange(len(candidate))):
        row, position = windows(begin[block], end[block])
        seen, shown = behavior[position], candidate[block][row]
        same = goods.category[seen] == goods.category[shown]
        same_category[block] = np.bincount(row[same], minlength=len(block))
        same_goods[block] = np.bincount(row[seen == shown], minlength=len(block))
    return same_category, same_goods


# ------------------------------------------------------------------------- writing


def split_by_time(times: Ints) -> dict[str, Ints]:
    """Return the rows of each split; rows of one second stay together."""
    bounds = [int(len(times) * sum(SHARES[:i])) for i in (1, 2)]
    cuts = [np.searchsorted(times, times[b]) for b in bounds]
    parts = np.split(np.arange(len(times)), cuts)
    return dict(zip(SPLITS, parts, strict=True))


def write(logs: Logs, out: Path) -> dict[str, int]:
    """Write all four files, or none; return the rows of each split."""
    splits = split_by_time(logs.time)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as folder:
        beside = Path(folder)
        for split, rows in splits.items():
            with pq.ParquetWriter(beside / f"{split}.parquet", SCHEMA) as writer:
                for block in blocks(rows):
                    writer.write_table(make_table(logs, block))
        spec = SPEC.format(
            goods_buckets=10 * NUM_GOODS,
            cate_buckets=100 * NUM_CATEGORIES,
            max_history=MAX_HISTORY,
            num_tags=len(TAGS),
            tags=json.dumps(TAGS),
        )
        (beside / "features.toml").write_text(spec, encoding="utf-8")
        for path in sorted(beside.iterdir()):
            path.replace(out / path.name)
    return {split: len(rows) for split, rows in splits.items()}


def make_table(logs: Logs, rows: Ints) -> pa.Table:
    """Build the table of some rows."""
    goods = logs.goods
    goods_ids = pa.array([f"g{i:04d}" for i in range(NUM_GOODS)])
    cate_ids = pa.array(
        [
            f"c{c:02d}" if known else None
            for c, known in zip(goods.category, goods.has_category, strict=True)
        ]
    )
    candidate = logs.candidate[rows]
    begin, has_history = logs.begin[rows], logs.has_history[rows]
    end = np.where(has_history, logs.end[rows], begin)
    _, position = windows(begin, end)
    behavior = pa.array(logs.behavior[position])
    row_of_tag, tag = np.nonzero(
        goods.tags[candidate] & goods.has_tags[candidate, np.newaxis]
    )
    num_tags = np.bincount(row_of_tag, minlength=len(rows))
    columns = [
        pa.array([f"u{u:07d}" for u in logs.user[rows].tolist()]),
        goods_ids.take(pa.array(candidate)),
        cate_ids.take(pa.array(candidate)),
        make_lists(goods_ids.take(behavior), end - begin, has_history),
        make_lists(cate_ids.take(behavior), end - begin, has_history),
        pa.array(logs.price[rows], pa.float32(), from_pandas=True),  # NaN is null
        make_lists(pa.array(TAGS).take(tag), num_tags, goods.has_tags[candidate]),
        pa.array(logs.label[rows]),
        pa.array(logs.time[rows]),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def make_lists(values: pa.Array, lengths: Ints, present: NDArray[np.bool_]) -> pa.Array:
    """Build lists of these lengths, null where not present."""
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), values, mask=pa.array(~present)
    )


if __name__ == "__main__":
    main()
