"""The options of din-train, on the command line and in a file."""

import argparse
import difflib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from din_converter.settings import CHOICES, Settings
from din_infer.cli import add_text_options, num_threads, path, positive
from din_infer.errors import InputError
from din_infer.local_path import local_path
from din_infer.regular_file import read_text
from din_infer.spec import ACTIVATIONS
from din_infer.whole_file import write_whole

__all__ = ["add_options", "read_config", "write_config"]

Number = TypeVar("Number", int, float)
BY_ROWS = ("--epochs", "--batch-size", "--patience")
PATHS = ("data", "spec", "out", "run", "valid", "warm_start")
NOT_IN_CONFIG = ("help", "version", "config", "resume", "overwrite")


def _number(
    read: Callable[[str], Number], fits: Callable[[Number], bool], rule: str
) -> Callable[[str], Number]:
    """Make a reader of command-line numbers of a range."""

    def parse(text: str) -> Number:
        value = read(text)
        if not fits(value):
            raise argparse.ArgumentTypeError(f"must be {rule}")
        return value

    parse.__name__ = read.__name__  # what argparse calls a text that is no number
    return parse


_fraction = _number(float, lambda v: 0 <= v < 1, "in [0, 1)")
_rate = _number(float, lambda v: 0 < v < 1e3, "above 0 and below 1000")
_strength = _number(float, lambda v: 0 <= v < 1e6, "at least 0 and below 1000000")
_whole = _number(int, lambda v: 0 <= v < 2**63, "in [0, 2**63)")
_seed = _number(int, lambda v: 0 <= v < 2**63, "in [0, 2**63)")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add everything that din-train takes; defaults are those of `Settings`."""
    add = parser.add_argument
    what = "Parquet, Arrow IPC, CSV or JSON lines: files, folders of them, quoted"
    what += " patterns"
    add("data", metavar="DATA", nargs="*", type=path, help=what)
    add("--config", metavar="FILE.toml", type=path, help="options, by their long names")
    add("--spec", type=path, help="feature spec, .toml or .json (required)")
    what = "the model to write (default: %(default)s)"
    add("--out", type=path, default="model.pt", help=what)
    add("--run", metavar="DIR", type=path, help="run folder (default: model.run)")
    add(
        "--resume",
        action="store_true",
        help="go on with a run that was interrupted, or, with more --epochs and a"
        " schedule that does not depend on them, has ended",
    )
    add("--overwrite", action="store_true", help="start again over such a run")
    add(
        "--warm-start",
        metavar="MODEL",
        type=path,
        help="start from this model.pt, or from the checkpoint.pt or last.pt of a run",
    )

    def setting(name: str, what: str, **options: object) -> None:
        default = getattr(Settings, name[2:].replace("-", "_"))
        told = "by the number of rows" if default == 0 and name in BY_ROWS else None
        what += f" (default: {told or '%(default)s'})"
        group.add_argument(name, default=default, help=what, **options)  # type: ignore[arg-type]

    group = parser.add_argument_group("rows")
    what = "validation rows: files, or folders"
    group.add_argument("--valid", metavar="FILE", nargs="+", type=path, help=what)
    what = "without --valid: hold out the newest part F of the rows, by the spec's"
    what += " `time` column; 0 trains without validation"
    setting("--valid-fraction", what, metavar="F", type=_fraction)
    setting("--batch-size", "rows in a batch", type=positive)
    what = "rows shuffled together; memory holds about four times as many"
    setting("--shuffle-rows", what, metavar="N", type=positive)
    what = (
        "leave dense fields without a `scale` in the spec as they are: else those far"
    )
    what += " from unit range get a standard scale"
    group.add_argument("--no-scale", action="store_true", help=what)

    add_text_options(parser)

    group = parser.add_argument_group("model, overriding the spec")
    group.add_argument("--model", choices=("din", "base"), help="type of the model")
    what = "how the base model pools behaviors"
    group.add_argument("--pooling", choices=("sum", "mean"), help=what)
    what = "activation of attention and tower"
    group.add_argument("--activation", choices=ACTIVATIONS, help=what)

    group = parser.add_argument_group("optimization")
    setting("--epochs", "epochs at most", type=positive)
    what = "stop after N epochs without a better validation"
    setting("--patience", what, metavar="N", type=positive)
    what = "validation measure by which the epoch to keep is chosen"
    setting("--select", what, choices=CHOICES["select"])
    what = "optimizer of the layers; tables get its sparse form"
    setting("--optimizer", what, choices=CHOICES["optimizer"])
    setting("--learning-rate", "learning rate", type=_rate)
    what = "schedule of the learning rate; linear and cosine end at 0 after --epochs"
    setting("--schedule", what, choices=CHOICES["schedule"])
    setting("--decay", "factor per epoch of --schedule exponential", type=_rate)
    what = "steps in which the learning rate rises to its value"
    setting("--warmup-steps", what, metavar="N", type=_whole)
    what = "mini-batch aware regularization of the tables: L2 on the rows that a batch"
    what += " reads, each by 1 / its number of samples; 0 for none"
    setting("--mba", what, metavar="LAMBDA", type=_strength)
    setting("--weight-decay", "L2 on all weights but the tables", type=_fraction)
    what = "standard deviation of the normal distribution that tables start from"
    setting("--embedding-std", what, type=_rate)

    group = parser.add_argument_group("machine")
    setting("--seed", "seed of weights and of the rows' order", type=_seed)
    what = "CPU threads (default: torch's)"
    group.add_argument("--threads", type=num_threads, help=what)
    setting("--device", "cpu, cuda, cuda:1")
    what = "save at least this often for --resume, and after every epoch"
    setting("--checkpoint-minutes", what, metavar="M", type=_strength)
    group.add_argument("--quiet", action="store_true", help="no progress bar or lines")


def read_config(path: Path, parser: argparse.ArgumentParser) -> list[str]:
    """Return the options of a TOML file as command-line words."""
    try:
        config = tomllib.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("a readable TOML file", error, str(path)) from None
    actions = {a.dest: a for a in parser._actions if a.dest not in NOT_IN_CONFIG}
    words: list[str] = []
    data: list[str] = []
    for key, value in config.items():
        place = f"{path}: {key}"
        if key not in actions:
            near = difflib.get_close_matches(key, actions, 1)
            fix = f"Is `{near[0]}` meant?" if near else ""
            raise InputError("an option", repr(key), place, fix)
        many = value if isinstance(value, list) else [value]
        if any(isinstance(v, dict | list) for v in many):
            raise InputError("one value, or a list", repr(value), place)
        if key in PATHS:
            many = [path.parent / local_path(str(v), place) for v in many]
        texts = list(map(str, many))
        action = actions[key]
        if key == "data":
            data = texts
        elif action.nargs == 0:
            if not isinstance(value, bool):
                raise InputError("true or false", repr(value), place)
            words += [action.option_strings[0]] * value
        elif isinstance(action, argparse._AppendAction):
            words += [f"{action.option_strings[0]}={text}" for text in texts]
        elif isinstance(value, list):
            words += [action.option_strings[0], *texts]
        else:  # a text may begin with a hyphen
            words.append(f"{action.option_strings[0]}={texts[0]}")
    return [*data, *words]


def write_config(arguments: argparse.Namespace, path: Path) -> None:
    """Write the options that repeat a run, as `read_config` reads them."""
    lines = ["# din-train --config config.toml"]
    for key, value in vars(arguments).items():
        if key in NOT_IN_CONFIG or value is None:
            continue
        many = value if isinstance(value, list) else [value]
        if key in PATHS:
            many = [str(Path(v).absolute()) for v in many]
        shown = [json.dumps(v, ensure_ascii=False) for v in many]
        text = "[" + ", ".join(shown) + "]" if isinstance(value, list) else shown[0]
        lines.append(f"{key} = {text}")
    write_whole(path, "\n".join(lines) + "\n")
