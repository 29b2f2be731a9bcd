"""Turn Amazon reviews into click logs for din-train, by the DIN paper's protocol.

    python examples/amazon_reviews/prepare.py DATA --out amazon

Every review is a positive: the user chose this item after those before it. Each gets
one negative of the same history, drawn evenly from the items the user never reviewed.
The last item of each user is the test, the second last the validation, the rest is
training. A user's first item has no history and is skipped, as in the authors' release.
One file, so that it can be copied and run alone.
"""

import argparse
import ast
import gzip
import json
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

REVIEWS = ("reviews_*_5.json", "reviews_*_5.json.gz")
METADATA = ("meta_*.json", "meta_*.json.gz")
ATTRIBUTES = "_item2attributes.json"
SPLITS = ("train", "valid", "test")
ROWS_PER_WRITE = 100_000

SPEC = """\
# Amazon reviews: {items} items, {categories} categories.
format = 1
label = "label"
group = "user_id"  # for GAUC; not a model input: the history stands for the user
{time}
[[candidate]]
name = "goods_id"
dtype = "string"
dim = 32
# A hundred buckets per item: about one in a hundred shares its embedding with another.
encoder = {{ type = "hash", buckets = {goods_buckets} }}

[[candidate]]
name = "cate_id"
dtype = "string"
dim = 32
encoder = {{ type = "hash", buckets = {cate_buckets} }}

[[candidate]]
name = "parent_id"  # the category above
dtype = "string"
dim = 16
encoder = {{ type = "hash", buckets = {parent_buckets} }}

[[candidate]]
name = "brand_id"
dtype = "string"
dim = 16
encoder = {{ type = "hash", buckets = {brand_buckets} }}

[[behavior]]
name = "history"
max_len = {max_history}
order = "oldest_first"
[behavior.fields]
hist_goods_id = "goods_id"
hist_cate_id = "cate_id"
hist_parent_id = "parent_id"
hist_brand_id = "brand_id"

# A softmax, since here the length of a history says little about the candidate; and the
# product of interest and candidate in the tower. Without both, as the paper has it, the
# test AUC on Beauty is about 0.02 lower.
[model]
attention = {{ hidden = [80, 40], activation = "dice", softmax = true }}
[model.tower]
hidden = [200, 80]
activation = "dice"
inputs = ["goods_id", "cate_id", "parent_id", "brand_id", "history", "history.product"]
"""


class DataError(Exception):
    """The folder does not hold what this script reads."""


def expected(rule: str, got: object, place: object) -> DataError:
    """Build the error that says what is wrong, and where."""
    return DataError(f"expected {rule}, got {got} - at `{place}`")


Names = list[str | None]


