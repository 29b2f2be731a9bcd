"""Calls that no caller should make: one clear error, never the end of the process."""

import copy
import dataclasses
import pickle
import threading

import numpy as np
import pyarrow as pa
import pytest

from din_infer import FeatureSpec, InputError, _kernels, hash_buckets
from din_infer.encode import encode_values

HUGE = 2**57 - 1


def nulls(n: int) -> pa.Array:
    return pa.Array.from_buffers(pa.null(), n, [None])


def test_columns_of_nulls_whose_rows_add_up_to_too_many_are_refused() -> None:
    stream = pa.chunked_array([nulls(HUGE)] * 128 + [nulls(138)])
    with pytest.raises(InputError) as caught:
        _kernels.import_arrow(stream, "x")
    assert str(caught.value) == (
        f"expected at most {HUGE} rows, got a malformed Arrow array - at `x`"
    )


def test_lists_of_nulls_that_add_up_to_too_many_are_not_dropped() -> None:
    sizes = pa.array([HUGE] * 128 + [130], pa.int64())
    offsets = pa.array(np.zeros(129, np.int64))
    buffers = [None, offsets.buffers()[1], sizes.buffers()[1]]
    kind = pa.large_list_view(pa.null())
    lists = pa.Array.from_buffers(kind, 129, buffers, children=[nulls(HUGE)])
    column = _kernels.import_arrow(lists, "x")[1]["x"]
    with pytest.raises(InputError) as caught:
        _kernels.Window(column).drop("p")
    assert str(caught.value) == (
        f"expected at most {HUGE} elements, got a malformed Arrow array - at `x`"
    )


@pytest.mark.parametrize("how", ["trim", "drop"])
def test_threads_that_narrow_one_window_get_one_error(how: str) -> None:
    column = _kernels.from_numpy(np.zeros((300_000, 4), np.int64), "x")
    window = _kernels.Window(column)
    errors = []

    def narrow() -> None:
        try:
            getattr(window, how)(0)
        except InputError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=narrow) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ["expected a window that is narrowed once, got twice - at `x`"]
    assert window.finish(9, False)[1:] == (0, 0, 300_000)


@pytest.mark.parametrize("name", ["_Memory", "_Codes", "Encoding", "_ArrowOwner"])
def test_what_holds_memory_is_not_pickled(name: str) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(getattr(_kernels, name)())


def test_an_array_that_lies_about_its_size_is_read_as_it_is() -> None:
    class Liar(np.ndarray):
        size = property(lambda _: 10**9)  # type: ignore[assignment]
        shape = property(lambda _: (10**9,))  # type: ignore[assignment]

    honest = np.arange(3)
    assert hash_buckets(honest.view(Liar), 10).tolist() == (
        hash_buckets(honest, 10).tolist()
    )


def test_a_stream_is_read_once() -> None:
    capsule = pa.chunked_array([["a"]]).__arrow_c_stream__()

    class Again:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return capsule

    assert hash_buckets(Again(), 10).shape == (1,)
    with pytest.raises(InputError) as caught:
        hash_buckets(Again(), 10)
    assert str(caught.value) == (
        "expected a stream that is not released, got a malformed Arrow array"
        " - at `keys`"
    )


def test_an_encoding_is_finished_when_every_row_was_run_once() -> None:
    encoder = _kernels.Encoder("hash", "int64", rows=9)
    column = _kernels.from_list([1, 2, None], "x")
    encoding = _kernels.prepare_scalars(column, encoder)
    encoding.run(0, 2)
    with pytest.raises(InputError) as caught:
        encoding.finish()
    assert str(caught.value) == "expected 3 rows, all of them run, got 2 - at `x`"
    with pytest.raises(InputError) as caught:
        encoding.run(0, 2)
    assert str(caught.value) == "expected each row once, got some again - at `x`"
    encoding.run(2, 3)
    ids, num_nulls, _ = encoding.finish()
    assert (ids[2], num_nulls) == (0, 1)
    with pytest.raises(InputError):
        encoding.run(0, 1)


