"""What is printed follows from the JSON, and pages have what was printed."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import keys, paste, report, timing
from benchmarks.report import Wanted, overview, render, section, summarize
from benchmarks.timing import Absent, Contestant, Outcome

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {
    "benchmarks": {
        "encode-avx512",
        "encode-isa-avx2",
        "encode-avx2",
        "encode-threads-avx512",
    },
    "online": {"online-avx512"},
    "scaling": {"job-avx512", "scaling-avx512"},
}
RENDERED = {
    file.stem
    for file in paste.RESULTS.glob("*.json")
    if '"unit": ' in file.read_text(encoding="utf-8")
}


@pytest.mark.parametrize("name", sorted(RENDERED))
def test_the_tables_of_results_follow_from_their_json(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = paste.RESULTS / f"{name}.json"
    tables = file.with_suffix(".md").read_text(encoding="utf-8")
    assert tables == render(json.loads(file.read_text(encoding="utf-8")))
    assert report.main([str(file)]) == 0
    assert capsys.readouterr().out == tables


def test_some_results_are_rendered() -> None:
    assert {"encode-avx2", "encode-threads-avx2", "online-avx512"} <= RENDERED


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda p: p.stem)
def test_a_page_has_the_tables_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = {mark[2] for mark in paste.MARK.finditer(text)} - {"compare"}
    assert names == PAGES.get(page.stem, set())
    if names:
        assert paste.pasted(text) == text


def test_no_time_of_encoding_is_typed() -> None:
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    _, _, encoding = page.partition("\n## Encoding\n")
    assert encoding
    typed = paste.MARK.sub("", encoding)
    figures = (
        r"\d\.\d|\d+ (?:ns|us|ms|times|%)|(?:half|third|twice|times) (?:of|the|as)"
    )
    assert re.findall(figures, typed) == []


def _fake(key: str) -> Contestant:
    return Contestant(key, int, int, lambda *_: None, ours=key.startswith("ours"))


def _race(name: str, **ms: float) -> timing.Race:
    outcomes = {key: Outcome(_fake(key), None, [1e-3 * t]) for key, t in ms.items()}
    return timing.Race(keys.Scenario(name, ""), 4, 2, outcomes)


def test_an_overview_tells_the_fastest_rival_and_where_we_lose() -> None:
    first = _race("first", ours=2, a=3, b=1, copy=0.5)
    second = _race("second", ours=2, a=3)
    third = _race("third", ours=2, copy=1)
    races = [summarize(r, [], None) for r in (first, second, third)]
    assert overview(races[:1]) == []
    lines = overview(races)[0].splitlines()
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines[3:-2]]
    us = "ns per key"
    assert cells[0][2:] == ["ours", "fastest rival", "of it", "its / ours", "copy"]
    assert cells[2:] == [
        ["first", us, "1000000.00", "b", "500000.00", "0.50", "250000.00"],
        ["second", us, "1000000.00", "a", "1500000.00", "1.50", ""],
        ["third", us, "1000000.00", "", "", "", "500000.00"],
    ]
    assert lines[-1] == "- a rival is faster in: first (b / ours: 0.50)"
    assert "faster in" not in overview(races[1:])[0]


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (Wanted("some", "a", "ours", 2), "a / ours: 3.00, wanted at least 2: holds"),
        (
            Wanted("some", "a", "ours", 4),
            "a / ours: 3.00, wanted at least 4: does not hold",
        ),
        (Wanted("some", "b", "ours", 2), "b / ours: not measured, wanted at least 2"),
        (
            Wanted("some", None, "ours", None, at_most=5e5),
            "ns per key of ours: 500000.00, wanted at most 500000: holds",
        ),
        (
            Wanted("some", "a", "ours", 4, at_most=1e6),
            "a / ours: 3.00, wanted at least 4, or ns per key of ours: 500000.00,"
            " wanted at most 1e+06: holds",
        ),
        (
            Wanted("some", "b", "ours", 4, at_most=1),
            "b / ours: not measured, wanted at least 4, or ns per key of ours:"
            " 500000.00, wanted at most 1",
        ),
        (
            Wanted("some", "a", "ours", as_much_as=("a", "c")),
            "a / ours: 3.00, wanted as much as a / c: 2.00: holds",
        ),
        (
            Wanted("some", "c", "ours", as_much_as=("a", "ours")),
            "c / ours: 1.50, wanted as much as a / ours: 3.00: does not hold",
        ),
        (
            Wanted("some", "a", "ours", as_much_as=("b", "c")),
            "a / ours: 3.00, wanted as much as b / c: not measured",
        ),
    ],
)
def test_figures_are_held_against_what_is_wanted(wanted: Wanted, sentence: str) -> None:
    outcomes = {
        "ours": Outcome(_fake("ours"), None, [0.001]),
        "a": Outcome(_fake("a"), None, [0.003]),
        "b": Absent("not here"),
        "c": Outcome(_fake("c"), None, [0.0015]),
    }
    some = keys.Scenario("some", "")
    result = timing.Race(some, 4, 2, outcomes)
    others = Wanted("other", "a", "ours", 2)
    text = section(summarize(result, [wanted, others], None))
    assert text.splitlines()[-1] == f"- {sentence}"
