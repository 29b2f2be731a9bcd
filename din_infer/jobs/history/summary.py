"""What a log was made into, as figures and as text."""

from dataclasses import asdict, dataclass, field
from typing import Any

from din_infer.formatting import aligned, percent

__all__ = ["Summary"]


@dataclass
class Summary:
    """What a log was made into.

    Attributes
    ----------
    files : dict
        From each path that was written to its rows.
    roles : dict
        From "user", "time" and "label" to the column of the rows.
    events, left_out, users, items : int
        Of the log; events that lacked a user, an item or a time.
    positives : int
        Rows of label 1.
    impressions : int
        Rows of label 0 that the log has: shown, and not clicked.
    sampled, missing : int
        Negatives that were drawn; those that were not, since the user has every other
        item.
    users_with_rows : int
    too_short : int
        Targets that were left out for a shorter history than `min_history`.
    lengths : dict
        From each length of a history to how many rows have it.
    seconds : float
    """

    files: dict[str, int] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    events: int = 0
    left_out: int = 0
    users: int = 0
    items: int = 0
    positives: int = 0
    impressions: int = 0
    sampled: int = 0
    missing: int = 0
    users_with_rows: int = 0
    too_short: int = 0
    lengths: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """All rows that were written."""
        return sum(self.files.values())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {"rows": self.rows, **asdict(self)}

    def length_at(self, share: float) -> int:
        """Return the length that so large a share of the rows does not exceed."""
        wanted, seen = share * sum(self.lengths.values()), 0
        for length, count in sorted(self.lengths.items()):
            seen += count
            if seen >= wanted:
                return length
        return 0

    def __str__(self) -> str:
        empty = self.lengths.get(0, 0)
        lines = [
            ("events", f"{self.events:,}", ""),
            ("users", f"{self.users:,}", f"{self.users_with_rows:,} have rows"),
            ("items", f"{self.items:,}", ""),
            ("rows", f"{self.rows:,}", ""),
            ("label 1", f"{self.positives:,}", ""),
            ("label 0", f"{self.impressions + self.sampled:,}", self._zeros()),
            ("no history", f"{empty:,}", f"{percent(self._share(empty))} of the rows"),
            (
                "history",
                f"{self.length_at(0.5):,}",
                f"behaviors in the median; {self.length_at(0.9):,} at 90%,"
                f" {max(self.lengths, default=0):,} at most",
            ),
        ]
        if self.left_out:
            said = "events lacked a user, an item or a time"
            lines.insert(1, ("left out", f"{self.left_out:,}", said))
        if self.too_short:
            said = "targets had a shorter history than --min-history"
            lines.append(("left out", f"{self.too_short:,}", said))
        if self.missing:
            said = "negatives: no other item was found for the user"
            lines.append(("not drawn", f"{self.missing:,}", said))
        shown = aligned(lines, {1}, 0)
        shown += [f"wrote {path}, {rows:,} rows" for path, rows in self.files.items()]
        shown[-1] += f", in {self.seconds:.1f} s"
        return "\n".join(shown)

    def _zeros(self) -> str:
        made = f"{self.sampled:,} drawn" if self.sampled else ""
        seen = f"{self.impressions:,} shown and not clicked" if self.impressions else ""
        return ", ".join(filter(None, (seen, made)))

    def _share(self, count: int) -> float | None:
        return count / self.rows if self.rows else None