@dataclass(frozen=True)
class Reviews:
    """All reviews, each user's together and oldest first.

    `user` and `item` index `user_names` and `item_names`; `category`, its `parent` and
    `brand` have one entry per item, None where it is unknown; `unix_time` is None where
    the data has no times.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    unix_time: NDArray[np.int64] | None
    user_names: list[str]
    item_names: list[str]
    category: Names
    parent: Names
    brand: Names


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description="Turn Amazon reviews into train, valid and test.parquet and the "
        "features.toml that din-train reads. Each positive (a review) is followed by "
        "one sampled negative of the same history; each user's last item is the test, "
        "the second last the validation.",
        epilog="Example: prepare.py downloads/Electronics --out electronics && "
        "din-train electronics/train.parquet --spec electronics/features.toml "
        "--valid electronics/valid.parquet --out model.pt",
    )
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        help="folder with reviews_<Name>_5.json and meta_<Name>.json (each may end in "
        ".gz), or with <Name>.txt (a user id and its item ids, oldest first, per line) "
        f"and <Name>{ATTRIBUTES} (item id to attribute ids: the last one is "
        "taken as its category, the one before as the category above, the first as its "
        "brand)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the four files; made when missing",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the sampled negatives (default 0)"
    )
    parser.add_argument(
        "--max-history",
        type=int,
        default=50,
        metavar="N",
        help="newest items kept in a history (default 50)",
    )
    options = parser.parse_args(arguments)
    if options.seed < 0:
        parser.error(f"expected --seed 0 or above, got {options.seed}")
    if options.max_history < 1:
        parser.error(f"expected --max-history 1 or above, got {options.max_history}")
    start = time.perf_counter()
    try:
        reviews = read(options.data)
        num_rows = write(reviews, options.out, options.seed, options.max_history)
    except (DataError, OSError) as error:
        sys.exit(f"prepare.py: {error}")
    print_summary(reviews, num_rows)
    print(f"written to {options.out} in {time.perf_counter() - start:.1f} s")


def print_summary(reviews: Reviews, num_rows: dict[str, int]) -> None:
    """Print what was read and written."""
    known = [c for c in reviews.category if c is not None]
    print(f"users       {len(reviews.user_names):>10,}")
    print(f"items       {len(reviews.item_names):>10,}")
    print(f"categories  {len(set(known)):>10,}")
    if len(known) < len(reviews.category):
        without = len(reviews.category) - len(known)
        print(f"items without a category (null) {without:,}")
    print(f"reviews     {len(reviews.user):>10,}")
    for split, rows in num_rows.items():
        print(f"{split:<6} rows {rows:>10,}  positives {rows // 2:>10,}")


# ------------------------------------------------------------------------- reading


def read(folder: Path) -> Reviews:
    """Read a folder of either form.

    Raises
    ------
    DataError
        If the folder holds neither form, or a file of it is odd; the message names it.
    """
    if not folder.is_dir():
        rule = "a folder with Amazon reviews"
        raise expected(rule, "a file" if folder.exists() else "nothing", folder)
    original = find(folder, REVIEWS)
    prepared = find(folder, (f"*{ATTRIBUTES}",))
    found = original + prepared
    if len(found) != 1:
        rule = (
            "one data set, either reviews_<Name>_5.json and meta_<Name>.json "
            f"(or .json.gz) or <Name>.txt and <Name>{ATTRIBUTES}"
        )
        raise expected(rule, ", ".join(p.name for p in found) or "neither", folder)
    reviews = read_original(found[0]) if original else read_prepared(found[0])
    if not len(reviews.user):
        rule = "reviews"
        raise expected(rule, "none", found[0])
    if not any(c is not None for c in reviews.category):
        rule = "a category for some of the reviewed items"
        raise expected(rule, "none", folder)
    return reviews


def find(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Return the files that match any pattern, by name."""
    return sorted(p for pattern in patterns for p in folder.glob(pattern))


def read_original(path: Path) -> Reviews:
    """Read the 5-core reviews and the metadata beside them."""
    name = path.name.split(".json")[0].removeprefix("reviews_").removesuffix("_5")
    metadata = find(path.parent, (f"meta_{name}.json", f"meta_{name}.json.gz"))
    metadata = metadata or find(path.parent, METADATA)
    if len(metadata) != 1:
        rule = f"one metadata file meta_{name}.json (or .json.gz) beside {path.name}"
        got = ", ".join(p.name for p in metadata) or "none"
        raise expected(rule, got, path.parent)
    users, items, times = [], [], []
    user_index: dict[str, int] = {}
    item_index: dict[str, int] = {}
    for line, record in read_records(path):
        try:
            user, item = record["reviewerID"], record["asin"]
            time_ = record["unixReviewTime"]
            (user + item).encode()
            times.append(int(np.array(time_, np.int64)))
            if not isinstance(time_, int):
                raise TypeError(time_)
        except (KeyError, TypeError, ValueError, OverflowError):
            rule = "a review with reviewerID, asin and a whole unixReviewTime"
            raise expected(rule, f"{record!r:.60}", f"{path}:{line}") from None
        users.append(user_index.setdefault(str(user), len(user_index)))
        items.append(item_index.setdefault(str(item), len(item_index)))
    category, parent, brand = read_metadata(metadata[0], item_index)
    user_of, item_of = np.array(users, np.int64), np.array(items, np.int64)
    unix_time = np.array(times, np.int64)
    order = np.lexsort((unix_time, user_of))  # stable: ties keep the file's order
    return Reviews(
        user_of[order],
        item_of[order],
        unix_time[order],
        list(user_index),
        list(item_index),
        category,
        parent,
        brand,
    )


