"""Test vectors meet every rule of docs/without-python.md, and every encoder.

Long: specs of all that a part of the format can say, and the mistakes in each.
"""

import copy
import json
import math
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from din_converter import convert, save
from din_converter.cli import convert_main
from din_converter.vectors import decoded, inputs_of_spec
from din_converter.vectors.files import written
from din_infer import FeatureSpec, Predictor
from din_infer.errors import ConversionError
from tests import page_encoder, reference
from tests.models import SPECS, random_model, random_rows

Spec = dict[str, Any]


def spec_of(candidate: list[Spec], **sections: Any) -> Spec:  # noqa: ANN401
    return {"format": 1, "candidate": candidate, **sections}


def field(name: str, encoder: Spec, **keys: Any) -> Spec:  # noqa: ANN401
    return {"name": name, "dim": 4, "encoder": encoder, **keys}


def hashed(**keys: Any) -> Spec:  # noqa: ANN401
    return {"type": "hash", "buckets": 1000, **keys}


def _hashes() -> Spec:
    """Every hash, reduction, dtype and key."""
    seeds = {"siphash24": [3, 2**64 - 1], "farmhash64": 0, "xxh64": 2**64 - 1}
    names = ("xxh64", "xxh3_64", "murmur3_32", "farmhash64", "siphash24")
    fields = []
    for name in (*names, "murmur3_32_spark", "murmur3_32_vw"):
        for reduce in ("offset", "mod", "pmod", "abs"):
            rule = hashed(hash=name, reduce=reduce, seed=seeds.get(name, 42))
            fields.append(field(f"{name} {reduce}", rule, column="text"))
            as_text = rule | {"int_as": "text"}
            fields.append(
                field(f"{name} {reduce} int", as_text, column="number", dtype="int64")
            )
            if name != "murmur3_32_vw":
                fields += [
                    field(f"{name} {reduce} 8", rule, column="number", dtype="int64"),
                    field(f"{name} {reduce} f", rule, column="real", dtype="float"),
                    field(
                        f"{name} {reduce} 4",
                        rule | {"int_as": "bytes4"},
                        column="small",
                        dtype="int64",
                    ),
                    field(
                        f"{name} {reduce} f4",
                        rule | {"float_as": "bytes4"},
                        column="real",
                        dtype="float",
                    ),
                ]
    more = {"mask_value": "0", "prefix": "user=", "reduce": "abs"}
    fields.append(field("all keys", hashed(**more, alternate_sign=True), column="text"))
    masked = hashed(mask_value=-1)
    fields.append(field("masked", masked, column="number", dtype="int64"))
    return spec_of(fields)


def _together() -> Spec:
    columns = ["a", {"column": "b", "dtype": "int64", "int_as": "bytes4"}]
    columns += [{"column": "c", "dtype": "float"}, {"column": "d", "dtype": "int64"}]
    seeds = {"xxh64": 2**64 - 1, "xxh3_64": 2**32, "murmur3_32": 42}
    fields = [
        field(name, hashed(hash=name, seed=seed, reduce="pmod"), columns=columns)
        for name, seed in (seeds | {"murmur3_32_spark": 42}).items()
    ]
    lists = {"name": "h", "max_len": 5, "order": "newest_first"}
    pairs = {"pairs": "xxh64", "columns": ["ha", "hb", "hc", "hd"]}
    return spec_of(fields, behavior=[{**lists, "fields": {"hist": pairs}}])


def _vocabularies() -> Spec:
    texts = ["view", "", "\U0001f600", "view ", "0"]
    numbers = [0, -1, 2**63 - 1, -(2**63), 7]
    fields = []
    for unseen in ("row", "missing", "error"):
        words: Spec = {"type": "vocab", "values": texts, "unseen": unseen}
        fields.append(field(f"words {unseen}", words))
        fields.append(
            field(f"ints {unseen}", words | {"values": numbers}, dtype="int64")
        )
    for unseen in ("missing", "error"):
        rule: Spec = {"type": "identity", "buckets": 9, "unseen": unseen}
        fields.append(field(f"identity {unseen}", rule))
    bounds: Spec = {"type": "bucketize", "boundaries": [-1.5, 0.0, 0.1, 2.0**53]}
    fields += [field("real", bounds), field("whole", bounds, dtype="int64")]
    fields.append(field("none", {"type": "bucketize", "boundaries": []}))
    return spec_of(fields)


