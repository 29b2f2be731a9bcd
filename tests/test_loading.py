"""Models where their owners keep them: links, copies, caches, bytes, forks, pickles."""

import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from din_converter import convert
from din_infer import ModelError, Predictor
from din_infer.cli import main as score_main
from din_infer.cli import verify_main
from din_infer.model_file import ModelFile
from din_infer.onnx_header import over_data
from tests.models import random_model
from tests.oldest import oldest_runtime

ROWS = [
    {"goods_id": "g1", "hist_goods_id": ["g2", "g3"]},
    {"goods_id": "g4", "hist_goods_id": []},
]
SPEC = {
    "format": 1,
    "candidate": [
        {"name": "goods_id", "dim": 16, "encoder": {"type": "hash", "buckets": 30_000}}
    ],
    "behavior": [
        {"name": "history", "max_len": 9, "fields": {"hist_goods_id": "goods_id"}}
    ],
    "model": {"attention": {"hidden": [8]}, "tower": {"hidden": [8]}},
}
DAMAGED = "The file is damaged: copy it again, or convert the model again."
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a data file, in a folder of its own; not to be changed."""
    path = tmp_path_factory.mktemp("made") / "din.onnx"
    assert convert(random_model(SPEC), path).data_path is not None
    return path


@pytest.fixture(scope="module")
def wanted(made: Path) -> NDArray[np.float32]:
    scores = Predictor(made, device="cpu").score(ROWS)
    assert abs(scores[0] - scores[1]) > 1e-3
    return scores


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy to be changed; its data file is `data_of` it."""
    shutil.copytree(made.parent, tmp_path / "copy")
    return tmp_path / "copy" / "din.onnx"


def data_of(model: Path) -> Path:
    (path,) = model.parent.glob("*.data")
    return path


