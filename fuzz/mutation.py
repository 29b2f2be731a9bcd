"""Change the C sources at one place at a time, and count the changes that tests notice.

    make mutation MUTATION_SAMPLE=200 MUTATION_SEED=1 MUTATION_FILES="csrc/vocab.c"

A mutant is one change: another operator, a number one higher or lower, a condition
negated, a statement or a sign taken out, another value returned. What it changes is
found in the syntax tree (tree-sitter), so comments, texts, asserts and what the
preprocessor reads, bodies of macros too, stay as they are; so do statements that only
ask the memory for something. Lines are drawn at random from all files, then one mutant
of each.

All happens in a copy of the tree, `build/mutation/tree`: the objects that the changed
file goes into are compiled, and compared with the original's; where they differ, the
libraries are linked, and the tests of the file's group run, until one fails, crashes or
takes more than `SECONDS`. Results are kept in `build/mutation/results.jsonl`, by the
file's text and the change, so that a run that was interrupted goes on; each survivor is
a diff in `build/mutation/survivors`. `--again` tries those once more, `--tests` with
other tests. (fuzz/mutants.py is another thing: ONNX graphs, for fuzzing.)

Above 400 lines: what a mutant is, how it is built, and which tests are whose.
"""

import argparse
import difflib
import fnmatch
import hashlib
import importlib
import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tree_sitter_c
from tree_sitter import Language, Node, Parser

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "mutation"
TREE = BUILD / "tree"
RESULTS = BUILD / "results.jsonl"
SECONDS = 60  # of one test; the slowest takes 10
MEMORY = 12 << 30

# Not here: what no build of this machine runs (AMX, CUDA), and others' interfaces.
LEFT_OUT = {"amx.h", "isa_amx.c", "cuda.h", "ort_abi.h", "arrow_abi.h"}


@dataclass(frozen=True)
class Group:
    """Files, and the tests that may notice a change of theirs, the most telling first.

    Each line of `tests` is a run of pytest.
    """

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]


def each(names: str, options: str = "") -> tuple[str, ...]:
    """Make arguments of pytest, a file in each."""
    return tuple(f"tests/test_{name}.py {options}".strip() for name in names.split())


# The first group that has a file is its own; "*" is any folder, too.
GROUPS = (
    Group(
        "hashes",
        ("csrc/hash*", "csrc/block*"),
        (
            *each("block hash", "-k 'not emulated'"),
            *each("hash_lengths hash_others encode vocabulary", "-k 'not emulated'"),
            *each("block hash_lengths", "-k emulated"),
        ),
    ),
    Group(
        "vocabularies",
        ("csrc/vocab*", "csrc/pages*"),
        each("vocabulary encode memory long_lists c_abi"),
    ),
    Group(
        "the interface in C",
        ("csrc/spec*", "csrc/json*", "csrc/din_encode*", "csrc/ops/encode_op.c"),
        (
            "tests/test_golden_program.py tests/test_c_specs.py tests/test_c_abi.py"
            " -k 'not example'",
            *each("raw ops_abi allocation_failures c_abi"),
        ),
    ),
    Group(
        "numbers",
        ("csrc/scale*", "csrc/link*", "csrc/decimal*", "csrc/pad*"),
        each("scale link encode exact_types arrow_types c_abi"),
    ),
    Group(
        "guards",
        ("csrc/ops/guard*",),
        each("guards ops_abi op_faults allocation_failures"),
    ),
    Group(
        "operators",
        ("csrc/ops/*",),
        (
            *each("ops", "-k 'not emulated'"),
            *each("ops_abi op_faults guards overflow allocation_failures predictor"),
            *each("ops", "-k emulated"),
        ),
    ),
    Group(
        "columns and ids",
        ("csrc/*",),
        (
            *each("encode hash_others encoding_parts arrow_types window"),
            *each("golden_program c_abi", "-k 'not example'"),
            *each("exact_types repeats columns arrow_abi bad_rows wrong_calls"),
            *each("vocabulary raw memory long_lists"),
        ),
    ),
)


