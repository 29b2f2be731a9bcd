"""The building blocks of DIN in torch.

Letters: V valid (candidate, behavior) pairs, D width of a behavior, H hidden units.
Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, is
"the paper" below.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from din_infer.errors import ModelError, check_count, check_kind, reads_arguments
from din_infer.spec import Attention, Tower

__all__ = ["Dice", "LocalActivationUnit", "Mlp", "RowDice", "UnitNorm"]


class UnitNorm(nn.BatchNorm1d):
    """Batch normalization over rows that also accepts a training batch of 0 or 1 row.

    Such a batch has no variance: it is normalized by the running statistics, which it
    leaves unchanged.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize float [rows, H]; the output has the same shape."""
        if self.training and x.shape[0] > 1:
            return super().forward(x)
        return functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=False,
            eps=self.eps,
        )


class Dice(nn.Module):
    """Data adaptive activation, section 5.3 of the paper.

    p(s) = sigmoid((s - E[s]) / sqrt(Var[s] + epsilon)); out = p·s + (1 - p)·alpha·s
    with one alpha per unit. Batch statistics in training, running ones in evaluation.

    Parameters
    ----------
    units : int
        H.
    epsilon : float
        Added to the variance.
    affine : bool
        Give the normalization a trained weight and bias, as DeepCTR-Torch does.

    Examples
    --------
    >>> import torch
    >>> dice = Dice(2).eval()  # alpha 0, mean 0, variance 1: x * sigmoid(x)
    >>> [round(v, 3) for v in dice(torch.tensor([[0.0, 2.0]])).tolist()[0]]
    [0.0, 1.762]
    """

    @reads_arguments(ModelError)
    def __init__(
        self, units: int, epsilon: float = 1e-8, *, affine: bool = False
    ) -> None:
        super().__init__()
        check_count(units, "units")
        self.norm = UnitNorm(units, eps=epsilon, affine=affine)
        self.alpha = nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor) -> Tensor:
        """Activate float [rows, H]; the output has the same shape."""
        p = torch.sigmoid(self.norm(x))
        return x * (p + (1 - p) * self.alpha)


class RowDice(nn.Module):
    """Dice over the units of one row instead of the batch, as torch-rechub has it.

    p = sigmoid((x - mu) / sqrt(sum over units of ((x - mu)^2 + epsilon))), mu the mean
    over units; out = p·x + (1 - p)·alpha·x. The same in training and evaluation.
    """

    def __init__(self, units: int, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.alpha = nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor) -> Tensor:
        """Activate float [rows, H]; the output has the same shape."""
        centered = x - x.mean(dim=-1, keepdim=True)
        total = (centered.square() + self.epsilon).sum(dim=-1, keepdim=True)
        p = torch.sigmoid(centered / total.sqrt())
        return x * (p + (1 - p) * self.alpha)


def _activation(settings: Attention | Tower, units: int) -> nn.Module:
    kind = settings.activation
    if kind == "dice":
        return Dice(units, settings.dice_epsilon, affine=settings.dice_affine)
    if kind == "row_dice":
        return RowDice(units, settings.dice_epsilon)
    if kind == "prelu":
        return nn.PReLU(units)
    plain: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "sigmoid": nn.Sigmoid,
        "silu": nn.SiLU,
        "none": nn.Identity,
    }
    return plain[kind]()


class Layer(nn.Module):
    """Linear, batch normalization if asked, activation, dropout."""

    def __init__(self, width: int, units: int, settings: Attention | Tower) -> None:
        super().__init__()
        self.linear = nn.Linear(width, units)
        self.norm = UnitNorm(units) if settings.batch_norm else None
        self.activation = _activation(settings, units)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [rows, width] to float [rows, units]."""
        return self.after_linear(self.linear(x))

    def after_linear(self, x: Tensor) -> Tensor:
        """Finish what `linear` has begun: float [rows, units], of the same shape."""
        if self.norm is not None:
            x = self.norm(x)
        out: Tensor = self.dropout(self.activation(x))
        return out


