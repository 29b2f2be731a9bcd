"""A trained model -> model.onnx: built, written to a draft, proven, then renamed.

One file above 400 lines: `convert`, the one entry point for every kind of model.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import ExportedProgram

import din_infer.model_format as fmt
from din_converter.checkpoint import load
from din_converter.fusing.cost import Block
from din_converter.graph import build_graph
from din_converter.importers import import_checkpoint
from din_converter.model import ClickModel
from din_converter.nodes import inlined_model
from din_converter.precision import computing_in
from din_converter.prune import find_leftovers
from din_converter.raw import TEXTS, RawForm, check_raw, raw_graph
from din_converter.report import Report, Timing, block_of, median_ms
from din_converter.rounding import Rounding, measure_rounding, round_tables
from din_converter.triton import Repository
from din_converter.vectors import make_vectors, write_vectors
from din_converter.verify import (
    Case,
    check_parity,
    golden_rows,
    random_inputs,
    torch_logits,
)
from din_converter.weights import check_single, digest_of_model, write_single
from din_converter.weights import place as place_weights
from din_infer.errors import ConversionError, InputError, ModelError, reads_arguments
from din_infer.integrity import Record, sealed
from din_infer.local_path import local_path
from din_infer.predictor import Predictor
from din_infer.session import Session
from din_infer.spec import FeatureSpec
from din_infer.version import __version__
from din_infer.whole_file import draft_folder, move_into_place, write_whole, writing

if TYPE_CHECKING:
    import pyarrow as pa

    from din_converter.module_parity import Truth
    from din_converter.modules import Graph

__all__ = ["Report", "convert"]

PAIRS_TIMED = 5_000
FOREIGN = (nn.Module, ExportedProgram)


@dataclass(frozen=True)
class _Raw:
    """The raw graph to write in place of one of ids, and rows to prove it on."""

    spec: FeatureSpec
    form: RawForm
    rows: Any


@dataclass(frozen=True)
class _Place:
    """The destination of a model, with the options of `convert` that concern it."""

    path: Path
    single_file: bool
    prune: bool
    inline: bool
    triton: Repository | None
    vectors: Path | None


@reads_arguments(ConversionError)
def convert(
    model: "ClickModel | nn.Module | ExportedProgram | str | os.PathLike[str]",
    path: str | os.PathLike[str],
    *,
    source: str | None = None,
    description: str | os.PathLike[str] | None = None,
    feature_map: str | os.PathLike[str] | None = None,
    model_config: str | os.PathLike[str] | None = None,
    feature_vocab: str | os.PathLike[str] | None = None,
    experiment: str | None = None,
    max_len: int | None = None,
    user_fields: Sequence[str] = (),
    candidate_fields: Sequence[str] = (),
    example_inputs: Any = None,  # noqa: ANN401
    explain: bool = False,
    embedding_dtype: str = "fp32",
    valid: "pa.Table | str | os.PathLike[str] | None" = None,
    single_file: bool = False,
    prune: bool = False,
    raw: bool = False,
    raw_text: str = "arrow",
    raw_ids: bool = False,
    inline: bool = False,
    triton: str | os.PathLike[str] | None = None,
    triton_path: str | None = None,
    vectors: str | os.PathLike[str] | None = None,
) -> Report:
    """Write a trained model as ONNX and prove that it computes the same.

    Parameters
    ----------
    model : DIN, BaseModel, Module, ExportedProgram or path
        A model of this package, or the ``model.pt`` that `save` wrote; with `source` a
        checkpoint of that library; any torch module; or a ``.pt2`` program.
    path : path
        The ``.onnx`` to write. Weights above 1 MiB in all go to a data file beside it
        whose name carries their digest.
    source : {"deepctr-torch", "torch-rechub", "recbole", "fuxictr"}, optional
        The library that wrote the checkpoint `model`.
    description : path, optional
        deepctr-torch, torch-rechub: the columns or features as JSON; a pickled model
        needs none.
    feature_map, model_config, feature_vocab : path, optional
        fuxictr: ``feature_map.json`` and ``model_config.yaml``; with
        ``feature_vocab.json`` the result takes raw values instead of ids.
    experiment : str, optional
        fuxictr: which experiment of `model_config`, where it has several.
    max_len : int, optional
        torch-rechub: the length to which histories were padded in training, if shorter
        lists are to be scored; its checkpoints do not say, and padding counts.
    user_fields, candidate_fields : sequence of str
        Fields of a checkpoint that are given per request, or per candidate, where that
        is not as the importer assumes.
    example_inputs : tensor, tuple or dict, optional
        What a torch module is called with: positional arguments, or keyword arguments.
        A program may bring its own.
    explain : bool
        Add the outputs ``<sequence>.activation_weight`` [N, T].
    embedding_dtype : {"fp32", "fp16"}
        How tables are stored. fp16 takes half the file and half the memory; everything
        is computed in float32. The proof then holds against torch with rounded tables,
        and the report says what rounding changed.
    valid : pyarrow.Table or path of a Parquet file, optional
        Labeled rows on which to measure the AUC before and after rounding to fp16.
        Without them, rows and labels are generated.
    single_file : bool
        Put all weights inside the ``.onnx``, which can then be passed as bytes; every
        process that loads it has its own copy of the weights. At most 2 GiB.
    prune : bool
        When the model is in place, delete the data files that earlier conversions to
        `path` left in its folder: files ``<stem>-<8 hex digits>.data`` that no
        ``.onnx`` there refers to. `Report.leftovers` lists them either way.
    raw : bool
        Write a graph that takes raw columns instead of ids, for ONNX Runtime with the
        native operators and without Python: docs/raw.md. `Predictor` takes the graph
        of ids alone.
    raw_text : {"arrow", "large", "strings"}
        Of `raw`: how text is given, as bytes with offsets of 32 or of 64 bits, or as
        string tensors.
    raw_ids : bool
        Of `raw`: give what was encoded as further outputs.
    inline : bool
        Put the nodes of the model's functions in place of the operators: for runtimes
        that know no functions (OpenVINO, tract, IREE). Native operators cannot replace
        them then; of a `raw` graph, the operator Encode stays.
    triton : path, optional
        A model repository of Triton Inference Server, made if need be, into which the
        model is written, too: ``<stem>/config.pbtxt`` and its files in ``<stem>/1``.
    triton_path : str, optional
        Where the server finds that folder, as in ``/models``; by default, its absolute
        path here.
    vectors : path, optional
        A folder for ``spec.json``, ``inputs.json`` and ``vectors.jsonl``: raw rows,
        what they are encoded to, and their scores, with which a client in another
        language tests itself. It is made in a folder that exists.

    Returns
    -------
    Report

    Raises
    ------
    ModelError
        If `model` is a path and not such a checkpoint, or `valid` is given and the spec
        names no label.
    InputError
        If `valid` cannot be read, is empty or does not fit the spec; or a path is a
        URL.
    ConversionError
        If a checkpoint does not fit its description or cannot be reproduced exactly; a
        module cannot be exported; a weight is not finite or, for fp16, a table's value
        is beyond 65504; a single file would be too large; or ONNX Runtime and torch
        disagree on any batch: the message names the largest difference and where it
        was. Nothing is written then.

    Notes
    -----
    A torch module has no feature spec: its file takes the module's own inputs, through
    `Predictor.score_encoded` or any ONNX Runtime. No pickled code is run, whatever the
    file.
    """
    path = local_path(path, "out")
    files = {
        "description": description,
        "feature_map": feature_map,
        "model_config": model_config,
        "feature_vocab": feature_vocab,
    }
    for name, file in {"model": model, **files, "valid": valid}.items():
        if isinstance(file, str | os.PathLike):
            local_path(file, name, ModelError if name == "model" else InputError)
    _check_out(path)
    repository = Repository.of(triton, triton_path)
    folder = None if vectors is None else _check_folder(vectors)
    place = _Place(path, single_file, prune, inline, repository, folder)
    if embedding_dtype not in ("fp32", "fp16"):
        raise ConversionError("fp32 or fp16", repr(embedding_dtype), "embedding_dtype")
    if raw_text not in TEXTS:
        raise ConversionError(" or ".join(TEXTS), repr(raw_text), "raw_text")
    if not raw and (raw_ids or raw_text != TEXTS[0]):
        rule = f"`raw` beside `{'raw_ids' if raw_ids else 'raw_text'}`"
        raise ConversionError(rule, "a graph of ids", "raw")
    form = RawForm(raw_text, raw_ids) if raw else None
    if valid is not None and embedding_dtype == "fp32":
        rule = "no validation rows, since fp32 tables are not rounded"
        raise ConversionError(rule, "some", "valid")
    given = {
        **files,
        "experiment": experiment,
        "max_len": max_len,
        "user_fields": tuple(user_fields) or None,
        "candidate_fields": tuple(candidate_fields) or None,
    }
    options = {k: v for k, v in given.items() if v is not None}
    is_path = isinstance(model, str | os.PathLike)
    program = is_path and source is None and Path(model).suffix == ".pt2"  # type: ignore[arg-type]
    if source is None and options:
        rule = "no such option without a library's checkpoint"
        raise ConversionError(rule, ", ".join(options), "source")
    foreign = program or (source is None and isinstance(model, FOREIGN))
    foreign = foreign and not isinstance(model, ClickModel)
    if source is None and not (is_path or isinstance(model, FOREIGN)):
        rule = "a DIN, a torch module, a program or a path"
        raise ConversionError(rule, type(model).__name__, "model")
    if not foreign and example_inputs is not None:
        rule = "example inputs for a torch module alone"
        raise ConversionError(rule, "some", "example_inputs")
    if foreign:
        if folder is not None:
            rule = "a model with a feature spec, for test vectors of raw rows"
            raise ConversionError(rule, "a torch module", "vectors")
        if explain or embedding_dtype != "fp32":
            rule = "a model with a feature spec, for activation weights and fp16 tables"
            raise ConversionError(rule, "a torch module", "model")
        if raw:
            rule = "a model with a feature spec, which says how raw values are encoded"
            raise ConversionError(rule, "a torch module", "model")
        with writing("the model", path, ConversionError):
            return _convert_module(model, place, example_inputs)
    if source is not None:
        if not is_path:
            rule = f"the path of a {source} checkpoint"
            raise ConversionError(rule, type(model).__name__, "model")
        model = import_checkpoint(model, source, options)  # type: ignore[arg-type]
    elif not isinstance(model, ClickModel):
        model = load(model)  # type: ignore[arg-type]
    with writing("the model", path, ConversionError):
        return _convert_spec(
            model,
            place,
            source or "din-infer",
            explain=explain,
            embedding_dtype=embedding_dtype,
            valid=valid,
            form=form,
        )


def _check_out(path: Path) -> None:
    if path.suffix != ".onnx":
        raise ConversionError("a path that ends in .onnx", path.name, "out")
    if not path.parent.is_dir():
        raise ConversionError("an existing folder", path.parent, "out")
    if path.is_dir():
        raise ConversionError("a file, or nothing", "a folder", str(path))


def _check_folder(given: str | os.PathLike[str]) -> Path:
    path = local_path(given, "vectors")
    if not path.absolute().parent.is_dir():
        raise ConversionError("an existing folder", path.parent, "vectors")
    if path.exists() and not path.is_dir():
        raise ConversionError("a folder, or nothing", "a file", "vectors")
    return path


def _convert_spec(
    model: ClickModel,
    place: _Place,
    source: str,
    *,
    explain: bool,
    embedding_dtype: str,
    valid: "pa.Table | str | os.PathLike[str] | None",
    form: RawForm | None,
) -> Report:
    """Convert a model of this package's own, however it was made."""
    if explain and (model.spec.model.type != "din" or not model.spec.behavior):
        rule = "a DIN with behavior sequences to explain"
        raise ConversionError(rule, f"model.type {model.spec.model.type!r}", "explain")
    for name, tensor in model.state_dict().items():
        # the extremes are NaN where any value is, and take no memory
        if not torch.isfinite(torch.stack(tensor.aminmax())).all():
            raise ConversionError("finite weights", "NaN or infinity", name)
    exact = computing_in(torch.float64, model)
    proto, weights = build_graph(
        exact, explain=explain, embedding_dtype=embedding_dtype
    )
    rounding = None
    if embedding_dtype == "fp16":
        rounded = round_tables(exact)
        rounding = measure_rounding(exact, rounded, valid)
        exact = rounded
    spec = exact.spec
    golden = golden_rows(exact)
    _set_metadata(proto, {fmt.SPEC_KEY: spec.to_json(), fmt.GOLDEN_KEY: golden})
    rng = np.random.default_rng(0)
    batch = random_inputs(spec, rng, 1, 1, "max")
    longest = _longest(spec, batch)
    rows = max(1, min(256, PAIRS_TIMED // max(longest, 1)))
    batch = random_inputs(spec, rng, rows, rows, "max")
    single = computing_in(torch.float32, model)

    def measure(draft: Path) -> tuple[list[Case], Timing]:
        cases = check_parity(exact, draft, inlined=place.inline)
        return cases, _time_file(
            draft,
            batch,
            ["score"],
            {"torch": lambda: torch_logits(single, batch)},
            longest,
            inlined=place.inline,
        )

    blocks = [
        block_of(s, batch[s.own_fields[0].name].shape[1])
        for s in spec.behavior
        if spec.model.type == "din"
    ]
    raw = None if form is None else _Raw(spec, form, json.loads(golden)["rows"])
    return _write(proto, weights, place, source, measure, blocks, rounding, raw)


def _longest(spec: FeatureSpec, batch: Mapping[str, NDArray[Any]]) -> int:
    """Return the longest history of a batch."""
    widths = (batch[s.own_fields[0].name].shape[1] for s in spec.behavior)
    return max(widths, default=0)


def _convert_module(
    model: Any,  # noqa: ANN401
    place: _Place,
    example_inputs: Any,  # noqa: ANN401
) -> Report:
    """Export any torch module, fuse its attention, prove it against the module."""
    from din_converter.module_parity import (
        RUNS,
        check_fast_path,
        faulty_blocks,
        reference_outputs,
        runtime_reason,
    )
    from din_converter.modules import export_module

    if isinstance(model, str | os.PathLike):
        from din_converter.importers.pt2 import load_program

        model = load_program(model)
    graph = export_module(model, example_inputs)
    check_fast_path(graph)
    truth = reference_outputs(graph)
    left: dict[str, str] = {}
    while True:
        try:
            return _write_module(graph, truth, place)
        except (ConversionError, ModelError) as error:
            if isinstance(error, ModelError):
                error = ConversionError(RUNS, runtime_reason(error), "module")
            if not graph.bags and not any(b.fused for b in graph.blocks):
                raise error from None
            # a module converts, whatever becomes of its blocks
            left |= faulty_blocks(graph, truth, error, alone=not left)
            graph = graph.without(left)


def _write_module(graph: "Graph", truth: "Sequence[Truth]", place: _Place) -> Report:
    """Write an exported module, proven against what torch gave."""
    from din_converter.fusing.view import graphs_of
    from din_converter.module_parity import (
        check_outputs,
        golden_example,
        plain_session,
        remarks_on,
    )
    from din_converter.modules import input_ranges, to_weights

    plain, proto = graph.plain, onnx.ModelProto()
    proto.CopyFrom(graph.fused)
    for part in (*graphs_of(proto.graph), *proto.functions):
        for node in part.node:
            node.ClearField("metadata_props")  # torch's, with paths of the source
    _set_metadata(
        proto,
        {
            fmt.INPUTS_KEY: json.dumps(input_ranges(plain)),
            fmt.GOLDEN_KEY: golden_example(graph, truth[0][2]),
        },
    )
    weights = to_weights(proto)
    batch = max((x for _, x, _ in truth), key=lambda x: len(next(iter(x.values()))))

    def measure(draft: Path) -> tuple[list[Case], Timing]:
        cases = check_outputs(graph.outputs, truth, draft, inlined=place.inline)
        before = {"torch": lambda: graph.call(batch, torch.float32)}
        if graph.bags or any(b.fused for b in graph.blocks):
            session = plain_session(plain)
            before["plain ONNX"] = lambda: session.run(None, batch)
        longest = max((b.positions for b in graph.blocks), default=0)
        return cases, _time_file(
            draft, batch, graph.outputs, before, longest, inlined=place.inline
        )

    notes = remarks_on(graph, truth)
    blocks = graph.blocks
    return _write(proto, weights, place, "module", measure, blocks, None, notes=notes)


def _time_file(
    draft: Path,
    batch: Mapping[str, NDArray[Any]],
    outputs: Sequence[str],
    before: Mapping[str, Callable[[], object]],
    positions: int,
    *,
    inlined: bool,
) -> Timing:
    """Time a batch before and after, with as many threads as torch takes."""
    threads = torch.get_num_threads()
    after: dict[str, float] = {}
    for fused in (False,) if inlined else (True, False):
        session = Session(draft, device="cpu", threads=threads, fused=fused)
        way = "native" if session.fused else "function bodies"
        if way not in after:
            after[way] = median_ms(lambda s=session: s.run(batch, outputs))  # type: ignore[misc]
    rows = len(next(iter(batch.values())))
    made = {way: median_ms(run) for way, run in before.items()}
    return Timing(rows, positions, threads, made, after)


def _write(
    proto: onnx.ModelProto,
    weights: dict[str, NDArray[Any]],
    place: _Place,
    source: str,
    measure: Callable[[Path], tuple[list[Case], Timing]],
    blocks: Sequence[Block],
    rounding: Rounding | None,
    raw: _Raw | None = None,
    notes: tuple[str, ...] = (),
) -> Report:
    """Write into a folder of drafts, prove the files there, move them into place."""
    path = place.path
    if place.inline:
        proto = inlined_model(proto)
    of_ids, all_weights = proto, weights
    if raw is not None:
        proto, more = raw_graph(of_ids, raw.spec, raw.form)
        _set_metadata(proto, {fmt.RAW_KEY: raw.form.text})
        all_weights = weights | more
    if place.single_file:
        check_single(proto, all_weights)
    model_id = digest_of_model(proto, all_weights)
    with draft_folder(path) as folder:
        # A single file is proven in two: two sessions would have a copy of it each.
        data = place_weights(proto, all_weights, path.stem, folder)
        versions = {"din-infer": __version__}
        versions |= {name: version(name) for name in ("torch", "onnx")}
        metadata = {
            fmt.FORMAT_KEY: fmt.FORMAT,
            fmt.MODEL_ID_KEY: model_id,
            fmt.SOURCE_KEY: source,
            fmt.VERSIONS_KEY: json.dumps(versions),
        }
        _set_metadata(proto, metadata)
        # Whole at any time: another conversion reads which data it names, to prune.
        draft = folder / path.name
        write_whole(draft, proto.SerializeToString())
        proven = draft
        if raw is not None:  # the graph of ids is proven, over the same data file
            proven = folder / f"{path.stem}.ids.onnx"
            _fill_from(of_ids, proto)
            _set_metadata(of_ids, metadata)
            write_whole(proven, of_ids.SerializeToString())
        cases, timing = measure(proven)
        single = place.single_file and data is not None
        data_name = data[0] if data and not single else None
        report = Report(
            path=path,
            data_path=path.with_name(data_name) if data_name else None,
            model_id=model_id,
            num_weights=sum(w.size for w in weights.values()),
            weight_bytes=sum(w.nbytes for w in weights.values()),
            cases=tuple(cases),
            rounding=rounding,
            source=source,
            blocks=tuple(blocks),
            timing=timing,
            raw=None if raw is None else raw.form.text,
            notes=notes,
        )
        measured = {fmt.PARITY_KEY: json.dumps(report.measured())}
        _set_metadata(proto, measured)
        if raw is not None:
            _set_metadata(of_ids, measured)
            _seal(of_ids, proven, data)
            audited = folder / f"{path.stem}.raw.onnx"
            _prove_raw(raw, of_ids, proto, proven, audited, inlined=place.inline)
        if single:
            write_single(proto, all_weights, draft)
        else:
            _seal(proto, draft, data)
        # loads it as users will: golden rows are checked
        predictor = Predictor(proven, device="cpu", fused=not place.inline)
        vectors = make_vectors(predictor) if place.vectors is not None else []
        # the data first: a graph always finds its weights
        for name in (*([data_name] if data_name else []), path.name):
            move_into_place(folder / name, path.with_name(name))
    if place.triton is not None:
        files = place.triton.add(path, report.data_path, proto, prune=place.prune)
        report = replace(report, repository=files)
    if place.vectors is not None:
        with writing("the test vectors", place.vectors, ConversionError):
            write_vectors(vectors, predictor, place.vectors)
    return replace(report, leftovers=find_leftovers(path, delete=place.prune))


def _seal(proto: onnx.ModelProto, path: Path, data: tuple[str, Record] | None) -> None:
    """Write a model whose weights are placed, with the digests of all its bytes."""
    if data:
        _set_metadata(proto, {fmt.DATA_KEY: data[1].to_json()})
    write_whole(path, sealed(proto.SerializeToString()))


def _fill_from(proto: onnx.ModelProto, placed: onnx.ModelProto) -> None:
    """Take the data of initializers from another graph that has them too."""
    by_name = {i.name: i for i in placed.graph.initializer}
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(by_name[tensor.name])


def _prove_raw(
    raw: _Raw,
    of_ids: onnx.ModelProto,
    proto: onnx.ModelProto,
    ids: Path,
    draft: Path,
    *,
    inlined: bool,
) -> None:
    """Compare a raw graph, ids among its outputs, with the graph of ids."""
    audited = onnx.ModelProto()
    audited.CopyFrom(proto)
    if not raw.form.ids:
        names = {i.name for i in raw.spec.inputs} - {i.name for i in proto.graph.input}
        audited.graph.output.extend(i for i in of_ids.graph.input if i.name in names)
    draft.write_bytes(audited.SerializeToString())
    check_raw(raw.spec, raw.form, ids, draft, raw.rows, inlined=inlined)


def _set_metadata(proto: onnx.ModelProto, values: dict[str, str]) -> None:
    for key, value in values.items():
        proto.metadata_props.add(key=key, value=value)
