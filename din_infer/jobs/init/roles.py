"""What columns are for: the facts that guesses consist of."""

from collections.abc import Collection
from dataclasses import dataclass, field

from din_infer.jobs.init.columns import Column
from din_infer.spec_reading import RESERVED, plain_name

__all__ = ["BehaviorSequence", "Guess", "Role", "new_name"]


@dataclass(frozen=True)
class Role:
    """What a column is for, and why.

    `role` is "label", "group", "time", "weight", "field", "behavior", "multi_hot",
    "dense" or "none" (the spec does not read it). `pairs` is the candidate field of a
    behavior, None where it has none.
    """

    column: Column
    role: str
    why: str
    side: str = "candidate"
    pairs: str | None = None


@dataclass(frozen=True)
class BehaviorSequence:
    """Behavior columns whose lists have the same lengths on every row."""

    name: str
    roles: tuple[Role, ...]
    max_len: int
    order: str
    why: str
    pad_value: str | int | None = None


@dataclass
class Guess:
    """All roles, in the order of the columns, and the behavior sequences.

    `names` are the names of the fields that read columns, by the columns'.
    """

    roles: list[Role] = field(default_factory=list)
    sequences: list[BehaviorSequence] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def named(self, role: str) -> list[Role]:
        """List the columns of a role."""
        return [r for r in self.roles if r.role == role]


def new_name(wanted: str, taken: Collection[str]) -> str:
    """Make a name that a field may have and none of the others has."""
    name = plain_name(wanted)
    while name in taken or name in RESERVED:
        name += "_"
    return name