def group_of(path: str) -> Group:
    """Find the group of a file."""
    fits = (g for g in GROUPS if any(fnmatch.fnmatch(path, p) for p in g.files))
    return next(fits)


# ---------------------------------------------------------------------------- mutants


@dataclass(frozen=True)
class Mutant:
    """Bytes [start, stop) of a file, replaced."""

    path: str
    start: int
    stop: int
    new: str
    line: int

    def apply(self, text: bytes) -> bytes:
        """Change the text of the file."""
        return text[: self.start] + self.new.encode() + text[self.stop :]

    def key(self, text: bytes) -> str:
        """Name the change, and what it changes."""
        said = f"{self.path}\0{self.start}\0{self.stop}\0{self.new}\0".encode()
        return hashlib.sha256(said + text).hexdigest()[:12]

    def diff(self, text: bytes) -> str:
        """Show the change."""
        before = text.decode().splitlines(keepends=True)
        after = self.apply(text).decode().splitlines(keepends=True)
        names = f"a/{self.path}", f"b/{self.path}"
        return "".join(difflib.unified_diff(before, after, *names))


OPERATORS = {
    "<": "<= >", "<=": "< >", ">": ">= <", ">=": "> <", "==": "!=", "!=": "==",
    "&&": "||", "||": "&&", "+": "-", "-": "+", "*": "+", "/": "*", "%": "*",
    "<<": ">>", ">>": "<<", "&": "|", "|": "&", "^": "|",
    "+=": "-= =", "-=": "+= =", "*=": "+= =", "/=": "*= =", "%=": "=", "|=": "&= =",
    "&=": "|= =", "^=": "|= =", "<<=": ">>= =", ">>=": "<<= =",
}  # fmt: skip
BRANCHES = {"if_statement", "while_statement", "do_statement", "for_statement"}
DELETED = BRANCHES | {"expression_statement", "break_statement", "continue_statement"}
NOT_C = {"comment", "string_literal", "char_literal", "system_lib_string"}
NOT_C |= {"preproc_include", "preproc_def", "preproc_function_def", "preproc_call"}
UNREAD = re.compile(
    rb"(assert|DIN_PREFETCH|__builtin_prefetch|prefetch_row|look|static_assert"
    rb"|_Static_assert)\("
)


def neighbors(literal: str) -> list[str]:
    """Write a number one higher, and one lower."""
    whole = re.fullmatch(r"(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)", literal)
    if not whole:
        return [f"({literal} + 1)"]
    value = int(whole[1], 0 if whole[1][:2] in ("0x", "0X") else 10)
    form = hex if whole[1][:2] in ("0x", "0X") else str
    return [f"{form(v)}{whole[2]}" for v in (value + 1, value - 1) if v >= 0]


def is_unread(node: Node) -> bool:
    """Tell whether a statement asserts, or prefetches, and does no more."""
    of = node.child_by_field_name("consequence") or node.child_by_field_name("body")
    body = of if node.type in BRANCHES and of is not None else node
    if body.type == "compound_statement" and len(body.named_children) > 1:
        return False
    return bool(UNREAD.match((body.text or b"").lstrip(b"{ \n")))


def changes(node: Node) -> Iterator[tuple[Node, str]]:
    """List what a node may be replaced by."""
    text = (node.text or b"").decode()
    above = node.parent
    if node.type in ("binary_expression", "assignment_expression"):
        operator = node.child_by_field_name("operator")
        if operator is not None:
            for new in OPERATORS.get((operator.text or b"").decode(), "").split():
                yield operator, new
    elif node.type == "unary_expression":
        yield node.children[0], ""
    elif node.type == "update_expression":
        if above is None or above.type != "for_statement":  # which would never end
            for child in node.children:
                if child.type in ("++", "--"):
                    yield child, "--" if child.type == "++" else "++"
    elif node.type == "number_literal":
        if above is None or above.type != "array_declarator":
            for new in neighbors(text):
                yield node, new
    elif node.type == "return_statement":
        value = node.named_children[0] if node.named_children else None
        if value is not None:
            shown = (value.text or b"").decode()
            yield value, "1" if shown in ("0", "NULL") else "0"
        while above is not None and above.type in ("compound_statement", "else_clause"):
            above = above.parent
        if above is not None and above.type in BRANCHES:  # not a function's last
            yield node, ";"
    if node.type in (*BRANCHES, "conditional_expression"):
        condition = node.child_by_field_name("condition")
        if condition is not None:
            shown = (condition.text or b"").decode()
            braces = node.type not in ("for_statement", "conditional_expression")
            yield condition, f"(!{shown})" if braces else f"!({shown})"
    if node.type in DELETED:
        yield node, ";"


