"""Run Deep Interest Network click models on ONNX Runtime.

>>> from din_infer import hash_buckets
>>> hash_buckets(["goods-1", "goods-2", None], 1000).tolist()
[152, 726, 0]
"""

from din_infer import metrics
from din_infer.deprecation import DinDeprecationWarning, deprecated_names
from din_infer.encode import hash_buckets, pad
from din_infer.encoded_requests import EncodedRequests
from din_infer.errors import (
    ConversionError,
    DeviceError,
    DinError,
    InputError,
    ModelError,
)
from din_infer.predictor import Predictor
from din_infer.spec import FeatureSpec
from din_infer.version import __version__

__all__ = [
    "ConversionError",
    "DeviceError",
    "DinDeprecationWarning",
    "DinError",
    "EncodedRequests",
    "FeatureSpec",
    "InputError",
    "ModelError",
    "Predictor",
    "__version__",
    "hash_buckets",
    "metrics",
    "pad",
]

__getattr__ = deprecated_names(
    __name__, {"EncodedRequest": ("0.1", "EncodedRequests", EncodedRequests)}
)
