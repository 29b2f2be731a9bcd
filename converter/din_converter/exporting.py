"""Any torch module, called as its example says -> a program of torch.export.

Open are the batch and the lengths of histories. What a module fixes itself stays as the
example has it, and is said. Letters: N candidates (the batch), T positions.

Above 400 lines: one way from a module to a program.
"""

import contextlib
import copy
import inspect
import io
import itertools
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel
from torch.utils import _pytree as pytree
from torch.utils._sympy.value_ranges import ValueRanges

from din_converter.quiet import first_line, quiet
from din_converter.rewriting import Cuts, Rewrites
from din_infer.errors import ConversionError

__all__ = [
    "HISTORIES",
    "Call",
    "by_name",
    "call_arguments",
    "export_program",
    "fixed_sizes",
    "open_sizes",
    "own_limits",
    "plain_module",
    "reason_of",
    "slow_attention",
]

Call = tuple[tuple[Any, ...], dict[str, Any]]
GROWN = 3  # positions of an example that has only one
HISTORIES = ("hist", "seq", "behav", "click", "past", "mask")
# what has one column without being a history
OTHERS = ("len", "count", "num", "item", "target", "cand", "user", "label")
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
TABLES = (nn.Embedding, nn.EmbeddingBag)
LINE = re.compile(r"call raised this error:\n +File .*\n {4,}(\S.*)")
LEAST = ("0", "1", "2")  # torch's own least size of an open axis, and less
MOST = 1 << 16  # of a greatest size that is tried
LISTED = 6  # tensors of one position of which every choice is tried


# --------------------------------------------------------------------------- the module


def plain_module(module: nn.Module) -> nn.Module:
    """Copy a module as it is called in production: on the CPU, in evaluation mode.

    Raises
    ------
    ConversionError
        If it is TorchScript, computes in bfloat16, or cannot be copied.
    """
    while True:
        inner = getattr(module, "_orig_mod", None)  # torch.compile's
        if inner is None and isinstance(module, WRAPPERS):
            inner = module.module
        if not isinstance(inner, nn.Module):
            break
        module = inner
    if any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
        rule, got = "a module of Python code", "a TorchScript module"
        fix = "Convert the nn.Module that torch.jit.script or torch.jit.trace took."
        raise ConversionError(rule, got, "module", fix)
    found = {t.dtype: name for name, t in module.named_parameters()}
    half = [t for t in (torch.bfloat16, torch.float16) if t in found]
    if half and (half[0] == torch.bfloat16 or torch.float32 not in found):
        rule, got = "weights in float32", f"{half[0]} in `{found[half[0]]}`"
        raise ConversionError(rule, got, "module", "Give module.float().")
    # weight_norm of old keeps its last product, which torch does not copy
    memo = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        made = copy.deepcopy(module, memo).cpu().eval()
        for part in filter(parametrize.is_parametrized, list(made.modules())):
            _compute_parameters(part)
        return made
    except Exception as error:  # what a module holds can fail to be copied in any way
        rule = "a module that copy.deepcopy copies"
        raise ConversionError(rule, first_line(error), "module") from None


def _compute_parameters(part: nn.Module) -> None:
    """Put values in place of parametrizations: constants, in evaluation mode.

    torch's own function would take them from the class, which other copies have, too.
    """
    names = list(part.parametrizations)  # type: ignore[arg-type]
    with torch.no_grad():
        values = {name: getattr(part, name).detach().clone() for name in names}
    part.__class__ = parametrize.type_before_parametrizations(part)
    del part.parametrizations
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value, requires_grad=False))


