import copy
import json
import pickle
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from din_infer import FeatureSpec, ModelError
from din_infer.spec import Attention, Encoder, Input
from din_infer.version import __version__
from tests.models import SPECS, spec_dict

DESIGN = """
format = 1
label = "label"
group = "user_id"

[[user]]
name = "user_id"
dtype = "string"
dim = 16
encoder = { type = "hash", buckets = 100_000, hash = "xxh64", seed = 42 }

[[candidate]]
name = "goods_id"
dtype = "string"
dim = 32
encoder = { type = "hash", buckets = 200_000 }
[[candidate]]
name = "cate_id"
dtype = "int64"
dim = 32
encoder = { type = "identity", buckets = 1_000, unseen = "error" }

[[behavior]]
name = "history"
max_len = 50
order = "oldest_first"
fields = { hist_goods_id = "goods_id", hist_cate_id = "cate_id" }

[[multi_hot]]
name = "tags"
side = "user"
dim = 8
pooling = "mean"
max_len = 20
encoder = { type = "vocab", values = ["new", "sale", "vip"] }

[[dense]]
name = "price"
side = "candidate"
dim = 1
missing = 0.0

[model]
attention = { hidden = [80, 40], activation = "dice", softmax = false, \
interactions = ["difference", "product"] }
tower = { hidden = [200, 80], activation = "dice" }

[calibration]
scale = 1.0
offset = 0.0
"""


@pytest.fixture
def design(tmp_path: Path) -> FeatureSpec:
    path = tmp_path / "features.toml"
    path.write_text(DESIGN)
    return FeatureSpec.load(path)


def test_inputs_follow_the_fields(design: FeatureSpec) -> None:
    of_history, of_tags = {"lengths": "history.lengths"}, {"lengths": "tags.lengths"}
    assert design.inputs == (
        Input("user_id", "int64", ("B",), 100_000),
        Input("goods_id", "int64", ("N",), 200_000),
        Input("cate_id", "int64", ("N",), 1_000),
        Input("hist_goods_id", "int64", ("B", "history.T"), 200_000, **of_history),
        Input("hist_cate_id", "int64", ("B", "history.T"), 1_000, **of_history),
        Input("history.lengths", "int64", ("B",)),
        Input("tags", "int64", ("B", "tags.T"), 5, **of_tags),
        Input("tags.lengths", "int64", ("B",)),
        Input("price", "float32", ("N", 1)),
        Input("request_of_candidate", "int64", ("N",)),
    )


def test_tables_are_shared_with_the_pair(design: FeatureSpec) -> None:
    assert list(design.tables) == ["user_id", "goods_id", "cate_id", "tags"]
    sequence = design.behavior[0]
    assert [f.table for f in sequence.fields] == ["goods_id", "cate_id"]
    assert sequence.query == (("goods_id", 32), ("cate_id", 32))
    assert sequence.attention == Attention()
    assert design.user[0].encoder == Encoder("hash", 100_000, seed=42)


def test_columns_are_listed_once_in_order(design: FeatureSpec) -> None:
    assert design.columns == (
        "user_id",
        "goods_id",
        "cate_id",
        "hist_goods_id",
        "hist_cate_id",
        "tags",
        "price",
    )


@pytest.mark.parametrize("name", SPECS)
def test_json_is_a_round_trip(name: str, tmp_path: Path) -> None:
    spec = FeatureSpec.from_dict(SPECS[name])
    again = FeatureSpec.from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.inputs == spec.inputs
    assert again.tower_inputs == spec.tower_inputs
    (tmp_path / "spec.json").write_text(spec.to_json())
    assert FeatureSpec.load(tmp_path / "spec.json") == spec


def test_a_spec_pickles_after_it_has_encoded() -> None:
    spec = FeatureSpec.from_dict(SPECS["candidate only"])
    spec.encode([{"goods_id": 3}])
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_a_spec_and_its_source_do_not_share_state() -> None:
    raw = spec_dict()
    spec = FeatureSpec.from_dict(raw)
    raw["candidate"][0]["name"] = "other"
    spec.to_dict()["candidate"][0]["name"] = "another"
    assert (
        spec.candidate[0].name == spec.to_dict()["candidate"][0]["name"] == "goods_id"
    )