def refused(path: object, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        Predictor(path, device="cpu", **options)  # type: ignore[arg-type]
    return str(caught.value)


# ---- links ----


def test_a_link_to_a_model_finds_the_data_beside_the_model(
    copy: Path, tmp_path: Path, wanted: NDArray[np.float32]
) -> None:
    (tmp_path / "current.onnx").symlink_to(copy.relative_to(tmp_path))
    (tmp_path / "again.onnx").symlink_to(tmp_path / "current.onnx")
    (tmp_path / "v7").symlink_to("copy")
    for path in ("current.onnx", "again.onnx", "v7/din.onnx"):
        predictor = Predictor(tmp_path / path, device="cpu")
        np.testing.assert_array_equal(predictor.score(ROWS), wanted)
        assert predictor.path == str(tmp_path / path)


def cache_of_a_hub(model: Path, folder: Path) -> Path:
    """Lay a model out as a cache does: content by digest, names as links to it."""
    snapshot = folder / "snapshots" / "3f9c1a2b"
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    for k, source in enumerate((model, data_of(model))):
        shutil.copyfile(source, folder / "blobs" / f"{k}e5f")
        (snapshot / source.name).symlink_to(f"../../blobs/{k}e5f")
    return snapshot / model.name


@linux
def test_a_cache_of_content_by_digest_is_loaded_and_mapped(
    made: Path, tmp_path: Path, wanted: NDArray[np.float32]
) -> None:
    path = cache_of_a_hub(made, tmp_path)
    (tmp_path / "current.onnx").symlink_to(path)
    for given in (path, tmp_path / "current.onnx"):
        predictor = Predictor(given, device="cpu", verify=True)
        np.testing.assert_array_equal(predictor.score(ROWS), wanted)
        assert f"{tmp_path}/blobs/1e5f" in Path("/proc/self/maps").read_text()


def test_the_graph_over_a_data_file_of_another_name_is_the_same_graph(
    made: Path, tmp_path: Path
) -> None:
    for name in ("x", "a-name-that-is-longer-than-a-byte-can-count" * 5):
        given = ModelFile.read(cache_of_a_hub(made, tmp_path / name[:1]))
        assert given.target is not None
        made_over = onnx.load_model_from_string(
            over_data(given.target.read_bytes(), name)
        )
        proto = onnx.load(made, load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = name
        assert made_over == proto


def test_links_to_data_elsewhere_need_its_folder_named(
    copy: Path, tmp_path: Path, wanted: NDArray[np.float32]
) -> None:
    data, elsewhere = data_of(copy), tmp_path / "store" / "ab"
    elsewhere.mkdir(parents=True)
    data.rename(elsewhere / "cdef")
    data.symlink_to(elsewhere / "cdef")
    assert refused(copy) == (
        f"expected a data file in {copy.parent}, got a link to {elsewhere}/cdef - at"
        f" `{data}`. Name a folder that holds it as data_root."
    )
    assert refused(copy, data_root=tmp_path / "copy") == (
        f"expected a data file in {copy.parent} or {copy.parent}, got a link to"
        f" {elsewhere}/cdef - at `{data}`"
    )
    for root in (tmp_path, tmp_path / "store", elsewhere):
        predictor = Predictor(copy, device="cpu", data_root=root)
        np.testing.assert_array_equal(predictor.score(ROWS), wanted)
        again = pickle.loads(pickle.dumps(predictor))
        np.testing.assert_array_equal(again.score(ROWS), wanted)


def test_a_graph_that_names_data_in_other_folders_is_refused(copy: Path) -> None:
    secret = copy.parent.parent / "secret"
    data_of(copy).rename(secret)
    proto = onnx.load(copy, load_external_data=False)
    for name in ("../secret", str(secret), "a/../../secret", "..", ".", "", "a\0b"):
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = name
        copy.write_bytes(proto.SerializeToString())
        assert refused(copy, data_root="/") == (
            f"expected a data file's name, without folders, got {name!r} - at"
            f" `{copy}: external data`"
        )


def hidden_data(where: str, name: str) -> Callable[[onnx.ModelProto], None]:
    """Add a tensor in a data file that is no initializer of the graph."""
    tensor = onnx.TensorProto(name="hidden", data_type=1, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", name)):
        tensor.external_data.add(key=key, value=value)
    node = helper.make_node("Constant", [], ["hidden"], value=tensor)

    def add(proto: onnx.ModelProto) -> None:
        if where == "node":
            proto.graph.node.append(node)
        elif where == "list":
            proto.graph.node.append(helper.make_node("X", [], ["x"], x=[tensor]))
        elif where == "function":
            opset = [helper.make_opsetid("", 18)]
            body = helper.make_function("din_infer", "F", [], ["hidden"], [node], opset)
            proto.functions.append(body)
        elif where == "branch":
            branch = helper.make_graph([], "branch", [], [], [tensor])
            inner = helper.make_node("If", ["c"], ["x"], then_branch=branch)
            outer = helper.make_graph([inner], "branch", [], [])
            proto.graph.node.append(helper.make_node("Loop", ["c"], ["x"], body=outer))
        else:
            sparse = onnx.SparseTensorProto(values=tensor, dims=[8])
            proto.graph.sparse_initializer.append(sparse)

    return add


UNKNOWN = "expected a model that din-convert wrote, got field {} of wire type 2"
IN_NODE = "expected data files of the graph's own initializers, got one of a node"


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("node", IN_NODE),
        ("list", UNKNOWN.format(10)),
        ("function", IN_NODE),
        ("branch", "expected operators without bodies, as in every model of a spec"),
        ("sparse", UNKNOWN.format(15)),
    ],
)
def test_a_graph_that_names_data_elsewhere_than_in_its_initializers_is_refused(
    copy: Path, where: str, sentence: str
) -> None:
    """ONNX Runtime 1.20 reads any file of the machine for these."""
    for name in ("../secret", data_of(copy).name):
        proto = onnx.load(copy, load_external_data=False)
        hidden_data(where, name)(proto)
        changed = copy.with_name("changed.onnx")
        changed.write_bytes(proto.SerializeToString())
        assert refused(changed).startswith(sentence)


def test_a_node_may_be_named_as_the_key_of_a_data_file(
    copy: Path, wanted: NDArray[np.float32]
) -> None:
    proto = onnx.load(copy, load_external_data=False)
    node = helper.make_node("Identity", ["logit"], ["location"], name="location")
    proto.graph.node.append(node)
    copy.write_bytes(proto.SerializeToString())
    np.testing.assert_array_equal(Predictor(copy, device="cpu").score(ROWS), wanted)


OLD = """
import sys, onnxruntime
assert onnxruntime.__version__.startswith("1.20."), onnxruntime.__version__
from din_infer import Predictor
for path in sys.argv[2:]:
    for mmap in (True, False):
        p = Predictor(path, device="cpu", mmap=mmap)
        print(*p.score(eval(sys.argv[1])))
"""


def test_the_oldest_runtime_loads_links_and_caches_too(
    made: Path, tmp_path: Path, wanted: NDArray[np.float32]
) -> None:
    link = tmp_path / "current.onnx"
    link.symlink_to(made)
    paths = [made, link, cache_of_a_hub(made, tmp_path)]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "scratch")}
    (tmp_path / "scratch").mkdir()
    folders = [str(oldest_runtime()), *sys.path]
    environment["PYTHONPATH"] = os.pathsep.join(folders)
    command = [sys.executable, "-c", OLD, repr(ROWS), *map(str, paths)]
    shown = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout
    scores = np.array([line.split() for line in shown.splitlines()], np.float32)
    np.testing.assert_allclose(scores, np.tile(wanted, (6, 1)), atol=1e-6)
    assert not list((tmp_path / "scratch").iterdir())