def read_metadata(path: Path, item_index: dict[str, int]) -> tuple[Names, Names, Names]:
    """Return each item's category, the one above it, and its brand.

    The category is the last name of the item's last category path.
    """
    category, parent, brand = ([None] * len(item_index) for _ in range(3))
    for line, record in read_records(path, only=item_index):
        index = item_index.get(str(record.get("asin")))
        if index is None:
            continue
        if record.get("brand"):
            brand[index] = str(record["brand"])
        paths = record.get("categories")
        if not paths:
            continue
        try:
            if isinstance(paths, str) or isinstance(paths[-1], str):
                raise TypeError(paths)
            *above, last = [None, None, *paths[-1]][-2:]
        except (TypeError, KeyError, IndexError):
            rule = "categories as a list of lists of names"
            raise expected(rule, f"{paths!r:.60}", f"{path}:{line}") from None
        category[index] = None if last is None else str(last)
        parent[index] = None if above[0] is None else str(above[0])
    return category, parent, brand


def read_records(
    path: Path, only: dict[str, int] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, record), of the items in `only` where it is given.

    The metadata's records are Python literals, slow to parse, and most of them are of
    items without a review: a line that starts with another asin is skipped unparsed.
    """
    first_key = re.compile(r"""\{\s*["']asin["']\s*:\s*["']([^"'\\]*)["']""")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                match = first_key.match(line) if only is not None else None
                if not line.strip() or (only and match and match[1] not in only):
                    continue
                yield number, parse_record(line, path, number)
    except (gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError) as error:
        rule = "UTF-8 text"
        raise expected(rule, error, path) from None


def parse_record(line: str, path: Path, number: int) -> dict[str, Any]:
    """Read one record, JSON or a Python literal; nothing in it is ever run."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        try:
            record = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            record = None
    if not isinstance(record, dict):
        rule = "one record per line, JSON or a Python dict"
        raise expected(rule, repr(line.strip()[:60]), f"{path}:{number}")
    return record


def read_prepared(path: Path) -> Reviews:
    """Read item sequences, given the file of attributes beside them."""
    sequences = path.with_name(path.name.removesuffix(ATTRIBUTES) + ".txt")
    if not sequences.is_file():
        rule = f"{sequences.name} beside {path.name}"
        raise expected(rule, "none", path.parent)
    try:
        attributes = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        attributes = None
    if not isinstance(attributes, dict) or not all(
        isinstance(v, list) for v in attributes.values()
    ):
        rule = "a JSON object, item id to list of attribute ids"
        raise expected(rule, "something else", path)
    user_index: dict[str, int] = {}
    item_index: dict[str, int] = {}
    users, items = [], []
    try:
        with sequences.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                name, *item_names = line.split()
                if name in user_index:
                    place = f"{sequences}:{number}"
                    rule = "each user on one line"
                    raise expected(rule, f"{name} twice", place)
                user_index[name] = len(user_index)
                users += [user_index[name]] * len(item_names)
                items += [item_index.setdefault(i, len(item_index)) for i in item_names]
    except UnicodeDecodeError as error:
        rule = "UTF-8 text"
        raise expected(rule, error, sequences) from None
    known = [attributes.get(i) or [] for i in item_index]
    return Reviews(
        np.array(users, np.int64),
        np.array(items, np.int64),
        None,
        list(user_index),
        list(item_index),
        [str(a[-1]) if a else None for a in known],
        [str(a[-2]) if len(a) > 2 else None for a in known],
        [str(a[0]) if len(a) > 1 else None for a in known],
    )


# ------------------------------------------------------------------------- writing


def sample_negatives(reviews: Reviews, seed: int) -> NDArray[np.int64]:
    """Draw, for each review, an item that its user never reviewed; all equally likely.

    Draw r below the number of such items and take the r-th of them. If the user's
    items are s[0] < s[1] < .., then s[j] - j others lie below s[j], so that the r-th
    other item is r plus the number of j with s[j] - j <= r: one binary search, and
    nothing is drawn twice.
    """
    num_items = len(reviews.item_names)
    owned = np.unique(reviews.user * num_items + reviews.item)
    owner, item = np.divmod(owned, num_items)
    num_owned = np.bincount(owner, minlength=len(reviews.user_names))
    if num_owned.max() == num_items:
        name = reviews.user_names[int(num_owned.argmax())]
        rule = "items that the user has not reviewed, to sample negatives from"
        raise expected(rule, f"none ({num_items} items in all)", f"user {name}")
    first_owned = np.cumsum(num_owned) - num_owned
    others_below = item - (np.arange(len(owned)) - first_owned[owner])
    generator = np.random.default_rng(seed)
    r = generator.integers(0, num_items - num_owned[reviews.user])
    stride = num_items + 1  # keeps users apart, in one sorted array for all of them
    found = np.searchsorted(
        owner * stride + others_below, reviews.user * stride + r, side="right"
    )
    return r + found - first_owned[reviews.user]


def write(reviews: Reviews, out: Path, seed: int, max_history: int) -> dict[str, int]:
    """Write all four files, or none; return the rows of each split."""
    negative = sample_negatives(reviews, seed)
    num_reviews = np.bincount(reviews.user, minlength=len(reviews.user_names))
    first = (np.cumsum(num_reviews) - num_reviews)[reviews.user]
    position = np.arange(len(reviews.user)) - first
    from_end = num_reviews[reviews.user] - 1 - position
    chosen = {
        "train": (position > 0) & (from_end > 1),
        "valid": (position > 0) & (from_end == 1),
        "test": (position > 0) & (from_end == 0),
    }
    out.mkdir(parents=True, exist_ok=True)
    num_rows = {}
    with tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as folder:
        beside = Path(folder)
        for split in SPLITS:
            rows = np.flatnonzero(chosen[split])
            with pq.ParquetWriter(beside / f"{split}.parquet", SCHEMA) as writer:
                for start in range(0, len(rows), ROWS_PER_WRITE):
                    block = rows[start : start + ROWS_PER_WRITE]
                    times = reviews.unix_time
                    time_of_row = (position if times is None else times)[block]
                    begin = np.maximum(first[block], block - max_history)
                    writer.write_table(
                        make_table(reviews, block, negative, begin, time_of_row)
                    )
            num_rows[split] = 2 * len(rows)
        (beside / "features.toml").write_text(
            make_spec(reviews, max_history), encoding="utf-8"
        )
        for path in sorted(beside.iterdir()):
            path.replace(out / path.name)
    return num_rows


FIELDS = ("goods_id", "cate_id", "parent_id", "brand_id")
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        *((name, pa.string()) for name in FIELDS),
        *((f"hist_{name}", pa.list_(pa.string())) for name in FIELDS),
        ("label", pa.int8()),
        ("time", pa.int64()),
    ]
)


def make_table(
    reviews: Reviews,
    rows: NDArray[np.int64],
    negative: NDArray[np.int64],
    begin: NDArray[np.int64],
    time_of_row: NDArray[np.int64],
) -> pa.Table:
    """Build two table rows per review of `rows`: the positive, then its negative.

    The history of review i is the reviews begin[i] .. i - 1.
    """
    candidate = np.stack([reviews.item[rows], negative[rows]], axis=1).ravel()
    lengths = np.repeat(rows - begin, 2)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    behavior = reviews.item[np.repeat(np.repeat(begin, 2), lengths) + inside]
    users = pa.array(reviews.user_names, pa.string())
    fields = [
        pa.array(names, pa.string())
        for names in (
            reviews.item_names,
            reviews.category,
            reviews.parent,
            reviews.brand,
        )
    ]

    def lists(values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)

    columns = [
        users.take(pa.array(np.repeat(reviews.user[rows], 2))),
        *(names.take(pa.array(candidate)) for names in fields),
        *(lists(names.take(pa.array(behavior))) for names in fields),
        pa.array(np.tile(np.array([1, 0], np.int8), len(rows))),
        pa.array(np.repeat(time_of_row, 2)),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def make_spec(reviews: Reviews, max_history: int) -> str:
    """Return the text of features.toml."""
    num_items = len(reviews.item_names)

    def buckets(names: Names) -> int:
        return 100 * len({n for n in names if n is not None}) + 2

    return SPEC.format(
        items=num_items,
        categories=len({c for c in reviews.category if c is not None}),
        time='time = "time"\n' if reviews.unix_time is not None else "",
        goods_buckets=100 * num_items + 2,
        cate_buckets=buckets(reviews.category),
        parent_buckets=buckets(reviews.parent),
        brand_buckets=buckets(reviews.brand),
        max_history=max_history,
    )


if __name__ == "__main__":
    main()