def test_files_are_read_beside_the_spec_and_kept_inside(tmp_path: Path) -> None:
    words = "\ufeffnew\r\na\u2028b\nüber\n"
    (tmp_path / "words.txt").write_bytes(words.encode())
    (tmp_path / "numbers.txt").write_text("7\n-3\n")
    (tmp_path / "brands.txt").write_text("\n4 5\n1\n")
    raw = {
        "format": 1,
        "candidate": [
            {
                "name": "goods_id",
                "dim": 4,
                "encoder": {"type": "identity", "buckets": 3},
            },
            {
                "name": "word",
                "dim": 4,
                "encoder": {"type": "vocab", "values_file": "words.txt"},
            },
            {
                "name": "number",
                "dtype": "int64",
                "dim": 4,
                "encoder": {"type": "vocab", "values_file": "numbers.txt"},
            },
        ],
        "derived": [
            {
                "name": "brand",
                "from": "goods_id",
                "dim": 2,
                "encoder": {"type": "identity", "buckets": 9},
                "lookup_file": "brands.txt",
            }
        ],
    }
    (tmp_path / "spec.json").write_text(json.dumps(raw))
    spec = FeatureSpec.load(tmp_path / "spec.json")
    assert spec.candidate[1].encoder.values == ("new", "a\u2028b", "über")
    assert spec.candidate[2].encoder.values == (7, -3)
    assert spec.derived[0].lookup == ((), (4, 5), (1,))
    assert "_file" not in spec.to_json()
    with pytest.raises(ModelError, match="since only a spec file may name files"):
        FeatureSpec.from_json(json.dumps(raw))
    assert FeatureSpec.from_json(spec.to_json()) == spec
    (tmp_path / "words.txt").unlink()
    with pytest.raises(ModelError, match=r"at `candidate\[1\].encoder.values_file`"):
        FeatureSpec.load(tmp_path / "spec.json")


def _set(*path: Any) -> Any:  # noqa: ANN401
    *where, key, value = path

    def change(raw: dict[str, Any]) -> None:
        place: Any = raw
        for step in where:
            place = place[step]
        if value is ...:
            del place[key]
        else:
            place[key] = value

    return change