# ---- data files that are not there, or not whole ----


def test_a_missing_data_file_is_named_with_its_model(copy: Path) -> None:
    data = data_of(copy)
    data.unlink()
    assert refused(copy) == (
        f"expected {data.name} beside din.onnx, got no such file - at `{data}`. Its"
        f" weights are in {data.name}: put both files into one folder."
    )


def test_a_renamed_data_file_is_found_by_its_size(copy: Path) -> None:
    data = data_of(copy)
    data.rename(copy.parent / "weights.data")
    assert refused(copy) == (
        f"expected {data.name} beside din.onnx, got no such file - at `{data}`."
        f" weights.data has its size: if it was renamed, name it {data.name} again."
    )


@pytest.mark.parametrize("part", [0, 100, -1])
def test_a_cut_data_file_says_how_long_it_is(copy: Path, part: int) -> None:
    data = data_of(copy)
    whole = data.read_bytes()
    data.write_bytes(whole[:part])
    size = f"{len(whole[:part]):,}"
    assert refused(copy) == (
        f"expected at least {len(whole):,} bytes, got {size} - at `{data}`. {DAMAGED}"
    )
    data.write_bytes(whole + b"\0")
    assert refused(copy) == (
        f"expected {len(whole):,} bytes, got {len(whole) + 1:,} - at `{data}`."
        f" {DAMAGED}"
    )


def test_what_is_no_regular_file_is_no_data_file(copy: Path) -> None:
    data = data_of(copy)
    data.unlink()
    data.mkdir()
    assert refused(copy) == (
        f"expected the data file {data.name}, got a folder - at `{data}`"
    )
    data.rmdir()
    os.mkfifo(data)
    assert refused(copy) == (
        f"expected the data file {data.name}, got no regular file - at `{data}`"
    )
    data.unlink()
    data.symlink_to(data.name)
    assert refused(copy).startswith(f"expected {data.name}, which can be read, got ")