def _lists() -> Spec:
    """Every way to say which elements are behaviors."""
    goods = field("goods", hashed())
    shop = field("shop", {"type": "identity", "buckets": 50}, dtype="int64")
    words: Spec = {"type": "vocab", "values": ["a", "b"]}

    def sequence(name: str, *fields: str, **keys: Any) -> Spec:  # noqa: ANN401
        mine = {f"{name}_{f}": f for f in fields}
        return {"name": name, "max_len": 4, "fields": mine, **keys}

    def tags(name: str, rule: Spec, **keys: Any) -> Spec:  # noqa: ANN401
        given = {"side": "candidate", "pooling": "mean", "max_len": 5}
        return field(name, rule, **(given | keys))

    return spec_of(
        [goods, shop],
        behavior=[
            sequence("plain", "goods", "shop", separator="|"),
            sequence("newest", "goods", "shop", order="newest_first", format="json"),
            sequence("attended", "goods", padding="attended"),
            sequence("trimmed", "shop", "goods", pad_value=0),
            sequence("dropped", "shop", "goods", pad_value=0, pad_inside="dropped"),
            sequence("told", "goods", length_column="told_length"),
            sequence("either", "shop", pad_value=0, length_column="some"),
            sequence("any", "goods", max_len=2**31 - 1),
        ],
        multi_hot=[
            tags("tags", hashed(), pad_value=""),
            tags("words", words, side="user", separator=", "),
            tags("ints", hashed(), dtype="int64", separator=";", padding="attended"),
            tags("reals", hashed(), dtype="float", format="json"),
        ],
    )


def _uuids() -> Spec:
    fields = [
        field("binary", hashed(uuid_as="bytes")),
        field("text", hashed(uuid_as="text")),
    ]
    mine = {"hist_binary": "binary", "hist_text": "text"}
    return spec_of(fields, behavior=[{"name": "h", "max_len": 3, "fields": mine}])


def _dense() -> Spec:
    def dense(name: str, scale: object = "none", **keys: Any) -> Spec:  # noqa: ANN401
        given = {"name": name, "side": "candidate", "scale": scale, "missing": 0.25}
        return given | keys

    standard = {"type": "standard", "mean": 3.7, "std": 1.3}
    log = {"type": "log1p", "mean": 1.9, "std": 1.1}
    ranges = {"type": "minmax", "min": -2.0, "max": 7.3}
    quantile = {"type": "quantile", "boundaries": [0.5, 1.1, 7.0, 9.3]}
    return spec_of(
        [field("goods", hashed())],
        dense=[
            dense("plain"),
            {"name": "strict", "side": "user"},
            dense("standard", standard),
            dense("constant", standard | {"std": 0.0}),
            dense("log", log),
            dense("strict_log", log, missing=None) | {"side": "user"},
            dense("ranges", ranges),
            dense("quantile", quantile, side="user"),
            dense("single", {"type": "quantile", "boundaries": [2.0]}),
            dense(
                "written",
                {"type": "standard", "mean": [3.7, 1.0], "std": [1.3, 0.1]},
                dim=2,
                separator=";",
            ),
            dense("array", dim=2, format="json"),
            dense("logs", log | {"mean": [0.1, 0.2], "std": [1.0, 3.0]}, dim=2),
            dense(
                "many",
                {
                    "type": "quantile",
                    "boundaries": [[0.0, 1.0], [3.0], [-1.0, 2.0, 5.0]],
                },
                dim=3,
            ),
        ],
        calibration={"scale": 0.7, "offset": -1.5},
    )


def _refused() -> Spec:
    """Values that the encoder itself names, and its column refuses."""
    text = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
    words: Spec = {"type": "vocab", "values": [text, text.upper()], "uuid_as": "text"}
    same = hashed(uuid_as="bytes", mask_value=text)
    return spec_of([field("words", words), field("masked", same)])


