"""Write what TensorFlow, Keras, DeepCTR and Vowpal Wabbit make of keys.

In an environment of its own::

    pip install tensorflow-cpu==2.21.0 keras==3.15.1 vowpalwabbit==9.11.9
    pip install --no-deps deepctr==0.9.4
    python tests/peers/make_hashes.py

DeepCTR as a whole does not import beside Keras 3, so its layer is run alone.
"""

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import vowpalwabbit

STRINGS = [
    "", "0", "7", "00", "a", "ab", "abc", "abcd", "goods_1", "goods_1234567", "käse",
    "日本🙂", "-5", "0.0", "00012", "12a", *("x" * n for n in range(8, 40)), "y" * 300,
]  # fmt: skip
INTEGERS = [0, 1, -1, 7, 42, -500, 2**31 - 1, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63)]
KEYS = [[0, 0], [1, 2], [133, 137], [2**63 - 1, 12345678901234567]]
SIZES = [3, 1000, 2**31 - 1]
GOLDEN = Path(__file__).parents[1] / "golden_peers.json"
NAMESPACES = ["", "user", "item", "12"]


def listed(found: Any) -> list[int]:  # noqa: ANN401
    return np.asarray(found).ravel().tolist()


def deepctr_hash() -> Any:  # noqa: ANN401
    """DeepCTR's layer `Hash`, from its file, as it is."""
    spec = importlib.util.find_spec("deepctr")
    folder = Path(spec.submodule_search_locations[0])  # type: ignore[union-attr,index]
    tree = ast.parse((folder / "layers" / "utils.py").read_text())
    tree.body = [n for n in tree.body if getattr(n, "name", "") == "Hash"]
    names: dict[str, Any] = {"tf": tf, "Layer": keras.layers.Layer}
    exec(compile(tree, "utils.py", "exec"), names)
    return names["Hash"]


def main() -> None:
    integers = np.array(INTEGERS, np.int64)
    hashing = keras.layers.Hashing
    deepctr = deepctr_hash()
    found: list[dict[str, Any]] = []

    def add(system: str, keys: list[Any], ids: Any, **how: Any) -> None:  # noqa: ANN401
        name = "strings" if keys is STRINGS else "integers"
        found.append({"system": system, **how, "keys": name, "ids": listed(ids)})

    for n in SIZES:
        for key in KEYS:
            ids = tf.strings.to_hash_bucket_strong(STRINGS, n, key)
            add("to_hash_bucket_strong", STRINGS, ids, n=n, key=key)
            add("Hashing", STRINGS, hashing(n, salt=key)(STRINGS), n=n, salt=key)
            ids = hashing(n, salt=key)(integers)
            add("Hashing", INTEGERS, ids, n=n, salt=key)
        add("Hashing", STRINGS, hashing(n, salt=133)(STRINGS), n=n, salt=133)
        for mask in ("", "abc", "goods_1", "not there"):
            ids = hashing(n, mask_value=mask)(STRINGS)
            add("Hashing", STRINGS, ids, n=n, mask_value=mask)
            ids = hashing(n, mask_value=mask, salt=[1, 2])(STRINGS)
            add("Hashing", STRINGS, ids, n=n, mask_value=mask, salt=[1, 2])
        for number in (0, -1, 42, 8):
            ids = hashing(n, mask_value=number)(integers)
            add("Hashing", INTEGERS, ids, n=n, mask_value=number)
        for mask_zero in (False, True):
            layer = deepctr(n, mask_zero=mask_zero)
            ids = layer.call(tf.constant(STRINGS))
            add("DeepCTR", STRINGS, ids, n=n, mask_zero=mask_zero)
            add("DeepCTR", INTEGERS, layer.call(integers), n=n, mask_zero=mask_zero)
    for mode in ("strings", "all"):
        model = vowpalwabbit.Workspace(f"--quiet -b 24 --hash {mode}")
        for namespace in NAMESPACES:
            seed = model.hash_space(namespace)
            for prefix in ("", "user="):
                ids = [model.hash_feature(prefix + k, seed) for k in STRINGS]
                how = {"mode": mode, "seed": seed, "n": 2**24, "prefix": prefix}
                add("Vowpal Wabbit", STRINGS, ids, **how)
    lines = ",\n".join(json.dumps(line, separators=(",", ":")) for line in found)
    keys = {"strings": STRINGS, "integers": INTEGERS}
    text = f'{json.dumps(keys, ensure_ascii=False)[:-1]},\n"found": [\n{lines}\n]}}\n'
    GOLDEN.write_text(text)


if __name__ == "__main__":
    main()
