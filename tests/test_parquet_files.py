"""Files of every kind that Parquet and Arrow IPC allow: scored, or one error."""

import base64
import datetime
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from din_infer import InputError, Predictor
from din_infer.jobs.files import score_files
from tests.jobs import make_model, make_table

ROWS = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def write_encrypted(table: pa.Table, path: Path, secret: list[str]) -> None:
    """Write a file with a plain footer, of which some columns are encrypted."""
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):  # type: ignore[misc, name-defined]
        def __init__(self, _: object) -> None:
            encryption.KmsClient.__init__(self)

        def wrap_key(self, key: bytes, _: str) -> bytes:
            return base64.b64encode(key)

    factory = encryption.CryptoFactory(Keys)
    settings = encryption.EncryptionConfiguration(
        footer_key="key", column_keys={"key": secret}, plaintext_footer=True
    )
    access = encryption.KmsConnectionConfig()
    properties = factory.file_encryption_properties(access, settings)
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as out:
        out.write_table(table)


def test_encrypted_columns_that_are_not_read_do_no_harm(
    model: Path, tmp_path: Path
) -> None:
    table = make_table(ROWS)
    lists = pa.array([[1], [2, 3], None] * 20)
    table = table.append_column("goods_id.secret", lists).append_column("x", lists)
    path = tmp_path / "events.parquet"
    write_encrypted(table, path, ["goods_id.secret.list.element", "x.list.element"])
    predictor = Predictor(model)
    score_files(predictor, path, tmp_path / "out", keep=["row"], progress=False)
    made = pq.read_table(tmp_path / "out" / "events.parquet")
    np.testing.assert_array_equal(made["score"], predictor.score(table))
    for name in ("x", "goods_id.secret"):
        out = tmp_path / name
        with pytest.raises(InputError) as error:
            score_files(predictor, path, out, keep=[name], progress=False)
        assert str(error.value) == (
            "expected a Parquet file that can be read to its end, got Cannot decrypt"
            " ColumnMetadata. FileDecryption is not setup correctly - at"
            f" `{path}`"
        )


def odd_columns(count: int) -> dict[str, pa.Array]:
    """A column of each type that Parquet can hold."""
    rng = np.random.default_rng(1)
    whole = rng.integers(0, 40, count)
    texts = [f"t{k}" for k in whole]
    day = datetime.date(2026, 1, 1)
    found: dict[str, pa.Array] = {}
    for kind in (*"bhilBHIL", "e", "f", "d", "?"):
        found[f"numpy {kind}"] = pa.array(whole.astype(kind))
    for scale, precision in ((0, 5), (3, 20), (0, 38), (10, 60)):
        kind = pa.decimal256 if precision > 38 else pa.decimal128
        values = [Decimal(int(k)) for k in whole]
        name = f"decimal {precision} {scale}"
        found[name] = pa.array(values, kind(precision, scale))
    for unit in ("s", "ms", "us", "ns"):
        found[f"timestamp {unit}"] = pa.array(whole, pa.timestamp(unit, "UTC"))
    found["date"] = pa.array([day] * count)
    found["time"] = pa.array(whole.astype(np.int32), pa.time32("ms"))
    found["duration"] = pa.array(whole, pa.duration("us"))
    for text in (pa.string(), pa.large_string(), pa.string_view(), pa.binary()):
        found[str(text)] = pa.array(texts, text)
    found["dictionary"] = pa.array(texts).dictionary_encode()
    found["fixed"] = pa.array([b"%4d" % k for k in whole], pa.binary(4))
    found["bytes"] = pa.array([bytes([k, 200]) for k in whole])
    found["null"] = pa.nulls(count)
    found["list"] = pa.array([list(range(k % 4)) for k in whole])
    found["list of lists"] = pa.array([[[1], []]] * count)
    found["large list"] = pa.array([["a"]] * count, pa.large_list(pa.string()))
    found["list of fixed size"] = pa.array([[1, 2]] * count, pa.list_(pa.int8(), 2))
    found["struct"] = pa.array([{"a": 1, "b": [{"c": "d"}]}] * count)
    found["map"] = pa.array([[("a", 1)]] * count, pa.map_(pa.string(), pa.int64()))
    found["uuid"] = pa.array([bytes(16)] * count, pa.uuid())
    found["tensor"] = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((count, 2)))
    found["opaque"] = pa.ExtensionArray.from_storage(
        pa.opaque(pa.binary(), "geometry", "vendor"), pa.array([b"a"] * count)
    )
    found["json"] = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["1"] * count))
    found["runs"] = pa.RunEndEncodedArray.from_arrays([count], pa.array(["a"]))
    return found