def test_what_is_no_regular_file_is_no_model(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.onnx"
    os.mkfifo(fifo)
    assert refused(fifo) == f"expected a model file, got no regular file - at `{fifo}`"
    link = tmp_path / "link.onnx"
    link.symlink_to("gone.onnx")
    assert refused(link) == (
        "expected a model file, got a link to gone.onnx, where no file is - at"
        f" `{link}`"
    )


def test_an_offset_that_no_file_has_is_damage(copy: Path) -> None:
    proto = onnx.load(copy, load_external_data=False)
    for value in ("-1", str(1 << 63), "9" * 4000, "x"):
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "offset":
                    entry.value = value
        copy.write_bytes(proto.SerializeToString())
        assert refused(copy) == (
            "expected a model that din-convert wrote, got a damaged file, or no ONNX"
            f" file - at `{copy}`"
        )


@linux
def test_an_open_file_without_a_name_is_loaded(
    tmp_path: Path, wanted: NDArray[np.float32]
) -> None:
    convert(random_model(SPEC), tmp_path / "one.onnx", single_file=True)
    with (tmp_path / "one.onnx").open("rb") as file:
        (tmp_path / "one.onnx").unlink()
        predictor = Predictor(f"/proc/self/fd/{file.fileno()}", device="cpu")
        np.testing.assert_array_equal(predictor.score(ROWS), wanted)


@linux
def test_a_path_that_the_runtime_cannot_take_is_told(copy: Path) -> None:
    folder = os.fsdecode(os.fsencode(copy.parent.parent) + b"/\xff")
    copy.parent.rename(folder)
    path = Path(folder, copy.name)
    assert refused(path) == (
        f"expected a path in UTF-8, which ONNX Runtime needs, got {str(path)!r} - at"
        " `model`"
    )


def test_a_wrong_data_root_is_told(copy: Path) -> None:
    loop = copy.parent / "loop"
    loop.symlink_to(loop)
    for root, rule in ((loop, "a folder"), ("a\0b", "a path on this machine")):
        said = refused(copy, data_root=root)
        assert said.startswith(f"expected {rule}")
        assert said.endswith(" - at `data_root`")
    Predictor(copy, device="cpu", data_root=os.fsencode(copy.parent))  # type: ignore[arg-type]


AS_NOBODY = """
import os, sys
from din_infer import ModelError
from din_infer.model_file import ModelFile
if os.geteuid() == 0:
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
try:
    ModelFile.read(sys.argv[1]).check_sample()
except ModelError as error:
    print(error)
"""


def said_to_nobody(copy: Path, closed: Path) -> str:
    """What somebody without any right is told, while `closed` is closed."""
    copy.chmod(0o644)
    for folder in copy.parents:  # others may come as far as here
        if folder.stat().st_uid == os.geteuid() and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    closed.chmod(0)
    try:
        command = [sys.executable, "-c", AS_NOBODY, str(copy)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()
    finally:
        closed.chmod(0o700)


@linux
def test_a_data_file_that_cannot_be_read_is_told(copy: Path) -> None:
    data = data_of(copy)
    assert said_to_nobody(copy, data) == (
        f"expected a data file that can be read, got Permission denied - at `{data}`"
    )


@linux
def test_a_folder_that_cannot_be_searched_is_told(copy: Path) -> None:
    data = data_of(copy)
    store = copy.parent / "store"
    store.mkdir()
    data.rename(store / data.name)
    data.symlink_to(store / data.name)
    assert said_to_nobody(copy, store) == (
        f"expected {data.name}, which can be read, got Permission denied - at `{data}`"
    )


# ---- bytes that have changed ----


def test_verify_finds_any_one_value_that_changed(copy: Path) -> None:
    data = data_of(copy)
    whole = bytearray(data.read_bytes())
    Predictor(copy, device="cpu", verify=True)
    for at in np.random.default_rng(0).integers(0, len(whole) // 4, 40) * 4:
        changed = whole.copy()
        changed[at + 2] ^= 0x10
        data.write_bytes(changed)
        with pytest.raises(ModelError) as caught:
            ModelFile.read(copy).check_all()
        assert str(caught.value) == (
            "expected the bytes that din-convert wrote, got other bytes - at"
            f" `{data}`. {DAMAGED}"
        )
    assert refused(copy, verify=True) == str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_any_load_finds_a_hole(copy: Path, share: float) -> None:
    data = data_of(copy)
    whole = bytearray(data.read_bytes())
    size = int(share * len(whole))
    for at in np.random.default_rng(1).integers(0, len(whole) - size, 40):
        changed = whole.copy()
        changed[at : at + size] = bytes(size)
        data.write_bytes(changed)
        with pytest.raises(ModelError) as caught:
            ModelFile.read(copy).check_sample()
        assert str(caught.value) == (
            "expected the bytes that din-convert wrote, got other bytes in"
            f" weights.table.goods_id - at `{data}`. {DAMAGED}"
        )
    assert refused(copy) == str(caught.value)


def test_any_load_finds_a_graph_that_changed(copy: Path) -> None:
    whole = copy.read_bytes()
    assert len(whole) < 50 << 10  # so that the sample is all of it
    for at in np.random.default_rng(2).integers(0, len(whole) - 300, 40):
        changed = bytearray(whole)
        changed[at] ^= 1
        copy.write_bytes(changed)
        with pytest.raises(ModelError):
            ModelFile.read(copy).check_sample()


def test_a_model_that_another_program_wrote_loads_and_is_not_verified(
    copy: Path, wanted: NDArray[np.float32]
) -> None:
    proto = onnx.load(copy, load_external_data=False)
    proto.doc_string = "of the shop in Lund"
    onnx.save(proto, copy)
    np.testing.assert_array_equal(Predictor(copy, device="cpu").score(ROWS), wanted)
    assert refused(copy, verify=True) == (
        "expected a model as din-convert wrote it, with digests, got a file written"
        f" anew since - at `{copy}`. Convert the model again."
    )
    for entry in list(proto.metadata_props):
        if entry.key in ("din_infer.file", "din_infer.data"):
            proto.metadata_props.remove(entry)
    onnx.save(proto, copy)
    np.testing.assert_array_equal(Predictor(copy, device="cpu").score(ROWS), wanted)
    assert refused(copy, verify=True) == (
        "expected a model as din-convert wrote it, with digests, got none - at"
        f" `{copy}`. Convert the model again."
    )


def test_digests_of_another_form_are_refused(copy: Path) -> None:
    proto = onnx.load(copy, load_external_data=False)
    for entry in proto.metadata_props:
        if entry.key == "din_infer.data":
            entry.value = "[]"
    onnx.save(proto, copy)
    assert refused(copy) == (
        "expected digests as din-convert writes them, got others - at"
        f" `{copy}: din_infer.data`. {DAMAGED}"
    )


def test_din_verify_says_what_it_read(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = data_of(copy), ModelFile.read(copy)
    assert verify_main([str(copy)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out == (
        f"{copy.stat().st_size:>15,} bytes  {copy}\n"
        f"{data.stat().st_size:>15,} bytes  {data}\n"
        f"every byte is as din-convert wrote it; model id {model.model_id}\n"
    )
    assert verify_main([str(copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "model_id": model.model_id,
        "files": {str(p): p.stat().st_size for p in (copy, data)},
    }
    content = bytearray(data.read_bytes())
    content[12_345] ^= 1
    data.write_bytes(content)
    assert verify_main([str(copy)]) == 1
    assert capsys.readouterr().err == (
        "din-verify: expected the bytes that din-convert wrote, got other bytes - at"
        f" `{data}`. {DAMAGED}\n"
    )


# ---- memory ----


@linux
def test_without_mmap_a_file_cut_while_in_use_changes_nothing(
    copy: Path, wanted: NDArray[np.float32]
) -> None:
    predictor = Predictor(copy, device="cpu", mmap=False)
    assert str(copy.parent) not in Path("/proc/self/maps").read_text()
    os.truncate(data_of(copy), 0)
    np.testing.assert_array_equal(predictor.score(ROWS), wanted)


def test_a_model_in_one_file_is_taken_as_bytes(
    tmp_path: Path, made: Path, wanted: NDArray[np.float32]
) -> None:
    path = tmp_path / "one.onnx"
    convert(random_model(SPEC), path, single_file=True)
    content = path.read_bytes()
    with path.open("rb") as file:
        sources = [content, bytearray(content), memoryview(content), file, path]
        sources.append(io.BytesIO(content))
        for source in sources:
            predictor = Predictor(source, device="cpu", verify=True)  # type: ignore[arg-type]
            np.testing.assert_array_equal(predictor.score(ROWS), wanted)
            assert predictor.model_id == Predictor(made, device="cpu").model_id
    predictor = Predictor(content, device="cpu", threads=1)
    assert predictor.path is None
    assert repr(predictor) == (
        "Predictor(the model in memory, device='cpu', threads=1)"
    )
    again = pickle.loads(pickle.dumps(predictor))
    np.testing.assert_array_equal(again.score(ROWS), wanted)
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    assert refused(bytes(changed), verify=True) == (
        "expected the bytes that din-convert wrote, got other bytes - at `the model in"
        f" memory`. {DAMAGED}"
    )
    assert refused(content[:1000]) == (
        "expected a model that din-convert wrote, got a damaged file, or no ONNX file"
        " - at `the model in memory`"
    )


def test_bytes_whose_weights_are_elsewhere_are_refused(made: Path) -> None:
    assert refused(made.read_bytes()) == (
        f"expected a model with its weights inside, got weights in"
        f" {data_of(made).name} - at `the model in memory`. Convert it with din-convert"
        " --single-file."
    )


def test_a_file_that_is_closed_is_told(made: Path) -> None:
    file = made.open("rb")
    file.close()
    assert refused(file) == (
        "expected a binary file that can be read, got read of closed file - at `the"
        " model in memory`"
    )


@pytest.mark.parametrize("source", [3, None, io.StringIO("text"), ["m.onnx"]])
def test_what_is_no_source_of_a_model_is_a_type_error(source: object) -> None:
    with pytest.raises(TypeError) as caught:
        Predictor(source)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"expected a path, bytes or a binary file, got {type(source).__name__} - at"
        " `model`"
    )


@linux
def test_threads_that_load_the_same_model_leak_nothing(made: Path) -> None:
    def load(times: int) -> None:
        for _ in range(times):
            assert Predictor(made, device="cpu", threads=1).score(ROWS).shape == (2,)

    def used() -> tuple[int, int]:
        status = Path("/proc/self/status").read_text()
        size = int(status.partition("RssAnon:")[2].split()[0])
        return size // 1024, len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def all_threads() -> None:
        threads = [threading.Thread(target=load, args=(5,)) for _ in range(10)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    all_threads()
    before = used()
    all_threads()
    after = used()
    # 50 loads: a session that stayed would hold 2 MB or more
    assert after[0] - before[0] < 50
    assert after[1] == before[1]


# ---- forks and pickles ----


def _score_in_child(path: Path, inherited: list[Predictor]) -> None:
    """Run in a forked child: whatever happens, end it here."""
    try:
        scores = Predictor(path, device="cpu", threads=1).score(ROWS)
        inherited.clear()  # whose threads are the parent's
        os._exit(0 if scores.shape == (2,) else 1)
    except BaseException:
        os._exit(2)


def _ended(pid: int) -> int | None:
    """Wait for a child; None if it hangs, which ends it."""
    for _ in range(6000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


@pytest.fixture
def makers(made: Path) -> Iterator[None]:
    """Two threads that make Predictors all the time."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            Predictor(made, device="cpu", threads=1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for t in threads:
        t.start()
    yield
    stop.set()
    for t in threads:
        t.join()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("makers")
def test_children_forked_while_threads_load_models_load_their_own(made: Path) -> None:
    inherited = [Predictor(made, device="cpu", threads=2)]
    for k in range(50):
        time.sleep(0.003 * (k % 7))
        pid = os.fork()
        if pid == 0:
            _score_in_child(made, inherited)
        assert _ended(pid) == 0, f"child {k}"


def test_a_pickle_of_a_model_that_was_replaced_is_refused(
    copy: Path, tmp_path: Path
) -> None:
    predictor = Predictor(copy, device="cpu", mmap=False)
    kept = pickle.dumps(predictor)
    assert pickle.loads(kept).model_id == predictor.model_id
    convert(random_model(SPEC, seed=8), tmp_path / "other.onnx")
    for file in tmp_path.glob("other*"):
        shutil.copyfile(
            file, copy if file.suffix == ".onnx" else copy.parent / file.name
        )
    other = Predictor(copy, device="cpu").model_id
    assert other != predictor.model_id
    with pytest.raises(ModelError) as caught:
        pickle.loads(kept)
    assert str(caught.value) == (
        f"expected the model {predictor.model_id} that was pickled, got {other} - at"
        f" `{copy}`. Make a new Predictor of the model that is meant."
    )


@pytest.mark.parametrize("times", [1, 3])
def test_a_model_that_is_replaced_while_it_is_read_is_read_again(
    copy: Path, tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(times):
        (tmp_path / str(k)).mkdir()
        convert(random_model(SPEC, seed=20 + k), tmp_path / str(k) / copy.name)
    check, left = ModelFile.check_sample, list(range(times))

    def check_and_replace(file: ModelFile) -> None:
        check(file)
        if left:
            for path in (tmp_path / str(left.pop(0))).iterdir():
                path.replace(copy.parent / path.name)

    monkeypatch.setattr(ModelFile, "check_sample", check_and_replace)
    if times == 3:
        assert refused(copy) == (
            "expected one model while it is loaded, got others in its place - at"
            f" `{copy}`. Load it again."
        )
        return
    predictor = Predictor(copy, device="cpu")
    monkeypatch.undo()
    assert predictor.model_id == Predictor(copy, device="cpu").model_id


# ---- what the runtime does on its own ----

FRESH = {
    "a Predictor": "from din_infer import Predictor; Predictor(sys.argv[1]).score(R)",
    "the runtime imported after": (
        "import din_infer, onnxruntime; din_infer.Predictor(sys.argv[1]).score(R)"
    ),
    "a command": (
        "from din_infer.cli import explain_main, verify_main;"
        "verify_main([sys.argv[1]]); explain_main([sys.argv[1], 'none.parquet'])"
    ),
    "the converter": (
        "from din_converter import convert; from tests.models import *;"
        "convert(random_model(SPECS['paper']), sys.argv[2])"
    ),
    "worker processes": (
        "import multiprocessing as m; from din_infer import Predictor\n"
        "if __name__ == '__main__':\n"
        "  with m.get_context('spawn').Pool(1) as pool:\n"
        "    pool.apply(Predictor, (sys.argv[1], 'cpu'))"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", FRESH)
def test_nothing_is_written_to_a_fresh_home(
    way: str, made: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nR = {ROWS!r}\n{FRESH[way]}\n")
    kept = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environment = {
        k: v for k, v in kept.items() if not k.startswith(("XDG_", "PYTHON"))
    }
    environment |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(made), str(tmp_path / "out.onnx")]
    subprocess.run(command, env=environment, check=True, timeout=300, cwd=tmp_path)
    assert [str(p) for p in home.rglob("*") if p.is_file()] == []


def test_who_wants_the_runtimes_telemetry_can_have_it() -> None:
    code = "import din_infer, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, kept in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        others = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        environment = {**others, **given, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", code]
        shown = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        )
        assert shown.stdout.strip() == kept


def test_a_runtime_that_was_imported_before_is_told_to_be_silent(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    told: list[str] = []
    monkeypatch.setattr(
        onnxruntime, "disable_telemetry_events", lambda: told.append("silent")
    )
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    Predictor(made, device="cpu")
    assert told == []
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    Predictor(made, device="cpu")
    assert told == []
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    Predictor(made, device="cpu")
    assert told == ["silent"]


def test_commands_take_the_folder_of_the_data(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, rows = data_of(copy), tmp_path / "rows.jsonl"
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = [str(copy), str(rows), "--out", str(tmp_path / "out"), "--quiet"]
    assert score_main(words) == 1
    assert "Name a folder that holds it as data_root." in capsys.readouterr().err
    assert score_main([*words, "--data-root", str(tmp_path), "--verify"]) == 0
    assert verify_main([str(copy), "--data-root", str(tmp_path)]) == 0
