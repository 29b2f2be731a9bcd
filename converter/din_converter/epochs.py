"""The measurements of each epoch of a training, and its result."""

import math
from dataclasses import dataclass, field

from din_converter.model import ClickModel

__all__ = ["Epoch", "Trained", "better", "epoch_header", "epoch_line"]


@dataclass(frozen=True)
class Epoch:
    """What one epoch measured; GAUC is None without a `group` column.

    `calibration` is the sum of the scores over the number of clicks. `seconds` are
    those of training, `waited` the share of them that waited for rows.
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
    """The best model, and every epoch on the way to it."""

    model: ClickModel
    best: Epoch | None
    epochs: list[Epoch] = field(default_factory=list)


def better(epoch: Epoch, best: Epoch, measure: str) -> bool:
    """Compare by a measure; by log-loss where a single class leaves none."""
    new, old = getattr(epoch, measure), getattr(best, measure)
    if measure == "log_loss" or None in (new, old) or math.isnan(new + old):
        return epoch.log_loss < best.log_loss
    return bool(new > old)


def epoch_header() -> str:
    """Return the head of the table that `epoch_line` fills."""
    return (
        "epoch  train log-loss  valid log-loss  valid AUC  valid GAUC  calibration"
        "    rows/s"
    )


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
