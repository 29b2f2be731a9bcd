"""Labeled rows with histories, made of the raw events of a log.

`reading` copies files into DuckDB; `roles` says which columns and actions mean what,
`times` how times are written; `events` numbers users and items. `rows` makes rows of
some users at a time, by `segments` (which behaviors are a history), `sampling`
(negatives) and `catalog` (what that needs of the whole log). `job` joins all, `output`
writes.
"""

from din_infer.jobs.history.job import Summary, build

__all__ = ["Summary", "build"]
