"""The settings of `train` and din-train; needs no torch."""

import math
from dataclasses import dataclass, replace

__all__ = ["CHOICES", "Settings"]

CHOICES = {
    "optimizer": ("adam", "adagrad", "sgd"),
    "schedule": ("constant", "exponential", "linear", "cosine"),
    "select": ("auc", "gauc", "log_loss"),
}

# By the number of rows below which they hold: the size of a batch, and how many steps a
# run takes, or `EPOCHS` where these are more. docs/results.md has the runs.
BY_ROWS = ((100_000, 64, 5_000), (1_000_000, 256, 2_500), (math.inf, 1024, 2_500))
EPOCHS = 2
# Epochs, or steps where these are more, without a better validation, which end a run.
PATIENCE, PATIENT_STEPS = 2, 250


@dataclass(frozen=True)
class Settings:
    """The settings of a training; the defaults are din-train's, set by docs/results.md.

    Where `epochs`, `batch_size` or `patience` is 0, `for_rows` takes it from the number
    of rows: two epochs, or as many as some thousand steps make.
    `mba` is the lambda of mini-batch aware regularization, 0 for none. `decay` is what
    an exponential schedule multiplies the learning rate by per epoch, a little at every
    step. `select` names the validation measure of the epoch to keep. `shuffle_rows` are
    shuffled together; memory holds about four times as many. With `add_scales`, dense
    fields far from unit range get a standard scale where the spec says none.
    """

    epochs: int = 0
    batch_size: int = 0
    optimizer: str = "adam"
    learning_rate: float = 2e-3
    schedule: str = "linear"
    decay: float = 0.9
    warmup_steps: int = 0
    weight_decay: float = 0.0
    mba: float = 1.0
    embedding_std: float = 0.1
    patience: int = 0
    select: str = "auc"
    valid_fraction: float = 0.1
    shuffle_rows: int = 1_000_000
    add_scales: bool = True
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"
    checkpoint_minutes: float = 5.0
    progress: bool = True

    def for_rows(self, rows: int) -> "Settings":
        """Return settings whose epochs, batch size and patience are set.

        Parameters
        ----------
        rows : int
            Of the training, at least 1.
        """
        size, in_all = next((b, s) for n, b, s in BY_ROWS if rows < n)
        batch = self.batch_size or size
        steps = -(-rows // batch)
        epochs = self.epochs or max(EPOCHS, -(-in_all // steps))
        patience = self.patience or max(PATIENCE, -(-PATIENT_STEPS // steps))
        return replace(self, batch_size=batch, epochs=epochs, patience=patience)

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