class Mlp(nn.Module):
    """Hidden layers by `settings`, then a linear layer to one value per row."""

    def __init__(self, width: int, settings: Attention | Tower) -> None:
        super().__init__()
        widths = [width, *settings.hidden]
        self.hidden = nn.ModuleList(
            Layer(a, b, settings) for a, b in zip(widths, settings.hidden, strict=False)
        )
        self.output = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [rows, width] to float [rows]."""
        for layer in self.hidden:
            x = layer(x)
        out: Tensor = self.output(x).squeeze(-1)
        return out

    @property
    def first(self) -> nn.Linear:
        """The linear layer that reads the input."""
        return self.hidden[0].linear if len(self.hidden) else self.output  # type: ignore[return-value]

    def after_first(self, x: Tensor) -> Tensor:
        """Map the output of `first`, float [rows, units], to float [rows]."""
        if not len(self.hidden):
            return x.squeeze(-1)
        first, *others = self.hidden
        x = first.after_linear(x)  # type: ignore[operator]
        for layer in others:
            x = layer(x)
        out: Tensor = self.output(x).squeeze(-1)
        return out


class LocalActivationUnit(nn.Module):
    """How strongly one behavior is activated by one candidate, figure 2 of the paper.

    The score of an MLP over [q, k, q - k, q * k, q ⊗ k] (the last three as
    `attention.interactions` asks), before any softmax. Works on packed valid pairs, so
    that padding is never computed and never enters the statistics of Dice.

    Parameters
    ----------
    width : int
        D, the width of query and behavior.
    attention : Attention, optional
        Hidden widths, activation, interactions, scale; the paper's by default.

    Examples
    --------
    >>> import torch
    >>> unit = LocalActivationUnit(4).eval()
    >>> unit(torch.ones(3, 4), torch.zeros(3, 4)).shape
    torch.Size([3])
    """

    @reads_arguments(ModelError)
    def __init__(self, width: int, attention: Attention | None = None) -> None:
        super().__init__()
        check_count(width, "width")
        self.attention = Attention() if attention is None else attention
        check_kind(self.attention, Attention, "attention")
        self.width = width
        blocks = 2 + len(_in_order(self.attention.interactions))
        outer = width * width if "outer" in self.attention.interactions else 0
        self.mlp = Mlp(blocks * width + outer, self.attention)

    def forward(self, query: Tensor, behavior: Tensor) -> Tensor:
        """Score pairs: float [V, D] and float [V, D] to float [V]."""
        blocks = [query, behavior]
        for name in _in_order(self.attention.interactions):
            between = query - behavior if name == "difference" else query * behavior
            blocks.append(between)
        if "outer" in self.attention.interactions:
            blocks.append((query.unsqueeze(-1) * behavior.unsqueeze(-2)).flatten(-2))
        return self._finish(self.mlp(torch.cat(blocks, dim=-1)))

    def shared(self, queries: Tensor, behavior: Tensor, of: Tensor) -> Tensor:
        """Score pairs that share queries, in less time than `forward`, to rounding.

        With W of the first layer cut into its blocks, W·[q, k, q - k, q * k] is
        (Wq + Wd)·q + [Wk - Wd, Wp]·[k, q * k]: the first term is computed once a query,
        the second is half as long. A step of training takes four fifths of the time
        (19 ms for 23; histories of up to 50, D 56, batches of 256, one thread). Scoring
        keeps to `forward`, the formula as the paper writes it.

        Parameters
        ----------
        queries, behavior : Tensor
            float [N, D] and float [V, D].
        of : Tensor
            The query of each pair, int64 [V].

        Returns
        -------
        Tensor
            float [V].
        """
        interactions = self.attention.interactions
        if "outer" in interactions:
            return self.forward(queries.index_select(0, of), behavior)
        first = self.mlp.first
        names = ("query", "behavior", *_in_order(interactions))
        cut = torch.split(first.weight, self.width, dim=1)
        blocks = dict(zip(names, cut, strict=True))
        of_query, of_behavior = blocks["query"], blocks["behavior"]
        if "difference" in blocks:
            of_query = of_query + blocks["difference"]
            of_behavior = of_behavior - blocks["difference"]
        pairs, weights = [behavior], [of_behavior]
        if "product" in blocks:
            pairs.append(queries.index_select(0, of) * behavior)
            weights.append(blocks["product"])
        once = functional.linear(queries, of_query, first.bias)
        x = torch.addmm(
            once.index_select(0, of),
            torch.cat(pairs, dim=1),
            torch.cat(weights, dim=1).t(),
        )
        return self._finish(self.mlp.after_first(x))

    def _finish(self, score: Tensor) -> Tensor:
        kind = self.attention.output_activation
        if kind != "none":
            score = {
                "sigmoid": torch.sigmoid,
                "relu": torch.relu,
                "silu": functional.silu,
            }[kind](score)
        return score * self.attention.scale


def _in_order(interactions: Sequence[str]) -> list[str]:
    """Return the interactions that are as wide as a behavior, in the input's order."""
    return [name for name in ("difference", "product") if name in interactions]


def pool(
    vectors: Tensor, row: Tensor, num_rows: int, pooling: str, empty: float = 0.0
) -> Tensor:
    """Pool packed vectors float [V, D] by their `row` int64 [V] to float [num_rows, D].

    `pooling` is "sum", "mean" or "max"; a row with no vector becomes `empty`.
    """
    shape: Sequence[int] = (num_rows, vectors.shape[1])
    count = vectors.new_zeros(num_rows).index_add(0, row, vectors.new_ones(len(row)))
    if pooling == "max":
        index = row.unsqueeze(1).expand_as(vectors)
        out = vectors.new_zeros(shape)
        out = out.scatter_reduce(0, index, vectors, "amax", include_self=False)
    else:
        out = vectors.new_zeros(shape).index_add(0, row, vectors)
    if pooling == "mean":
        out = out / count.clamp(min=1).unsqueeze(1)
    if empty:
        out = torch.where((count == 0).unsqueeze(1), out.new_tensor(empty), out)
    return out