TWICE = [{"name": "age", "dim": 1, "encoder": {"type": "identity", "buckets": 2}}] * 2
FAULTS = {
    "expected a whole number, got nothing - at `format`": _set("format", ...),
    f"expected format 1, which din-infer {__version__} reads, got 2 - at `format`."
    " Run: pip install --upgrade din-infer.": _set("format", 2),
    "expected at least one candidate field, got none - at `candidate`": lambda r: (
        r.update(candidate=[], behavior=[])
    ),
    "expected a list of tables, got {'name': 'x'} - at `user`": _set(
        "user", {"name": "x"}
    ),
    "expected a name not used before (`user[0].name` has it), got 'age'"
    " - at `user[1].name`": _set("user", TWICE),
    "expected a name without '.', '[', ']' or blanks around it, got 'a.b'"
    " - at `user[0].name`. Give the field a plain name and set `column` to the"
    " column's own.": _set("user", 0, "name", "a.b"),
    **{
        f"expected a name without line ends and other control characters, got {name!r}"
        " - at `user[0].name`. Give the field a plain name and set `column` to the"
        " column's own.": _set("user", 0, "name", name)
        for name in ("a\nb", "a\0b", "a\x1bb", "a\x7fb", "a\x85b")
    },
    "expected a name that is not reserved, got 'score' - at `user[0].name`": _set(
        "user", 0, "name", "score"
    ),
    "expected a positive whole number below 2**31, got 0 - at `user[0].dim`": _set(
        "user", 0, "dim", 0
    ),
    "expected a positive whole number below 2**31, got True - at `user[0].dim`": _set(
        "user", 0, "dim", True
    ),
    "expected a table, got nothing - at `user[0].encoder`": _set(
        "user", 0, "encoder", ...
    ),
    "expected one of hash, vocab, identity, bucketize, got 'hsh'"
    " - at `user[0].encoder.type`": _set("user", 0, "encoder", "type", "hsh"),
    "expected one of xxh64, xxh3_64, murmur3_32, farmhash64, siphash24,"
    " murmur3_32_spark, murmur3_32_vw, got 'md5'"
    " - at `user[0].encoder.hash`": _set("user", 0, "encoder", "hash", "md5"),
    "expected one of offset, mod, pmod, abs, got 'x' - at"
    " `user[0].encoder.reduce`": _set("user", 0, "encoder", "reduce", "x"),
    "expected at least 2, got 1 - at `user[0].encoder.buckets`": _set(
        "user", 0, "encoder", "buckets", 1
    ),
    "expected a seed in [0, 2**64), got -1 - at `user[0].encoder.seed`": _set(
        "user", 0, "encoder", "seed", -1
    ),
    "expected one of the keys type, buckets, reduce, hash, seed, alternate_sign,"
    " prefix, mask_value, int_as, uuid_as, got 'bucket'"
    " - at `user[0].encoder`": _set("user", 0, "encoder", "bucket", 3),
    "expected dtype int64 for a identity encoder, got 'string'"
    " - at `candidate[1].encoder`": _set("candidate", 1, "dtype", "string"),
    "expected rising finite numbers, got [1.0, 1.0]"
    " - at `user[1].encoder.boundaries`": (
        _set("user", 1, "encoder", "boundaries", [1.0, 1.0])
    ),
    "expected each value once, got 'view' twice"
    " - at `behavior[0].fields.action.encoder.values`."
    " It is value 1 and value 3: of a file, these lines.": _set(
        "behavior", 0, "fields", "action", "encoder", "values", ["view", "buy", "view"]
    ),
    "expected a value of dtype string, got 3"
    " - at `behavior[0].fields.action.encoder.values[1]`": _set(
        "behavior", 0, "fields", "action", "encoder", "values", ["view", 3]
    ),
    "expected a candidate field (goods_id, cate_id), got 'good_id'"
    " - at `behavior[0].fields.hist_goods_id.pairs`": _set(
        "behavior", 0, "fields", "hist_goods_id", "good_id"
    ),
    "expected dim 8, as `goods_id` has, got 7"
    " - at `behavior[0].fields.hist_goods_id`": _set(
        "behavior",
        0,
        "fields",
        "hist_goods_id",
        {"pairs": "goods_id", "dim": 7, "encoder": {"type": "hash", "buckets": 9}},
    ),
    "expected at least one column, got none - at `behavior[0].fields`": _set(
        "behavior", 0, "fields", {}
    ),
    "expected candidate fields of width 15 in all, as the fields have, got 8"
    " - at `behavior[0].query`": _set("behavior", 0, "query", ["goods_id"]),
    "expected a positive whole number below 2**31, got nothing"
    " - at `behavior[0].max_len`": _set("behavior", 0, "max_len", ...),
    "expected one of oldest_first, newest_first, got 'new' - at `behavior[0].order`": (
        _set("behavior", 0, "order", "new")
    ),
    'expected `pad_inside = "dropped"` or `length_column`, got both'
    " - at `behavior[0].length_column`": lambda r: r["behavior"][0].update(
        pad_value="", pad_inside="dropped", length_column="n"
    ),
    "expected a value of dtype string, got 0 - at `behavior[0].pad_value`": _set(
        "behavior", 0, "pad_value", 0
    ),
    "expected a `pad_value` to drop, got none - at `behavior[0].pad_inside`": _set(
        "behavior", 0, "pad_inside", "dropped"
    ),
    "expected one of the keys name, shares, dtype, encoder, dim, padding_row, columns,"
    " column, side, pooling, empty, separator, format, pad_value, pad_inside,"
    " length_column, max_len, padding, got 'color' - at `multi_hot[0]`": _set(
        "multi_hot", 0, "color", 1
    ),
    "expected one of sum, mean, max, got nothing - at `multi_hot[0].pooling`": _set(
        "multi_hot", 0, "pooling", ...
    ),
    "expected one of user, candidate, got 'item' - at `dense[0].side`": _set(
        "dense", 0, "side", "item"
    ),
    "expected a finite number, got nan - at `dense[0].missing`": _set(
        "dense", 0, "missing", float("nan")
    ),
    "expected one of dice, row_dice, prelu, relu, sigmoid, silu, none, got 'gelu'"
    " - at `model.attention.activation`": _set(
        "model", "attention", "activation", "gelu"
    ),
    "expected one of difference, product, outer, each once, got 'sum'"
    " - at `model.attention.interactions[0]`": _set(
        "model", "attention", "interactions", ["sum"]
    ),
    "expected a list of sizes, each a positive whole number, got [0]"
    " - at `model.tower.hidden`": _set("model", "tower", "hidden", [0]),
    "expected one of user_id, age, goods_id, cate_id, tags, interests, price, profile,"
    " history, got 'x' - at `model.tower.inputs[0]`": _set(
        "model", "tower", "inputs", ["x"]
    ),
    "expected a slice [a:b] with 0 <= a < b <= 15, got 'history[0:16]'"
    " - at `model.tower.inputs[0]`": _set(
        "model", "tower", "inputs", ["history[0:16]"]
    ),
    "expected query, product or a field of the sequence after the dot, got"
    " 'history.keys' - at `model.tower.inputs[0]`": _set(
        "model", "tower", "inputs", ["history.keys"]
    ),
    "expected a number in [0, 1), got 1 - at `model.tower.dropout`": _set(
        "model", "tower", "dropout", 1
    ),
    "expected a positive number, got inf - at `calibration.scale`": _set(
        "calibration", {"scale": float("inf")}
    ),
    "expected a user or candidate field (user_id, age, goods_id, cate_id), got 'x'"
    " - at `derived[0].from`": _set("derived", [{"name": "brand", "from": "x"}]),
    "expected 50 entries, one per id of the source, got 1"
    " - at `derived[0].lookup`": _set(
        "derived",
        [
            {
                "name": "brand",
                "from": "cate_id",
                "dim": 2,
                "encoder": {"type": "identity", "buckets": 3},
                "lookup": [1],
            }
        ],
    ),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_wrong_spec_names_the_place(message: str) -> None:
    raw = copy.deepcopy(spec_dict())
    FAULTS[message](raw)
    with pytest.raises(ModelError) as caught:
        FeatureSpec.from_dict(raw)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "change",
    [
        _set("calibration", {"scale": 10**400}),
        _set("user", 1, "encoder", "boundaries", [0, 10**400]),
        _set("behavior", 0, "pad_value", "\ud800"),
        _set("multi_hot", 0, "pad_value", 2**70),
        _set("behavior", 0, "fields", "action", "encoder", "values", ["\ud800"]),
        _set("behavior", 0, "fields", {1: "goods_id"}),
        _set("label", "\ud800"),
    ],
)
def test_values_that_cannot_be_used_are_refused_when_read(change: Any) -> None:  # noqa: ANN401
    raw = copy.deepcopy(spec_dict())
    change(raw)
    with pytest.raises(ModelError, match=r"^expected "):
        FeatureSpec.from_dict(raw)