def walk(node: Node) -> Iterator[tuple[Node, str]]:
    """List all replacements below a node."""
    if node.type in NOT_C or (node.type in DELETED and is_unread(node)):
        return
    yield from changes(node)
    for i, child in enumerate(node.children):
        name = node.field_name_for_child(i)
        if node.type.startswith("preproc") and name in ("condition", "name"):
            continue
        yield from walk(child)


def mutants_of(path: str) -> list[Mutant]:
    """List the mutants of a file."""
    text = (ROOT / path).read_bytes()
    tree = Parser(Language(tree_sitter_c.language())).parse(text)
    found = {
        Mutant(path, node.start_byte, node.end_byte, new, node.start_point.row + 1)
        for node, new in walk(tree.root_node)
    }
    return sorted(found, key=lambda m: (m.start, m.stop, m.new))


def sources() -> list[str]:
    """List the C files of both libraries, and their headers."""
    lists = tomllib.loads((ROOT / "csrc" / "libraries.toml").read_text())
    headers = [p.relative_to(ROOT).as_posix() for p in (ROOT / "csrc").rglob("*.h")]
    found = {*lists["kernels"], *lists["ops"], *headers}
    return sorted(p for p in found if Path(p).name not in LEFT_OUT)


def draw(files: Sequence[str], sample: int, seed: int) -> list[Mutant]:
    """Draw lines, then a mutant of each: so files count by their lines."""
    lines: dict[tuple[str, int], list[Mutant]] = defaultdict(list)
    for path in files:
        for mutant in mutants_of(path):
            lines[path, mutant.line].append(mutant)
    chance = random.Random(seed)
    order = chance.sample(sorted(lines), len(lines))
    chosen = [chance.choice(lines[place]) for place in order]
    return chosen[:sample] if sample else chosen


# --------------------------------------------------------------------------- the build


