import numpy as np
from numpy.typing import NDArray

from din_infer import _kernels


def encode_lists(
    column: _kernels.Column,
    encoder: _kernels.Encoder,
    window: _kernels.Window,
    width: int,
    newest_first: bool,
) -> tuple[NDArray[np.int64], int, int]:
    """Encode all rows of a list column at once: (padded, nulls, unseen)."""
    encoding = _kernels.prepare_lists(column, encoder, window, width, newest_first)
    encoding.run(0, encoding.num_rows)
    return encoding.finish()
