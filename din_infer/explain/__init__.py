"""Explanations: the activation weight of every behavior, beside its raw values.

`facts` are the results; `text`, `html` and `plot` show them; `explanation` joins these.
"""

from din_infer.explain.explanation import Explanation, explained
from din_infer.explain.facts import ExplainedRow, ExplainedSequence

__all__ = ["ExplainedRow", "ExplainedSequence", "Explanation", "explained"]
