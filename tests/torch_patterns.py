"""DINs as public repositories write them, each a small module of our own.

Every `Pattern` says what it is called with, and what becomes of it: fused whole, its
scores alone, left as it is for a reason, or refused. Above 400 lines: a table.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.fusing import Dice, mix

ITEMS, USERS, D = 30, 12, 4
LOW = -(2.0**32) + 1
NO_MASK = (
    "a product with numbers that may be other than 0 and 1: if they are a mask, compare"
    " them, as in mask > 0"
)
TANH = "tanh: Dice, PReLU, LeakyReLU, ReLU, SiLU and sigmoid are fused"

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "prelu": lambda _: nn.PReLU(),
    "relu": lambda _: nn.ReLU(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "dice": Dice,
    "tanh": lambda _: nn.Tanh(),
}


class Net(nn.Module):
    """A table, a unit, a tower; a pattern is its `forward`, as a function of it."""

    def __init__(
        self,
        run: Callable[..., Any],
        activation: str = "prelu",
        width: int = 4 * D,
        more: Mapping[str, Callable[[], nn.Module]] | None = None,
    ) -> None:
        super().__init__()
        self.run = run
        self.e = nn.Embedding(ITEMS, D)
        hidden = [nn.Linear(width, 6), ACTIVATIONS[activation](6)]
        self.u = nn.Sequential(*hidden, nn.Linear(6, 1))
        self.tower = nn.Sequential(nn.Linear(2 * D, 5), nn.ReLU(), nn.Linear(5, 1))
        for name, make in (more or {}).items():
            self.add_module(name, make())
        mix(self)

    def score(self, q: Tensor, k: Tensor) -> Tensor:
        """Scores [N, T] of [q, k, q - k, q * k]."""
        q = q[:, None].expand_as(k)
        return self.u(torch.cat([q, k, q - k, q * k], -1)).squeeze(-1)

    def logit(self, q: Tensor, interest: Tensor) -> Tensor:
        return self.tower(torch.cat([q, interest], -1)).squeeze(-1)

    def forward(self, item: Tensor, history: Tensor, *more: Tensor) -> Any:  # noqa: ANN401
        return self.run(self, item, history, *more)


def pool(w: Tensor, k: Tensor) -> Tensor:
    return (w.unsqueeze(-1) * k).sum(1)


def ids(n: int, t: int, seed: int) -> tuple[Tensor, Tensor]:
    """Candidates [N], id 0 among them, and histories [N, T]: the first is empty."""
    g = torch.Generator().manual_seed(1000 * n + 10 * t + seed)
    item = torch.randint(0, ITEMS, (n,), generator=g)
    item[-1] = 0 if n > 1 else item[-1]
    history = torch.randint(1, ITEMS, (n, t), generator=g)
    lengths = torch.randint(0, t + 1, (n,), generator=g)
    lengths[0] = 0
    if n > 1:
        lengths[1] = t
    history[torch.arange(t) >= lengths[:, None]] = 0
    return item, history


def with_lengths(n: int, t: int, seed: int) -> tuple[Tensor, ...]:
    item, history = ids(n, t, seed)
    return item, history, (history != 0).sum(1)


def with_mask(n: int, t: int, seed: int) -> tuple[Tensor, ...]:
    item, history = ids(n, t, seed)
    return item, history, (history != 0).float()


def with_ages(n: int, t: int, seed: int) -> tuple[Tensor, ...]:
    item, history = ids(n, t, seed)
    g = torch.Generator().manual_seed(seed)
    return item, history, torch.rand((n, t), generator=g) * 5


def with_age_ids(n: int, t: int, seed: int) -> tuple[Tensor, ...]:
    item, history = ids(n, t, seed)
    g = torch.Generator().manual_seed(seed)
    return item, history, torch.randint(0, 8, (n, t), generator=g)


def with_prices(n: int, t: int, seed: int) -> tuple[Tensor, ...]:
    item, history = ids(n, t, seed)
    g = torch.Generator().manual_seed(seed)
    return item, history, torch.rand(n, generator=g), torch.rand((n, t), generator=g)


def with_tags(n: int, t: int, seed: int) -> tuple[Tensor, ...]:
    item, history = ids(n, t, seed)
    g = torch.Generator().manual_seed(seed)
    return item, history, torch.randint(0, USERS, (n, 3), generator=g)


def packed(n: int, t: int, seed: int) -> tuple[Tensor, ...]:
    """Ids side by side: item, user, two more [N, 4], and the history."""
    item, history = ids(n, t, seed)
    g = torch.Generator().manual_seed(seed)
    more = torch.randint(0, USERS, (n, 3), generator=g)
    return torch.cat([item[:, None], more], 1), history


def with_dense(n: int, t: int, seed: int) -> tuple[Tensor, ...]:
    item, history = ids(n, t, seed)
    g = torch.Generator().manual_seed(seed)
    return item, history, torch.rand((n, 5), generator=g)


def matrix(n: int, t: int, seed: int) -> tuple[Tensor, ...]:
    """One float matrix of item, two dense values, and a history of 6: [N, 9]."""
    del t
    item, history = ids(n, 6, seed)
    g = torch.Generator().manual_seed(seed)
    dense = torch.rand((n, 2), generator=g)
    return (torch.cat([item[:, None].float(), dense, history.float()], 1),)


def one_user(n: int, t: int, seed: int) -> tuple[Tensor, ...]:
    """One history [1, T] for N items; an example, seed 0, has two of them at least.

    With one, its history cannot be told from one of many.
    """
    item, history = ids(max(n, 2), t, seed)
    return item[: n if seed else max(n, 2)], history[1:2]


@dataclass(frozen=True)
class Pattern:
    """A module and what becomes of it.

    `fused`: "whole", "scores", or "" for left as it is; None where nothing is found.
    `reason` is the report's. `fixed`: of N and T, those that the module fixes. `nan`:
    it gives NaN for some histories. `swallows`: float32 loses scores in a fill, so that
    float64 gives others.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[int, int, int], tuple[Tensor, ...]] = ids
    fused: str | None = "whole"
    reason: str = ""
    fixed: tuple[str, ...] = ()
    nan: bool = False
    swallows: bool = False


