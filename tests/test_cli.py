import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
import torch

from din_converter import load, save
from din_converter.cli import convert_main, train_main
from din_converter.run import read_events
from din_infer import Predictor
from din_infer.cli import main as score_main
from din_infer.cli import verify_main
from tests.models import random_model
from tests.test_train import click_log, log_spec

Say = Callable[[], tuple[str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, spec, model.pt and model.onnx, all made by the commands."""
    folder = tmp_path_factory.mktemp("cli")
    pq.write_table(click_log(2000), folder / "train.parquet", row_group_size=700)
    pq.write_table(click_log(500, seed=9), folder / "test.parquet", row_group_size=90)
    (folder / "spec.json").write_text(log_spec().to_json())
    words = f"{folder}/train.parquet --spec {folder}/spec.json --out {folder}/model.pt"
    flags = "--epochs 6 --batch-size 64 --learning-rate 0.01 --quiet"
    assert train_main([*words.split(), *flags.split()]) == 0
    words = f"{folder}/model.pt --out {folder}/model.onnx"
    assert convert_main(words.split()) == 0
    return folder


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def read() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return read


def outputs(out: Path) -> list[str]:
    """List all files under --out but those that say what the job has done."""
    files = (p.relative_to(out) for p in out.rglob("*") if p.is_file())
    return sorted(str(p) for p in files if p.parts[0] != "_din_score")


def test_scores_lie_after_the_kept_columns_in_order(made: Path, tmp_path: Path) -> None:
    words = f"{made}/model.onnx {made}/test.parquet --out {tmp_path}/out"
    keep = ["--keep", "label,user_id", "--batch-size", "64"]
    assert score_main([*words.split(), *keep]) == 0
    assert outputs(tmp_path / "out") == ["test.parquet"]
    got = pq.read_table(tmp_path / "out" / "test.parquet")
    table = pq.read_table(made / "test.parquet")
    assert got.column_names == ["label", "user_id", "score"]
    assert got.schema.field("score").type == pa.float32()
    assert got["user_id"] == table["user_id"]
    assert got["label"].type == table["label"].type
    wanted = Predictor(made / "model.onnx").score(table)
    np.testing.assert_allclose(np.asarray(got["score"]), wanted, atol=1e-6)
    assert wanted.std() > 0.01


def test_the_summary_counts(made: Path, tmp_path: Path, say: Say) -> None:
    words = f"{made}/model.onnx {made}/test.parquet --out {tmp_path}"
    assert score_main([*words.split(), "--json"]) == 0
    out, _ = say()
    summary = json.loads(out)
    assert summary["rows"] == 500
    assert summary["files"] == [f"{tmp_path}/test.parquet"]
    assert summary["fields"]["hist"]["rows"] == 500
    assert summary["fields"]["hist"]["empty"] > 0
    assert summary["model_id"] == Predictor(made / "model.onnx").model_id
    assert score_main([*words.split(), "--overwrite"]) == 0
    out, err = say()
    assert out.startswith("500 rows in ")
    assert "truncated" in out
    assert "scoring" not in err


def test_a_file_without_rows_has_no_scores(made: Path, tmp_path: Path) -> None:
    table = pq.read_table(made / "test.parquet").slice(0, 0)
    pq.write_table(table, tmp_path / "empty.parquet")
    words = f"{made}/model.onnx {tmp_path}/empty.parquet --out {tmp_path}/out"
    assert score_main([*words.split(), "--keep", "user_id"]) == 0
    got = pq.read_table(tmp_path / "out" / "empty.parquet")
    assert got.num_rows == 0
    assert got.column_names == ["user_id", "score"]


def test_a_folder_is_scored_file_by_file(made: Path, tmp_path: Path) -> None:
    table = pq.read_table(made / "test.parquet")
    (tmp_path / "in").mkdir()
    for k in range(3):
        pq.write_table(table.slice(k * 100, 100), tmp_path / "in" / f"{k}.parquet")
    words = f"{made}/model.onnx {tmp_path}/in --out {tmp_path}/out --quiet"
    assert score_main(words.split()) == 0
    assert outputs(tmp_path / "out") == ["0.parquet", "1.parquet", "2.parquet"]


def broken(made: Path, tmp_path: Path, change: str) -> Path:
    path = tmp_path / "bad.parquet"
    table = pq.read_table(made / "test.parquet")
    if change == "columns":
        table = table.drop(["hist"])
    if change == "type":
        table = table.set_column(1, "goods_id", pa.array(range(500)))
    pq.write_table(table, path)
    if change == "bytes":
        path.write_bytes(b"no Parquet at all")
    if change == "truncated":
        path.write_bytes(path.read_bytes()[:-50])
    if change == "page":
        content = bytearray(path.read_bytes())
        content[40:4000] = bytes(3960)
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "columns",
            "din-score: expected the columns hist, got only user_id, goods_id,",
        ),
        ("type", "din-score: expected a column of strings, got int64 - at `goods_id`"),
        ("bytes", "din-score: expected a readable Parquet file, got "),
        ("truncated", "din-score: expected a readable Parquet file, got "),
        (
            "page",
            "din-score: expected a Parquet file that can be read to its end, got ",
        ),
    ],
)
def test_bad_files_are_named_and_nothing_is_written(
    change: str, message: str, made: Path, tmp_path: Path, say: Say
) -> None:
    path = broken(made, tmp_path, change)
    out = tmp_path / "out"
    words = [str(made / "model.onnx"), str(path), "--out", str(out)]
    assert score_main([*words, "--batch-size", "50"]) == 1
    _, err = say()
    assert err.startswith(message)
    assert str(path) in err
    assert outputs(out) == []


def test_bad_rows_deep_in_a_file_leave_no_partial_file(
    made: Path, tmp_path: Path, say: Say
) -> None:
    folder = made
    raw = log_spec().to_dict()
    raw["candidate"].append(
        {"name": "cate", "dim": 2, "encoder": {"type": "identity", "buckets": 10}}
    )
    (tmp_path / "spec.json").write_text(json.dumps(raw))
    rng = np.random.default_rng(0)
    cate = pa.array(rng.integers(0, 10, 2000))
    table = pq.read_table(folder / "train.parquet").append_column("cate", cate)
    pq.write_table(table, tmp_path / "train.parquet")
    words = f"{tmp_path}/train.parquet --spec {tmp_path}/spec.json"
    words += f" --out {tmp_path}/m.pt --epochs 1 --quiet"
    assert train_main(words.split()) == 0
    assert convert_main([f"{tmp_path}/m.pt", "--out", f"{tmp_path}/m.onnx"]) == 0
    values = cate.to_pylist()
    values[1234] = 10
    bad = table.set_column(table.num_columns - 1, "cate", pa.array(values))
    pq.write_table(bad, tmp_path / "bad.parquet")
    say()
    words = f"{tmp_path}/m.onnx {tmp_path}/bad.parquet --out {tmp_path}/out"
    assert score_main([*words.split(), "--batch-size", "100"]) == 1
    _, err = say()
    assert err == (
        "din-score: expected an id in [0, 10), got 10 - at `cate`, row 1234"
        f" of {tmp_path}/bad.parquet\n"
    )
    assert outputs(tmp_path / "out") == []


def test_outputs_and_inputs_are_never_lost(
    made: Path, tmp_path: Path, say: Say
) -> None:
    model, test = str(made / "model.onnx"), str(made / "test.parquet")
    (tmp_path / "test.parquet").write_text("mine")
    assert score_main([model, test, "--out", str(tmp_path)]) == 1
    assert say()[1] == (
        "din-score: expected a file that is not there yet, got one that is - at"
        f" `{tmp_path}/test.parquet`. Give --overwrite to replace it.\n"
    )
    assert (tmp_path / "test.parquet").read_text() == "mine"
    assert score_main([model, test, "--out", str(made), "--overwrite"]) == 1
    assert "expected an --out folder other than the input's" in say()[1]
    assert score_main([model, test, test, "--out", str(tmp_path / "o")]) == 1
    assert "expected each input once" in say()[1]
    assert score_main([model, test, "--out", str(tmp_path / "o"), "--keep", "x"]) == 1
    assert "expected the columns x, got only" in say()[1]
    assert (
        score_main([model, test, "--out", str(tmp_path / "o"), "--keep", "score"]) == 1
    )
    assert "expected kept columns other than `score`" in say()[1]
    assert score_main([model, str(tmp_path / "no"), "--out", str(tmp_path / "o")]) == 1
    assert "expected a file to read, got [Errno 2] No such file" in say()[1]
    (tmp_path / "none").mkdir()
    assert (
        score_main([model, str(tmp_path / "none"), "--out", str(tmp_path / "o")]) == 1
    )
    assert "expected a folder with *.parquet, *.pq, *.parq, *.arrow" in say()[1]
    assert score_main([model, test, "--out", test]) == 1
    assert "expected a place where the scores can be written" in say()[1]
    assert score_main([model, test, "--out", "/proc/x"]) == 1
    assert "expected a place where the scores can be written" in say()[1]
    (tmp_path / "d" / "test.parquet").mkdir(parents=True)
    assert score_main([model, test, "--out", str(tmp_path / "d"), "--overwrite"]) == 1
    assert "expected a file, or nothing, got a folder" in say()[1]
    flags = ["--out", str(tmp_path / "o"), "--keep", "label,label"]
    assert score_main([model, test, *flags]) == 1
    assert "expected each kept column once" in say()[1]
    assert not (tmp_path / "o").exists()


def test_training_names_the_row_of_the_file(
    made: Path, tmp_path: Path, say: Say
) -> None:
    table = pq.read_table(made / "train.parquet")
    goods = table["goods_id"].to_pylist()
    numbers = pa.array(range(len(goods)))
    raw = log_spec().to_dict()
    raw["candidate"].append(
        {"name": "n", "dim": 2, "encoder": {"type": "identity", "buckets": 1555}}
    )
    (tmp_path / "spec.json").write_text(json.dumps(raw))
    pq.write_table(table.append_column("n", numbers), tmp_path / "t.parquet")
    words = f"{tmp_path}/t.parquet --spec {tmp_path}/spec.json --out {tmp_path}/m.pt"
    flags = ["--valid", f"{tmp_path}/t.parquet", "--quiet"]
    assert train_main([*words.split(), *flags]) == 1
    assert say()[1] == (
        "din-train: expected an id in [0, 1555), got 1555 - at `n`, row 1555 of"
        f" {tmp_path}/t.parquet\n"
    )
    (tmp_path / "dir.pt").mkdir()
    words = f"{made}/train.parquet --spec {made}/spec.json --out {tmp_path}/dir.pt"
    assert train_main(words.split()) == 1
    assert "expected a file that can be written" in say()[1]


def test_training_prints_its_epochs(made: Path, tmp_path: Path, say: Say) -> None:
    words = f"{made}/train.parquet --spec {made}/spec.json --out {tmp_path}/m.pt"
    flags = ["--model", "base", "--activation", "relu", "--epochs", "1", "--quiet"]
    assert train_main([*words.split(), *flags]) == 0
    out, _ = say()
    lines = out.splitlines()
    assert lines[0].startswith("training base on 2,000 rows of ")
    assert lines[1] == (
        "batch size 64, learning rate 0.002, mba 1, embedding std 0.1; at most 1"
        " epochs, patience 8"
    )
    assert lines[2].split()[:3] == ["epoch", "train", "log-loss"]
    assert lines[3].split()[0] == "1"
    assert lines[4] == "kept epoch 1 of 1, by validation AUC"
    assert lines[5].startswith("validation AUC 0.")
    assert lines[6] == "  0.50000  chance"
    assert lines[-3].endswith(" waiting for rows")
    assert lines[-2].startswith(f"wrote {tmp_path}/m.pt (")
    assert lines[-1] == (
        f"  and {tmp_path}/m.run: config.toml, last.pt, learning_curve.png,"
        " metrics.jsonl, spec.json"
    )
    events = read_events(tmp_path / "m.run" / "metrics.jsonl")
    assert [e["event"] for e in events if e["event"] != "step"] == ["epoch", "finished"]
    assert train_main([*words.split(), *flags, "--resume"]) == 0
    assert say()[0] == (
        f"this run has finished already: {tmp_path}/m.pt is its model\n"
    )


def test_training_repeats_a_run_from_its_config(
    made: Path, tmp_path: Path, say: Say
) -> None:
    words = f"{made}/train.parquet --spec {made}/spec.json --out {tmp_path}/m.pt"
    flags = (
        "--epochs 2 --mba 0.1 --batch-size 300 --schedule cosine --threads 1 --quiet"
    )
    assert train_main([*words.split(), *flags.split()]) == 0
    config = tmp_path / "m.run" / "config.toml"
    again = ["--config", str(config), "--out", f"{tmp_path}/n.pt"]
    assert train_main([*again, "--run", f"{tmp_path}/n"]) == 0
    states = [load(tmp_path / f"{n}.pt").state_dict() for n in "mn"]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    other = ["--out", f"{tmp_path}/o.pt", "--run", f"{tmp_path}/o", "--seed", "7"]
    assert train_main(["--config", str(config), *other]) == 0
    state = load(tmp_path / "o.pt").state_dict()
    assert not all(torch.equal(states[0][k], state[k]) for k in state)
    say()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "epoch = 3\n",
            "expected an option, got 'epoch' - at `{}/c.toml: epoch`. Is `epochs`"
            " meant?",
        ),
        (
            "spec = {{}}\n",
            "expected one value, or a list, got {{}} - at `{}/c.toml: spec`",
        ),
        ("quiet = 1\n", "expected true or false, got 1 - at `{}/c.toml: quiet`"),
        ("spec = \n", "expected a readable TOML file, got Invalid value (at line 1"),
    ],
)
def test_a_wrong_config_is_named(
    text: str, message: str, tmp_path: Path, say: Say
) -> None:
    (tmp_path / "c.toml").write_text(text.replace("{{}}", "{}"))
    assert train_main(["--config", f"{tmp_path}/c.toml"]) == 1
    wanted = message.replace("{{}}", "<>").format(tmp_path).replace("<>", "{}")
    assert say()[1].startswith(f"din-train: {wanted}")


def test_typed_rows_win_over_those_of_a_config(
    made: Path, tmp_path: Path, say: Say
) -> None:
    (tmp_path / "c.toml").write_text(
        f'data = ["none.parquet"]\nspec = "{made}/spec.json"\nepochs = 1\n'
        f'quiet = true\nout = "c.pt"\nvalid = ["{made}/train.parquet"]\n'
    )
    words = [f"{made}/train.parquet", "--config", f"{tmp_path}/c.toml"]
    assert train_main(words) == 0
    config = tomllib.loads((tmp_path / "c.run" / "config.toml").read_text())
    assert config["data"] == config["valid"] == [f"{made}/train.parquet"]
    say()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--out {0}/train.parquet",
            "expected a file other than the rows, the spec and",
        ),
        (
            "--out {0}/x --run {0}/x",
            "expected a file other than the rows, the spec and",
        ),
        ("--out {0}/x.pt --run {0}/no/run", "expected a folder, or one to be made in"),
        ("--out {0}/x.pt --run {0}/spec.json", "expected a folder, or one to be made"),
    ],
)
def test_training_overwrites_no_input(
    flags: str, message: str, made: Path, say: Say
) -> None:
    before = (made / "train.parquet").read_bytes()
    words = f"{made}/train.parquet --spec {made}/spec.json --quiet --epochs 1 "
    assert train_main((words + flags.format(made)).split()) == 1
    assert say()[1].startswith(f"din-train: {message}")
    assert (made / "train.parquet").read_bytes() == before


def _write(part: pa.Table, path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(part, path, row_group_size=200)
        return
    rows = [
        {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()}
        for row in part.to_pylist()
    ]
    csv.write_csv(pa.Table.from_pylist(rows), path)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "kills"), [("parquet", 3), ("csv", 1)])
def test_several_files_a_folder_and_a_killed_run(
    form: str, kills: int, made: Path, tmp_path: Path, say: Say
) -> None:
    table = pq.read_table(made / "train.parquet")
    (tmp_path / "parts").mkdir()
    for k in range(4):
        _write(table.slice(500 * k, 500), tmp_path / "parts" / f"{k}.{form}")
    words = f"{tmp_path}/parts --spec {made}/spec.json --threads 1 --quiet --epochs 3"
    words += " --checkpoint-minutes 0 --batch-size 64 --patience 9"
    assert train_main([*words.split(), "--out", f"{tmp_path}/whole.pt"]) == 0
    script = f"from din_converter.cli import train_main as t; t({words.split()!r} + ["
    for _ in range(kills):
        code = script + f"'--out', '{tmp_path}/cut.pt', '--resume'])"
        process = subprocess.Popen([sys.executable, "-c", code])
        checkpoint = tmp_path / "cut.run" / "checkpoint.pt"
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None:
            time.sleep(0.005)
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                time.sleep(0.05)
                process.kill()
        process.wait()
    last = [*words.split(), "--out", f"{tmp_path}/cut.pt", "--resume"]
    assert train_main(last) == 0
    states = [load(tmp_path / f"{n}.pt").state_dict() for n in ("whole", "cut")]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    left = sorted(p.name for p in (tmp_path / "cut.run").iterdir())
    kept = ["config.toml", "last.pt", "learning_curve.png", "metrics.jsonl"]
    assert left == [*kept, "spec.json"]
    say()


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (
            train_main,
            "{}/none.parquet --spec {}/spec.json --out {}/x.pt",
            "din-train: expected a readable Parquet file, got ",
        ),
        (
            train_main,
            "{}/train.parquet --spec {}/none.toml --out {}/x.pt",
            "din-train: expected a readable file, got ",
        ),
        (
            train_main,
            "{}/train.parquet --spec {}/spec.json --out {}/no/x.pt",
            "din-train: expected an existing folder, got ",
        ),
        (
            convert_main,
            "{}/test.parquet --out {}/x.onnx",
            "din-convert: expected a model.pt that din-train or din_converter.save",
        ),
        (
            convert_main,
            "{}/model.pt --out {}/x.pb",
            "din-convert: expected a path that ends in .onnx, got x.pb",
        ),
        (
            score_main,
            "{}/model.onnx {}/test.parquet --out=",
            "din-score: expected a path on this machine, got '' - at `--out`\n",
        ),
        (
            train_main,
            "{}/train.parquet --spec {}/spec.json --out=",
            "din-train: expected a path on this machine, got '' - at `--out`\n",
        ),
    ],
)
def test_commands_say_errors_in_one_line(
    command: Callable[[list[str]], int],
    words: str,
    message: str,
    made: Path,
    say: Say,
) -> None:
    before = sorted(made.iterdir())
    assert command(words.replace("{}", str(made)).split()) == 1
    _, err = say()
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert sorted(made.iterdir()) == before


def test_names_of_files_move_no_cursor(made: Path, tmp_path: Path, say: Say) -> None:
    shown = f"{tmp_path}/e\\x1b[31m\\n"
    model, checkpoint = tmp_path / "e\x1b[31m\n.onnx", tmp_path / "e\x1b[31m\n.pt"
    assert convert_main([f"{made}/model.pt", "--out", str(model)]) == 0
    assert say()[0].startswith(f"wrote     {shown}.onnx\n")
    assert verify_main([str(model)]) == 0
    assert f" bytes  {shown}.onnx\n" in say()[0]
    words = [f"{made}/train.parquet", "--spec", f"{made}/spec.json", "--epochs", "1"]
    assert train_main([*words, "--quiet", "--out", str(checkpoint)]) == 0
    assert f"\nwrote {shown}.pt (" in say()[0]
    assert train_main([*words, "--quiet", "--out", str(checkpoint), "--resume"]) == 0
    assert f": {shown}.pt is its model\n" in say()[0]


def test_a_daily_conversion_prunes_what_it_left(tmp_path: Path, say: Say) -> None:
    raw = log_spec().to_dict()
    raw["candidate"][0]["encoder"]["buckets"] = 300_000
    out, left = tmp_path / "m.onnx", []
    for seed, flags in ((1, []), (2, []), (3, ["--prune"]), (3, ["--single-file"])):
        save(random_model(raw, seed=seed), tmp_path / "m.pt")
        words = [str(tmp_path / "m.pt"), "--out", str(out), *flags, "--json"]
        assert convert_main(words) == 0
        report = json.loads(say()[0])
        found = report["leftovers"]
        left.append([len(found["left"]), len(found["deleted"])])
    assert left == [[0, 0], [1, 0], [0, 2], [1, 0]]
    assert report["data_path"] is None
    assert Predictor(out).model_id == report["model_id"]


@pytest.mark.parametrize(
    "command", ["din-train", "din-convert", "din-score", "din-explain", "din-inspect"]
)
def test_help_shows_examples(command: str) -> None:
    path = Path(sys.executable).with_name(command)
    done = subprocess.run([path, "--help"], capture_output=True, text=True, check=True)
    assert "examples:" in done.stdout
    assert f"  {command} " in done.stdout


@pytest.mark.parametrize(
    ("module", "hidden", "command", "extras"),
    [
        ("din_converter.cli", "torch", "train_main", "convert,batch"),
        ("din_converter.cli", "onnx", "convert_main", "cpu,convert"),
        ("din_infer.cli", "pyarrow", "main", "cpu,batch"),
        ("din_infer.cli", "tqdm", "main", "cpu,batch"),
    ],
)
def test_a_missing_extra_prints_the_install_line(
    module: str, hidden: str, command: str, extras: str, made: Path, tmp_path: Path
) -> None:
    words = {
        "train_main": f"{made}/train.parquet --spec {made}/spec.json"
        f" --out {tmp_path}/m.pt",
        "convert_main": f"{made}/model.pt --out {tmp_path}/m.onnx",
        "main": f"{made}/model.onnx {made}/test.parquet --out {tmp_path}",
    }[command]
    code = (
        f"import sys; sys.modules[{hidden!r}] = None\n"
        f"from {module} import {command} as run\n"
        f"sys.exit(run({words.split()!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    line = f'needs the package {hidden}. Run: pip install "din-infer[{extras}]"\n'
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(line)