def writers() -> Iterator[tuple[str, Callable[[pa.Table, Path], None]]]:
    """Ways to write a table; of Parquet with one option of each kind."""

    def parquet(**options: Any) -> Callable[[pa.Table, Path], None]:  # noqa: ANN401
        return lambda table, path: pq.write_table(table, path, **options)

    def ipc(make: Any, **options: Any) -> Callable[[pa.Table, Path], None]:  # noqa: ANN401
        def write(table: pa.Table, path: Path) -> None:
            given = pa.ipc.IpcWriteOptions(**options)
            with make(path, table.schema, options=given) as out:
                out.write_table(table, max_chunksize=17)

        return write

    for codec in ("none", "snappy", "gzip", "brotli", "zstd", "lz4"):
        yield f"{codec}.parquet", parquet(compression=codec)
    for version in ("1.0", "2.4", "2.6"):
        for page in ("1.0", "2.0"):
            name = f"version {version} {page}.parquet"
            yield name, parquet(version=version, data_page_version=page)
    yield "rows.parquet", parquet(row_group_size=7, data_page_size=64)
    yield "plain.parquet", parquet(use_dictionary=False, write_statistics=False)
    yield "checked.parquet", parquet(write_page_checksum=True, write_page_index=True)
    yield "no schema.parquet", parquet(store_schema=False)
    yield "file.arrow", ipc(pa.ipc.new_file)
    yield "stream.arrows", ipc(pa.ipc.new_stream)
    yield "zstd.arrow", ipc(pa.ipc.new_file, compression="zstd")
    yield "deltas.arrows", ipc(pa.ipc.new_stream, emit_dictionary_deltas=True)


def write_all(folder: Path) -> list[Path]:
    """Write files of every kind, sound and damaged; none that Arrow cannot write."""
    table = make_table(ROWS)
    paths = []

    def write(
        name: str, table: pa.Table, how: Callable[[pa.Table, Path], None]
    ) -> None:
        path = folder / name
        try:
            how(table, path)
        except (pa.ArrowException, OSError):
            path.unlink(missing_ok=True)
        else:
            paths.append(path)

    ways = dict(writers())
    for k, (name, column) in enumerate(odd_columns(ROWS).items()):
        for target in ("goods_id", "cate_id", "tags", "other"):
            place = table.column_names.index(target) if target != "other" else 0
            changed = table.set_column(place, target, column)
            suffix = ("no schema.parquet", "file.arrow")[k % 2]
            how = ways[suffix]
            write(f"{target} {name}.{suffix.split('.')[1]}", changed, how)
    for name, how in ways.items():
        write(name, table, how)
        write(f"empty {name}", table.slice(0, 0), how)
        write(f"no columns {name}", table.select([]), how)
    rng = random.Random(5)
    for name in ways:
        content = (folder / name).read_bytes()
        for k in range(5):
            damaged = bytearray(content)
            if k == 0:
                damaged = damaged[: rng.randrange(len(damaged))]
            else:
                for _ in range(1 + 8 * (k % 2)):
                    # most of what matters is in the footer
                    start = 0 if k < 3 else len(damaged) * 2 // 3
                    damaged[rng.randrange(start, len(damaged))] ^= 1 << rng.randrange(8)
            path = folder / f"damaged {k} {name}"
            path.write_bytes(damaged)
            paths.append(path)
    return paths


@pytest.mark.slow
def test_no_file_ends_the_process(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    paths = write_all(tmp_path / "in")
    assert len(paths) >= 200
    code = f"""
        import sys
        from pathlib import Path
        from din_infer import InputError, Predictor
        from din_infer.jobs.files import score_files
        predictor = Predictor({str(model)!r}, threads=1)
        for k, path in enumerate(sorted(Path({str(tmp_path / "in")!r}).iterdir())):
            print(path.name, end="", flush=True)
            out = Path({str(tmp_path / "out")!r}, str(k))
            try:
                score_files(predictor, path, out, on_error="null", progress=False)
            except InputError as error:
                print(": refused,", str(error).replace("\\n", " "))
            else:
                print(": scored")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths)
    assert sum(line.endswith(": scored") for line in lines) > 60
    assert sum(": refused, expected " in line for line in lines) > 60
