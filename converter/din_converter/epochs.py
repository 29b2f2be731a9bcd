"""The measurements of each epoch of a training, and its result."""

import math
from dataclasses import dataclass, field

from din_converter.model import ClickModel
from din_converter.survey import Baseline

__all__ = ["Epoch", "Trained", "better", "decided_by", "epoch_header", "epoch_line"]


@dataclass(frozen=True)
class Epoch:
    """What one epoch measured; GAUC is None without a `group` column.

    `calibration` is the sum of the scores over the number of clicks. All measures are
    weighted where the spec names a `weight`. `seconds` are those of training, `waited`
    the share of them that waited for rows.
    """

    number: int
    train_log_loss: float
    log_loss: float
    auc: float
    gauc: float | None
    calibration: float = math.nan
    learning_rate: float = math.nan
    seconds: float = 0.0
    rows_per_second: float = 0.0
    waited: float = 0.0


@dataclass
class Trained:
    """The best model, and every epoch on the way to it.

    `baselines` are validation AUCs of rules without a model; `remarks` are sentences on
    what looks wrong, best none.
    """

    model: ClickModel
    best: Epoch | None
    epochs: list[Epoch] = field(default_factory=list)
    baselines: tuple[Baseline, ...] = ()
    remarks: tuple[str, ...] = ()


def decided_by(epoch: Epoch, measure: str) -> str:
    """Return the measure that chooses: log-loss where the epoch lacks the other.

    Whether there is an AUC or GAUC depends on labels and groups, not on the model: of
    a run, all epochs have it or none has.
    """
    value = getattr(epoch, measure)
    return "log_loss" if value is None or math.isnan(value) else measure


def better(epoch: Epoch, best: Epoch, measure: str) -> bool:
    """Compare by a measure; by log-loss where a single class leaves none."""
    measure = decided_by(epoch, measure)
    new, old = getattr(epoch, measure), getattr(best, measure)
    return bool(new < old if measure == "log_loss" else new > old)


def epoch_header(weighted: bool = False) -> str:
    """Return the head of the table that `epoch_line` fills."""
    names = "train log-loss", "valid log-loss", "valid AUC", "valid GAUC", "calibration"
    head = "  ".join(("epoch", *names, "  rows/s"))
    above = "  ".join([" " * 5, *("weighted".rjust(len(name)) for name in names)])
    return f"{above}\n{head}" if weighted else head


def epoch_line(epoch: Epoch) -> str:
    """Return one epoch as a line of the table."""

    def show(value: float | None, width: int, digits: int = 5) -> str:
        missing = value is None or math.isnan(value)
        return ("-" if missing else f"{value:.{digits}f}").rjust(width)

    return (
        f"{epoch.number:5d}  {show(epoch.train_log_loss, 14)}"
        f"  {show(epoch.log_loss, 14)}  {show(epoch.auc, 9)}  {show(epoch.gauc, 10)}"
        f"  {show(epoch.calibration, 11, 3)}  {epoch.rows_per_second:8,.0f}"
    )
