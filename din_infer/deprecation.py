"""Warnings about names, parameters, keys and options that will go; one sentence.

What is deprecated in version X.Y works through all of X.Y, and is gone in a later minor
release while the major version is 0, in the next major one after that
(docs/versions.md).
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["DinDeprecationWarning", "deprecated_names", "warn"]


class DinDeprecationWarning(FutureWarning):
    """Something of this package that will go, with what replaces it.

    A FutureWarning, which Python shows by default: a DeprecationWarning is shown only
    where ``__main__`` itself triggers it, so that those who run a job, or a command,
    would meet the removal without having been told.
    """


def warn(what: str, since: str, instead: str, *, stacklevel: int = 2) -> None:
    """Warn once per calling line that something will go.

    Parameters
    ----------
    what : str
        A function, a parameter, a key of a spec, an option of a command: as it is
        written.
    since : str
        The version that deprecated it.
    instead : str
        What replaces it, as it is written.
    stacklevel : int
        As of `warnings.warn`, counted from the caller.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("--shards", "0.2", "--inputs")
    >>> print(caught[0].message)
    `--shards` is deprecated since din-infer 0.2 and will go. Use `--inputs`.
    """
    will_go = f"is deprecated since din-infer {since} and will go"
    said = f"`{what}` {will_go}. Use `{instead}`."
    warnings.warn(said, DinDeprecationWarning, stacklevel=stacklevel + 1)


def deprecated_names(
    module: str, names: Mapping[str, tuple[str, str, object]]
) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module for names that it had.

    Parameters
    ----------
    module : str
        Its name.
    names : dict
        Of an old name: the version that deprecated it, the new name, and the object.
    """

    def find(name: str) -> Any:  # noqa: ANN401
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        since, instead, found = names[name]
        warn(f"{module}.{name}", since, f"{module}.{instead}")
        return found

    return find