def run(command: Sequence[str], seconds: float | None = None) -> str | None:
    """Run a command in the copy; returns what it printed, None if it failed."""
    try:
        done = subprocess.run(
            command, cwd=TREE, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return None
    return None if done.returncode else done.stdout


class Library:
    """The copy of the tree, built, and how each object and library of it is made."""

    def __init__(self) -> None:
        names = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\n")
        for name in filter(None, names):
            self.copy(ROOT / name, TREE / name)
        for name in (".oldest", ".venv"):
            with suppress(FileExistsError):
                (TREE / name).symlink_to(ROOT / name)
        log = run([sys.executable, "setup.py", "build_ext", "--inplace"])
        if log is None:
            sys.exit("the sources do not compile")
        kept = BUILD / "commands.json"
        self.commands: dict[str, list[str]] = (
            json.loads(kept.read_text()) if kept.is_file() else {}
        )
        for line in log.splitlines():
            words = shlex.split(line) if " -o " in line else []
            if "-o" in words:
                self.commands[words[words.index("-o") + 1]] = words
        kept.write_text(json.dumps(self.commands))
        # -O1 takes a third of the time, and tells as well whether the code is the same
        for words in self.commands.values():
            words[:] = ["-O1" if word == "-O3" else word for word in words]
        self.objects = {}
        for name in self.commands:
            if name.endswith(".o") and not name.endswith(("_kernels.o", "isa_amx.o")):
                kept = TREE / f"{name}.base"
                if not kept.exists() or (
                    kept.stat().st_mtime
                    < (TREE / name).with_suffix(".d").stat().st_mtime
                ):
                    run(self.commands[name])
                    shutil.copy(TREE / name, kept)
                self.objects[name] = kept.read_bytes()
        self.link(self.objects)
        self.includes = {
            name: set((TREE / name).with_suffix(".d").read_text().split())
            for name in self.objects
        }

    @staticmethod
    def copy(source: Path, to: Path) -> None:
        """Copy what has changed, so that only that is compiled."""
        if not source.is_file():
            return
        to.parent.mkdir(parents=True, exist_ok=True)
        if not to.is_file() or to.read_bytes() != source.read_bytes():
            shutil.copy(source, to)

    def compile(self, path: str) -> dict[str, bytes] | None:
        """Compile what includes a file; returns the objects that differ."""
        found = {}
        for name, names in self.includes.items():
            if not any(os.path.normpath(n) == path for n in names):
                continue
            made = str(Path(name).with_suffix(".mutant.o"))
            command = [made if word == name else word for word in self.commands[name]]
            if run(command, 300) is None:
                return None
            code = (TREE / made).read_bytes()
            if code != self.objects[name]:
                found[name] = code
        return found

    def link(self, objects: dict[str, bytes]) -> bool:
        """Put objects into the package; whether the libraries could be linked."""
        for name, code in objects.items():
            (TREE / name).write_bytes(code)
        for name, command in self.commands.items():
            if name.endswith(".o") or not set(objects) & set(command):
                continue
            if run(command) is None:
                return False
            # a new file: the old one may be mapped
            to = TREE / "din_infer" / Path(name).name
            to.unlink(missing_ok=True)
            shutil.copy(TREE / name, to)
        return True


# --------------------------------------------------------------------------- the tests

# Imported once, for all the processes that run tests.
WARM = ("numpy", "pyarrow", "pandas", "onnx", "onnxruntime", "torch", "xxhash", "yaml")


def child(arguments: str, log: Path) -> None:
    """Run pytest; does not return."""
    os.setsid()
    with log.open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.chdir(TREE)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    places = [str(TREE), str(TREE / "converter")]
    sys.path[:0] = places
    os.environ["PYTHONPATH"] = os.pathsep.join(places)
    os.environ.setdefault("HYPOTHESIS_PROFILE", "mutation")
    sys.argv[:] = ["pytest"]
    import pytest

    options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["-o", f"faulthandler_timeout={SECONDS}"]
    options += ["-o", "faulthandler_exit_on_timeout=true"]
    status = 3
    try:
        status = int(pytest.main([*options, *shlex.split(arguments)]))
    finally:
        sys.stdout.flush()
        os._exit(status)


def is_noticed(arguments: str) -> str:
    """Run tests; returns the one that failed, or nothing."""
    log = BUILD / "log"
    pid = os.fork()
    if pid == 0:
        child(arguments, log)
    stop = time.monotonic() + 20 * SECONDS
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > stop:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "no end"
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what a test left behind
    if status == 0:
        return ""
    code = os.waitstatus_to_exitcode(status)
    text = log.read_text(errors="replace")
    if code in (4, 5):
        sys.exit(f"pytest {arguments}\n{text}")
    if "Timeout (" in text:
        return "no end"
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    return failed[0] if failed else f"crash {code}"


@dataclass
class Result:
    """What became of a mutant: killed, survived, same, refused (by the compiler)."""

    key: str
    path: str
    line: int
    diff: str
    what: str
    by: str = ""
    seconds: float = 0.0


def attempt(library: Library, mutant: Mutant, with_tests: Sequence[str]) -> Result:
    """Build a mutant and test it."""
    begun = time.monotonic()
    source = TREE / mutant.path
    text, times = source.read_bytes(), source.stat()
    result = Result(
        mutant.key(text), mutant.path, mutant.line, mutant.diff(text), "refused"
    )
    objects: dict[str, bytes] | None = None
    try:
        source.write_bytes(mutant.apply(text))
        objects = library.compile(mutant.path)
        if objects is not None and not objects:
            result.what = "same"
        elif objects is not None and library.link(objects):
            result.what = "survived"
            for arguments in with_tests:
                result.by = is_noticed(arguments)
                if result.by:
                    result.what = "killed"
                    break
    finally:
        source.write_bytes(text)
        if objects:
            library.link({name: library.objects[name] for name in objects})
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    result.seconds = time.monotonic() - begun
    return result


# -------------------------------------------------------------------------- the report


def load() -> dict[str, dict[str, Any]]:
    """Read the results so far; the last of a mutant counts."""
    if not RESULTS.is_file():
        return {}
    rows = (json.loads(line) for line in RESULTS.read_text().splitlines())
    return {row["key"]: row for row in rows}


def report(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table of files, then of groups, and write the survivors."""
    shutil.rmtree(BUILD / "survivors", ignore_errors=True)
    (BUILD / "survivors").mkdir(parents=True)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["path"]][row["what"]] += 1
        counts["~" + group_of(row["path"]).name][row["what"]] += 1
        counts["~~all"][row["what"]] += 1
        if row["what"] == "survived":
            name = f"{Path(row['path']).name}-{row['line']}-{row['key']}.diff"
            (BUILD / "survivors" / name).write_text(row["diff"])
    print(f"{'':28}  drawn refused   same  killed survived  killed of the last two")
    for name in sorted(counts):
        found = counts[name]
        real = found["killed"] + found["survived"]
        share = f"{100 * found['killed'] / real:.1f} %" if real else ""
        print(
            f"{name.strip('~'):28} {found.total():6} {found['refused']:7}"
            f" {found['same']:6} {found['killed']:7} {found['survived']:8}  {share}"
        )
    print(f"survivors: {BUILD / 'survivors'}")


def main() -> int:
    """Draw mutants, try those that are new, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", help="as csrc/vocab.c; all if none")
    parser.add_argument("--sample", type=int, default=200, help="0: a mutant a line")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="the survivors alone")
    parser.add_argument("--tests", help="arguments of pytest, in place of the group's")
    parser.add_argument("--first", type=int, help="so many runs of pytest alone")
    parser.add_argument(
        "--unchecked", action="store_true", help="the tests pass without a mutant"
    )
    parser.add_argument("--list", action="store_true", help="show the mutants alone")
    args = parser.parse_args()
    files = args.files or sources()
    if args.again:
        chosen = [mutant for path in files for mutant in mutants_of(path)]
    else:
        chosen = draw(files, args.sample, args.seed)
    if args.list:
        for m in chosen:
            was = (ROOT / m.path).read_bytes()[m.start : m.stop].decode()
            print(f"{m.path}:{m.line}: {' '.join(was.split())[:60]} -> {m.new[:60]}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was changed is undone
    for name in WARM:
        importlib.import_module(name)
    BUILD.mkdir(parents=True, exist_ok=True)
    library = Library()
    known = load()
    of = {m.key((ROOT / m.path).read_bytes()): m for m in chosen}
    new = [k for k in of if k not in known]
    if args.again:
        of = {k: m for k, m in of.items() if known.get(k, {}).get("what") == "survived"}
        new = list(of)
    with_tests = {
        k: [args.tests] if args.tests else group_of(of[k].path).tests[: args.first]
        for k in new
    }
    used = {line for lines in with_tests.values() for line in lines}
    for arguments in () if args.unchecked else sorted(used):
        begun = time.monotonic()
        failed = is_noticed(arguments)
        if failed:
            text = (BUILD / "log").read_text(errors="replace")
            sys.exit(f"without a mutant: pytest {arguments}: {failed}\n{text}")
        print(
            f"{time.monotonic() - begun:5.1f} s without a mutant: {arguments}",
            flush=True,
        )
    for number, key in enumerate(new, 1):
        mutant = of[key]
        result = attempt(library, mutant, with_tests[key])
        with RESULTS.open("a") as out:
            out.write(json.dumps(vars(result)) + "\n")
        print(
            f"{number}/{len(new)} {mutant.path}:{mutant.line} {result.what}"
            f" {result.by} ({result.seconds:.0f} s)",
            flush=True,
        )
    known = load()
    report([known[k] for k in of if k in known])
    return 0


if __name__ == "__main__":
    sys.exit(main())
