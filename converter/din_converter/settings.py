"""The settings of `train` and din-train; needs no torch."""

import math
from dataclasses import dataclass

__all__ = ["CHOICES", "Settings"]

CHOICES = {
    "optimizer": ("adam", "adagrad", "sgd"),
    "schedule": ("constant", "exponential", "linear", "cosine"),
    "select": ("auc", "gauc", "log_loss"),
}


@dataclass(frozen=True)
class Settings:
    """The settings of a training; the defaults are din-train's.

    `mba` is the lambda of mini-batch aware regularization, 0 for none. `decay` is what
    an exponential schedule multiplies the learning rate by per epoch, a little at every
    step. `select` names the validation measure of the epoch to keep. `shuffle_rows` are
    shuffled together; memory holds about four times as many. With `add_scales`, dense
    fields far from unit range get a standard scale where the spec says none.
    """

    epochs: int = 10
    batch_size: int = 1024
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    decay: float = 0.9
    warmup_steps: int = 0
    weight_decay: float = 0.0
    mba: float = 0.0
    embedding_std: float = 0.01
    patience: int = 2
    select: str = "auc"
    valid_fraction: float = 0.1
    shuffle_rows: int = 1_000_000
    add_scales: bool = True
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"
    checkpoint_minutes: float = 5.0
    progress: bool = True

    def rate(self, step: int, epochs: float) -> float:
        """Return the learning rate of a step, before which `epochs` have passed."""
        ends = min(1.0, epochs / self.epochs)
        factor = {
            "constant": 1.0,
            "exponential": self.decay**epochs,
            "linear": 1 - ends,
            "cosine": (1 + math.cos(math.pi * ends)) / 2,
        }[self.schedule]
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return float(self.learning_rate * factor * warm)
