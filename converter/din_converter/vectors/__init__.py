"""Test vectors: raw rows, what they are encoded to, and their scores.

`docs/without-python.md` has the rules that a client in another language follows. It
tests itself with three files: `spec.json`, the model's spec; `inputs.json`, what each
input of the graph is made of, with every default of the spec filled in; and
`vectors.jsonl`, one batch per line.
"""

from din_converter.vectors.batches import Vector
from din_converter.vectors.files import decoded, write_vectors
from din_converter.vectors.inputs import inputs_of_spec
from din_converter.vectors.make import make_vectors

__all__ = ["Vector", "decoded", "inputs_of_spec", "make_vectors", "write_vectors"]
