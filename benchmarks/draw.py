"""How batches are drawn: Zipf, and as many as outgrow the caches."""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["pool_size", "scattered", "zipf"]

MIN_POOL, MAX_POOL = 4, 4096
SCATTER = 2_654_435_761  # a prime: times it, modulo n, shuffles ranks


def zipf(rng: np.random.Generator, n: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Draw int64 in [0, n), Zipf with exponent 1, scattered over the range."""
    # Rank r has probability ~ 1 / r when its logarithm is uniform.
    rank = np.exp(rng.random(shape) * math.log(n + 1)).astype(np.int64)
    return scattered(rank, n)


def scattered(rank: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Move ranks 1 to n to places in [0, n), each to one of its own."""
    return rank * SCATTER % n


def pool_size(size: int, bytes_per_batch: int) -> int:
    """Count the batches that fill `size` bytes, within reason."""
    return min(max(MIN_POOL, -(-size // bytes_per_batch)), MAX_POOL)