class _ByName(nn.Module):
    """Calls a module that takes any keywords, which torch cannot name the sizes of."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, args: tuple[Any, ...], kwargs: Any) -> Any:  # noqa: ANN401
        return self.module(*args, **kwargs)


def by_name(module: nn.Module, call: Call) -> tuple[nn.Module, Call]:
    """Return what torch exports in place of a module that takes ``**kwargs``."""
    parameters = inspect.signature(module.forward).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters) or not call[1]:
        return module, call
    return _ByName(module).eval(), (call, {})


def call_arguments(module: nn.Module, example_inputs: Any) -> Call:  # noqa: ANN401
    """Tell how the module is called: a dict that names its arguments is keywords."""
    if isinstance(example_inputs, Mapping):
        parameters = inspect.signature(module.forward).parameters.values()
        starred = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        named = {p.name: p for p in parameters if p.kind not in starred}
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
        needed = {name for name, p in named.items() if p.default is p.empty}
        given = {str(k) for k in example_inputs}
        if given <= set(named) or (anything and needed <= given):
            return (), dict(example_inputs)
        return (dict(example_inputs),), {}
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        return tuple(example_inputs), {}
    rule = "a tensor, a tuple of arguments or a dict of them"
    raise ConversionError(rule, type(example_inputs).__name__, "example_inputs")


# -------------------------------------------------------------------------- the example


def _named_tensors(call: Call, names: Sequence[str]) -> list[tuple[str, Tensor]]:
    """List the tensors of a call, each with the words that lead to it."""
    out = []
    for path, value in pytree.tree_flatten_with_path(call)[0]:
        if isinstance(value, Tensor):
            words = [str(k.key) for k in path if isinstance(k, pytree.MappingKey)]
            at = path[1].idx if isinstance(path[1], pytree.SequenceKey) else None
            if at is not None and at < len(names):
                words.insert(0, names[at])
            out.append((" ".join(words).lower(), value))
    return out


def _replaced(call: Call, tensors: Sequence[Tensor]) -> Call:
    """Put other tensors in a call, in order."""
    left = iter(tensors)
    changed: Call = pytree.tree_map(
        lambda v: next(left) if isinstance(v, Tensor) else v, call
    )
    return changed


def _examples(call: Call, names: Sequence[str]) -> Iterator[Call]:
    """Yield examples to export with, the best first; the last is the one given.

    torch takes a size of 1 for fixed. So a batch of one becomes two equal rows, and a
    history of one position several equal ones: those that are called so, and as many
    other tensors as the module takes then.
    """
    tensors = _named_tensors(call, names)
    whole = [t for _, t in tensors]
    doubled = whole
    if all(t.shape[0] == 1 for t in whole if t.ndim):
        doubled = [torch.cat([t, t]) if t.ndim else t for t in whole]
    lists = [(i, name, t.shape[1]) for i, (name, t) in enumerate(tensors) if t.ndim > 1]
    told = [(i, size) for i, name, size in lists if any(w in name for w in HISTORIES)]
    sure = {i for i, size in told if size == 1}
    rest = [
        i
        for i, name, size in lists
        if i not in sure and size == 1 and not any(w in name for w in OTHERS)
    ]
    for rows in (doubled, whole):  # equal ones are tried once
        for some in _choices(rest) if sure or not told else ():
            longer = list(rows)
            for i in (*sure, *some):
                longer[i] = rows[i].repeat_interleave(GROWN, dim=1)
            yield _replaced(call, longer)
        yield _replaced(call, rows)
    if told and all(size == GROWN - 1 for _, size in told):  # history[:, 1:] is then 1
        longer = list(doubled)
        for i, _ in told:
            longer[i] = doubled[i].repeat_interleave(GROWN, dim=1)
        yield _replaced(call, longer)


def _choices(of: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield subsets, the largest first, and none last."""
    most = len(of)
    for size in range(most, -1, -1) if most <= LISTED else (most, most - 1, 0):
        yield from itertools.combinations(of, size)


