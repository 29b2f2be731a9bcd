"""Mini-batch aware regularization: L2 on the rows of a table that a batch reads.

Letters: B samples of a batch, R rows of a table, D its width.
Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, is
"the paper" below.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from din_converter.model import ClickModel
from din_infer.errors import ModelError, check_kind, reads_arguments

__all__ = ["MiniBatchAwareRegularizer", "count_samples"]


class MiniBatchAwareRegularizer:
    """L2 on just the embedding rows that occur in the batch, row j weighted by 1 / n_j.

    Parameters
    ----------
    embeddings : iterable of torch.nn.Embedding
        Made with ``sparse=True``: what a backward pass leaves is then the rows that the
        batch read, and a step costs by the batch, however long the table.
    counts : iterable of int64 [R]
        One array per embedding: n_j, in how many training samples row j occurs; as
        `count_samples` counts them. A row that never occurred counts as one sample.
    strength : float
        lambda, at least 0; 0.01 in the paper.

    Raises
    ------
    ModelError
        If a count has another length than its table, a gradient is dense, or the
        strength is negative.

    Notes
    -----
    The paper, section 5.2. L2 on all parameters would touch every row of every table in
    every step. Its sum over samples, equation 4, is instead taken apart by batches
    B_1 .. B_M (equation 5), and how often row j occurs in B_m is approximated by
    whether it does (equation 6)::

        L2(W) ~= sum over j, m of alpha_mj / n_j * ||w_j||^2,
        alpha_mj = 1 if some sample of B_m has feature j, else 0

    which makes a step of gradient descent (equation 7; the factor of 2 is lambda's)::

        w_j <- w_j - eta * (1 / |B_m| * sum over B_m of dL/dw_j
                            + lambda * alpha_mj / n_j * w_j)

    So a frequent row is held less per step, and all rows about equally per epoch. With
    an adaptive optimizer the term is part of the gradient that it adapts to.

    Examples
    --------
    >>> import torch
    >>> table = torch.nn.Embedding.from_pretrained(
    ...     torch.ones(3, 2), freeze=False, sparse=True
    ... )
    >>> regularizer = MiniBatchAwareRegularizer([table], [torch.tensor([9, 4, 1])], 0.4)
    >>> (table(torch.tensor([1, 1])) * 0).sum().backward()
    >>> regularizer.add_gradients()
    >>> [round(v, 3) for v in table.weight.grad.to_dense()[:, 0].tolist()]
    [0.0, 0.1, 0.0]
    """

    @reads_arguments(ModelError)
    def __init__(
        self,
        embeddings: Iterable[nn.Embedding],
        counts: Iterable[Tensor | NDArray[np.int64]],
        strength: float,
    ) -> None:
        if not 0 <= strength < float("inf"):
            raise ModelError("a finite strength of at least 0", strength, "strength")
        self.strength = strength
        self._shares: list[tuple[nn.Embedding, Tensor]] = []
        for embedding, count in zip(embeddings, counts, strict=True):
            check_kind(embedding, nn.Embedding, "embeddings")
            count = torch.as_tensor(count)
            rows = embedding.num_embeddings
            if tuple(count.shape) != (rows,):
                got = f"shape {list(count.shape)}"
                raise ModelError(f"{rows} counts, one a row", got, "counts")
            share = strength / count.clamp(min=1).to(torch.float64)
            weight = embedding.weight
            self._shares.append((embedding, share.to(weight.device, weight.dtype)))

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add lambda / n_j * w_j to the gradient of every row that the batch read.

        Call it between ``loss.backward()`` and ``optimizer.step()``. An embedding that
        no sample read has no gradient, and gets none.
        """
        if not self.strength:
            return
        for embedding, share in self._shares:
            gradient = embedding.weight.grad
            if gradient is None:
                continue
            if not gradient.is_sparse:
                rule = "sparse gradients, to tell which rows the batch read"
                fix = "Make the table with torch.nn.Embedding(.., sparse=True)."
                raise ModelError(rule, "dense ones", "embeddings", fix)
            gradient = gradient.coalesce()
            rows = gradient.indices()[0]
            term = share[rows].unsqueeze(1) * embedding.weight[rows]
            embedding.weight.grad = torch.sparse_coo_tensor(
                gradient.indices(),
                gradient.values() + term,
                gradient.shape,
                is_coalesced=True,
                check_invariants=False,
            )


@reads_arguments(ModelError)
def count_samples(
    model: ClickModel, batches: Iterable[Mapping[str, Tensor]]
) -> dict[str, NDArray[np.int64]]:
    """Count in how many samples each row of each table occurs: n_j of the paper.

    Parameters
    ----------
    model : DIN or BaseModel
        Determines which tables a sample reads, and where.
    batches : iterable of dict of Tensor
        Encoded inputs, as `spec.encode` makes them, one sample per candidate.

    Returns
    -------
    dict of int64 [R]
        By the name of the table. A row that a sample reads several times, in a history
        or by fields that share the table, counts once.
    """
    check_kind(model, ClickModel, "model")
    counts = {
        name: np.zeros(table.rows, np.int64)
        for name, table in model.spec.tables.items()
    }
    for inputs in batches:
        for name, (sample, row) in model.rows_read(inputs).items():
            num_rows = len(counts[name])
            pairs = np.sort(sample.numpy() * num_rows + row.numpy())
            # without repeats; np.unique takes three times as long
            pairs = pairs[np.diff(pairs, prepend=-1) != 0]
            counts[name] += np.bincount(pairs % num_rows, minlength=num_rows)
    return counts