@pytest.mark.parametrize(("first", "stop"), [(-1, 2), (2, 1), (0, 4), (4, 4)])
def test_marks_are_of_rows_that_are_there(first: int, stop: int) -> None:
    column = _kernels.from_list([1, 2, None], "x")
    with pytest.raises(InputError) as caught:
        _kernels.mark_repeats(column, np.ones(3, np.uint8), first, stop)
    assert str(caught.value) == (
        f"expected rows in [0, 3], got [{first}, {stop}) - at `x`"
    )


@pytest.mark.parametrize("size", [0, 2, 4])
def test_marks_are_one_per_row(size: int) -> None:
    column = _kernels.from_list([1, 2, None], "x")
    with pytest.raises(InputError) as caught:
        _kernels.mark_repeats(column, np.ones(size, np.uint8), 0, 2)
    assert str(caught.value) == (
        f"expected 3 entries, one per row, got {size} - at `x`"
    )


def test_marks_are_bytes_that_may_be_written() -> None:
    column = _kernels.from_list([1], "x")
    frozen = np.ones(1, np.uint8)
    frozen.flags.writeable = False
    for same in (frozen, np.ones(1), np.ones((1, 1), np.uint8)):
        with pytest.raises(ValueError):  # noqa: PT011 - Cython's own
            _kernels.mark_repeats(column, same, 0, 1)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ([], "expected a first run at row 0, got 3 - at `x`"),
        ([1], "expected a first run at row 0, got 1 - at `x`"),
        ([-1], "expected a first run at row 0, got -1 - at `x`"),
        ([0, 0], "expected runs that rise inside 3 rows, got 0 - at `x`, run 0"),
        ([0, 2, 1], "expected runs that rise inside 3 rows, got 2 - at `x`, run 1"),
        ([0, -(2**63)], "expected runs that rise inside 3 rows, got 0 - at `x`, run 0"),
        ([0, 3], "expected runs that rise inside 3 rows, got 3 - at `x`, run 1"),
        ([0, 2**62], f"expected runs that rise inside 3 rows, got {2**62} - at `x`,"
         " run 1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("values", [[1, 2, 3], [[1], [2], []], [None] * 3])
def test_runs_begin_inside_the_column(
    values: list[object], starts: list[int], message: str
) -> None:
    column = _kernels.from_list(values, "x")
    with pytest.raises(InputError) as caught:
        _kernels.take_runs(column, np.array(starts, np.int64))
    assert str(caught.value) == message


def test_runs_are_taken_once() -> None:
    taken = _kernels.take_runs(_kernels.from_list([1, 1, 2], "x"), np.array([0, 2]))
    assert (taken.num_rows, taken.num_counted) == (2, 3)
    for column in (taken, taken.as_null(), taken.as_untyped()):
        assert column.num_counted == 3
        with pytest.raises(InputError) as caught:
            _kernels.take_runs(column, np.array([0]))
        assert str(caught.value) == (
            "expected a column whose rows count once, got runs of another - at `x`"
        )


@pytest.mark.parametrize("rows", [[-1], [3], [0, 0], [2, 1], [0, 2**62]])
@pytest.mark.parametrize("values", [[1, 2, 3], [[1], [2], []], [None] * 3])
def test_rows_that_are_taken_rise_inside_the_column(
    values: list[object], rows: list[int]
) -> None:
    column = _kernels.from_list(values, "x")
    with pytest.raises(InputError) as caught:
        _kernels.take_rows(column, np.array(rows, np.int64))
    assert str(caught.value) == (
        f"expected rows that rise inside 3, got {rows[-1]} - at `x`"
    )
    runs = _kernels.take_runs(column, np.array([0, 2]))
    with pytest.raises(InputError) as caught:
        _kernels.take_rows(runs, np.array([0]))
    assert str(caught.value) == (
        "expected a column whose rows count once, got runs - at `x`"
    )


def test_rows_are_taken_over_chunks() -> None:
    for values in (["a", "b", "c", "d", None], [["a"], [], ["b", "c"], None, ["d"]]):
        chunks = pa.chunked_array([values[:2], values[2:3], [], values[3:]])
        column = _kernels.import_arrow(chunks, "x")[1]["x"]
        encoder = _kernels.Encoder("hash", "string", rows=99)
        for rows in ([0, 3, 4], [2], [], [1, 2, 3], [0, 1, 2, 3, 4]):
            taken = _kernels.take_rows(column, np.array(rows, np.int64))
            wanted = _kernels.from_list([values[r] for r in rows], "x")
            assert (taken.num_rows, taken.num_counted) == (len(rows), len(rows))
            if column.is_list and rows:
                windows = _kernels.Window(taken), _kernels.Window(wanted)
                got = [w.finish(9, False)[0].tolist() for w in windows]
            elif not column.is_list:
                got = [
                    _kernels.encode_scalars(c, encoder)[0].tolist()
                    for c in (taken, wanted)
                ]
            assert got[0] == got[1]


def test_runs_of_columns_that_no_kernel_reads_and_of_no_rows() -> None:
    odd = _kernels.import_arrow(pa.array([1, 1], pa.timestamp("s")), "x")[1]["x"]
    same = np.ones(2, np.uint8)
    assert _kernels.mark_repeats(odd, same, 0, 2) == 0
    assert same.tolist() == [0, 0]
    taken = _kernels.take_runs(odd, np.array([0]))
    assert (taken.kind, taken.num_rows, taken.num_counted) == ("other", 1, 2)
    none = _kernels.take_runs(_kernels.from_list([], "x"), np.array([], np.int64))
    assert (none.num_rows, none.num_counted) == (0, 0)


def test_runs_over_chunks_that_begin_none() -> None:
    chunks = pa.chunked_array([["a", "b"], ["c"], ["d", None]])
    column = _kernels.import_arrow(chunks, "x")[1]["x"]
    taken = _kernels.take_runs(column, np.array([0, 1, 4]))
    encoder = _kernels.Encoder("hash", "string", rows=99)
    ids, num_nulls, _ = _kernels.encode_scalars(taken, encoder)
    expected = hash_buckets(["a", "b", None], 99).tolist()
    assert (ids.tolist(), num_nulls) == (expected, 1)


@pytest.mark.parametrize("rows", [0, -1, -(2**63), 2**63])
def test_encoders_have_rows(rows: int) -> None:
    with pytest.raises(InputError) as caught:
        _kernels.Encoder("identity", "int64", rows=rows)
    assert str(caught.value) == (
        f"expected rows in [1, 2**63), got {rows} - at `encoder`"
    )


def test_an_encoder_is_its_values() -> None:
    vocab = {"type": "vocab", "values": ["a", "b"]}
    field = {"name": "g", "dim": 2, "encoder": vocab}
    spec = FeatureSpec.from_dict({"format": 1, "candidate": [field]})
    spec.encode({"g": ["a"]})
    encoder = spec.candidate[0].encoder
    for other in (
        pickle.loads(pickle.dumps(encoder)),
        copy.deepcopy(encoder),
        dataclasses.replace(encoder),
    ):
        assert other == encoder
        assert encode_values(["b"], other, "string", "c").tolist() == [2]
    assert dataclasses.asdict(encoder)["values"] == ("a", "b")
    changed = dataclasses.replace(encoder, values=("x", "y"))
    assert changed != encoder
    assert encode_values(["a", "x"], changed, "string", "c").tolist() == [3, 1]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_one_bucket_of_each_sign_is_too_few_beside_the_missing(rows: int) -> None:
    with pytest.raises(InputError) as caught:
        _kernels.Encoder("hash", "string", rows=rows, alternate_sign=True)
    assert str(caught.value) == "expected at least 2 buckets, got 1 - at `encoder`"
