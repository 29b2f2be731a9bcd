"""Predictor: raw rows in, scores out.

Above 400 lines: one class, half of it what its methods promise. Letters: B requests, N
candidates, T positions. In a plain table B = N, or its runs of rows with one user's
side.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from din_infer.describe import describe, describe_inputs
from din_infer.encode import Counts, Encoded, Stats, of_candidates
from din_infer.encoded import check_encoded, check_inputs
from din_infer.encoded_requests import EncodedRequests
from din_infer.errors import (
    InputError,
    ModelError,
    check_kind,
    is_whole,
    reads_arguments,
    renumbered,
)
from din_infer.explain import Explanation, explained
from din_infer.explain.raw_values import readable
from din_infer.golden import check_golden
from din_infer.link import link_in_place
from din_infer.local_path import local_path
from din_infer.model_file import Source
from din_infer.model_format import WEIGHT_SUFFIX
from din_infer.session import Session
from din_infer.slicing import run_in_slices
from din_infer.spec import FeatureSpec
from din_infer.warmup import inputs_of_pages, inputs_of_shapes

__all__ = ["Predictor"]

RUNS_TO_CAPTURE = 3  # of a size, until its launches are replayed
Inputs = Mapping[str, NDArray[Any]]


class Predictor:
    """A converted DIN, ready to score; raises when it cannot be exactly that.

    Parameters
    ----------
    path : path, bytes or binary file
        The ``.onnx`` that din-convert wrote; its data file lies beside it. In memory, a
        model has no folder: convert it with ``--single-file``.
    device : {"auto", "cpu", "cuda", "cuda:<number>"}
        "cuda" never scores on the CPU: it raises. "auto" may fall back and says so.
    threads : int, optional
        Threads of one run; by default the CPUs this process may use.
    fused : bool
        Use the native operators; False runs the functions inside the model, which
        compute the same, slower. `fused` tells whether they are in use: a package
        built without them has none.
    precision : {"fp32", "tf32x3", "tf32", "bf16"}
        What the layers of the attention multiply in: "bf16" on CPUs with AMX and on
        CUDA, where an interest of the paper's unit is within 5e-3 (norm) of fp32's;
        "tf32" (1e-3) and "tf32x3" (1e-6) on CUDA's tensor cores. Golden rows are then
        checked to 2e-2, 5e-3 and 1e-5.
    tables : {"device", "host"}
        On CUDA, "host" leaves tables of 16 MiB and more in pinned memory of the host,
        and the card reads their rows from there: for tables larger than the card.
    verify : bool
        Compare every byte of the model's files with the digests in it; False compares
        sizes and a sample (some 50 KiB of each file), within a millisecond.
    mmap : bool
        Map the data file, which all processes then share; nobody may cut it while it is
        in use. False reads it into this process's own memory, which needs twice its
        size while it is loaded.
    data_root : path, optional
        A folder that the data file may be in, or in folders of it, where links lead
        there. Otherwise it must be in the folder of the ``.onnx``, links followed.

    Raises
    ------
    ModelError
        If the file is not a model that din-convert wrote, is damaged, or this machine
        does not reproduce its golden scores within 1e-5; if its data file is missing,
        cut, elsewhere, or of another model.
    DeviceError
        If there is no usable ONNX Runtime, the device cannot be used, or the machine
        lacks what `precision` needs.

    Notes
    -----
    May be shared by threads. Use in a forked child raises; a new one works there.
    Pickles as path, options and model id: another model at that path is then a
    ModelError.
    """

    @reads_arguments(ModelError)
    def __init__(
        self,
        path: Source,
        device: str = "auto",
        threads: int | None = None,
        fused: bool = True,
        precision: str = "fp32",
        tables: str = "device",
        *,
        verify: bool = False,
        mmap: bool = True,
        data_root: str | os.PathLike[str] | None = None,
    ) -> None:
        self._options: dict[str, Any] = {
            "device": device,
            "threads": threads,
            "fused": fused,
            "precision": precision,
            "tables": tables,
            "verify": verify,
            "mmap": mmap,
            "data_root": None,
        }
        if data_root is not None:
            root = local_path(data_root, "data_root", ModelError)
            self._options["data_root"] = os.path.abspath(root)  # noqa: PTH100
        self._session = Session(path, **self._options)
        contract = self._session.contract
        self._place = contract.place
        self._spec, self._inputs = contract.spec, contract.inputs
        self._lock = threading.Lock()
        self._stats = Stats()
        check_golden(self._session)

    @property
    def spec(self) -> FeatureSpec:
        """The feature spec; a converted torch module has none (ModelError)."""
        if self._spec is None:
            rule = "a model with a feature spec"
            fix = "Give its own inputs to score_encoded."
            raise ModelError(rule, "a torch module's graph", self._place, fix)
        return self._spec

    @property
    def path(self) -> str | None:
        """The absolute path of the ``.onnx``; None for a model in memory."""
        path = self._session.file.path
        return None if path is None else os.fspath(path)

    @property
    def model_id(self) -> str:
        """Digest of the graph and its weights."""
        return self._session.file.model_id

    @property
    def device(self) -> str:
        """Where the session runs: "cpu" or "cuda:<number>"."""
        return self._session.device

    @property
    def threads(self) -> int:
        """Threads of one run."""
        return self._session.threads

    @property
    def fused(self) -> bool:
        """Whether the session computes by native operators: what it really has placed.

        False where there are none, and for a graph whose functions a tool has inlined.
        """
        return self._session.fused

    @property
    def precision(self) -> str:
        """What the attention multiplies in: "fp32", "tf32x3", "tf32" or "bf16"."""
        return self._session.precision

    @property
    def stats(self) -> dict[str, dict[str, int]]:
        """Per field: rows, nulls, unseen, truncated, empty since the start; a copy."""
        with self._lock:
            return self._stats.to_dict()

    @reads_arguments(InputError)
    def score(
        self, batch: object, *, raw: bool = False, batch_size: int | None = None
    ) -> NDArray[np.float32]:
        """Score a table in which every row is one (request, candidate) pair.

        Parameters
        ----------
        batch : dict of columns, list of dicts, or any frame with `__arrow_c_stream__`
            Must hold the columns that `describe` lists; others are ignored.
        raw : bool
            Return logits before calibration instead of scores.
        batch_size : int, optional
            Rows per run of the graph; it bounds memory and does not change scores.

        Returns
        -------
        float32 [rows]
            In the order of the rows; owned by the caller. No rows, no scores.

        Raises
        ------
        InputError
            Naming column, row and value, when the batch does not fit the spec.
        """
        return self._score(self._encode(batch), raw, batch_size)

    @reads_arguments(InputError)
    def score_requests(
        self,
        requests: object,
        candidates: object,
        request_of_candidate: ArrayLike | None = None,
        *,
        raw: bool = False,
        batch_size: int | None = None,
    ) -> NDArray[np.float32]:
        """Score N candidates for B requests; each history is encoded once.

        Parameters
        ----------
        requests : table of B rows, or EncodedRequests
            The user and behavior columns; or what `encode_request` made of them.
        candidates : table of N rows
            The candidate columns.
        request_of_candidate : int [N], optional
            Which request each candidate belongs to; may be left out when B = 1.
        raw, batch_size
            As in `score`.

        Returns
        -------
        float32 [N]
            In the order of the candidates.

        Raises
        ------
        InputError
            As `score`; when `request_of_candidate` does not fit B and N; or when
            another model encoded `requests`.
        """
        if isinstance(requests, EncodedRequests):
            requests.inputs_of(self.model_id)
        pieces = self.spec.encoder.encode_request_pieces(
            requests, candidates, request_of_candidate, self.threads
        )
        return self._score(pieces, raw, batch_size)

    @reads_arguments(InputError)
    def encode_request(self, requests: object) -> EncodedRequests:
        """Encode the user's side once, to score many lists of candidates for it.

        Parameters
        ----------
        requests : table of B rows
            The user and behavior columns, as `score_requests` takes them: one user is a
            list of one dict.

        Returns
        -------
        EncodedRequests
            To be given to `score_requests` in place of `requests`: then candidates are
            all that is encoded. Nothing of `requests` is kept.

        Raises
        ------
        InputError
            As `score`.

        Notes
        -----
        `stats` counts these rows here, and not again when they are scored.
        """
        encode = self.spec.encoder.encode_users
        encoded, counts = encode(requests, self.model_id, self.threads)
        self.count(counts)
        return encoded

    @reads_arguments(InputError)
    def warmup(
        self, candidates: Iterable[int] = (1, 10, 100, 500), *, tables: bool = False
    ) -> None:
        """Run the graph at the usual shapes, so that the first calls are not slow.

        Parameters
        ----------
        candidates : ints
            How many candidates of one request are scored, one run each (three on CUDA,
            which then replays them): golden rows of the model, for the one with the
            longest history.
        tables : bool
            Also read a row of every page of the tables, which otherwise are read from
            the file when a call first needs them. Takes as long as reading the file.

        Raises
        ------
        InputError
            If one of them is not a whole number of at least 1.

        Notes
        -----
        Memory that a run needs is kept for the next. `stats` does not count this.
        """
        counts = list(candidates)
        for count in counts:
            if not (is_whole(count) and count >= 1):
                rule = "whole numbers of at least 1"
                raise InputError(rule, repr(count), "candidates")
        spec = self.spec
        if tables:
            for inputs in inputs_of_pages(spec):
                self._outputs(inputs, ["logit"], None)
        times = 1 if self.device == "cpu" else RUNS_TO_CAPTURE
        for inputs in inputs_of_shapes(spec, self._session.contract.golden, counts):
            for _ in range(times):
                self._outputs(inputs, ["logit"], None)

    @reads_arguments(InputError)
    def scores_of(
        self,
        encoded: Encoded,
        *,
        raw: bool = False,
        batch_size: int | None = None,
        errors: list[InputError] | None = None,
    ) -> NDArray[np.float32]:
        """Score what the spec's encoder made; `count` counts it.

        Parameters
        ----------
        encoded : Encoded
            By `spec.encoder` of this model.
        raw, batch_size
            As in `score`.
        errors : list, optional
            Takes an error for every row whose score is not finite; without it the
            first raises.

        Returns
        -------
        float32 [N]

        Raises
        ------
        InputError
            As `score`.
        """
        check_kind(encoded, Encoded, "encoded")
        (logits,) = self._outputs(encoded.inputs, ["logit"], batch_size)
        if encoded.candidates is None:
            link_in_place(self.spec, logits, raw, errors)
            return logits
        with renumbered(errors, partial(of_candidates, encoded.candidates)) as found:
            link_in_place(self.spec, logits, raw, found)
        return logits

    @reads_arguments(InputError)
    def count(self, counts: Counts) -> None:
        """Add the counts of an encoded batch to `stats`."""
        with self._lock:
            self._stats.add_all(counts)

    def _encode(self, batch: object) -> Iterable[Encoded]:
        encoder = self.spec.encoder
        return encoder.encode_pieces(batch, self.threads, merge_repeats=True)

    def _score(
        self,
        pieces: Iterable[Encoded],
        raw: bool = False,
        batch_size: int | None = None,
    ) -> NDArray[np.float32]:
        made, counts, chosen = [], [], []
        for encoded in pieces:
            made.append(self.scores_of(encoded, raw=raw, batch_size=batch_size))
            counts.append(encoded.counts)
            chosen.append(encoded.candidates)
        for of_piece in counts:
            self.count(of_piece)
        if len(made) == 1:
            return made[0]
        scores = np.concatenate(made)
        for rows, some in zip(chosen, made, strict=True):
            scores[rows] = some
        return scores

    @reads_arguments(InputError)
    def score_encoded(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        raw: bool = False,
        batch_size: int | None = None,
    ) -> NDArray[np.float32]:
        """Score ids that `spec.encode`, or a feature pipeline, made.

        Parameters
        ----------
        inputs : dict of arrays
            Exactly one per entry of `spec.inputs`, of its dtype and shape. Of a
            converted torch module: its own inputs, as `describe` lists them.
        raw, batch_size
            As in `score`; not for a torch module, whose output is what it is.

        Returns
        -------
        float32 [N]
            Of a torch module: its first output, of the module's own shape and dtype.

        Raises
        ------
        InputError
            If an array is missing, unknown, of another dtype or shape, or holds an id
            outside its table, a length above T or a request outside [0, B).
        """
        if self._spec is None:
            if raw or batch_size is not None:
                rule = "neither raw nor batch_size for a torch module"
                given = f"raw={raw}, batch_size={batch_size}"
                raise InputError(rule, given, "score_encoded")
            arrays = check_inputs(self._inputs, inputs)
            empty = next((n for n, a in arrays.items() if a.size == 0), None)
            if empty is not None:  # some operators of the runtime crash on nothing
                rule = "at least one value"
                raise InputError(rule, f"shape {arrays[empty].shape}", empty)
            return self._session.run(arrays, self._session.output_names[:1])[0]
        encoded = Encoded(check_encoded(self._spec, inputs), [])
        return self.scores_of(encoded, raw=raw, batch_size=batch_size)

    def iter_score(self, batches: Iterable[object]) -> Iterator[NDArray[np.float32]]:
        """Score a stream of batches, one result per batch, in order.

        On CUDA the next batch is encoded while the card works on this one.
        """
        encoded: Iterator[Iterable[Encoded]] = map(self._encode, batches)
        if self.device != "cpu":
            from din_infer.jobs.pipeline import ahead

            encoded = ahead(map(list, encoded), depth=1)
        for batch in encoded:
            yield self._score(batch)

    @reads_arguments(InputError)
    def explain(self, batch: object) -> Explanation:
        """Score a table as `score` does, and show the weight of every behavior.

        Parameters
        ----------
        batch : dict of columns, list of dicts, or any frame with `__arrow_c_stream__`
            As `score` takes it; rows to look at, whose raw values are copied.

        Returns
        -------
        Explanation
            Per row: the score, and per behavior sequence the activation weights beside
            the raw values that the model saw. Print it, `plot()` it, or write its
            `to_html()`.

        Raises
        ------
        ModelError
            If the model was converted without ``--explain``.
        InputError
            As `score`; or a frame of neither pandas nor polars, without pyarrow.

        Notes
        -----
        `stats` counts what was scored, and does not count this.
        """
        outputs = self._explaining()
        rows = readable(batch, (*self.spec.columns, *self.spec.optional_columns))
        encoded = self.spec.encoder.encode(rows, self.threads)
        return self._explained(rows, rows, encoded.inputs, outputs)

    @reads_arguments(InputError)
    def explain_requests(
        self,
        requests: object,
        candidates: object,
        request_of_candidate: ArrayLike | None = None,
    ) -> Explanation:
        """Explain N candidates for B requests, as `score_requests` scores them.

        Parameters
        ----------
        requests : table of B rows
            As `score_requests` takes it, but no EncodedRequests: those keep no raw
            values to show.
        candidates, request_of_candidate
            As `score_requests` takes them.

        Returns
        -------
        Explanation
            One row per candidate, in their order; the candidates of one request are
            shown as one map of candidates by behaviors.

        Raises
        ------
        ModelError
            If the model was converted without ``--explain``.
        InputError
            As `score_requests`; or a frame of neither pandas nor polars, without
            pyarrow.
        """
        outputs = self._explaining()
        if isinstance(requests, EncodedRequests):
            rule = "rows with the raw values, which an explanation shows"
            raise InputError(rule, "an EncodedRequests", "requests")
        encoder = self.spec.encoder
        names = (*encoder.user_columns, *encoder.optional_user_columns)
        users = readable(requests, names, "requests")
        names = (*encoder.candidate_columns, *encoder.optional_candidate_columns)
        items = readable(candidates, names, "candidates")
        owners = request_of_candidate
        encoded = encoder.encode_requests(users, items, owners, self.threads)
        return self._explained(users, items, encoded.inputs, outputs)

    def _explained(
        self, users: object, items: object, inputs: Inputs, outputs: list[str]
    ) -> Explanation:
        made = self._outputs(inputs, outputs, None)
        link_in_place(self.spec, made[0], False)
        return explained(self.spec, users, items, inputs, made, self.model_id)

    def describe(self) -> str:
        """Return the columns this model expects, as a table to print."""
        if self._spec is None:
            return describe_inputs(self._inputs)
        return describe(self._spec)

    def _explaining(self) -> list[str]:
        """Name the outputs that explain: logit, then each sequence's weights."""
        weights = [s.name + WEIGHT_SUFFIX for s in self.spec.behavior]
        path = self._place
        if self.spec.model.type != "din" or not weights:
            got = f"model.type {self.spec.model.type!r}" if weights else "no sequence"
            raise ModelError("a DIN with behavior sequences to explain", got, path)
        if not set(weights) <= set(self._session.output_names):
            got = "only " + ", ".join(self._session.output_names)
            fix = "Convert the model with din-convert --explain."
            raise ModelError("the graph outputs " + ", ".join(weights), got, path, fix)
        return ["logit", *weights]

    def _outputs(
        self, inputs: Inputs, names: list[str], batch_size: int | None
    ) -> list[NDArray[np.float32]]:
        """Run the graph in slices; returns outputs [N] or [N, T], as `names` lists."""
        return run_in_slices(self._session, self.spec, inputs, names, batch_size)

    def __reduce__(self) -> tuple[Any, ...]:
        source = self._session.file.content if self.path is None else self.path
        return _same_model, (source, self._options, self.model_id)

    def __repr__(self) -> str:
        shown = self._place if self.path is None else repr(self.path)
        return f"Predictor({shown}, device={self.device!r}, threads={self.threads})"


def _same_model(source: Source, options: dict[str, Any], model_id: str) -> Predictor:
    """Make a pickled Predictor again; ModelError if its file is another model now."""
    made = Predictor(source, **options)
    if made.model_id != model_id:
        rule = f"the model {model_id} that was pickled"
        fix = "Make a new Predictor of the model that is meant."
        raise ModelError(rule, made.model_id, made._place, fix)
    return made
