"""Labeled rows with histories, made of the raw events of a log.

`reading` copies files into DuckDB; `roles` says which columns and actions mean what,
`times` how times are written; `events` numbers users and items. `rows` makes rows of
some users at a time, by `segments` (which behaviors are a history) and `sampling`
(negatives); `build` joins all and writes.
"""

from din_infer.jobs.history.build import Summary, build

__all__ = ["Summary", "build"]