@contextlib.contextmanager
def slow_attention() -> Iterator[None]:
    """Turn off torch's fast path of attention, which no program has.

    It gives padded positions 0, and NaN to rows of padding alone.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _call(module: nn.Module, call: Call) -> Any:  # noqa: ANN401
    with torch.inference_mode(), quiet(), slow_attention():
        return module(*copy.deepcopy(call[0]), **copy.deepcopy(call[1]))


def _shapes(made: Any) -> list[torch.Size]:  # noqa: ANN401
    return [t.shape[1:] for t in pytree.tree_leaves(made) if isinstance(t, Tensor)]


def _fits(longer: Any, made: Any) -> bool:  # noqa: ANN401
    """Whether outputs are those of a longer history: equally many scores, the first.

    Others may have grown from one position, as weights beside the scores do.
    """
    after, before = _shapes(longer), _shapes(made)
    if len(after) != len(before) or after[:1] != before[:1]:
        return False
    return all(
        len(a) == len(b)
        and all(x in (y, GROWN if y == 1 else y) for x, y in zip(a, b, strict=True))
        for a, b in zip(after, before, strict=True)
    )


def _called(module: nn.Module, call: Call) -> Any:  # noqa: ANN401
    """Call a module on its example.

    Raises
    ------
    ConversionError
        If it fails, with its reason: an id that a table has no row for, by name.
    """
    outside: list[ConversionError] = []

    def look(name: str, table: Any, args: tuple[Any, ...]) -> None:  # noqa: ANN401
        values = args[0] if args and isinstance(args[0], Tensor) else None
        if values is None or values.dtype.is_floating_point or not values.numel():
            return
        rows = table.num_embeddings
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= rows:
            rule = f"an id in [0, {rows}) for the table `{name}`"
            got = low if low < 0 else high
            outside.append(ConversionError(rule, got, "example_inputs"))

    hooks = [
        part.register_forward_pre_hook(lambda m, a, name=name: look(name, m, a))
        for name, part in module.named_modules()
        if isinstance(part, TABLES)
    ]
    try:
        made = _call(module, call)
    except Exception as error:  # a module can fail in any way
        if outside:
            raise outside[0] from None
        rule = "an example with which the module can be called"
        raise ConversionError(rule, first_line(error), "example_inputs") from None
    finally:
        for hook in hooks:
            hook.remove()
    for leaf in pytree.tree_leaves(made):
        if leaf is not None and not isinstance(leaf, Tensor):
            rule, got = "a module whose outputs are tensors", type(leaf).__name__
            fix = "Convert a module that returns its scores alone."
            raise ConversionError(rule, f"one of type {got}", "module", fix)
    return made


# -------------------------------------------------------------------------- the program


def export_program(module: nn.Module, call: Call) -> tuple[ExportedProgram, Call]:
    """Export a module with every size open that it does not fix itself.

    Returns
    -------
    program, call
        The call that it was exported with: the example, or a longer one.

    Raises
    ------
    ConversionError
        If the module cannot be called so, or torch cannot export it, with the reason.
    """
    call = pytree.tree_map(
        lambda v: v.detach().cpu() if isinstance(v, Tensor) else v, call
    )
    if any(t.dtype == torch.bfloat16 for t in _tensors(call)):
        rule, fix = "inputs in float32", "Give tensor.float()."
        raise ConversionError(rule, "bfloat16", "example_inputs", fix)
    made = _called(module, call)
    parameters = inspect.signature(module.forward).parameters.values()
    first: Exception | None = None
    tried: list[Call] = []
    fixed: tuple[ExportedProgram, Call] | None = None
    for longer in _examples(call, [p.name for p in parameters]):
        if any(_same(longer, other) for other in tried):
            continue
        tried.append(longer)
        try:
            if not _fits(_call(module, longer), made):
                continue  # what was lengthened is no history
        except Exception:
            continue
        try:
            program = _export(module, longer)
        except Exception as error:  # torch's errors share no narrower base
            first = first or error
            continue
        if not _is_open(program, call, longer):
            continue
        if _is_open(program, call, None):
            return program, longer
        fixed = fixed or (program, longer)
    if fixed is not None:
        return fixed
    rule = "a module that torch.export takes"
    reason = reason_of(first)
    fix = "Give the GRU padded rows." if _packs(first) else ""
    if "data-dependent" in reason:
        fix = "Write torch.where for a branch on values of tensors."
    raise ConversionError(rule, reason, "module", fix) from None


def _packs(error: BaseException | None) -> bool:
    """Whether a module failed at a packed sequence, which torch does not export."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        if any(PurePath(f.filename).name == "rnn.py" for f in frames):
            return True
        error = error.__cause__ or error.__context__
    return False


