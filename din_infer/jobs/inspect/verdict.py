"""What an inspection means: warnings, and a verdict that gives its reasons."""

import math
from collections.abc import Iterable, Iterator

from din_infer.formatting import count, percent, size
from din_infer.jobs.inspect.facts import (
    DenseReport,
    Findings,
    Match,
    Overlap,
    SequenceReport,
    TableReport,
    share,
)

__all__ = [
    "FEWEST_ROWS",
    "MANY_ZEROS",
    "is_leak",
    "is_signal",
    "on_zeros",
    "verdict",
    "warnings",
]

# A judgement needs so many rows of either class that have a history.
FEWEST_ROWS = 50
# A leak: the newest behavior is the candidate in this share of clicks and so many times
# that of non-clicks, and the second newest falls to a third, or nearly all are so.
# Interests fade slowly from behavior to behavior; only the click itself falls off.
LEAK_SHARE, LEAK_TIMES, LEAK_FALL, NEARLY_ALL = 0.1, 5.0, 1 / 3, 0.9
# Histories agree with clicks: standard errors between the classes, and times.
SIGNAL_ERRORS, SIGNAL_TIMES = 4.0, 1.1
# Rows with two behaviors or more, for attention to weigh against each other.
HARDLY, PARTLY = 0.2, 0.5
# Of the values of an identity column, so many zeros are worth a sentence.
MANY_ZEROS = 0.001
# The share of keys with a row in common that is small enough.
WANTED = 0.01


def _classes(overlap: Overlap) -> tuple[Match, Match] | None:
    """Return clicks and non-clicks where both are enough to judge by."""
    if "clicks" not in overlap.matches:
        return None
    clicks, others = overlap.matches["clicks"], overlap.matches["non_clicks"]
    return (clicks, others) if min(clicks.rows, others.rows) >= FEWEST_ROWS else None


def is_leak(overlap: Overlap) -> bool:
    """Tell whether the histories look as if they were taken after the click."""
    classes = _classes(overlap)
    if classes is None:
        return False
    clicks, others = classes
    newest, second = clicks.at(0) or 0.0, clicks.at(1) or 0.0
    if newest < LEAK_SHARE or newest < LEAK_TIMES * (others.at(0) or 0.0):
        return False
    falls = sum(clicks.reach[1:2]) >= FEWEST_ROWS and second <= LEAK_FALL * newest
    return falls or newest >= NEARLY_ALL


def distance(overlap: Overlap) -> float:
    """Return how many standard errors clicks match their histories more often."""
    classes = _classes(overlap)
    if classes is None:
        return 0.0
    clicks, others = classes
    mean = (clicks.anywhere + others.anywhere) / (clicks.rows + others.rows)
    error = math.sqrt(mean * (1 - mean) * (1 / clicks.rows + 1 / others.rows))
    return ((clicks.share or 0) - (others.share or 0)) / error if error else 0.0


def is_signal(overlap: Overlap) -> bool:
    """Tell whether clicks match their histories clearly more often than non-clicks.

    Rows must match more often, and behaviors too: longer histories alone match more.
    """
    classes = _classes(overlap)
    if classes is None:
        return False
    density, other = classes[0].density or 0.0, classes[1].density or 0.0
    return distance(overlap) >= SIGNAL_ERRORS and density >= SIGNAL_TIMES * other


def warnings(found: Findings) -> Iterator[str]:
    """Say what must be mended before training."""
    for s in found.sequences:
        leaks = [_leak(o) for o in s.overlaps if is_leak(o)]
        if leaks:
            yield (
                f"Leak? The newest behavior of {s.name} has the row's own"
                f" {'; '.join(leaks)}. These histories seem to be taken after the"
                " click, and hold it; a history must end before its row."
            )
    if found.labels and found.labels.other:
        other = found.labels.other
        yield f"{other:,} labels are neither 0 nor 1, which din-train refuses."
    for t in found.tables:
        zeros = share(t.zeros, t.occurrences)
        if t.padding_row == "zero" and zeros and zeros >= MANY_ZEROS:
            yield on_zeros(t.fields, zeros)
    unseen: list[str] = []
    missing: list[str] = []
    for name, counts in found.fields.items():
        if counts.refused:
            to = unseen if counts.unseen else missing
            to.append(f"{counts.refused:,} of {name}")
    for values, kind, key in (
        (unseen, "Unseen", 'unseen = "missing"'),
        (missing, "Missing", "missing = 0.0"),
    ):
        if values:
            yield (
                f"{kind} values, which din-train and din-score refuse:"
                f" {', '.join(values)}. `{key}` in the spec accepts them."
            )


def on_zeros(fields: Iterable[str], zeros: float) -> str:
    """Say what it means that a share of the values of an identity table is 0."""
    return (
        f"{percent(zeros)} of the values of {', '.join(fields)} are 0, which"
        " `identity` takes for missing: row 0 of its table stays zero, and nothing is"
        " learned about it. If 0 is an id like others, hash the column (`type ="
        ' "hash"`, whose `reduce = "offset"` leaves row 0 to missing values), list its'
        ' ids (`type = "vocab"`), or train the row (`padding_row = "trained"`).'
    )


