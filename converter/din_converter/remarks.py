"""Sentences about a run whose result is not to be trusted; none where all is well."""

import math
from collections.abc import Iterator, Sequence

from din_converter.epochs import Epoch, decided_by
from din_converter.survey import Baseline, Survey
from din_infer.jobs.inspect.verdict import on_zeros
from din_infer.spec import FeatureSpec

__all__ = ["about_result", "about_rows", "about_spec", "name_of_measure"]

# A chance AUC is above 0.5 by two standard errors once in 40 times; less than that is
# no difference between a rule and a model, either.
CHANCE_ERRORS = 2.0


def name_of_measure(measure: str, spec: FeatureSpec) -> str:
    """Say a measure as text: "weighted validation log-loss"."""
    name = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log-loss"}[measure]
    return f"{'weighted ' if spec.weight else ''}validation {name}"


def about_spec(spec: FeatureSpec) -> Iterator[str]:
    """Name fields that nothing reads, and those that read the label or its weight."""
    for name in _unread(spec):
        yield (
            f"Nothing reads {name}: `tower.inputs` leaves it out, and no attention that"
            " is read pairs it. Add it there, or take it out of the spec."
        )
    for role, column in (("label", spec.label), ("weight", spec.weight)):
        readers = dict.fromkeys(
            c.inputs[0].name for c in spec.reads if column and c.name == column
        )
        for name in readers:
            why = "the model is told what it is to predict"
            if role == "weight":
                why = "where weights differ between clicks and non-clicks, the model"
                why += " is told which is which"
            yield f"{name} reads the {role} `{column}`: {why}. Take it out of the spec."


def _unread(spec: FeatureSpec) -> list[str]:
    """List fields and sequences whose values reach no output."""
    sequences = {s.name: s for s in spec.behavior}
    read: set[str] = set()
    for part in spec.tower_inputs:
        if part.kind == "field":
            read.add(part.name)
            continue
        sequence = sequences[part.name]
        attends = part.kind != "query" and spec.model.type == "din"
        if part.kind != "query":
            read.add(part.name)
        if attends or part.kind != "interest":
            read |= {name for name, _ in sequence.query if name is not None}
    for derived in spec.derived:
        if derived.name in read:
            read.add(derived.source)
    # a sequence that nothing reads may still look up what a derived field needs
    kinds = (spec.user, spec.candidate, spec.derived, spec.multi_hot, spec.dense)
    names = [part.name for kind in (*kinds, spec.behavior) for part in kind]
    return [name for name in names if name not in read]


def about_rows(survey: Survey) -> Iterator[str]:
    """Say what is odd about the rows."""
    for name in survey.separating():
        yield (
            f"{name} alone tells clicks from non-clicks in every training row: it seems"
            " to know the label. A feature must be known before the click."
        )
    for fields, share in survey.zeros():
        yield on_zeros(fields, share)


def about_result(
    epochs: Sequence[Epoch],
    best: Epoch | None,
    select: str,
    survey: Survey,
    baselines: Sequence[Baseline],
) -> Iterator[str]:
    """Say what the validation shows that should not be."""
    if best is None or math.isnan(best.log_loss):
        return
    spec = survey.spec
    if math.isnan(best.auc):
        label = int(survey.valid_mass[1] > 0)
        yield (
            f"The labels of the validation rows are all {label}: there is no AUC, and"
            " nothing shows whether the model orders rows rightly."
        )
    elif select == "gauc" and decided_by(best, "gauc") != "gauc":
        yield (
            f"GAUC is undefined: no {spec.group} has both clicks and non-clicks among"
            " the validation rows. The log-loss chose the epoch."
        )
    if not math.isnan(best.auc):
        yield from _beside(best.auc, survey, baselines)
    if best.number == 1 and len(epochs) > 1:
        by = name_of_measure(decided_by(best, select), spec)
        yield (
            f"The first epoch was kept: in no later one was the {by} better. Try a"
            " lower learning rate, or regularize the tables (--mba)."
        )


def _beside(auc: float, survey: Survey, baselines: Sequence[Baseline]) -> Iterator[str]:
    others, clicks = (int(n) for n in survey.valid_clicks)
    error = math.sqrt((others + clicks + 1) / (12 * others * clicks))
    clear = auc + CHANCE_ERRORS * error
    ahead = [b for b in baselines if b.auc >= clear and b.name != "chance"]
    if auc <= 0.5 + CHANCE_ERRORS * error:
        yield (
            f"The model is no better than chance: a validation AUC of {auc:.5f} on"
            f" {others + clicks:,} rows is not clearly above 0.5."
        )
    if ahead:
        first = max(ahead, key=lambda b: b.auc)
        yield (
            f"The model does not beat a rule without a model: {first.name} has an AUC"
            f" of {first.auc:.5f}, the model {auc:.5f}. It has not learned what the"
            " data shows; do not use it."
        )