def test_endless_nesting_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(ModelError, match="endless nesting"):
        FeatureSpec.from_dict(spec_dict(label=nested))


def test_unknown_keys_at_the_top_are_named() -> None:
    raw = spec_dict(behaviour=[])
    with pytest.raises(ModelError, match=r"got 'behaviour' - at `spec`"):
        FeatureSpec.from_dict(raw)


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("a.toml", "format = ", "expected TOML, got "),
        ("a.json", "{", "expected JSON, got "),
        ("a.json", "[" * 100_000, "expected JSON, got "),
        ("a.json", "[1]", "expected a table, got "),
        ("a.toml", None, "expected a readable file, got "),
    ],
)
def test_files_that_are_no_spec_are_refused(
    name: str, text: str | None, rule: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError) as caught:
        FeatureSpec.load(tmp_path / name)
    assert str(caught.value).startswith(rule)


def test_a_spec_of_wrong_json_types_never_raises_anything_else() -> None:
    """Replace every value of a rich spec by odd ones: a ModelError or a spec."""
    raw = spec_dict()

    def places(value: Any, path: tuple[Any, ...] = ()) -> Any:  # noqa: ANN401
        yield path
        if isinstance(value, dict):
            for k, v in value.items():
                yield from places(v, (*path, k))
        if isinstance(value, list):
            for i, v in enumerate(value):
                yield from places(v, (*path, i))

    refused = 0
    for path in places(raw):
        if not path:
            continue
        for odd in (None, 0, -1, 1.5, "x", "", [], {}, [None], {"a": 1}, True, [[]]):
            changed = copy.deepcopy(raw)
            _set(*path, odd)(changed)
            try:
                FeatureSpec.from_dict(changed)
            except ModelError:
                refused += 1
    assert refused > 500


def test_vocabularies_take_every_kind_of_text_and_integer() -> None:
    strings = list(np.array(["a", "b"]))
    ints = [IntEnum("Action", ["view", "buy"]).view, 7]
    for dtype, values, known in (
        ("string", strings, ["b", "a"]),
        ("int64", ints, [7, 1]),
        ("int64", ("7", "-8"), [-8, 7]),
    ):
        encoder = {"type": "vocab", "values": values}
        field = {"name": "g", "dtype": dtype, "dim": 2, "encoder": encoder}
        spec = FeatureSpec.from_dict({"format": 1, "candidate": [field]})
        assert spec.encode({"g": known})["g"].tolist() == [2, 1]
        again = FeatureSpec.from_json(spec.to_json())
        assert again.encode({"g": known})["g"].tolist() == [2, 1]