def without_none(raw: Any) -> Any:  # noqa: ANN401
    if isinstance(raw, dict):
        return {k: without_none(v) for k, v in raw.items() if v is not None}
    return [without_none(v) for v in raw] if isinstance(raw, list) else raw


HARD = {
    "hashes": _hashes(),
    "together": _together(),
    "vocabularies": _vocabularies(),
    "lists": _lists(),
    "uuids": _uuids(),
    "dense": without_none(_dense()),
}
ALL = {**SPECS, **HARD, "refused": _refused()}
NAMES = (*HARD, "paper", "attended padding row", "candidate only", "identity link")
NAMES += ("derived", "no history", "refused")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of models and their vectors, made once."""
    made: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in made:
            folder = made[name] = tmp_path_factory.mktemp("vectors")
            convert(random_model(ALL[name]), folder / "m.onnx", vectors=folder / "v")
        return made[name]

    return folder_of


def read(folder: Path) -> tuple[Spec, list[Spec]]:
    about = json.loads((folder / "v/inputs.json").read_text())
    lines = (folder / "v/vectors.jsonl").read_text().splitlines()
    return about, [json.loads(line) for line in lines]


def wanted(vector: Spec, about: Spec) -> dict[str, Any]:
    return {
        i["name"]: np.array(vector["inputs"][i["name"]]["data"], i["dtype"]).reshape(
            vector["inputs"][i["name"]]["shape"]
        )
        for i in about["inputs"]
    }


def wrong_inputs(about: Spec, vectors: list[Spec]) -> set[tuple[str, str]]:
    """Name the vectors and inputs that the page's encoder makes otherwise."""
    found = set()
    for vector in vectors:
        made = page_encoder.encode(about, vector)
        for name, right in wanted(vector, about).items():
            assert made[name].dtype == right.dtype
            if made[name].tobytes() != right.tobytes() or (
                made[name].shape != right.shape
            ):
                found.add((vector["name"], name))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_written_from_the_page_reproduces_the_vectors(
    name: str, folders: Callable[[str], Path]
) -> None:
    about, vectors = read(folders(name))
    assert not wrong_inputs(about, vectors)
    spec = FeatureSpec.load(folders(name) / "v/spec.json")
    assert [i["name"] for i in about["inputs"]] == [i.name for i in spec.inputs]
    session = onnxruntime.InferenceSession(folders(name) / "m.onnx")
    for vector in vectors:
        inputs = page_encoder.encode(about, vector)
        logits, scores = session.run(["logit", "score"], inputs)
        bound = 1e-5 * np.maximum(1, np.abs(vector["logits"]))
        assert (np.abs(logits - vector["logits"]) <= bound).all()
        mine = page_encoder.score(np.array(vector["logits"], np.float32), about)
        assert np.allclose(mine, vector["scores"], rtol=2e-7, atol=0)
        if about["link"] == "sigmoid":
            assert np.allclose(scores, vector["scores"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["paper", "attended padding", "three sequences"])
def test_the_page_and_the_reference_agree_on_other_rows(name: str) -> None:
    spec = FeatureSpec.from_dict(SPECS[name])
    rows = random_rows(spec, 40)
    for row in rows:
        del row["extra"]
    right, _ = reference.encode(spec, rows)
    raw = written(rows)
    vector = {"requests": raw, "candidates": raw, "request_of_candidate": range(40)}
    made = page_encoder.encode(inputs_of_spec(spec), vector)
    assert made.keys() == right.keys()
    for key, array in made.items():
        assert array.dtype == right[key].dtype
        assert array.tobytes() == right[key].tobytes()
        assert array.shape == right[key].shape


def test_every_nan_that_is_hashed_has_a_key(tmp_path: Path) -> None:
    """Beside null lists too; columns elsewhere in a row draw other values."""
    keys = {"dtype": "float", "side": "candidate", "pooling": "sum", "max_len": 5}
    lists = [field(f"m{i}", hashed(), **keys) for i in range(17)]
    raw = spec_of([field("goods", hashed())], multi_hot=lists)
    convert(random_model(raw), tmp_path / "m.onnx", vectors=tmp_path / "v")
    about, vectors = read(tmp_path)
    assert not wrong_inputs(about, vectors)
    by_name = {v["name"]: v["candidates"] for v in vectors}
    found = {
        (name, *(kind in row[m["name"]] for kind in (None, "NaN")))
        for name, rows in by_name.items()
        for row in rows
        for m in lists
        if row[m["name"]] is not None
    }
    assert {("nulls", True, False), ("null lists", False, True)} <= found
    assert None in (row["m0"] for row in by_name["null lists"])


def test_the_command_writes_vectors_beside_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(random_model(SPECS["candidate only"]), tmp_path / "m.pt")
    words = [str(tmp_path / "m.pt"), "--vectors", str(tmp_path / "v")]
    for _ in range(2):  # the second replaces what the first has written
        assert convert_main(words) == 0
    capsys.readouterr()
    names = sorted(path.name for path in (tmp_path / "v").iterdir())
    assert names == ["inputs.json", "spec.json", "vectors.jsonl"]
    about, vectors = read(tmp_path)
    predictor = Predictor(tmp_path / "m.onnx", device="cpu")
    assert about["format"] == 1
    assert about["model_id"] == predictor.model_id
    columns = {c.name: c for c in predictor.spec.reads}
    for vector in vectors:
        rows = [decoded(row, columns) for row in vector["candidates"]]
        users, owners = vector["requests"], vector["request_of_candidate"]
        items = {"goods_id": [row["goods_id"] for row in rows]}
        scores = predictor.score_requests(users, items, owners)
        assert scores.tolist() == np.array(vector["scores"], np.float32).tolist()


def test_a_place_for_vectors_must_be_a_folder_and_a_model_have_a_spec(
    tmp_path: Path,
) -> None:
    model = random_model(SPECS["candidate only"])
    (tmp_path / "file").write_text("")
    for place, wanted in (
        ("file", "expected a folder, or nothing, got a file - at `vectors`"),
        ("gone/v", f"expected an existing folder, got {tmp_path}/gone - at `vectors`"),
    ):
        with pytest.raises(ConversionError) as caught:
            convert(model, tmp_path / "m.onnx", vectors=tmp_path / place)
        assert str(caught.value) == wanted
    with pytest.raises(ConversionError, match="a model with a feature spec, for test"):
        convert(
            torch.nn.Linear(3, 2),
            tmp_path / "m.onnx",
            example_inputs=torch.ones(4, 3),
            vectors=tmp_path / "v",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_vectors_that_are_not_read_as_they_were_written_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(row: Spec, _: object) -> Spec:
        return row | {"goods_id": 1}

    monkeypatch.setattr("din_converter.vectors.make.decoded", wrong)
    model = random_model(SPECS["candidate only"])
    with pytest.raises(ConversionError) as caught:
        convert(model, tmp_path / "m.onnx", vectors=tmp_path / "v")
    assert str(caught.value) == (
        "expected test vectors that score as the rows they were written from, got"
        " others - at `values of every kind`"
    )
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------- vectors that find mistakes


def otherwise(key: str, value: Any, one: Spec) -> Iterator[Any]:  # noqa: ANN401
    """Yield other values of a key of inputs.json, each of which is a mistake."""
    is_text = one.get("columns", [{}])[0].get("dtype") == "string"
    others = {"oldest_first": "newest_first", "newest_first": "oldest_first"}
    others |= {"masked": "attended", "attended": "masked", "trimmed": "dropped"}
    others |= {"offset": "mod", "mod": "offset", "pmod": "mod", "abs": "mod"}
    others |= {"bytes": "bytes4", "bytes4": "bytes"}
    if key == "hash":
        is_spark = value == "murmur3_32_spark"
        yield "xxh3_64" if value == "xxh64" else "xxh64"
        if is_spark and is_text:
            yield "murmur3_32"
    elif key == "seed":
        if one["encoder"]["hash"] != "farmhash64":
            yield [str((int(value[0]) + 1) % 2**32), *value[1:]]
        if len(value) > 1:
            yield [value[0], "5"]
    elif key in ("order", "padding") and (
        one["kind"] == "lengths" or one["list"]["max_len"] == 2**31 - 1
    ):
        return
    elif key in ("order", "padding", "reduce"):
        yield others[value]
        if value == "pmod":
            yield "offset"
    elif key == "boundaries" and one["kind"] == "ids":
        is_float = one["columns"][0]["dtype"] == "float"
        for i, b in enumerate(value):
            for end in (-math.inf, math.inf) if is_float else ():
                yield [*value[:i], math.nextafter(b, end), *value[i + 1 :]]
    elif key in ("boundaries", "shift", "divisor", "missing") and is_constant(one):
        return
    elif key in ("boundaries", "shift", "divisor"):
        text = json.dumps(value)
        yield json.loads(text, parse_float=lambda x: float(x) * 1.01 + 0.01)
    elif key == "values":
        for i in range(len(value)):
            yield [*value[:i], "99", *value[i + 1 :]]
    elif key in ("buckets", "rows", "max_len") and value < 2**31 - 1:
        rule = one.get("encoder", {})
        if key != "rows" or (rule["type"], rule.get("unseen")) == ("identity", 0):
            yield value + 1
    elif key in ("missing", "unseen") and value is not None:
        yield value + 1
    elif key in ("mask_value", "pad_value", "length_column") and value is not None:
        yield None
    elif key == "pad_inside" and one["list"]["pad_value"] is not None:
        yield "dropped" if value == "kept" else "kept"
    elif key == "prefix" and not one["encoder"]["together"]:
        yield f"{value}x"
    elif key == "alternate_sign" and one["encoder"]["reduce"] == "abs":
        yield not value
    elif key in ("hashed_as", "uuid_as"):
        yield {"bytes": "text"}.get(value, "bytes")
        if key == "hashed_as" and value == "bytes":
            yield "bytes4"
    elif key == "text" and value:
        yield {"separator": "#"} if "separator" in value else {"separator": ","}


def is_constant(one: Spec) -> bool:
    scale = one["scale"] or {}
    return scale.get("divisor") == [0.0] or scale.get("boundaries") == [[2.0]]


def mistakes(one: Spec) -> Iterator[tuple[str, Spec]]:
    """Yield an input of inputs.json with one thing wrong, and what it is."""
    parts = {"encoder": one.get("encoder"), "list": one.get("list"), "": one}
    parts["scale"] = one.get("scale")
    for name, part in parts.items():
        for key, value in (part or {}).items():
            for other in otherwise(key, value, one):
                wrong = copy.deepcopy(one)
                (wrong[name] if name else wrong)[key] = other
                yield f"{key}: {value} -> {other}", wrong
    if one["kind"] == "lengths":
        for other in otherwise("text", one["list"]["first_column"].get("text"), one):
            wrong = copy.deepcopy(one)
            wrong["list"]["first_column"]["text"] = other
            yield "text", wrong
    for i, column in enumerate(one.get("columns", ())):
        for key in ("hashed_as", "uuid_as", "text"):
            for other in otherwise(key, column[key], one) if key in column else ():
                wrong = copy.deepcopy(one)
                wrong["columns"][i][key] = other
                yield f"{key}: {column[key]} -> {other}", wrong


def is_found(one: Spec, vectors: list[Spec]) -> bool:
    for vector in vectors:
        right = vector["inputs"][one["name"]]
        try:
            made = page_encoder.encode({"inputs": [one]}, vector)[one["name"]]
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return True
        if list(made.shape) != right["shape"] or made.ravel().tolist() != right["data"]:
            return True
    return False


@pytest.mark.parametrize("name", HARD)
def test_vectors_find_every_mistake(name: str, folders: Callable[[str], Path]) -> None:
    about, vectors = read(folders(name))
    missed, count = [], 0
    for one in about["inputs"][:-1]:
        assert not is_found(one, vectors)
        for what, wrong in mistakes(one):
            count += 1
            if not is_found(wrong, vectors):
                missed.append((one["name"], what))
    assert count > 10
    assert missed == []


def _signed(h: int, e: Spec) -> int:
    right = page_encoder.signed(h, 64)
    n = e["buckets"] - (e["reduce"] == "offset")
    return int(math.fmod(right, n)) + (e["reduce"] == "offset")


def _as(change: Callable[[str], bytes]) -> Callable[..., bytes]:
    right = page_encoder.key_of

    def wrong(value: Any, c: Spec) -> bytes:  # noqa: ANN401
        is_text = isinstance(value, str) and c["dtype"] == "string"
        return change(value) if is_text else right(value, c)

    return wrong


def _through_double(value: Any, c: Spec) -> bytes:  # noqa: ANN401
    if c["dtype"] == "int64":
        value = str(int(float(value)))
    return _RIGHT.key_of(value, c)


def _left(lists: list[list[int]], part: Spec) -> np.ndarray[Any, Any]:
    out = _RIGHT.padded(lists, part)
    for row, ids in enumerate(lists):
        out[row] = np.roll(out[row], out.shape[1] - len(ids))
    return out


def _without_nulls(value: Any, c: Spec) -> list[Any]:  # noqa: ANN401
    return [v for v in _RIGHT.split(value, c) if v is not None]


def _at_least_one(lists: list[list[int]], part: Spec) -> np.ndarray[Any, Any]:
    return _RIGHT.padded(lists if any(lists) else [ids or [0] for ids in lists], part)


def _no_infinity(x: float, k: int, scale: Spec | None) -> float:
    y = _RIGHT.scaled(x, k, scale)
    return min(max(y, -3e38), 3e38)


def _in_float32(x: float, k: int, scale: Spec | None) -> float:
    narrow = page_encoder.to_float32(x)
    return _RIGHT.scaled(float(narrow) if np.isfinite(narrow) else x, k, scale)


class _RIGHT:
    key_of = staticmethod(page_encoder.key_of)
    padded = staticmethod(page_encoder.padded)
    split = staticmethod(page_encoder.split)
    scaled = staticmethod(page_encoder.scaled)


def _normal(text: str) -> bytes:
    return unicodedata.normalize("NFC", text).encode()


def _of_pairs(text: str) -> bytes:
    """UTF-8 of each half of a surrogate pair, as Java's modified UTF-8 has it."""
    raw = text.encode("utf-16-le")
    halves = [int.from_bytes(raw[i : i + 2], "little") for i in range(0, len(raw), 2)]
    return "".join(map(chr, halves)).encode("utf-8", "surrogatepass")


WRONG: dict[str, tuple[str, str, Any]] = {
    "a signed hash": ("hashes", "reduced", _signed),
    "UTF-16": ("hashes", "key_of", _as(lambda t: t.encode("utf-16-le"))),
    "surrogates": ("hashes", "key_of", _as(_of_pairs)),
    "normalized": ("hashes", "key_of", _as(_normal)),
    "trimmed": ("hashes", "key_of", _as(lambda t: t.strip().encode())),
    "lower case": ("hashes", "key_of", _as(lambda t: t.lower().encode())),
    "an end of text": (
        "hashes",
        "key_of",
        _as(lambda t: t.partition("\0")[0].encode()),
    ),
    "doubles": ("hashes", "key_of", _through_double),
    "the oldest": ("lists", "newest", lambda kept, part: kept[: part["max_len"]]),
    "all": ("lists", "newest", lambda kept, _: kept),
    "padding on the left": ("lists", "padded", _left),
    "no nulls": ("lists", "split", _without_nulls),
    "T of 1": ("lists", "padded", _at_least_one),
    "clipped": ("dense", "scaled", _no_infinity),
    "float32": ("dense", "scaled", _in_float32),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_vectors_find_the_usual_mistakes(
    mistake: str, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, function, wrong = WRONG[mistake]
    about, vectors = read(folders(name))
    monkeypatch.setattr(page_encoder, function, wrong)
    assert any(is_found(one, vectors) for one in about["inputs"])
