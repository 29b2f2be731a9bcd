"""A request encoded once, to be scored with many lists of candidates.

Letters: B requests.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from din_infer.errors import InputError

__all__ = ["EncodedRequests"]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRequests:
    """The users' side of B requests; `Predictor.encode_request` makes it.

    Opaque and read-only, so that threads may share it. Pickles. It belongs to the model
    whose `model_id` it has: any other refuses it.

    `num_requests` is B; None where the model reads no column of a user and was given a
    dict, which then tells no number: as many as the candidates name.
    """

    model_id: str
    num_requests: int | None
    _inputs: Mapping[str, NDArray[Any]] = field(repr=False)

    def __post_init__(self) -> None:
        for array in self._inputs.values():
            array.setflags(write=False)

    def inputs_of(self, model_id: str) -> Mapping[str, NDArray[Any]]:
        """Return the arrays by the model's names for them.

        Raises
        ------
        InputError
            If they are another model's.
        """
        if self.model_id != model_id:
            rule = f"a request that model {model_id} encoded"
            fix = "Encode it by the Predictor that scores it."
            raise InputError(rule, f"one of {self.model_id}", "requests", fix)
        return self._inputs

    def __reduce__(self) -> tuple[Callable[..., "EncodedRequests"], tuple[Any, ...]]:
        # through __init__: an unpickled array could be written to
        return EncodedRequests, (self.model_id, self.num_requests, dict(self._inputs))