def open_sizes(program: ExportedProgram) -> list[list[str]]:
    """Name the open sizes of each tensor that a program takes; "" is a fixed one.

    One with a greatest size is open.
    """
    bounded = {
        s for s, (least, _) in fixed_sizes(program).items() if least not in LEAST
    }
    return [
        ["" if str(n).isdecimal() or str(n) in bounded else str(n) for n in t.shape]
        for t in _given(program)
    ]


def _given(program: ExportedProgram) -> list[Tensor]:
    """List the tensors that a program takes; their sizes may be symbols."""
    nodes = {n.name: n.meta.get("val") for n in program.graph.nodes}
    given = [nodes.get(str(name)) for name in program.graph_signature.user_inputs]
    return [t for t in given if isinstance(t, Tensor)]


def _num_open(program: ExportedProgram) -> int:
    """Count the axes that have a symbol, whatever its bounds."""
    return sum(not str(size).isdecimal() for t in _given(program) for size in t.shape)


def _is_open(program: ExportedProgram, call: Call, longer: Call | None) -> bool:
    """Whether a program is open in every size in which its example was lengthened.

    Without a longer one: in every size of 1 or 2, which torch may have taken for fixed.
    """
    if longer is None:
        return all(
            symbol or size not in (1, GROWN - 1)
            for t, symbols in zip(_tensors(call), open_sizes(program), strict=True)
            for size, symbol in zip(t.shape[:2], symbols, strict=False)
        )
    pairs = zip(pytree.tree_leaves(call), pytree.tree_leaves(longer), strict=True)
    tensors = [(a, b) for a, b in pairs if isinstance(a, Tensor)]
    return all(
        symbol or before == after
        for (a, b), symbols in zip(tensors, open_sizes(program), strict=True)
        for before, after, symbol in zip(a.shape, b.shape, symbols, strict=True)
    )


def _same(a: Call, b: Call) -> bool:
    pairs = zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True)
    return all(x.shape == y.shape if isinstance(x, Tensor) else True for x, y in pairs)


def _export(module: nn.Module, call: Call) -> ExportedProgram:
    """Export with as many dimensions open as torch takes; the last error if none."""
    first: Exception | None = None
    bounded: ExportedProgram | None = None
    for which in ("all", "lists", "batch"):
        if which == "batch" and bounded is not None:
            break  # it is not for any length
        try:
            program = _traced(module, call, which)
        except Exception as error:  # torch's errors share no narrower base
            first = first or error
            continue
        limits = len(fixed_sizes(program))
        if limits and which != "batch":
            with contextlib.suppress(Exception):
                cut = _traced(module, call, which, Cuts())
                is_for_more = _num_open(cut) >= _num_open(program)
                is_for_more = is_for_more and len(fixed_sizes(cut)) < limits
                if is_for_more and not _differs(cut, module, call):
                    program = cut
        if not fixed_sizes(program):
            return program
        bounded = bounded or program
    if bounded is None:
        raise first or RuntimeError
    return bounded


def _traced(
    module: nn.Module, call: Call, which: str, mode: Cuts | None = None
) -> ExportedProgram:
    """Export with some axes open: "all", all but "lists" of features, the "batch"."""

    def opened(value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, Tensor):
            return None
        # the last axis of floats of three axes is features
        wide = value.ndim > 2 and value.is_floating_point()
        axes = {"all": value.ndim, "lists": value.ndim - wide, "batch": value.ndim > 0}
        return dict.fromkeys(range(axes[which]), Dim.AUTO)

    given, named = pytree.tree_map(opened, call)
    shapes = inspect.signature(module.forward).bind(*given, **named).arguments
    # torch prints the graph so far beside its error
    hidden = contextlib.redirect_stderr(io.StringIO())
    rewrites = mode or contextlib.nullcontext()
    with (
        hidden,
        contextlib.redirect_stdout(io.StringIO()),
        quiet(),
        Rewrites(),
        rewrites,
    ):
        program = torch.export.export(module, *call, dynamic_shapes=shapes or None)
    _lower(program, module, call)
    return program


