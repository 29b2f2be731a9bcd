"""A model before a runtime sees it: metadata, digests, and where its weights lie."""

import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import din_infer.model_format as fmt
from din_infer.errors import ModelError, sentence
from din_infer.graph_rules import check_graph
from din_infer.integrity import Record, View, blocks_of, digest_of, sample_of
from din_infer.lazy import lazy
from din_infer.local_path import local_path
from din_infer.model_format import DAMAGED, WRITTEN
from din_infer.onnx_header import Content, Header, Place, TooLarge, over_data, viewed
from din_infer.spec import FeatureSpec
from din_infer.version import check_format, written_by_newer
from din_infer.whole_file import link_or_copy

__all__ = ["ModelFile", "Source"]

MOST_LINKS = 40  # as Linux follows
# The first releases of ONNX Runtime that take, by measurement of 1.20.1 to 1.32.0, the
# folder of a graph that is given as bytes; and a data file's bytes.
TAKES_FOLDER, TAKES_BYTES = [1, 21], [1, 24]
FOLDER_ENTRY = "session.model_external_initializers_file_folder_path"
IN_MEMORY = "the model in memory"

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
Progress = Callable[[int], object]
SessionOptions = Any  # the runtime has no types


def _links(path: Path) -> list[Path]:
    """List the folders of a path, of what it is a link to, and so on to the file."""
    folders = [path.parent.resolve()]
    for _ in range(MOST_LINKS):
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
        folders.append(path.parent.resolve())
    return folders


def _regular_file(path: Path, place: str) -> Path:
    """Follow links to a regular file; ModelError where there is none."""
    try:
        mode = path.stat().st_mode
        target = path.resolve()
        if not target.exists():  # an open file's, as /proc/self/fd/3, that has no name
            target = path
    except (OSError, RuntimeError, ValueError) as error:
        got = str(getattr(error, "strerror", None) or error)
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            got = "no such file"
            if path.is_symlink():
                got = f"a link to {path.readlink()}, where no file is"
        raise ModelError("a model file", got, place) from None
    _check_regular(mode, "a model file", place)
    try:
        os.fspath(target).encode()
    except UnicodeEncodeError:
        rule, got = "a path in UTF-8, which ONNX Runtime needs", repr(place)
        raise ModelError(rule, got, "model") from None
    return target


def _check_regular(mode: int, rule: str, place: str) -> None:
    if not stat.S_ISREG(mode):
        got = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise ModelError(rule, got, place)


def _bytes_of(source: object) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    try:
        content = source.read() if hasattr(source, "read") else None
    except (OSError, ValueError) as error:  # of a file that is closed, or written to
        raise ModelError("a binary file that can be read", error, IN_MEMORY) from None
    if not isinstance(content, bytes):
        got = type(source).__name__
        raise TypeError(sentence("a path, bytes or a binary file", got, "model"))
    return content


