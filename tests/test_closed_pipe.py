"""Commands whose output nobody reads to its end: ``| head -1``."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from din_infer.closed_pipe import STATUS
from tests.test_train import click_log, log_spec

COMMANDS = {
    "score": "din_infer.cli:main",
    "explain": "din_infer.cli:explain_main",
    "inspect": "din_infer.cli:inspect_main",
    "verify": "din_infer.cli:verify_main",
    "train": "din_converter.cli:train_main",
    "convert": "din_converter.cli:convert_main",
}


def run_unread(*words: str, unbuffered: bool = False) -> tuple[int, bytes]:
    """Run Python with a stdout that nobody reads: its status, and its stderr."""
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1" if unbuffered else ""}
    try:
        done = subprocess.run(
            [sys.executable, *words],
            stdout=write,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
        )
    finally:
        os.close(write)
    return done.returncode, done.stderr


def start(command: str, *words: str) -> tuple[str, ...]:
    module, _, name = COMMANDS[command].partition(":")
    code = f"import sys; from {module} import {name}; sys.exit({name}())"
    return ("-c", code, *words)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_help_that_nobody_reads_ends_quietly(command: str) -> None:
    # one command writes at once, the others when their buffer is full
    done = run_unread(*start(command, "--help"), unbuffered=command == "verify")
    assert done == (STATUS, b"")


@pytest.mark.slow
def test_results_that_nobody_reads_end_quietly(tmp_path: Path) -> None:
    pq.write_table(click_log(200), tmp_path / "log.parquet")
    (tmp_path / "spec.json").write_text(log_spec().to_json())
    log, spec = str(tmp_path / "log.parquet"), str(tmp_path / "spec.json")
    words = start("inspect", log, "--spec", spec, "--quiet")
    assert run_unread(*words) == (STATUS, b"")
    words = start("train", log, "--spec", spec, "--out", str(tmp_path / "m.pt"))
    words = (*words, "--quiet", "--epochs", "1")
    assert run_unread(*words, unbuffered=True) == (STATUS, b"")


@pytest.mark.slow
def test_the_report_of_a_machine_that_nobody_reads_ends_quietly() -> None:
    assert run_unread("-m", "din_infer") == (STATUS, b"")


@pytest.mark.parametrize(
    "words",
    [
        *(start(command, "--version") for command in COMMANDS),
        start("score", "--help"),
        ("-m", "din_infer"),
    ],
)
def test_output_to_a_full_disk_is_an_error_in_one_line(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, *words], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.endswith(b"[Errno 28] No space left on device\n")