def _lower(program: ExportedProgram, module: nn.Module, call: Call) -> None:
    """Lower a least size of 3, where the module itself takes less.

    torch takes no open size for 1, so that ``history[:, 1:]`` needs 3 positions in a
    program. Where the program computes the same with 1 and 2, it is torch's bound; a
    module that reads a third column fails.
    """
    for symbol, values in list(program.range_constraints.items()):
        if str(values.lower) != "3":
            continue
        program.range_constraints[symbol] = ValueRanges(1, values.upper)
        if _differs(program, module, call, [(str(symbol), 1), (str(symbol), 2)]):
            program.range_constraints[symbol] = values


def _differs(
    program: ExportedProgram,
    module: nn.Module,
    call: Call,
    sizes: Sequence[tuple[str, int]] = (),
) -> bool:
    """Whether a program computes something else, or fails, at sizes of its symbols.

    Without any: at those below the example's, a few more, and a longer one.
    """
    if not sizes:
        known = {
            name: int(t.shape[axis])
            for t, names in zip(_tensors(call), open_sizes(program), strict=True)
            for axis, name in enumerate(names)
            if name
        }
        sizes = [
            (name, n)
            for name, size in known.items()
            for n in {*range(1, min(size + 3, 9)), 2 * size + 3}
        ]
    try:
        run = program.module(check_guards=False)
        for name, size in sizes:
            other = _resized(call, _places(program, name), size)
            wanted, made = _call(module, other), run(*other[0], **other[1])
            torch.testing.assert_close(made, wanted, equal_nan=True)
    except Exception:  # in whatever way, torch's own too
        return True
    return False


def _tensors(call: Call) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(call) if isinstance(t, Tensor)]


def _places(program: ExportedProgram, symbol: str) -> list[tuple[int, int]]:
    """List the tensors and axes that have an open size."""
    return [
        (i, axis)
        for i, t in enumerate(_given(program))
        for axis, there in enumerate(t.shape)
        if str(there) == symbol
    ]


def _resized(call: Call, places: Sequence[tuple[int, int]], size: int) -> Call:
    """Make some axes of a call's tensors as long as is asked, of what they hold."""
    tensors = _tensors(call)
    for i, axis in places:
        index = torch.arange(size) % tensors[i].shape[axis]
        is_rising = bool((tensors[i].diff(dim=axis) >= 0).all())
        if is_rising:  # offsets may be, which torch follows without a look
            index = index.sort().values
        tensors[i] = tensors[i].index_select(axis, index)
    return _replaced(call, tensors)


def own_limits(
    program: ExportedProgram, module: nn.Module, call: Call
) -> dict[str, list[tuple[int, int]]]:
    """Find which greatest sizes of a program are those that the module itself takes.

    A table of positions has such a size, where a branch on a size has none.

    Returns
    -------
    dict
        By the size's symbol, the tensors and axes that have it.
    """
    out = {}
    for symbol, (least, most) in fixed_sizes(program).items():
        if least not in LEAST or not most.isdecimal() or int(most) > MOST:
            continue
        places = _places(program, symbol)
        takes = []
        for size in (int(most), int(most) + 1):
            try:
                _call(module, _resized(call, places, size))
            except Exception:  # in whatever way
                takes.append(False)
            else:
                takes.append(True)
        if takes == [True, False]:
            out[symbol] = places
    return out


def fixed_sizes(program: ExportedProgram) -> dict[str, tuple[str, str]]:
    """List the open sizes for which a program is not valid everywhere: (least, most).

    Open sizes begin at 2, as torch assumes; the proof also covers 1.
    """
    return {
        str(symbol): (str(values.lower), str(values.upper))
        for symbol, values in program.range_constraints.items()
        if not str(symbol).startswith("u")  # a size that values decide, no input's
        if str(values.lower) not in LEAST or not str(values.upper).endswith("oo")
    }


def reason_of(error: BaseException | None) -> str:
    """Return the sentence of torch's error that says why, and the line it is about.

    The exporter to ONNX hides it behind a banner, in the error's causes.
    """
    if error is None:
        return "no reason"
    while error.__cause__ is not None:
        error = error.__cause__
    at = LINE.search(str(error))
    return first_line(error) + (f" in `{at[1]}`" if at else "")
