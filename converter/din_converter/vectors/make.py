"""Vectors of a model, proven by reading again what is written of them."""

import json

import numpy as np

from din_converter.vectors.batches import Vector, score_batch, sides_of
from din_converter.vectors.draw import draw_batches
from din_converter.vectors.files import columns_of, decoded, written
from din_infer.errors import ConversionError
from din_infer.predictor import Predictor

__all__ = ["make_vectors"]


def make_vectors(predictor: Predictor) -> list[Vector]:
    """Draw raw rows for each part of a model's spec, and score them.

    Every encoder meets values on both sides of each of its rules; shapes are those that
    a client can get wrong. Rows that the spec refuses are left out.

    Raises
    ------
    ConversionError
        If the rows score otherwise once they are written and read again.
    """
    spec = predictor.spec
    found = []
    for name, rows, owners in draw_batches(predictor):
        if not rows:
            continue
        users, items = sides_of(spec, rows)
        if owners is not None:
            users, items = users[:3], (items * 7)[: len(owners)]
            owners = [owner % len(users) for owner in owners]
        owners = list(range(len(rows))) if owners is None else owners
        found.append(score_batch(predictor, name, users, items, owners))
    columns = columns_of(spec)
    for vector in found:
        users, items = (
            [decoded(row, columns) for row in json.loads(json.dumps(written(rows)))]
            for rows in (vector.requests, vector.candidates)
        )
        owners = vector.request_of_candidate
        other = score_batch(predictor, vector.name, users, items, owners)
        same = all(np.array_equal(a, other.inputs[n]) for n, a in vector.inputs.items())
        given = predictor.score_encoded(vector.inputs, raw=True)
        if not (same and np.array_equal(given, other.logits)):
            rule = "test vectors that score as the rows they were written from"
            raise ConversionError(rule, "others", vector.name)
    return found