@dataclass
class ModelFile:
    """A model: its metadata, the data file that belongs to it, and what both must be.

    `path` is absolute, as it was given; None for a model in memory, whose `content` is
    kept. `target` is `path` with links followed. `data` has, by the name that the graph
    has for it, the data file, with links followed. `operators` has by
    name those of this package, and those with bodies.
    """

    place: str
    path: Path | None
    target: Path | None
    content: bytes | None = field(repr=False)
    data: dict[str, Path] = field(default_factory=dict)
    operators: set[str] = field(default_factory=set)
    header: Header = field(repr=False, kw_only=True)

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the graph."""
        return self.header.metadata

    @property
    def model_id(self) -> str:
        """Digest of the graph, with its spec, and its weights."""
        return self.metadata.get(fmt.MODEL_ID_KEY, "")

    @property
    def files(self) -> list[Path]:
        """The ``.onnx``, links followed, and its data file."""
        return [*([self.target] if self.target else []), *self.data.values()]

    @property
    def num_bytes(self) -> int:
        """Bytes of the model's files together."""
        return self.header.num_bytes + sum(map(_size, self.data.values()))

    @lazy
    def spec(self) -> FeatureSpec:
        """The feature spec.

        Raises
        ------
        ModelError
            If there is none, or it is not a spec that this version reads.
        """
        if fmt.SPEC_KEY not in self.metadata:
            rule = "a model with a feature spec, which din-convert wrote"
            raise ModelError(rule, "an ONNX file without one", self.place)
        try:
            return FeatureSpec.from_json(self.metadata[fmt.SPEC_KEY])
        except ModelError as error:
            # a minor release may add keys and names to a format, as words of its own
            fix = written_by_newer(self.versions.get("din-infer"))
            raise error.at(fix=fix) if fix else error from None

    @property
    def versions(self) -> dict[str, Any]:
        """What wrote the model, versions by name; empty where it does not say."""
        try:
            found = json.loads(self.metadata.get(fmt.VERSIONS_KEY, "{}"))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @classmethod
    def read(
        cls, source: Source, *, data_root: str | os.PathLike[str] | None = None
    ) -> "ModelFile":
        """Read what a model says of itself, and find its data file.

        Parameters
        ----------
        source : path, bytes or binary file
            The ``.onnx``; links are followed. Of a file, what is left to read.
        data_root : path, optional
            As `Predictor` takes it.

        Raises
        ------
        ModelError
            If there is no such file, it is not a model that din-convert wrote, or of
            another format; if its data file is missing, cut or elsewhere; if a path is
            a URL.
        """
        path = target = content = root = None
        if data_root is not None:
            root = _folder(local_path(data_root, "data_root", ModelError))
        if isinstance(source, str | os.PathLike):
            place = os.fsdecode(source)
            path = local_path(source, "model", ModelError)
            path = Path(os.path.abspath(path))  # noqa: PTH100 - links stay
            target = _regular_file(path, place)
        else:
            place, content = IN_MEMORY, _bytes_of(source)
        try:
            with viewed(target, content) as view:
                header = Header.read(view)
                number = header.metadata.get(fmt.FORMAT_KEY)
                if number is None:
                    raise ModelError(
                        WRITTEN, "an ONNX file without din_infer metadata", place
                    )
                check_format(number, int(fmt.FORMAT), f"{place}: {fmt.FORMAT_KEY}")
                model = cls(place, path, target, content, header=header)
                if isinstance(view, bytes):  # small: all of it is compared
                    model._check_seal(view)
                model._check_graph(view)
        except ModelError:
            raise
        except OSError as error:
            raise ModelError("a model file", str(error.strerror), place) from None
        except TooLarge as error:
            most, got = error.args
            raise ModelError(f"at most {most}", got, place) from None
        except (ValueError, IndexError):
            got = "a damaged file, or no ONNX file"
            raise ModelError(WRITTEN, got, place) from None
        model._find_data(root)
        return model

    def _check_graph(self, view: Content) -> None:
        bodies = fmt.SPEC_KEY not in self.metadata
        try:
            self.operators = check_graph(view, self.place, bodies=bodies)
        except ModelError as error:
            # a newer release may write what this one does not know
            fix = written_by_newer(self.versions.get("din-infer"))
            raise error.at(fix=fix or error.fix) from None

    # ---- the data file ----

    def _find_data(self, root: Path | None) -> None:
        for name in dict.fromkeys(e.name for e in self.header.externals):
            if self.target is None or self.path is None:
                rule = "a model with its weights inside"
                fix = "Convert it with din-convert --single-file."
                raise ModelError(rule, f"weights in {name}", self.place, fix)
            if Path(name).name != name or name in ("", ".", "..") or "\0" in name:
                rule = "a data file's name, without folders"
                raise ModelError(rule, repr(name), f"{self.place}: external data")
            folders = [self.target.parent, *_links(self.path)]
            needed = max(p.offset + p.length for p in self._places(name))
            path = self.data[name] = self._data_file(name, needed, folders, root)
            size, rule = _size(path), f"at least {needed:,} bytes"
            if size < needed:
                raise ModelError(rule, f"{size:,}", str(path), DAMAGED)

    def _places(self, name: str) -> list[Place]:
        """List the tensors in a data file."""
        return [e.place for e in self.header.externals if e.name == name]

    def _data_file(
        self, name: str, num_bytes: int, folders: list[Path], root: Path | None
    ) -> Path:
        """Return the file of a name beside the model, links followed and checked."""
        for folder in folders:
            path = folder / name
            try:
                found = path.resolve(strict=True)
                kind = found.stat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, RuntimeError) as error:  # no right to, or links in a ring
                rule, got = f"{name}, which can be read", getattr(error, "strerror", "")
                raise ModelError(rule, str(got or error), str(path)) from None
            _check_regular(kind, f"the data file {name}", str(path))
            inside = found.parent == folders[0]
            if inside or (root is not None and found.is_relative_to(root)):
                return found
            where = folders[0] if root is None else f"{folders[0]} or {root}"
            rule = f"a data file in {where}"
            fix = "Name a folder that holds it as data_root." if root is None else ""
            raise ModelError(rule, f"a link to {found}", str(path), fix)
        rule = f"{name} beside {os.path.basename(self.place)}"  # noqa: PTH119
        fix = f"Its weights are in {name}: put both files into one folder."
        similar = _of_size(folders[0], num_bytes)
        if similar:
            fix = f"{similar} has its size: if it was renamed, name it {name} again."
        raise ModelError(rule, "no such file", str(folders[0] / name), fix)

    # ---- digests ----

    def _record(self, key: str) -> Record | None:
        text = self.metadata.get(key)
        if text is None:
            return None
        try:
            return Record.from_json(text)
        except ValueError:
            rule, place = "digests as din-convert writes them", f"{self.place}: {key}"
            raise ModelError(rule, "others", place, DAMAGED) from None

    def _check_seal(self, content: bytes) -> None:
        """Compare all bytes of a small model with what din-convert wrote."""
        record, size = self._record(fmt.FILE_KEY), self.header.sealed
        if record is None or record.num_bytes != size:
            return
        if hashlib.sha256(memoryview(content)[:size]).hexdigest() != record.sha256:
            _refuse("other bytes", self.place)

    def check_sample(self) -> None:
        """Compare sizes, and some 50 KiB of each file, with what din-convert wrote.

        A file whose metadata has no digests, or that another program has written anew,
        passes.

        Raises
        ------
        ModelError
            Naming the file, and the tensor that has changed.
        """
        record = self._record(fmt.FILE_KEY)
        if record is not None and record.num_bytes == self.header.sealed:
            whole = [Place("", 0, record.num_bytes)]
            with viewed(self.target, self.content) as view:
                if not isinstance(view, bytes):  # else all of it was compared
                    _compare_samples(view, record, whole, self.place)
        record = self._record(fmt.DATA_KEY)
        for name, path in self.data.items():
            places = self._places(name)
            if _names(path) > 1:
                _check_link(record, places, path)
            if record is not None:
                with _readable(path), viewed(path, None) as view:
                    _check_size(path, record)
                    _compare_samples(view, record, places, str(path))

    def check_all(self, progress: Progress | None = None) -> None:
        """Compare every byte of the model's files with what din-convert wrote.

        `progress` is called with the number of bytes of each step, `num_bytes` in all.

        Raises
        ------
        ModelError
            Naming the file that differs; or if the model has no digests, since an older
            din-convert wrote it, or another program has written it anew.
        """
        record = self._record(fmt.FILE_KEY)
        if record is None or record.num_bytes != self.header.sealed:
            rule = "a model as din-convert wrote it, with digests"
            got = "none" if record is None else "a file written anew since"
            raise ModelError(rule, got, self.place, "Convert the model again.")
        target, content = self.target, self.content or b""
        with target.open("rb") if target else io.BytesIO(content) as file:
            if digest_of(file, self.header.sealed, progress) != record.sha256:
                _refuse("other bytes", self.place)
        record = self._record(fmt.DATA_KEY)
        for path in self.data.values():
            if record is None:
                rule, place = "the data file's digest", f"{self.place}: {fmt.DATA_KEY}"
                raise ModelError(rule, "none", place, "Convert it again.")
            with _readable(path), path.open("rb") as file:
                _check_size(path, record)
                if digest_of(file, record.num_bytes, progress) != record.sha256:
                    _refuse("other bytes", str(path))

    # ---- the way to the runtime ----

    @contextmanager
    def handed(
        self, options: SessionOptions, release: Sequence[int], *, mapped: bool
    ) -> Iterator[str | bytes]:
        """Yield the path or bytes that an InferenceSession takes, while it is made.

        Entries may be added to its SessionOptions. `release` is the runtime's, [major,
        minor]. It maps the data file if `mapped`, and else has a copy of its own.
        """
        if self.target is None:
            yield self.content or b""
            return
        beside = all(p == self.target.parent / n for n, p in self.data.items())
        if not self.data or (beside and mapped):
            yield os.fspath(self.target)
        elif mapped and list(release) >= TAKES_FOLDER:
            (path,) = self.data.values()
            options.add_session_config_entry(FOLDER_ENTRY, os.fspath(path.parent))
            with viewed(self.target, None) as view:
                graph = over_data(view, path.name)
            yield graph
        elif not mapped and list(release) >= TAKES_BYTES:
            contents = []
            for path in self.data.values():
                with _readable(path):
                    contents.append(path.read_bytes())
            add = options.add_external_initializers_from_files_in_memory
            add(list(self.data), contents, list(map(len, contents)))
            yield os.fspath(self.target)
        else:
            with tempfile.TemporaryDirectory(
                prefix="din-infer-",
                ignore_cleanup_errors=os.name == "nt",  # what is mapped stays there
            ) as scratch:
                place = Path(scratch, "model.onnx")
                shutil.copyfile(self.target, place)
                for name, path in self.data.items():
                    if mapped:
                        link_or_copy(path, place.parent / name)
                    else:  # the runtime maps it, and nobody else has it
                        shutil.copyfile(path, place.parent / name)
                yield os.fspath(place)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what hinders reading a data file into an error that names it."""
    try:
        yield
    except OSError as error:
        rule = "a data file that can be read"
        raise ModelError(rule, str(error.strerror or error), str(path)) from None


def _folder(root: str | os.PathLike[str]) -> Path:
    try:
        return Path(os.fsdecode(root)).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError("a folder", error, "data_root") from None


def _compare_samples(
    view: View, record: Record, places: Sequence[Place], where: str
) -> None:
    for p in places:
        blocks, digest = record.samples.get(p.tensor, (0, ""))
        if blocks and sample_of(view, p.offset, p.length, blocks) != digest:
            got = f"other bytes in {p.tensor}" if p.tensor else "other bytes"
            _refuse(got, where)


def _of_size(folder: Path, size: int) -> str | None:
    """Name a file of a folder that has this size."""
    with suppress(OSError):  # of a folder that may be searched and not listed
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.stat().st_size == size:
                return path.name
    return None


def _size(path: Path) -> int:
    with _readable(path):
        return path.stat().st_size


def _names(path: Path) -> int:
    """Count the names of a file: hard links to it, from anywhere."""
    with _readable(path):
        return path.stat().st_nlink


def _check_link(record: Record | None, places: Sequence[Place], path: Path) -> None:
    """Refuse a data file that may be a hard link to any file of this machine.

    Whoever wrote its samples down, all of them, knows what it holds.
    """
    known = {} if record is None else {k: n for k, (n, _) in record.samples.items()}
    if known != blocks_of(places):
        rule = "a data file with one name, or a model with samples of all its weights"
        fix = "Copy the data file, so that no other name is a hard link to it."
        raise ModelError(rule, f"{_names(path)} names", str(path), fix)


def _check_size(path: Path, record: Record) -> None:
    size = _size(path)
    if size != record.num_bytes:
        raise ModelError(f"{record.num_bytes:,} bytes", f"{size:,}", str(path), DAMAGED)


def _refuse(got: str, place: str) -> None:
    raise ModelError("the bytes that din-convert wrote", got, place, DAMAGED)