def _din(weights: Callable[..., Tensor], **options: Any) -> Callable[[], nn.Module]:  # noqa: ANN401
    """Make a DIN whose weights are a function of scores, mask and other inputs."""

    def run(net: Net, item: Tensor, history: Tensor, *more: Tensor) -> Tensor:
        q, k = net.e(item), net.e(history)
        w = weights(net.score(q, k), history != 0, *more)
        return net.logit(q, pool(w, k))

    return lambda: Net(run, **options)


def _net(run: Callable[..., Any], **options: Any) -> Callable[[], nn.Module]:  # noqa: ANN401
    return lambda: Net(run, **options)


PATTERNS: dict[str, Pattern] = {}


def _add(
    name: str,
    make: Callable[[], nn.Module],
    inputs: Callable[[int, int, int], tuple[Tensor, ...]] = ids,
    **more: Any,  # noqa: ANN401
) -> None:
    PATTERNS[name] = Pattern(make, inputs, **more)


# ---- masks and softmax

_add("mask by product", _din(lambda s, m: s * m))
_add(
    "NaN where there is no history",
    _din(lambda s, m: s.masked_fill(~m, float("-inf")).softmax(1)),
    nan=True,
)
_add(
    "a fill, then / sqrt(T)",
    _din(lambda s, m: (s.masked_fill(~m, LOW) / s.shape[1] ** 0.5).softmax(1)),
    fused="scores",
    reason="a number computed from the length of the history, as / sqrt(T) has",
)
_add(
    "a fill, then / sqrt(d)",
    _din(lambda s, m: (s.masked_fill(~m, LOW) / D**0.5).softmax(1)),
)
_add(
    "-1e9, then / sqrt(d)",
    _din(lambda s, m: (s.masked_fill(~m, -1e9) / D**0.5).softmax(1)),
)
_add(
    "-1e9 added",
    _din(lambda s, m: (s + (1 - m.float()) * -1e9).softmax(-1)),
    fused="scores",
    reason="-1e9 added to masked scores, so that rounding decides what an empty history"
    " gives: multiply the weights by the mask after softmax, or use masked_fill",
    swallows=True,
)
_add(
    "-1e9 added, masked after",
    _din(lambda s, m: (s + (1 - m.float()) * -1e9).softmax(-1) * m),
)
_add(
    "-inf added",
    _din(lambda s, m: (s + torch.where(m, 0.0, float("-inf"))).softmax(-1)),
    nan=True,
)
_add(
    "the original port's",
    _din(
        lambda s, m: (
            torch.where(m == 1, s, torch.full_like(s, -(2.0**31))).softmax(1) * m
        )
    ),
)


def _put(s: Tensor, m: Tensor) -> Tensor:
    s = s.clone()
    s[m == 0] = -1e9
    return s.softmax(1)


