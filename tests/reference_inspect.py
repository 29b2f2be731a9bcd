# ruff: noqa: ANN401 - rows hold anything
"""The slow and obvious twin of an inspection: loops over rows, dicts of keys."""

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

from din_infer.spec import Dense, FeatureSpec
from tests import reference
from tests.reference_hash import HASHES

Rows = list[dict[str, Any]]
PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)


def divide(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def key_of(value: Any, dtype: str, encoder: Any) -> Any:
    """Return what two values must have alike to be one key; None: no key."""
    value = reference.clean(value, dtype)
    if value is None or encoder.type == "bucketize":
        return None if value is None else reference.encode_value(value, dtype, encoder)
    if encoder.type == "identity" and value <= 0:
        return None
    return value.encode() if isinstance(value, str) else value


def percentile(values: list[int], percent: int) -> int:
    """The smallest value that so many percent are not above."""
    at = [
        v for v in values if 100 * sum(u <= v for u in values) >= percent * len(values)
    ]
    return min(at)


def keeping(lengths: list[int], percent: int) -> int:
    limit = 1
    while 100 * sum(min(n, limit) for n in lengths) < percent * sum(lengths):
        limit += 1
    return limit


def chance(keys: int, buckets: int) -> Fraction:
    return 1 - Fraction(buckets - 1, buckets) ** max(0, keys - 1)


def fewest_buckets(keys: int) -> int:
    buckets = 1
    while chance(keys, buckets) > Fraction(1, 100):
        buckets += 1
    return buckets


def sharing(buckets: dict[Any, int]) -> set[Any]:
    """Keys that share their bucket with another."""
    of_bucket: dict[int, list[Any]] = {}
    for key, bucket in buckets.items():
        of_bucket.setdefault(bucket, []).append(key)
    return {key for keys in of_bucket.values() if len(keys) > 1 for key in keys}


def classes_of(spec: FeatureSpec, rows: Rows) -> dict[str, Rows]:
    if spec.label is None:
        return {"rows": rows}
    return {
        "clicks": [row for row in rows if row[spec.label] == 1],
        "non_clicks": [row for row in rows if row[spec.label] == 0],
    }


def kept(sequence: Any, row: dict[str, Any]) -> Any:
    """Return the lists of a row's behaviors, oldest first, and how many there were."""
    fields = [f for f in sequence.fields if f.source is None]
    lists = [row[f.column] or [] for f in fields]
    length = reference.length_of(sequence, row)
    chosen, _ = reference.keep(sequence, lists, length)
    whole, _ = reference.keep(replace(sequence, max_len=10**6), lists, length)
    return {f.name: v for f, v in zip(fields, chosen, strict=True)}, len(whole[0])


def inspect_match(
    sequence: Any, candidate: Any, behavior: Any, rows: Rows
) -> dict[str, Any]:
    longest = max(
        (len(kept(sequence, row)[0][behavior.name]) for row in rows), default=0
    )
    by_age, reach = [0] * longest, [0] * longest
    anywhere = not_empty = 0
    for row in rows:
        wanted = key_of(row[candidate.column], candidate.dtype, candidate.encoder)
        values = kept(sequence, row)[0][behavior.name]
        keys = [key_of(v, behavior.dtype, behavior.encoder) for v in values]
        not_empty += len(keys) > 0
        anywhere += wanted is not None and wanted in keys
        for age, key in enumerate(reversed(keys)):
            reach[age] += 1
            by_age[age] += wanted is not None and key == wanted
    return {
        "rows": not_empty,
        "anywhere": anywhere,
        "by_age": tuple(by_age),
        "reach": tuple(reach),
    }


def inspect_sequence(
    spec: FeatureSpec, sequence: Any, rows: Rows, pairs: list[tuple[str, str]]
) -> dict[str, Any]:
    lengths = [kept(sequence, row)[1] for row in rows]
    shown = [min(n, sequence.max_len) for n in lengths]
    fields = {f.name: f for f in sequence.fields if f.source is None}
    repeats = {}
    for f in fields.values():
        if f.encoder.type != "bucketize":
            again = 0
            for row in rows:
                keys = [
                    key_of(v, f.dtype, f.encoder)
                    for v in kept(sequence, row)[0][f.name]
                ]
                again += sum(
                    key is not None and key in keys[:i] for i, key in enumerate(keys)
                )
            repeats[f.name] = divide(again, sum(shown))
    candidates = {c.name: c for c in spec.candidate}
    overlaps = []
    for candidate, behavior in pairs:
        matches = {
            name: inspect_match(sequence, candidates[candidate], fields[behavior], mine)
            for name, mine in classes_of(spec, rows).items()
        }
        overlaps.append(
            {"candidate": candidate, "behavior": behavior, "matches": matches}
        )
    return {
        "name": sequence.name,
        "fields": tuple(fields),
        "max_len": sequence.max_len,
        "order": sequence.order,
        "rows": len(rows),
        "empty": lengths.count(0),
        "single": lengths.count(1),
        "truncated": sum(n > sequence.max_len for n in lengths),
        "behaviors": sum(lengths),
        "lost": sum(lengths) - sum(shown),
        "mean": divide(sum(lengths), len(rows)),
        "percentiles": {
            str(p): percentile(lengths, p)
            for p in (0, 1, 5, 25, 50, 75, 95, 99, 100)
            if rows
        },
        "max_len_keeping": {
            str(p): keeping(lengths, p) for p in (95, 99) if sum(lengths)
        },
        "padding": 1 - sum(shown) / (len(rows) * sequence.max_len) if rows else None,
        "repeats": repeats,
        "overlaps": tuple(overlaps),
        "histogram": tuple(sorted(Counter(lengths).items())),
    }


def values_of(spec: FeatureSpec, rows: Rows) -> dict[str, tuple[Any, list[Any]]]:
    """Per field: the field and the values that are kept of it, row after row."""
    found: dict[str, tuple[Any, list[Any]]] = {}
    for f in (*spec.user, *spec.candidate):
        found[f.name] = (f, [row[f.column] for row in rows])
    for s in spec.behavior:
        for b in s.fields:
            if b.source is None:
                lists = [kept(s, row)[0][b.name] for row in rows]
                found[b.name] = (b, [v for values in lists for v in values])
    for m in spec.multi_hot:
        lists = [reference.keep(m, [row[m.column] or []], None)[0][0] for row in rows]
        found[m.name] = (m, [v for values in lists for v in values])
    return found


def inspect_table(
    spec: FeatureSpec, name: str, fields: dict[str, Any], rows: Rows
) -> dict[str, Any]:
    mine = {n: fv for n, fv in values_of(spec, rows).items() if fv[0].table == name}
    encoder = next(iter(mine.values()))[0].encoder
    num_rows, dim = spec.tables[name].rows, spec.tables[name].dim
    counts: Counter[Any] = Counter()
    ids: dict[Any, int] = {}
    used, unseen = set(), 0
    largest = zeros = 0
    for f, values in mine.values():
        for value in values:
            row, is_null, is_unseen = reference.encode_value(value, f.dtype, f.encoder)
            unseen += is_unseen
            zeros += row == 0 and not (is_null or is_unseen)
            key = key_of(value, f.dtype, f.encoder)
            if key is not None:
                counts[key] += 1
                ids[key] = row
                used.add(row)
                if encoder.type == "identity":
                    largest = max(largest, key)
            assert is_null or encoder.type == "identity" or key is not None
    ranked = sorted(counts.values(), reverse=True)
    top = {}
    for percent in ("0.1", "1", "10", "50"):
        most = max(1, math.ceil(Fraction(percent) * len(ranked) / 100))
        top[percent] = divide(sum(ranked[:most]), counts.total())
    countable = set(range(1, num_rows))
    if encoder.type == "vocab":
        countable.remove(num_rows - 1)
    if encoder.type == "hash" and encoder.reduce != "offset":
        countable.add(0)
    unseen_rows = {"vocab": {0, num_rows - 1}, "identity": {0}}.get(encoder.type, set())
    return {
        "name": name,
        "encoder": encoder.type,
        "padding_row": spec.tables[name].padding_row,
        "fields": tuple(mine),
        "rows": num_rows,
        "dim": dim,
        "occurrences": sum(fields[n]["values"] - fields[n]["nulls"] for n in mine),
        "distinct": len(counts),
        "error": 0.0,
        "once": divide(ranked.count(1), len(ranked)),
        "top": top,
        "never": len(countable - used),
        "unseen": unseen,
        "unseen_keys": sum(row in unseen_rows for row in ids.values()),
        "zeros": zeros if encoder.type == "identity" else 0,
        "largest": largest if encoder.type == "identity" else None,
        "collisions": (
            inspect_collisions(encoder, num_rows, counts, ids)
            if encoder.type == "hash"
            else None
        ),
    }


def inspect_collisions(
    encoder: Any, num_rows: int, counts: Counter[Any], ids: dict[Any, int]
) -> dict[str, Any]:
    spare = encoder.reduce == "offset"
    wanted = fewest_buckets(len(counts))
    plain = (encoder.hash, encoder.seed, encoder.int_as) == ("xxh64", 0, "bytes")
    plain &= encoder.reduce in ("offset", "mod") and not encoder.columns
    plain &= not encoder.prefix and not encoder.alternate_sign
    mask = 2**64 - 1 if plain else 2 ** (64 - max(1, (num_rows - 1).bit_length())) - 1
    hashed = {
        key: HASHES["xxh64"](reference.as_bytes(key, "bytes"), 0) & mask
        for key in counts
    }

    def measured(buckets: int) -> float | None:
        again = {key: value % buckets for key, value in hashed.items()}
        return divide(len(sharing(again)), len(counts))

    while (measured(wanted) or 0) > 0.01:
        wanted = math.ceil(Fraction(51, 50) * wanted)
    shared = sharing(ids)
    return {
        "buckets": num_rows - spare,
        "expected": float(chance(len(counts), num_rows - spare)),
        "measured": divide(len(shared), len(counts)),
        "occurrences": divide(sum(counts[k] for k in shared), counts.total()),
        "wanted_buckets": wanted + spare,
        "wanted_measured": measured(wanted),
    }


def inspect_fields(spec: FeatureSpec, rows: Rows) -> dict[str, Any]:
    _, found = reference.encode(spec, rows)
    out = {}
    for name, (f, values) in values_of(spec, rows).items():
        c = found[name]
        refused = c["unseen"] if f.encoder.unseen == "error" else 0
        out[name] = {**c, "values": len(values), "refused": refused}
    for d in spec.dense:
        c = found[d.name]
        refused = c["nulls"] if d.missing is None else 0
        out[d.name] = {**c, "values": len(rows) * d.dim, "refused": refused}
    for counts in out.values():
        del counts["rows"]
    return out


def inspect_dense(dense: Dense, rows: Rows) -> dict[str, Any]:
    values: list[Any] = []
    for row in rows:
        value = row[dense.column]
        whole = [None] * dense.dim if value is None else value
        values += whole if isinstance(whole, list) else [whole]
    there = sorted(float(v) for v in values if v is not None and math.isfinite(v))
    n = len(there)
    mean = float(sum(map(Fraction, there)) / n) if n else None
    std = None
    if mean is not None:
        std = math.sqrt(sum((Fraction(v) - Fraction(mean)) ** 2 for v in there) / n)
    places = {p: max(0, math.ceil(Fraction(p * n, 100)) - 1) for p in PERCENTILES}
    wanted = None
    if mean is not None and std is not None and dense.scale is None:
        largest = max(abs(v) for v in there)
        if abs(mean) > 3 or std > 3 or (largest < 0.1 and there[0] != there[-1]):
            first, median, last = (
                there[math.ceil(p * n / 100) - 1] for p in (1, 50, 99)
            )
            above = there[-1] - median > max(10 * (last - median), 3)
            below = median - there[0] > max(10 * (median - first), 3)
            ratio = there[0] >= 0 and 0 < 10 * median < last and last > 3
            wanted = "log1p" if above or below or ratio else "standard"
    return {
        "name": dense.name,
        "values": n,
        "missing": len(values) - n,
        "zeros": there.count(0.0),
        "mean": mean,
        "std": std,
        "percentiles": {str(p): there[i] for p, i in places.items() if n},
        "scale": dense.scale.type if dense.scale else None,
        "wanted": wanted,
    }


def inspect_users(spec: FeatureSpec, rows: Rows) -> dict[str, Any] | None:
    if spec.group is None:
        return None
    counts = Counter(row[spec.group] for row in rows if row[spec.group] is not None)
    ranked = sorted(counts.values())
    return {
        "distinct": len(counts),
        "error": 0.0,
        "rows_mean": divide(counts.total(), len(counts)),
        "rows_median": ranked[(len(ranked) - 1) // 2] if ranked else None,
        "rows_most": ranked[-1] if ranked else None,
    }


def inspect_rows(
    spec: FeatureSpec, rows: Rows, pairs: dict[str, list[tuple[str, str]]]
) -> dict[str, Any]:
    """Inspect all rows; `pairs` lists per sequence what is compared."""
    labels = [row[spec.label] for row in rows] if spec.label else []
    times = [row[spec.time] for row in rows] if spec.time else []
    times = [t for t in times if t is not None]
    fields = inspect_fields(spec, rows)
    return {
        "rows": len(rows),
        "labels": {
            "clicks": labels.count(1),
            "non_clicks": labels.count(0),
            "other": len(labels) - labels.count(0) - labels.count(1),
        }
        if spec.label
        else None,
        "users": inspect_users(spec, rows),
        "time": (str(min(times)), str(max(times))) if times else None,
        "sequences": tuple(
            inspect_sequence(spec, s, rows, pairs[s.name]) for s in spec.behavior
        ),
        "fields": fields,
        "tables": tuple(inspect_table(spec, t, fields, rows) for t in spec.tables),
        "dense": tuple(inspect_dense(d, rows) for d in spec.dense),
    }
