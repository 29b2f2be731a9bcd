"""Which columns of a log mean what, and which of its actions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from din_infer.errors import InputError
from din_infer.jobs.role_names import NAMES, TIME_ENDS, is_named

__all__ = ["Actions", "Columns", "check_apart", "find_actions", "find_columns"]

NONE = "none"  # for an option that takes a column: there is none


@dataclass(frozen=True)
class Columns:
    """Names of columns, as the log writes them; None and () where there is none."""

    user: str
    item: str
    time: str
    action: str | None
    label: str | None
    session: str | None
    item_columns: tuple[str, ...]
    keep: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        """Every column that is read, once."""
        single = (
            self.user,
            self.item,
            self.time,
            self.action,
            self.label,
            self.session,
        )
        names = [*single, *self.item_columns, *self.keep]
        return list(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True)
class Actions:
    """Which actions are behaviors, positives and impressions; None: every event."""

    behaviors: tuple[str, ...] | None = None
    positives: tuple[str, ...] | None = None
    impressions: tuple[str, ...] = ()


def find_columns(
    names: Sequence[str],
    given: Mapping[str, str | Sequence[str] | None],
    on_note: Callable[[str], object],
) -> tuple[Columns, list[str]]:
    """Take the columns that were given, and guess the others by common names.

    Parameters
    ----------
    names : sequence of str
        All columns of the log.
    given : mapping
        From `Columns`' attributes to names, "none", or None to guess.
    on_note : callable
        Called with a sentence that says what was guessed.

    Returns
    -------
    columns : Columns
    left : list of str
        Columns that may be of the item or of the user, which only the data tells; none
        where `given` says which columns are the item's.

    Raises
    ------
    InputError
        If a name is not there, a column of users, items or times is not found, or
        several could be meant; it names the option that decides.
    """
    found: dict[str, str | None] = {}
    guessed: list[str] = []
    for role in ("user", "item", "time", "action", "label", "session"):
        value = given.get(role)
        if value is None and role in NAMES:
            value = _guess(names, role)
            if value is not None:
                guessed.append(f"--{role} {value}")
        found[role] = None if value in (None, NONE) else str(value)
    if found["action"] and found["label"]:
        if given.get("action") is None and given.get("label") is None:
            rule = "one column that says which events are clicks"
            got = f"`{found['action']}` and `{found['label']}`"
            fix = "Give --label none, or --action none; or both columns."
            raise InputError(rule, got, "--action, --label", fix)
        for role in ("action", "label"):  # what is given needs no guess beside it
            if given.get(role) is None:
                guessed = [text for text in guessed if not text.startswith(f"--{role}")]
                found[role] = None
    taken = {name for name in found.values() if name is not None}
    keep = tuple(given.get("keep") or ())
    some = given.get("item_columns")
    if some is None:
        some = [n for n in names if is_named(n, "item_columns")]
        some = [n for n in some if n not in {*taken, *keep}]
        if some:
            guessed.append(f"--item-columns {','.join(some)}")
    for option, wanted in (
        *((role, [name] if name else []) for role, name in found.items()),
        ("item-columns", list(some)),
        ("keep", list(keep)),
    ):
        for name in wanted:
            if name not in names:
                rule = f"a column of the log ({', '.join(names)})"
                raise InputError(rule, repr(name), f"--{option}")
    for role in ("user", "item", "time"):
        if found[role] is None:
            rule = f"a column of {role}s, of a name that is known"
            fix = f"Give --{role} COLUMN."
            raise InputError(rule, ", ".join(names), f"--{role}", fix)
    if guessed:
        on_note(f"taken by their names: {' '.join(guessed)}")
    used = {*taken, *some, *keep}
    left = [name for name in names if name not in used]
    if left and given.get("item_columns") is not None:
        on_note(f"not used: {', '.join(left)} (--item-columns and --keep take them)")
        left = []
    written = {found["user"], found["item"], found["time"], *some}
    if found["label"] == "label":
        written.add("label")
    columns = Columns(
        user=found["user"] or "",
        item=found["item"] or "",
        time=found["time"] or "",
        action=found["action"],
        label=found["label"],
        session=found["session"],
        item_columns=tuple(some),
        keep=tuple(name for name in keep if name not in written),
    )
    check_apart(columns)
    return columns, left


def _guess(names: Sequence[str], role: str) -> str | None:
    found = [name for name in names if is_named(name, role)]
    if not found and role == "time":  # watched_at, event_time
        found = [name for name in names if name.lower().endswith(TIME_ENDS)]
    if len(found) > 1:
        rule = f"one column of {role}s" if role != "label" else "one column of labels"
        got = " and ".join(f"`{name}`" for name in found)
        fix = f"Give --{role} {found[0]}, or --{role} {found[1]}."
        raise InputError(rule, got, f"--{role}", fix)
    return found[0] if found else None


def check_apart(columns: Columns) -> None:
    """Refuse columns of the output that have one name."""
    key = [columns.user, columns.time, columns.item, *columns.item_columns]
    history = [f"hist_{name}" for name in (columns.item, *columns.item_columns)]
    seen: set[str] = set()
    for name in [*key, *history, "label", *columns.keep]:
        if name in seen:
            rule = "columns of different names in the output"
            raise InputError(rule, f"{name} twice", name)
        seen.add(name)


def find_actions(
    counts: Mapping[str, int],
    column: str,
    given: Mapping[str, Sequence[str] | None],
    on_note: Callable[[str], object],
) -> Actions:
    """Say what each action of a log means.

    Parameters
    ----------
    counts : mapping
        From each action to how many events have it.
    column : str
        Where they stand.
    given : mapping
        From "behaviors", "positives" and "impressions" to actions, or None.

    Raises
    ------
    InputError
        If an action is not there, one is both positive and an impression, or the log
        has several and nothing says which are what.
    """
    seen = ", ".join(f"{name} ({count:,})" for name, count in counts.items())
    for option, actions in given.items():
        for name in actions or ():
            if name not in counts:
                rule = f"an action of `{column}`: {seen}"
                raise InputError(rule, repr(name), f"--{option}")
    behaviors, positives = given.get("behaviors"), given.get("positives")
    impressions = tuple(given.get("impressions") or ())
    if positives is None and behaviors is not None:
        positives = [name for name in behaviors if name not in impressions]
    if positives is None and impressions:
        positives = [name for name in counts if name not in impressions]
    if positives is None:
        if len(counts) > 1:
            rule = "to be told which actions are positives"
            first = next(iter(counts))
            fix = (
                f"Give --positives {first}, for example; --impressions for those that"
                " only show an item; or --action none, if all count alike."
            )
            raise InputError(rule, f"`{column}` with {seen}", "--positives", fix)
        return Actions()
    both = [name for name in positives if name in impressions]
    if both:
        rule = "actions that are positives or impressions"
        raise InputError(rule, f"{both[0]} as both", "--impressions")
    behaviors = positives if behaviors is None else behaviors
    told = {*behaviors, *positives, *impressions}
    rest = [name for name in counts if name not in told]
    if rest:
        on_note(
            f"neither behaviors nor targets: {', '.join(rest)} of `{column}`; their"
            " items are still never negatives of the user"
        )
    return Actions(tuple(behaviors), tuple(positives), impressions)