_add("a fill by index", _din(_put))
_add(
    "nan_to_num",
    _din(lambda s, m: torch.nan_to_num(s.masked_fill(~m, float("-inf")).softmax(1))),
)
_add(
    "no history, no weights",
    _din(
        lambda s, m: torch.where(
            m.any(1, keepdim=True), s.masked_fill(~m, -1e9).softmax(1), 0.0
        )
    ),
)
_add(
    "no history by count",
    _din(
        lambda s, m: (
            s.masked_fill(~m, -1e9)
            .softmax(1)
            .masked_fill(m.sum(1, keepdim=True) == 0, 0.0)
        )
    ),
)
_add(
    "all are padding",
    _din(
        lambda s, m: torch.where(
            (~m).all(1, keepdim=True), 0.0, s.masked_fill(~m, float("-inf")).softmax(1)
        )
    ),
)
_add(
    "masked before softmax by product",
    _din(lambda s, m: (s * m).softmax(1)),
    fused="scores",
    reason="masked scores of 0, which others may be below: fill them with -1e9 or less",
)
_add(
    "softmax, mask, / length",
    _din(lambda s, m: s.softmax(1) * m / m.sum(1, keepdim=True).clamp(min=1)),
    fused="scores",
    reason="a softmax over all positions, masked after it: fill masked scores with -1e9"
    " before",
)
_add(
    "softmax of a fill, / length",
    _din(
        lambda s, m: (
            s.masked_fill(~m, -1e9).softmax(1) * m / m.sum(1, keepdim=True).clamp(min=1)
        )
    ),
)
_add("/ length", _din(lambda s, m: s * m / m.sum(1, keepdim=True).clamp(min=1)))
_add(
    "normalized by the sum",
    _din(lambda s, m: (s * m).abs() / ((s * m).abs().sum(1, keepdim=True) + 1e-6)),
    fused="scores",
    reason="a sum over positions inside the weights, as of weights / weights.sum(1)",
)
_add(
    "tanh of the score",
    _din(lambda s, m: s.tanh() * m),
    fused="scores",
    reason=TANH,
)
_add(
    "float mask given",
    _din(lambda s, _, m: s * m),
    with_mask,
    fused="scores",
    reason=NO_MASK,
)
_add(
    "float mask given, compared",
    _din(lambda s, _, m: s.masked_fill(m == 0, -1e9).softmax(1)),
    with_mask,
)
_add(
    "float mask above 0.5, -inf",
    _din(lambda s, _, m: s.masked_fill(~(m > 0.5), float("-inf")).softmax(1)),
    with_mask,
    nan=True,
)
_add(
    "float mask given, softmax",
    _din(lambda s, _, m: (s * m + (1 - m) * -1e9).softmax(1)),
    with_mask,
    fused="scores",
    reason=NO_MASK,
)
_add(
    "mask by lengths",
    _din(lambda s, _, n: s * (torch.arange(s.shape[1]) < n[:, None])),
    with_lengths,
)
_add(
    "sign of the ids",
    _net(
        lambda net, i, h: net.logit(
            net.e(i),
            pool(net.score(net.e(i), net.e(h)) * torch.sign(h).float(), net.e(h)),
        )
    ),
)
_add("no mask", _din(lambda s, _: s))
_add("sigmoid of the score", _din(lambda s, m: torch.sigmoid(s) * m))
_add(
    "mean",
    _net(
        lambda net, i, h: net.logit(
            net.e(i),
            ((net.score(net.e(i), net.e(h)) * (h != 0)).unsqueeze(-1) * net.e(h)).mean(
                1
            ),
        )
    ),
)
_add(
    "expanded weights",
    _net(
        lambda net, i, h: net.logit(
            net.e(i),
            (
                (net.score(net.e(i), net.e(h)) * (h != 0))
                .unsqueeze(-1)
                .expand_as(net.e(h))
                * net.e(h)
            ).sum(1),
        )
    ),
)