def _leak(o: Overlap) -> str:
    clicks, others = o.matches["clicks"], o.matches["non_clicks"]
    newest = f"{percent(clicks.at(0))} of clicks and {percent(others.at(0))} of"
    second = f"{percent(clicks.at(1))} and {percent(others.at(1))}"
    return f"{o.candidate} in {newest} non-clicks (the second newest: {second})"


def verdict(found: Findings) -> Iterator[str]:
    """Say whether a DIN fits, then why, each sentence with its figures."""
    if not found.rows:
        yield "No rows, no verdict."
        return
    yield _headline(found)
    for s in found.sequences:
        yield (
            f"{percent(_weighed(s))} of the rows have two or more behaviors in"
            f" {s.name}, to be weighed against each other."
        )
        for o in s.overlaps:
            yield from _on_overlap(o)
        yield from _on_truncation(s)
    for t in found.tables:
        yield from _on_table(t)
    for d in found.dense:
        yield from _on_dense(d)


def _on_dense(d: DenseReport) -> Iterator[str]:
    if d.wanted is None:
        return
    low, last, high = (f"{d.percentiles[p]:.4g}" for p in ("0", "99", "100"))
    key = f'`scale = {{ type = "{d.wanted}" }}`'
    if d.wanted == "log1p":
        yield (
            f"99% of {d.name}'s values are up to {last}, the largest is {high}: give it"
            f" {key} in the spec, which din-train fits."
        )
        return
    yield (
        f"{d.name}'s values, from {low} to {high}, are far from unit range: din-train"
        f" adds {key}, if the spec does not."
    )


def _weighed(s: SequenceReport) -> float:
    return 1 - (s.empty + s.single) / s.rows


def _headline(found: Findings) -> str:
    if not found.sequences:
        return "No: without a behavior sequence attention has nothing to weigh."
    best = max(map(_weighed, found.sequences))
    overlaps = [o for s in found.sequences for o in s.overlaps]
    judged = [o for o in overlaps if _classes(o)]
    if any(map(is_leak, overlaps)):
        return "Not yet: mend the leak first; any model would learn it instead."
    if best < HARDLY:
        return "Hardly: most histories are too short for attention."
    if not overlaps:
        return (
            "Perhaps: no field of a history pairs with one of the candidate, so that"
            " nothing here shows whether they agree."
        )
    if found.labels is None:
        return "Perhaps: without labels nothing shows whether histories matter."
    if not judged:
        few = "too few clicks and non-clicks"
        return f"Perhaps: {few} to tell whether histories matter."
    if not any(map(is_signal, judged)):
        unlike = "histories do not tell clicks from non-clicks"
        return f"Doubtful: by equal values, {unlike}."
    if best < PARTLY:
        return "Partly: histories tell clicks from non-clicks, but most are short."
    return "Yes: histories are long enough, and tell clicks from non-clicks."


def _on_overlap(o: Overlap) -> Iterator[str]:
    classes = _classes(o)
    if classes is None:
        return
    clicks, others = classes
    if not clicks.anywhere and not others.anywhere:
        yield (
            f"The candidate's {o.candidate} is in no row's history: of it, only alike"
            " embeddings can match."
        )
        return
    so = ": the interest that a DIN weighs" if is_signal(o) and not is_leak(o) else ""
    yield (
        f"The candidate's {o.candidate} is in the history of {percent(clicks.share)} of"
        f" clicks and {percent(others.share)} of non-clicks{so}."
    )


def _on_truncation(s: SequenceReport) -> Iterator[str]:
    lost = share(s.lost, s.behaviors) or 0.0
    if lost >= 0.01:
        yield (
            f"max_len = {s.max_len} of {s.name} cuts off {percent(lost)} of the"
            f" behaviors; {s.max_len_keeping['95']:,} would keep 95%,"
            f" {s.max_len_keeping['99']:,} would keep 99%."
        )


def _on_table(t: TableReport) -> Iterator[str]:
    c = t.collisions
    sharing = 0.0
    if c is not None and (c.wanted_buckets is None or c.wanted_buckets > t.rows):
        sharing = c.expected if c.measured is None else c.measured
    if c is not None and round(sharing, 3) > WANTED:  # as it is shown
        under = "more buckets than a table may have"
        if c.wanted_buckets is not None:
            wanted = size(c.wanted_buckets * t.dim)
            under = f"buckets = {c.wanted_buckets:,} ({wanted})"
        keys = f"{t.name}'s {count(t.distinct, t.error)} keys"
        yield (
            f"{percent(sharing)} of {keys} share their embedding with another. Under"
            f" 1%: {under}; 0%: a vocabulary of these keys"
            f" ({size((t.distinct + 2) * t.dim)})."
        )
    if t.encoder == "vocab" and t.occurrences and t.unseen >= 0.01 * t.occurrences:
        unseen = percent(t.unseen / t.occurrences)
        yield f"{unseen} of {t.name}'s values are not in its vocabulary."
    if t.once is not None and t.once >= 0.5 and t.encoder != "bucketize":
        yield f"{percent(t.once)} of {t.name}'s keys occur once: hardly to be learned."
