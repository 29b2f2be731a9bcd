"""model.pt: {format, spec, state_dict, versions}, read without running pickled code."""

import os
from pathlib import Path
from typing import Any

import torch

from din_converter.importers.unpickle import read_plain
from din_converter.model import ClickModel, fill, hollow_model
from din_infer.errors import ModelError, reads_arguments, sentence
from din_infer.local_path import local_path
from din_infer.spec import FeatureSpec
from din_infer.version import __version__, check_format, written_by_newer
from din_infer.whole_file import WholeFile, writing

__all__ = ["load", "save"]

FORMAT = 1
FOREIGN = "A checkpoint of another library: name it with --from (source= in Python)."


@reads_arguments(ModelError)
def save(model: ClickModel, path: str | os.PathLike[str]) -> None:
    """Write a model to `path`, whole or not at all.

    Parameters
    ----------
    model : DIN or BaseModel
    path : path
        Usually ``model.pt``; replaced if there.

    Raises
    ------
    TypeError
        If this is no DIN or BaseModel.
    ModelError
        If it cannot be written there.
    """
    given: object = model
    if not isinstance(given, ClickModel):
        got = type(model).__name__
        raise TypeError(sentence("a DIN or BaseModel", got, "model"))
    content = {
        "format": FORMAT,
        "spec": model.spec.to_json(),
        "state_dict": {k: v.cpu() for k, v in model.state_dict().items()},
        "versions": {
            "din-infer": __version__,
            "torch": str(torch.__version__),
        },
    }
    target = local_path(path, "path", ModelError)
    with writing("the model", target, ModelError):
        write_content(content, target)


def write_content(content: object, target: Path) -> None:
    """Replace a file by what torch.save makes of plain values, whole or not at all.

    Raises
    ------
    OSError
        If the system refuses, as where a disk is full.
    """
    with WholeFile(target) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's own, that its zip is not whole
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


@reads_arguments(ModelError)
def load(path: str | os.PathLike[str]) -> ClickModel:
    """Read a model written by `save`; it is in evaluation mode.

    Of the checkpoint of a run (checkpoint.pt, last.pt) the best model so far.

    Raises
    ------
    ModelError
        If the file is not such a checkpoint, is truncated, or its weights do not fit
        its spec (every missing, unknown and misshapen key is listed).

    Notes
    -----
    Tensors and plain values are read as data: no code in the file runs.
    """
    path = local_path(path, "model", ModelError)
    content = _read(path)
    try:
        spec = FeatureSpec.from_json(content["spec"])
    except ModelError as error:
        versions = content.get("versions")
        version = versions.get("din-infer") if isinstance(versions, dict) else None
        fix = written_by_newer(version)
        raise error.at(fix=fix) if fix else error from None
    model = hollow_model(spec)
    _compare(model.state_dict(), content["state_dict"], path)
    return fill(model, content["state_dict"])


def _read(path: Path) -> dict[str, Any]:
    rule = "a model.pt that din-train or din_converter.save wrote"
    content = read_plain(path, rule, FOREIGN)
    if isinstance(content, dict) and "state_dict" not in content:
        content = _of_run(content)
    keys = {"format": int, "spec": str, "state_dict": dict}
    for key, kind in keys.items():
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise ModelError(rule, f"no `{key}`", str(path), FOREIGN)
        if key == "format":
            check_format(content["format"], FORMAT, f"{path}: format")
    return dict(content)


def _of_run(content: dict[str, Any]) -> dict[str, Any]:
    """Take the best weights so far where this is the checkpoint of a run."""
    config, model = content.get("config"), content.get("model")
    if not isinstance(config, dict) or not isinstance(model, dict):
        return content
    weights = content.get("best_state") or model
    return {**content, "spec": config.get("spec"), "state_dict": weights}


def _compare(wanted: dict[str, Any], state: dict[str, Any], path: Path) -> None:
    faults = [f"missing {k}" for k in wanted if k not in state]
    faults += [f"unknown {k}" for k in state if k not in wanted]
    for key, value in wanted.items():
        if key not in state:
            continue
        got = _kind(state[key])
        if got != _kind(value):
            faults.append(f"{key} as {_kind(value)}, not {got}")
    if faults:
        rule = "the weights of its own spec"
        raise ModelError(rule, "; ".join(faults), f"{path}: state_dict")


def _kind(value: object) -> str:
    """Say what a tensor is, as far as it must be the model's own."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    number = "floats" if value.dtype.is_floating_point else str(value.dtype)
    layout = "" if value.layout == torch.strided else f", {value.layout}"
    return f"{number} {list(value.shape)}{layout}"
