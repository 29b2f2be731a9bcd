"""The parser of specs in C, key by key: what it refuses, and the last that it takes.

Python's parser, which reads the same specs, must refuse and take the same. Above 400
lines: a table of what is refused.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from din_infer import FeatureSpec
from din_infer.errors import DinError
from tests.c_abi import Refused, Spec

ROOT = Path(__file__).resolve().parents[1]
LINES = (ROOT / "fuzz" / "specs.jsonl").read_text(encoding="utf-8").splitlines()
SPECS = [json.loads(line) for line in LINES]
Json = Any

# Of these only the graph is made.
GRAPH = {"dim", "padding_row", "query", "pooling", "empty", "project", "weights"}


def refusal(spec: Json) -> str:
    """What C says of a spec; nothing where it takes it."""
    try:
        Spec(json.dumps(spec)).close()
    except Refused as error:
        return str(error)
    return ""


def python_takes(spec: Json) -> bool:
    try:
        FeatureSpec.from_dict(spec)
    except DinError:
        return False
    return True


def tables(json: Json, place: str = "") -> Iterator[tuple[str, dict[str, Json]]]:
    """All tables of a spec and where errors say that they stand."""
    if isinstance(json, dict):
        if not place.endswith("fields"):
            yield place, json
        for key, value in json.items():
            inside = place.removesuffix(".fields")
            yield from tables(value, f"{inside}.{key}" if inside else key)
    if isinstance(json, list):
        for i, value in enumerate(json):
            many = place.endswith(".columns")
            yield from tables(value, place if many else f"{place}[{i}]")


@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
def test_a_key_that_nobody_knows_is_refused_in_every_table(spec: Json) -> None:
    assert refusal(spec) == ""
    places = []
    for place, table in tables(spec):
        table["newer"] = 1
        where = f"{place}.newer" if place else "newer"
        rule = "expected a key that this version knows, got something else"
        assert refusal(spec) == f"{rule} - at `{where}`"
        assert not python_takes(spec)
        del table["newer"]
        places.append(place)
    assert len(places) >= 3


# ----------------------------------------------------------- values, one at a time

HASH = {"type": "hash", "buckets": 9}
IDENTITY = {"type": "identity", "buckets": 9}


def user(encoder: Json = HASH, **more: Json) -> Json:
    return {"user": [{"name": "u", "dim": 1, "encoder": encoder, **more}]}


def hashed(dtype: str = "string", **more: Json) -> Json:
    return user({**HASH, **more}, dtype=dtype)


def words(dtype: str = "string", **more: Json) -> Json:
    return user({"type": "vocab", **more}, dtype=dtype)


def edges(**more: Json) -> Json:
    return user({"type": "bucketize", **more})


def scaled(dim: int = 1, **scale: Json) -> Json:
    return {"dense": [{"name": "d", "side": "user", "dim": dim, "scale": scale}]}


def lists(**more: Json) -> Json:
    fields = {"a": {"dim": 1, "encoder": HASH}}
    return {"behavior": [{"name": "b", "max_len": 3, "fields": fields, **more}]}


def shared(**more: Json) -> Json:
    """A field that shares the table of one of two columns."""
    first = {"name": "w", "dim": 1, "columns": ["x", "y"], "encoder": HASH}
    return {"user": [first, {"name": "v", "shares": "w", **more}]}


# By the place that the error names: what it says, and of which spec.
REFUSED: dict[str, list[tuple[str, Json]]] = {
    "user[0].encoder.buckets": [
        ("at least 2, got something else", hashed(buckets=1)),
        ("a positive whole number below 2**31, got 0", hashed(buckets=0)),
        ("a positive whole number below 2**31, got 2147483648", hashed(buckets=2**31)),
        ("a positive whole number below 2**31, got 2.5", hashed(buckets=2.5)),
        (
            "a positive whole number below 2**31, got something else",
            user({"type": "hash"}),
        ),
    ],
    "user[0].encoder.seed": [
        ("a seed that the hash takes, got 18446744073709551616", hashed(seed=2**64)),
        ("a seed that the hash takes, got -1", hashed(seed=-1)),
        (
            "a seed that the hash takes, got 4294967296",
            hashed(hash="murmur3_32", seed=2**32),
        ),
        (
            "a seed that the hash takes, got 4294967296",
            hashed(hash="murmur3_32_spark", seed=2**32),
        ),
        (
            "a seed that the hash takes, got 4294967296",
            hashed(hash="murmur3_32_vw", seed=2**32),
        ),
        ("a seed that the hash takes, got 1", hashed(hash="farmhash64", seed=1)),
        ("a list of two whole numbers, got something else", hashed(hash="siphash24")),
        (
            "a list of two whole numbers, got a list",
            hashed(hash="siphash24", seed=[1, 2, 3]),
        ),
        ("a seed that the hash takes, got -2", hashed(hash="siphash24", seed=[1, -2])),
        ("a list of two whole numbers, got 7", hashed(hash="siphash24", seed=7)),
    ],
    "user[0].encoder.alternate_sign": [
        (
            '`reduce = "abs"`, below 2**30 buckets, got something else',
            hashed(alternate_sign=True, reduce="mod"),
        ),
        (
            '`reduce = "abs"`, below 2**30 buckets, got something else',
            hashed(alternate_sign=True, reduce="abs", buckets=2**30),
        ),
        ("true or false, got 1", hashed(alternate_sign=1)),
    ],
    "user[0].encoder.prefix": [
        (
            "at most 1000 characters, got something else",
            hashed(prefix="\u00e9" * 1001),
        ),
        ("a string, got 7", hashed(prefix=7)),
    ],
    "user[0].encoder.int_as": [
        ("text, got something else", hashed("int64", prefix="p")),
        ("text, got something else", hashed("int64", hash="murmur3_32_vw")),
        ("one of bytes, text, bytes4, got 'x'", hashed("int64", int_as="x")),
    ],
    "user[0].encoder.mask_value": [
        ("a value of the field's dtype, got 7", hashed(mask_value=7)),
        ("a value of the field's dtype, got 'x'", hashed("int64", mask_value="x")),
        (
            "a value of the field's dtype, got 9223372036854775808",
            hashed("int64", mask_value=2**63),
        ),
        ("a value of the field's dtype, got 1.0", hashed("float", mask_value=1.0)),
    ],
    "user[0].encoder.values": [
        ("a list, got something else", words()),
        ("values of the field's dtype, got 7", words(values=["a", 7])),
        (
            "values of the field's dtype, got 9223372036854775808",
            words("int64", values=[2**63]),
        ),
        ("values of the field's dtype, got 'a'", words("int64", values=[1, "a"])),
        ("a list, got 0", words(values=0)),
    ],
    "user[0].dtype": [
        (
            "a dtype that the encoder reads, got something else",
            words("float", values=["a"]),
        ),
        (
            "a dtype that the encoder reads, got something else",
            user({"type": "bucketize", "boundaries": [0]}, dtype="string"),
        ),
        (
            "a dtype that the encoder reads, got something else",
            user(IDENTITY, dtype="string"),
        ),
        ("one of string, int64, float, got 'int32'", user(dtype="int32")),
    ],
    "user[0].encoder.unseen": [
        (
            "one of row, missing, error, got 'never'",
            words(values=["a"], unseen="never"),
        ),
        (
            "one of error, missing, got something else",
            user({**IDENTITY, "unseen": "row"}),
        ),
    ],
    "user[0].encoder.boundaries": [
        ("rising finite numbers, got 1", edges(boundaries=[1, 1])),
        (
            "fitted numbers, as din-train writes them into a model, got a table",
            user({"type": "bucketize", "boundaries": {"quantiles": 3}}),
        ),
        ("a list, got 3", edges(boundaries=3)),
        ("rising finite numbers, got 'a'", edges(boundaries=["a"])),
        ("a list, got something else", edges()),
    ],
    "user[0].encoder.type": [
        ("one of hash, vocab, identity, bucketize, got 'none'", user({"type": "none"})),
        (
            "one of hash, vocab, identity, bucketize, got 'hash'",
            user({**HASH, "type": "hash\0x"}),
        ),
    ],
    "user[0].encoder": [
        ("a table, got 7", user(7)),
        ("a table, got something else", {"user": [{"name": "u"}]}),
    ],
    "dense[0].scale.std": [
        (
            "a finite number that is not too low, got something else",
            scaled(type="standard", mean=0, std=-1),
        ),
    ],
    "dense[0].scale.max": [
        (
            "a finite number that is not too low, got something else",
            scaled(type="minmax", min=2, max=1),
        ),
        (
            "a finite number that is not too low, got something else",
            scaled(type="minmax", min=-1.7e308, max=1.7e308),
        ),
    ],
    "dense[0].scale.mean": [
        (
            "a finite number of each value, got a list",
            scaled(type="standard", mean=[0, 1], std=1),
        ),
        (
            "a finite number of each value, got a list",
            scaled(2, type="standard", mean=[0, "a"], std=[1, 1]),
        ),
        (
            "a finite number of each value, got 0",
            scaled(2, type="standard", mean=0, std=[1, 1]),
        ),
    ],
    "dense[0].scale.type": [
        ("one of standard, log1p, minmax, quantile, got 'cube'", scaled(type="cube")),
        ("a string, got something else", scaled(mean=0, std=1)),
    ],
    "dense[0].scale.boundaries": [
        (
            "fitted boundaries of each value, as din-train writes them,"
            " got something else",
            scaled(type="quantile"),
        ),
        (
            "fitted boundaries of each value, as din-train writes them, got a list",
            scaled(2, type="quantile", boundaries=[[1, 2]]),
        ),
        (
            "at least one number of each value, got a list",
            scaled(type="quantile", boundaries=[]),
        ),
        ("rising finite numbers, got 1", scaled(type="quantile", boundaries=[2, 1])),
        (
            "at least one number of each value, got a list",
            scaled(type="quantile", boundaries=[-1.7e308, 1.7e308]),
        ),
        ("a list of numbers, got 7", scaled(2, type="quantile", boundaries=[[1], 7])),
    ],
    "dense[0].scale": [
        (
            "a scale that float32 holds `missing` of, got something else",
            {
                "dense": [
                    {
                        "name": "d",
                        "side": "user",
                        "missing": 1e300,
                        "scale": {"type": "standard", "mean": 0, "std": 1e-5},
                    }
                ]
            },
        ),
    ],
    "dense[0].missing": [
        (
            "a finite number, got 'a'",
            {"dense": [{"name": "d", "side": "user", "missing": "a"}]},
        ),
        (
            "a number that float32 holds, got 3.5e+38",
            {"dense": [{"name": "d", "side": "user", "missing": 3.5e38}]},
        ),
        (
            "a number that float32 holds, got -3.5e+38",
            {
                "dense": [
                    {"name": "d", "side": "user", "missing": -3.5e38, "scale": "none"}
                ]
            },
        ),
    ],
    "dense[0].side": [
        ("one of user, candidate, got 'up'", {"dense": [{"name": "d", "side": "up"}]}),
        ("a string, got something else", {"dense": [{"name": "d"}]}),
    ],
    "dense[0].dim": [
        (
            "a positive whole number below 2**31, got 0",
            {"dense": [{"name": "d", "side": "user", "dim": 0}]},
        ),
    ],
    "user[0].columns": [
        (
            "as many columns as are hashed together, got something else",
            user(columns=[]),
        ),
        ("a string, got 1", user(columns=["a", 1])),
        (
            "a hash that can be seeded beside them, got something else",
            user(IDENTITY, columns=["a", "b"]),
        ),
        (
            "a hash that can be seeded beside them, got something else",
            user({**HASH, "prefix": "p"}, columns=["a", "b"]),
        ),
        (
            "a hash that can be seeded beside them, got something else",
            user({**HASH, "hash": "farmhash64"}, columns=["a", "b"]),
        ),
        (
            "a hash that can be seeded beside them, got something else",
            user({**HASH, "alternate_sign": True, "reduce": "abs"}, columns=["a", "b"]),
        ),
        (
            "a hash that can be seeded beside them, got something else",
            user({**HASH, "mask_value": "x"}, columns=["a", "b"]),
        ),
        (
            "a hash that can be seeded beside them, got something else",
            user({**HASH, "hash": "siphash24", "seed": [1, 2]}, columns=["a", "b"]),
        ),
        (
            "a hash that can be seeded beside them, got something else",
            user({**HASH, "hash": "murmur3_32_vw"}, columns=["a", "b"]),
        ),
        ("a list, got 'a'", user(columns="a")),
    ],
    "user[1].name": [
        ("a name not used before, got 'u'", {"user": [user()["user"][0]] * 2}),
    ],
    "candidate[0].name": [
        (
            "a name not used before, got 'u'",
            {**user(), "candidate": user()["user"]},
        ),
    ],
    "dense[0].name": [
        (
            "a name not used before, got 'u'",
            {**user(), "dense": [{"name": "u", "side": "user"}]},
        ),
    ],
    "multi_hot[0].name": [
        (
            "a name not used before, got 'u'",
            {
                **user(),
                "multi_hot": [
                    {
                        "name": "u",
                        "side": "user",
                        "pooling": "sum",
                        "max_len": 3,
                        "dim": 1,
                        "encoder": HASH,
                    }
                ],
            },
        ),
    ],
    "behavior[0].b": [
        ("a name not used before, got 'b'", lists(fields={"b": {"encoder": HASH}})),
    ],
    "user[0].columns.dtype": [
        (
            "one of string, int64, float, got 'text'",
            user(columns=[{"column": "a", "dtype": "text"}]),
        ),
    ],
    "user[0].columns.column": [
        ("a string, got something else", user(columns=[{"dtype": "int64"}])),
    ],
    "user[1].columns": [
        ("columns, as the field it shares has, got something else", shared()),
        (
            "as many columns as are hashed together, got something else",
            shared(columns=["x"]),
        ),
        ("a string, got a table", shared(columns=["x", {"column": "y"}])),
        (
            "as many columns as are hashed together, got something else",
            {
                "user": [
                    {"name": "w", "dim": 1, "encoder": HASH},
                    {"name": "v", "shares": "w", "columns": ["a", "b"]},
                ]
            },
        ),
    ],
    "user[1].dtype": [
        (
            "the dtype of the shared table, got something else",
            shared(columns=["x", "y"], dtype="int64"),
        ),
    ],
    "user[1].encoder": [
        (
            "no encoder beside a shared table, got something else",
            shared(columns=["x", "y"], encoder=HASH),
        ),
    ],
    "behavior[0].pad_value": [
        ("a value of the field's dtype, got 7", lists(pad_value=7)),
    ],
    "behavior[0].max_len": [
        ("a positive whole number below 2**31, got 0", lists(max_len=0)),
    ],
    "behavior[0].padding": [
        ("one of masked, attended, got 'left'", lists(padding="left")),
    ],
    "behavior[0].pad_inside": [
        ("one of kept, dropped, got 'gone'", lists(pad_inside="gone")),
    ],
    "behavior[0].order": [
        ("one of oldest_first, newest_first, got 'random'", lists(order="random")),
    ],
    "behavior[0].fields": [
        ("at least one column, got something else", lists(fields={})),
        ("a table, got a list", lists(fields=[])),
    ],
    "behavior[0].length_column": [
        (
            "a string of at least one character, none of them 0, got ''",
            lists(length_column=""),
        ),
    ],
    "behavior[0].separator": [
        (
            "a string of at least one character, none of them 0, got ''",
            lists(separator=""),
        ),
    ],
    "behavior[0].format": [
        ("one of json, got 'csv'", lists(format="csv")),
    ],
    "behavior[0].empty_softmax": [
        ("one of zero, padding_row, got 'one'", lists(empty_softmax="one")),
    ],
    "behavior[0].a": [
        ("a table, got 7", lists(fields={"a": 7})),
    ],
    "behavior[0].a.shares": [
        ("an earlier field with a table, got something else", lists(fields={"a": "w"})),
    ],
    "behavior[0].name": [
        (
            "a string of at least one character, none of them 0, got 'a'",
            lists(name="a\0b"),
        ),
    ],
    "user": [
        ("a list, got a table", {"user": {}}),
    ],
    "user[0]": [
        ("a table, got 7", {"user": [7]}),
    ],
    "user[0].name": [
        ("a string, got something else", {"user": [{"encoder": HASH}]}),
        (
            "a string of at least one character, none of them 0, got ''",
            {"user": [{"name": "", "encoder": HASH}]},
        ),
        ("a string, got 7", {"user": [{"name": 7, "encoder": HASH}]}),
        (
            "a name that is not reserved, got 'request_of_candidate'",
            user(name="request_of_candidate"),
        ),
        ("a name without '.', '[' or ']', got 'b.lengths'", user(name="b.lengths")),
    ],
    "format": [
        ("a positive whole number below 2**31, got 1.5", {"format": 1.5}),
        ("a positive whole number below 2**31, got null", {"format": None}),
    ],
    "user[0].column": [
        ("a string, got 7", user(column=7)),
    ],
    "user[0].uuid_as": [
        ("a key that this version knows, got something else", user(uuid_as="x")),
    ],
    "user[0].encoder.uuid_as": [
        ("one of bytes, text, got 'x'", hashed(uuid_as="x")),
    ],
    "user[0].encoder.float_as": [
        ("one of bytes, bytes4, got 'text'", hashed("float", float_as="text")),
    ],
}
# Python fits the boundaries first, and looks at scales when it makes an encoder; texts
# in C end at a zero.
OTHERS = {"user[0].encoder.boundaries", "dense[0].scale.boundaries"}
OTHERS |= {"dense[0].scale", "behavior[0].name"}


@pytest.mark.parametrize("place", REFUSED)
def test_a_wrong_value_is_named(place: str) -> None:
    for said, made in REFUSED[place]:
        spec = {"format": 1, **made}
        assert refusal(spec) == f"expected {said} - at `{place}`"
        spec.setdefault("candidate", [{"name": "c", "dim": 1, "encoder": HASH}])
        assert place in OTHERS or not python_takes(spec)


# What lies just inside those limits, and each kind once.
TAKEN = [
    hashed(buckets=1, reduce="mod"),
    hashed(buckets=2),
    hashed(buckets=2**31 - 1),
    hashed(seed=2**64 - 1),
    hashed(hash="murmur3_32", seed=2**32 - 1),
    hashed(hash="farmhash64", seed=0),
    hashed(hash="siphash24", seed=[0, 2**64 - 1]),
    hashed(alternate_sign=True, reduce="abs", buckets=2**30 - 1),
    hashed(prefix="\u00e9" * 1000),
    hashed("int64", prefix="p", int_as="text"),
    hashed("int64", hash="murmur3_32_vw", int_as="text"),
    hashed("int64", mask_value=2**63 - 1),
    hashed("int64", mask_value=-(2**63)),
    words("int64", values=[2**63 - 1, -(2**63)]),
    edges(boundaries=[]),
    user({"type": "bucketize", "boundaries": [0]}, dtype="int64"),
    user({**IDENTITY, "unseen": "missing"}),
    scaled(type="standard", mean=0, std=0),
    scaled(type="minmax", min=1, max=1),
    scaled(type="standard", mean=[0], std=[1]),
    scaled(type="quantile", boundaries=[1]),
    scaled(2, type="quantile", boundaries=[[1], [2]]),
    user(columns=["a", {"column": "b", "dtype": "int64"}]),
    shared(columns=["p", "q"]),
    lists(pad_value=""),
    {"dense": [{"name": "d", "side": "user", "scale": "none"}]},
]


@pytest.mark.parametrize("spec", TAKEN)
def test_the_last_value_that_is_right_is_taken(spec: Json) -> None:
    spec = {"format": 1, **spec}
    assert refusal(spec) == ""
    spec.setdefault("candidate", [{"name": "c", "dim": 1, "encoder": HASH}])
    assert python_takes(spec)


def test_a_key_of_another_kind_is_refused_but_for_those_of_the_graph() -> None:
    """Each key of each spec in turn holds a list of a table, which none may."""
    taken = set()
    for spec in SPECS:
        for place, table in tables(spec):
            for key, value in list(table.items()):
                table[key] = [{"no": "such thing"}]
                said = refusal(spec)
                if not said:
                    taken.add(key)
                elif place:
                    assert f" - at `{place}" in said
                table[key] = value
    assert taken <= GRAPH
