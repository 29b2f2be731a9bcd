"""Checkpoints of other libraries -> a DIN in torch, without those libraries.

Each importer reads a checkpoint, writes the feature spec that describes what its
library computes, and fills the spec's model, which is then like any other.
"""

import os
from collections.abc import Mapping
from typing import Any

from din_converter.importers import deepctr_torch, fuxictr, recbole, torch_rechub
from din_converter.model import ClickModel
from din_infer.errors import ConversionError

__all__ = ["import_checkpoint"]

SIDES = ("user_fields", "candidate_fields")
# Per library: its reader, the options that it takes, and those that it needs.
READERS: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
    "deepctr-torch": (deepctr_torch.read, ("description",), ()),
    "torch-rechub": (torch_rechub.read, ("description", "max_len"), ()),
    "recbole": (recbole.read, (), ()),
    "fuxictr": (
        fuxictr.read,
        ("feature_map", "model_config", "feature_vocab", "experiment"),
        ("feature_map", "model_config"),
    ),
}


def import_checkpoint(
    path: str | os.PathLike[str], source: str, options: Mapping[str, Any]
) -> ClickModel:
    """Read a checkpoint of another library.

    Parameters
    ----------
    path : path
    source : {"deepctr-torch", "torch-rechub", "recbole", "fuxictr"}
    options : dict
        What that library's checkpoint needs beside it, as `convert` takes it.

    Returns
    -------
    DIN
        In evaluation mode; its spec names the library's own features.

    Raises
    ------
    ConversionError
        If the source is unknown, an option does not belong to it or is missing, or the
        checkpoint cannot be reproduced exactly.
    """
    if source not in READERS:
        raise ConversionError("one of " + ", ".join(READERS), repr(source), "source")
    read, takes, needs = READERS[source]
    wrong = [o for o in options if o not in (*takes, *SIDES)]
    if wrong:
        rule = f"the options of {source}: " + ", ".join((*takes, *SIDES))
        raise ConversionError(rule, ", ".join(wrong), "source")
    missing = [o for o in needs if o not in options]
    if missing:
        rule = f"what a {source} checkpoint needs beside it: " + ", ".join(needs)
        raise ConversionError(rule, "no " + ", no ".join(missing), "source")
    model: ClickModel = read(path, **options)
    return model
