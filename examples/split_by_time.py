"""Why validation rows must be newer than training rows: a log with timestamps.

    python examples/split_by_time.py

Makes 35 days of a shop where goods live for about five days, some good and some bad.
Four weeks are there to train and validate on, the fifth is the future. A random split
puts every hour on both sides: the model is judged on goods, and hours, that it was
trained on, and looks better than it will be. The split by time, which is din-train's,
judges it on goods that came later, as the future will.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from din_converter.rows import Rows, read_labels, split_by_time
from din_converter.train import Settings, evaluate, train
from din_infer import FeatureSpec, metrics

DAY = 86_400
DAYS, FUTURE = 35, 28
LIFE = 5 * DAY
CATEGORIES = 12

SPEC = FeatureSpec.from_dict(
    {
        "format": 1,
        "label": "click",
        "group": "user_id",
        "time": "time",
        "candidate": [
            {
                "name": "goods_id",
                "dim": 8,
                "encoder": {"type": "hash", "buckets": 9000},
            },
            {"name": "cate_id", "dim": 8, "encoder": {"type": "hash", "buckets": 500}},
        ],
        "behavior": [
            {"name": "history", "max_len": 20, "fields": {"hist_cate_id": "cate_id"}}
        ],
        "model": {
            "attention": {"hidden": [16]},
            "tower": {"hidden": [32, 16]},
        },
    }
)


def make_log(rows: int, seed: int) -> pa.Table:
    """Make a log, oldest row first; a history holds only what came before its row."""
    rng = np.random.default_rng(seed)
    num_goods = rows // 60
    born = rng.uniform(-LIFE, DAYS * DAY, num_goods)
    category = rng.integers(0, CATEGORIES, num_goods)
    quality = rng.normal(0, 1.3, num_goods)
    time = np.sort(rng.integers(0, DAYS * DAY, rows))
    by_birth = np.argsort(born)
    first = np.searchsorted(born[by_birth], time - LIFE)
    last = np.searchsorted(born[by_birth], time)
    goods = by_birth[rng.integers(first, np.maximum(last, first + 1))]
    user = rng.integers(0, rows // 40, rows)
    taste = rng.integers(0, CATEGORIES, (rows // 40, 2))
    liked = (taste[user] == category[goods][:, None]).any(axis=1)
    chance = 1 / (1 + np.exp(1.5 - 1.5 * liked - quality[goods]))
    click = rng.random(rows) < chance
    histories: dict[int, list[str]] = {}
    seen = []
    for u, g, c in zip(user.tolist(), goods.tolist(), click.tolist(), strict=True):
        past = histories.setdefault(u, [])
        seen.append(past[-20:])
        if c:
            past.append(f"c{category[g]}")
    return pa.table(
        {
            "user_id": [f"u{u}" for u in user],
            "goods_id": [f"g{g}" for g in goods],
            "cate_id": [f"c{c}" for c in category[goods]],
            "hist_cate_id": pa.array(seen, pa.list_(pa.string())),
            "click": click.astype(np.int8),
            "time": pa.array(time, pa.timestamp("s")),
        }
    )


def split_at_random(table: pa.Table, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Hold out rows by chance, as one should not."""
    held_out = np.random.default_rng(seed).random(table.num_rows) < fraction
    train_rows, valid_rows = (
        table.filter(pa.array(chosen)) for chosen in (~held_out, held_out)
    )
    return Rows.of_table(train_rows, SPEC, "log"), Rows.of_table(
        valid_rows, SPEC, "log"
    )


def times(rows: Rows) -> NDArray[np.float64]:
    """Read the time of every row inside the split, in seconds."""
    table = pa.concat_tables(rows.windows(1 << 20))
    return np.asarray(table["time"].cast(pa.int64()), dtype=np.float64)


def compare(rows: int, seed: int) -> dict[str, dict[str, float]]:
    """Judge by either split, then train on all four weeks and see the fifth."""
    table = make_log(rows, seed)
    now = np.asarray(table["time"].cast(pa.int64())) < FUTURE * DAY
    past, future = table.filter(pa.array(now)), table.filter(pa.array(~now))
    settings = Settings(
        epochs=3,
        batch_size=256,
        learning_rate=3e-3,
        mba=0.3,
        seed=seed,
        threads=1,
        progress=False,
    )
    found = {}
    for name, (older, newer) in {
        "random split": split_at_random(past, 0.2, seed),
        "split by time": split_by_time(Rows.of_table(past, SPEC, "log"), 0.2),
    }.items():
        trained = train(SPEC, older, newer, replace(settings, patience=9))
        found[name] = {
            "overlap": float((times(newer) <= times(older).max()).mean()),
            "auc": trained.best.auc if trained.best else float("nan"),
        }
    trained = train(SPEC, past, None, replace(settings, valid_fraction=0.0))
    auc = metrics.auc(read_labels(future, SPEC), evaluate(trained.model, future))
    found["the week after"] = {"overlap": 0.0, "auc": auc}
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=60_000, help="(default 60000)")
    parser.add_argument("--seed", type=int, default=0, help="(default 0)")
    options = parser.parse_args(argv)
    print(f"{'judged by':16}{'AUC':>8}   rows no newer than some training row")
    for name, row in compare(options.rows, options.seed).items():
        print(f"{name:16}{row['auc']:8.4f}{row['overlap']:9.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
