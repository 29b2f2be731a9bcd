import logging
from pathlib import Path

import pyarrow as pa
import pytest

from din_infer import InputError, ModelError, Predictor
from din_infer.jobs.batches import BatchScorer
from din_infer.jobs.workers import open_model, score_batch
from tests.engines import make_model, rows_of, with_bad_row


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def bad(model: Path) -> pa.RecordBatch:
    table = with_bad_row(rows_of(Predictor(model).spec, 40), 17)
    return table.combine_chunks().to_batches()[0]


def test_a_model_is_opened_as_asked(model: Path) -> None:
    wanted = Predictor(model).model_id
    made = open_model(model, device="cpu", threads=1, model_id=wanted)
    assert (made.device, made.threads, made.model_id) == ("cpu", 1, wanted)


def test_a_worker_without_the_file_says_where_it_must_be(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    with pytest.raises(ModelError) as error:
        open_model(path, device="cpu", threads=1)
    assert str(error.value) == (
        "expected a model file on the worker's machine, got no such file - at"
        f" `{path}`. Every worker opens the model, and the .data file beside it, by"
        " this path: put both where all machines see them."
    )


def test_another_model_than_the_drivers_is_refused(model: Path) -> None:
    with pytest.raises(ModelError) as error:
        open_model(model, device="cpu", threads=1, model_id="0" * 32)
    assert str(error.value) == (
        f"expected the model {'0' * 32} that the driver read, got"
        f" {Predictor(model).model_id} - at `{model}`"
    )


def test_a_bad_row_is_named_by_its_kept_values(
    model: Path, bad: pa.RecordBatch
) -> None:
    keep = ["row", "hist_goods_id"]
    scorer = BatchScorer(Predictor(model), bad.schema, keep=keep)
    with pytest.raises(InputError) as error:
        score_batch(scorer, bad, keep)
    assert str(error.value).startswith(
        "expected an id in [0, 50), got 50 - at `cate_id`, row 17 of a batch (row=17,"
        " hist_goods_id=["
    )
    assert len(str(error.value)) < 200
    scorer = BatchScorer(Predictor(model), bad.schema)
    with pytest.raises(InputError) as error:
        score_batch(scorer, bad, [])
    assert str(error.value) == (
        "expected an id in [0, 50), got 50 - at `cate_id`, row 17 of a batch"
    )


def test_bad_rows_that_do_not_raise_are_logged(
    model: Path, bad: pa.RecordBatch, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = BatchScorer(Predictor(model), bad.schema, keep=["row"], on_error="skip")
    with caplog.at_level(logging.WARNING):
        made = score_batch(scorer, bad, ["row"])
    assert made["row"].to_pylist() == [n for n in range(40) if n != 17]
    (record,) = caplog.records
    assert record.getMessage() == (
        "1 of 40 rows are bad; row 17: expected an id in [0, 50), got 50 - at"
        " `cate_id`, row 17 of a batch (row=17)"
    )