_add(
    "a mask of every feature",
    _net(
        lambda net, i, h: net.logit(
            net.e(i),
            (
                net.score(net.e(i), net.e(h)).unsqueeze(-1)
                * net.e(h)
                * (h != 0).unsqueeze(-1).repeat(1, 1, D)
            ).sum(1),
        )
    ),
    fused="scores",
    reason=NO_MASK,
)
_add(
    "masked twice",
    _din(lambda s, m, a: s * m * (a < 5)),
    with_age_ids,
    fused="scores",
    reason="two different masks: join them before (mask & other), and use that alone",
)
_add(
    "of the sum of two tables, turned",
    _net(
        lambda net, i, h: net.logit(
            net.e(i),
            (
                (net.e(h) + net.e(h // 2)).transpose(1, 2)
                @ (net.score(net.e(i), net.e(h) + net.e(h // 2)) * (h != 0))[..., None]
            ).squeeze(-1),
        )
    ),
)

# ---- something added to the score, or multiplied

_add(
    "a bias of the position",
    _din(
        lambda s, m: (
            (s + 0.1 * torch.arange(s.shape[1])).masked_fill(~m, -1e9).softmax(1)
        )
    ),
)


class Biased(Net):
    """A learned bias per position, counted from the end, for 64 positions at most."""

    def __init__(self, activation: str = "prelu") -> None:
        super().__init__(self._run, activation)
        self.bias = nn.Embedding(64, 1)
        mix(self)

    @staticmethod
    def _run(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
        q, k = net.e(item), net.e(history)
        at = torch.arange(history.shape[1])
        s = net.score(q, k) + net.bias(at).squeeze(-1)
        return net.logit(q, pool(s * (history != 0), k))


_add("a learned bias of the position", Biased)
_add("a learned bias, Dice", lambda: Biased("dice"))
_add(
    "a learned bias, sigmoid",
    lambda: Biased("sigmoid"),
    fused="scores",
    reason="a term added to the score, whose last layer is sigmoid: PReLU, ReLU, SiLU"
    " and Dice can pass it on",
)


def _aged(net: Any, item: Tensor, history: Tensor, age: Tensor) -> Tensor:  # noqa: ANN401
    q, k = net.e(item), net.e(history)
    s = net.score(q, k) + net.bias(age).squeeze(-1)
    return net.logit(q, pool(s.masked_fill(history == 0, -1e9).softmax(1), k))


_add(
    "a bias of the age",
    _net(_aged, more={"bias": lambda: nn.Embedding(8, 1)}),
    with_age_ids,
)
_add(
    "a decay by age",
    _din(lambda s, m, a: s * m * torch.exp(-0.1 * a)),
    with_ages,
    fused="scores",
    reason=NO_MASK,
)
_add(
    "softmax, then a decay",
    _din(lambda s, m, a: s.masked_fill(~m, -1e9).softmax(1) * torch.exp(-0.1 * a)),
    with_ages,
    fused="scores",
    reason=NO_MASK,
)
_add(
    "a decay by position",
    _din(lambda s, m: s * m * 0.9 ** torch.arange(s.shape[1])),
    fused="scores",
    reason=NO_MASK,
)

# ---- features of a pair


def _priced(
    net: Any,  # noqa: ANN401
    item: Tensor,
    history: Tensor,
    price: Tensor,
    prices: Tensor,
) -> Tensor:
    q = torch.cat([net.e(item), price[:, None]], -1)
    k = torch.cat([net.e(history), prices[..., None]], -1)
    w = net.score(q, k) * (history != 0)
    return net.last(torch.cat([q, pool(w, k)], -1)).squeeze(-1)


_add(
    "a price beside the embeddings",
    _net(_priced, width=4 * (D + 1), more={"last": lambda: nn.Linear(2 * D + 2, 1)}),
    with_prices,
)


def _apart(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    q, k = net.e(item), net.e(history)
    x = q[:, None].expand_as(k)
    w = net.u(torch.cat([x, k, (x - k).abs(), x * k], -1)).squeeze(-1) * (history != 0)
    return net.logit(q, pool(w, k))


_add("|q - k|", _net(_apart))
_add(
    "|q - k|, Dice",
    _net(_apart, activation="dice"),
    fused="",
    reason="different activations in the unit (dice, prelu): all hidden layers need one"
    " kind; |x|, max and min count as PReLU",
)


def _projected(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    q, k = torch.relu(net.first(net.e(item))), torch.relu(net.first(net.e(history)))
    return net.logit(q, pool(net.score(q, k) * (history != 0), k))


_add(
    "embeddings behind a layer",
    _net(_projected, more={"first": lambda: nn.Linear(D, D)}),
)


def _wide(net: Any, item: Tensor, history: Tensor, user: Tensor) -> Tensor:  # noqa: ANN401
    k = net.e(history)
    q = torch.cat([net.e(item), net.user(user)], -1)
    x = q[:, None].expand(-1, k.shape[1], -1)
    w = net.u(torch.cat([x, k], -1)).squeeze(-1) * (history != 0)
    return net.logit(net.e(item), pool(w, k))


def with_user(n: int, t: int, seed: int) -> tuple[Tensor, ...]:
    item, history = ids(n, t, seed)
    g = torch.Generator().manual_seed(seed)
    return item, history, torch.randint(0, USERS, (n,), generator=g)


_add(
    "a query wider than behaviors",
    _net(_wide, width=12, more={"user": lambda: nn.Embedding(USERS, D)}),
    with_user,
)


def _residual(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    q, k = net.e(item), net.e(history)
    x = q[:, None].expand_as(k)
    h = net.u[1](net.u[0](torch.cat([x, k, x - k, x * k], -1)))
    y = net.second(h)
    h = h + (torch.relu(y) if isinstance(net.second, nn.Linear) else y)
    return net.logit(q, pool(net.u[2](h).squeeze(-1) * (history != 0), k))


_add(
    "a residual unit",
    _net(_residual, activation="relu", more={"second": lambda: nn.Linear(6, 6)}),
)
_add(
    "a residual unit, Dice",
    _net(
        _residual,
        activation="dice",
        more={"second": lambda: nn.Sequential(nn.Linear(6, 6), nn.SiLU())},
    ),
)
_add(
    "a residual unit, sigmoid",
    _net(
        _residual,
        activation="sigmoid",
        more={"second": lambda: nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())},
    ),
    fused="",
    reason="different activations in the unit (none, sigmoid), where it passes a value"
    " on beside a layer",
)
_add(
    "tanh in the unit",
    _din(lambda s, m: s * m, activation="tanh"),
    fused="",
    reason=TANH,
)
_add("Dice in the unit", _din(lambda s, m: s * m, activation="dice"))


def _of(part: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    """A DIN of a part of the history."""

    def run(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
        h = part(history)
        k = net.e(h)
        w = net.score(net.e(item), k) * (h != 0)
        made: Tensor = net.logit(net.e(item), pool(w, k))
        return made

    return _net(run)


_add("behaviors cut", _of(lambda h: h[:, 1:]))
_add("the newest behaviors", _of(lambda h: h[:, -4:]))
_add("the first behaviors", _of(lambda h: h[..., :4]))
_add("behaviors in the middle", _of(lambda h: h[:, -6:-1]))


class Recurrent(nn.Module):
    """A layer that gives the state at each step."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.layer = kind(D, D, batch_first=True, **options)

    def forward(self, k: Tensor) -> Tensor:
        out: Tensor = self.layer(k)[0]
        return out


def _stepped(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    k = net.steps(net.e(history))
    w = net.score(net.e(item), k).masked_fill(history == 0, -1e9).softmax(1)
    made: Tensor = net.logit(net.e(item), pool(w, k))
    return made


_add(
    "a GRU before",
    _net(_stepped, more={"steps": lambda: Recurrent(nn.GRU, bias=False)}),
)
_add(
    "an LSTM before",
    _net(_stepped, more={"steps": lambda: Recurrent(nn.LSTM, num_layers=2)}),
)


def _emptied(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    k = net.e(history)
    k[history == 0] = 0
    made: Tensor = net.logit(net.e(item), pool(net.score(net.e(item), k), k))
    return made


_add("padding set to zeros", _net(_emptied))
_add(
    "a mask of listed ids",
    _net(
        lambda net, i, h: net.logit(
            net.e(i),
            pool(
                net.score(net.e(i), net.e(h)) * torch.isin(h, torch.arange(1, 20, 3)),
                net.e(h),
            ),
        )
    ),
)


def _searched(net: Any, item: Tensor, history: Tensor, age: Tensor) -> Tensor:  # noqa: ANN401
    k = net.e(history) + net.age(torch.searchsorted(torch.tensor([0.5, 1, 2]), age))
    made: Tensor = net.logit(
        net.e(item), pool(net.score(net.e(item), k) * (history != 0), k)
    )
    return made


_add(
    "distances",
    _net(
        lambda net, i, h: net.logit(
            net.e(i),
            pool(
                torch.exp(-torch.cdist(net.e(i)[:, None], net.e(h)).squeeze(1))
                * (h != 0),
                net.e(h),
            ),
        )
    ),
    fused=None,
)
_add(
    "ages between bounds",
    _net(_searched, more={"age": lambda: nn.Embedding(4, D)}),
    with_ages,
)

_add(
    "heads",
    _net(
        lambda net, i, h: net.logit(
            net.e(i),
            torch.einsum(
                "nth,ntd->nhd",
                net.heads(
                    torch.cat([net.e(i)[:, None].expand_as(net.e(h)), net.e(h)], -1)
                )
                * (h != 0)[..., None],
                net.e(h),
            ).mean(1),
        ),
        more={"heads": lambda: nn.Linear(2 * D, 2)},
    ),
    fused="",
    reason="several weights for each candidate and behavior, as heads have: a fused"
    " unit gives one",
)

# ---- torch's own attention


def _dotted(axes: int, mask: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    """The interest by scaled_dot_product_attention of three or four axes."""

    def run(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
        q, k, m = net.e(item)[:, None], net.e(history), mask(history)[:, None]
        if axes == 4:
            q, k, m = q[:, None], k[:, None], m[:, None]
        found = nn.functional.scaled_dot_product_attention(q, k, k, attn_mask=m)
        made: Tensor = net.logit(net.e(item), found.reshape(-1, D))
        return made

    return _net(run)


def _headed(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    q, k = net.e(item), net.e(history)
    padding = history == 0
    found, _ = net.heads(q[:, None], k, k, key_padding_mask=padding, need_weights=False)
    made: Tensor = net.logit(q, found.squeeze(1))
    return made


def _causal(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    k = net.e(history)
    k = nn.functional.scaled_dot_product_attention(k, k, k, is_causal=True)
    made: Tensor = net.logit(
        net.e(item), pool(net.score(net.e(item), k) * (history != 0), k)
    )
    return made


_add("dot products, masked", _dotted(3, lambda h: h != 0))
_add("dot products in four axes", _dotted(4, lambda h: h != 0), fused=None)
_add(
    "dot products, a mask of floats",
    _dotted(3, lambda h: torch.zeros(h.shape).masked_fill(h == 0, float("-inf"))),
    fused="",
    reason="all() over an axis, as attention by a float mask has: give booleans",
)
_add(
    "MultiheadAttention",
    _net(
        _headed, more={"heads": lambda: nn.MultiheadAttention(D, 2, batch_first=True)}
    ),
    fused=None,
)
_add("causal attention before", _net(_causal))

# ---- several candidates of each history


def several(n: int, t: int, seed: int) -> tuple[Tensor, ...]:
    """Three candidates of each history, [N, 3]; and what user it is."""
    item, history = ids(n, t, seed)
    g = torch.Generator().manual_seed(seed)
    more = torch.randint(0, ITEMS, (n, 2), generator=g)
    user = torch.randint(0, USERS, (n,), generator=g)
    return torch.cat([item[:, None], more], 1), history, user


def _several(
    weights: Callable[[Tensor, Tensor], Tensor],
    total: Callable[[Tensor, Tensor], Tensor],
    of_user: bool = False,
) -> Callable[[], nn.Module]:
    def run(net: Any, items: Tensor, history: Tensor, user: Tensor) -> Tensor:  # noqa: ANN401
        q, k = net.e(items), net.e(history)
        if of_user:
            q = q + net.user(user)[:, None]
        x = q[:, :, None].expand(-1, -1, k.shape[1], -1)
        y = k[:, None].expand(-1, q.shape[1], -1, -1)
        s = net.u(torch.cat([x, y, x - y, x * y], -1)).squeeze(-1)
        w = weights(s, (history != 0)[:, None])
        return net.logit(q, total(w, k))

    return _net(run, more={"user": lambda: nn.Embedding(USERS, D)})


_add("[N, C] candidates, matmul", _several(lambda s, m: s * m, torch.matmul), several)
_add(
    "[N, C] candidates, softmax",
    _several(
        lambda s, m: s.masked_fill(~m, -1e9).softmax(-1),
        lambda w, k: torch.einsum("nct,ntd->ncd", w, k),
    ),
    several,
)
_add(
    "[N, C] candidates, NaN",
    _several(
        lambda s, m: s.masked_fill(~m, float("-inf")).softmax(-1),
        lambda w, k: (w[..., None] * k[:, None]).sum(2),
    ),
    several,
    nan=True,
)
_add(
    "[N, C] candidates, / length",
    _several(
        lambda s, m: s * m / m.sum(-1, keepdim=True).clamp(min=1),
        lambda w, k: (w[:, :, None] @ k[:, None]).squeeze(2),
        of_user=True,
    ),
    several,
)
_add(
    "[N, C] candidates, tanh",
    _several(lambda s, m: s.tanh() * m, torch.matmul),
    several,
    fused="scores",
    reason=TANH,
)


def _of_users(net: Any, items: Tensor, history: Tensor, user: Tensor) -> Tensor:  # noqa: ANN401
    q, k = net.e(items), net.e(history)
    x = q[:, :, None].expand(-1, -1, k.shape[1], -1)
    y = k[:, None].expand(-1, q.shape[1], -1, -1)
    z = net.user(user)[:, None, None].expand_as(x)
    s = net.u(torch.cat([x, y, z, x * y], -1)).squeeze(-1) * (history != 0)[:, None]
    return net.logit(q, s @ k)


_add(
    "[N, C] candidates, a user beside",
    _net(_of_users, more={"user": lambda: nn.Embedding(USERS, D)}),
    several,
)

# ---- many columns of one matrix


def _columns(net: Any, x: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    q, k = net.e(x[:, 0]), net.e(history)
    w = net.score(q, k) * (history != 0)
    users = net.user(x[:, 1]) + net.user(x[:, 2]) + net.user(x[:, 3])
    return net.logit(q + users, pool(w, k))


_add(
    "packed ids", _net(_columns, more={"user": lambda: nn.Embedding(USERS, D)}), packed
)


def _dense(net: Any, item: Tensor, history: Tensor, x: Tensor) -> Tensor:  # noqa: ANN401
    q, k = net.e(item), net.e(history)
    w = net.score(q, k) * (history != 0)
    return net.logit(q + x[..., :4], pool(w, k)) + x[:, 4] + x[:, 0]


_add("dense columns", _net(_dense), with_dense)


class Matrix(Net):
    """One float matrix of everything, cut into columns (as DeepCTR-Torch has it)."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        q, history = self.e(x[:, 0].long()), x[:, 3:9].long()
        k = self.e(history)
        w = self.score(q, k) * (history != 0)
        return self.logit(q, pool(w, k)) + x[:, 1:3].sum(1)


_add("one matrix of everything", Matrix, matrix, fixed=("T",))
_add("one user, many items", _net(lambda net, i, h: _one(net, i, h)), one_user)


def _one(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    q = net.e(item)
    k = net.e(history.expand(item.shape[0], -1))
    w = net.score(q, k) * (history != 0)
    return net.logit(q, pool(w, k))


# ---- bodies: bags and branches


def _bag(**options: Any) -> Callable[[], nn.Module]:  # noqa: ANN401
    def run(net: Any, item: Tensor, history: Tensor, tags: Tensor) -> Tensor:  # noqa: ANN401
        q, k = net.e(item), net.e(history)
        w = net.score(q, k) * (history != 0)
        return net.logit(q, pool(w, k)) + net.bag(tags).sum(1)

    return _net(run, more={"bag": lambda: nn.EmbeddingBag(USERS, 3, **options)})


for _mode in ("sum", "mean", "max"):
    _add(f"beside an EmbeddingBag, {_mode}", _bag(mode=_mode), with_tags)
_add("beside an EmbeddingBag with padding", _bag(mode="sum", padding_idx=0), with_tags)


def _weighted_bag(net: Any, item: Tensor, history: Tensor, tags: Tensor) -> Tensor:  # noqa: ANN401
    q, k = net.e(item), net.e(history)
    bag = net.bag(tags, per_sample_weights=tags.to(k.dtype) / USERS)
    return net.logit(q, pool(net.score(q, k) * (history != 0), k)) + bag.sum(1)


_add(
    "beside a weighted EmbeddingBag",
    _net(_weighted_bag, more={"bag": lambda: nn.EmbeddingBag(USERS, 3, mode="sum")}),
    with_tags,
)


def _offset_bag(net: Any, item: Tensor, history: Tensor, tags: Tensor) -> Tensor:  # noqa: ANN401
    q, k = net.e(item), net.e(history)
    starts = torch.arange(item.shape[0]) * tags.shape[1]
    bag = net.bag(tags.reshape(-1), starts)
    return net.logit(q, pool(net.score(q, k) * (history != 0), k)) + bag.sum(1)


_add(
    "beside an EmbeddingBag with offsets",
    _net(_offset_bag, more={"bag": lambda: nn.EmbeddingBag(USERS, 3, mode="sum")}),
    with_tags,
)


def _branch(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    q, k = net.e(item), net.e(history)
    interest = pool(net.score(q, k) * (history != 0), k)
    scale = k.sum()
    out = torch.cond(
        (history != 0).any(),
        lambda a, s: a * 2 + 0 * s,
        lambda a, s: a - 1 + 0 * s,
        (interest, scale),
    )
    return net.logit(q, out)


_add("a torch.cond beside", _net(_branch))

# ---- what is not a module as it should be


def _rows(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    out = []
    for i in range(item.shape[0]):
        q, k = net.e(item[i : i + 1]), net.e(history[i : i + 1])
        out.append(net.logit(q, pool(net.score(q, k) * (history[i : i + 1] != 0), k)))
    return torch.cat(out)


_add(
    "a loop over rows",
    _net(_rows),
    fixed=("N",),
    fused="",
    reason="two values whose axes are not batch, positions and features in one order",
)


def _steps(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    q, k = net.e(item), net.e(history)
    state = torch.zeros_like(q)
    for i in range(history.shape[1]):
        state = torch.sigmoid(net.cell(torch.cat([state, k[:, i]], -1)))
    w = net.score(q, k) * (history != 0)
    return net.logit(q + state, pool(w, k))


_add(
    "a loop over positions",
    _net(_steps, more={"cell": lambda: nn.Linear(2 * D, D)}),
    fixed=("T",),
)


class Keywords(Net):
    """Takes what it is given by name."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None)

    def forward(self, item: Tensor, **kwargs: Tensor) -> Tensor:  # type: ignore[override]
        q, k = self.e(item), self.e(kwargs["history"])
        w = self.score(q, k) * (kwargs["history"] != 0)
        return self.logit(q, pool(w, k))


class OfDict(Net):
    """Takes one dict."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None)

    def forward(self, x: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        q, k = self.e(x["item"]), self.e(x["history"])
        w = self.score(q, k) * (x["history"] != 0)
        return self.logit(q, pool(w, k))


_add("repeat_interleave", _net(lambda net, i, h: _interleaved(net, i, h)))


def _interleaved(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    q, k = net.e(item), net.e(history)
    t = history.shape[1]
    x = q.repeat_interleave(t, 0).view(-1, t, D)
    w = net.u(torch.cat([x, k, x - k, x * k], -1)).squeeze(-1) * (history != 0)
    return net.logit(q, pool(w, k))


class Normed(Net):
    """Its first layer under weight_norm."""

    def __init__(self, old: bool) -> None:
        super().__init__(
            lambda net, i, h: net.logit(
                net.e(i), pool(net.score(net.e(i), net.e(h)) * (h != 0), net.e(h))
            )
        )
        norm = nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.u[0] = norm(nn.Linear(4 * D, 6))
        mix(self)


_add("weight_norm", lambda: Normed(False))
_add("weight_norm of old", lambda: Normed(True))
_add(
    "a parameter as an output",
    _net(
        lambda net, i, h: (
            net.logit(
                net.e(i), pool(net.score(net.e(i), net.e(h)) * (h != 0), net.e(h))
            ),
            net.u[0].weight,
        )
    ),
)
SIZE = _net(
    lambda net, i, h: (
        net.logit(net.e(i), pool(net.score(net.e(i), net.e(h)) * (h != 0), net.e(h))),
        h.shape[1],
    )
)
_add(
    "an input as an output",
    _net(
        lambda net, i, h: (
            net.logit(
                net.e(i), pool(net.score(net.e(i), net.e(h)) * (h != 0), net.e(h))
            ),
            h,
        )
    ),
)
_add(
    "infinite outputs",
    _net(
        lambda net, i, h: torch.log(
            (
                net.logit(
                    net.e(i), pool(net.score(net.e(i), net.e(h)) * (h != 0), net.e(h))
                )
                > 0
            ).to(net.e(i).dtype)
        )
    ),
)

OFTEN = (  # in every run of the tests; the others differ from one of them in a detail
    "mask by product",
    "NaN where there is no history",
    "-1e9 added",
    "the original port's",
    "softmax of a fill, / length",
    "float mask given",
    "a bias of the position",
    "a bias of the age",
    "a price beside the embeddings",
    "a query wider than behaviors",
    "behaviors cut",
    "the newest behaviors",
    "padding set to zeros",
    "an LSTM before",
    "dot products, masked",
    "causal attention before",
    "a mask of listed ids",
    "a residual unit, Dice",
    "[N, C] candidates, softmax",
    "[N, C] candidates, a user beside",
    "nan_to_num",
    "packed ids",
    "one user, many items",
    "beside an EmbeddingBag, sum",
    "repeat_interleave",
)
