"""The format of a model file: what din-convert writes and a load looks for.

docs/loading.md and ARCHITECTURE.md say what each entry of the metadata holds.
"""

FORMAT = "1"
IR_VERSION, OPSET = 10, 18
DOMAIN = "din_infer"  # of the operators
WEIGHT_SUFFIX = ".activation_weight"  # of a sequence's output that explains
REQUESTS_OUTPUT = "din_infer.requests"  # how many, [1]: of a fixed shape
# Keys of the metadata.
FORMAT_KEY = "din_infer.format"
MODEL_ID_KEY = "din_infer.model_id"
SOURCE_KEY = "din_infer.source"
VERSIONS_KEY = "din_infer.versions"
SPEC_KEY = "din_infer.spec"
INPUTS_KEY = "din_infer.inputs"  # of a torch module, which has no spec
GOLDEN_KEY = "din_infer.golden"
PARITY_KEY = "din_infer.parity"
RAW_KEY = "din_infer.raw"  # how text is given, of a graph that takes raw values
DATA_KEY = "din_infer.data"  # about the data file
FILE_KEY = "din_infer.file"  # the last entry, about the bytes before it
# Allowed differences from torch in float64: of a score, and of any other output
# relative to max(1, |output|). Golden rows are also checked in other precisions.
TOLERANCE = 1e-5
GOLDEN_TOLERANCE = {"fp32": TOLERANCE, "tf32x3": TOLERANCE, "tf32": 5e-3, "bf16": 2e-2}
# What is said of a file that is none, or no longer one.
WRITTEN = "a model that din-convert wrote"
DAMAGED = "The file is damaged: copy it again, or convert the model again."
# How a raw graph takes text: bytes with offsets of 32 or of 64 bits, or string tensors.
RAW_TEXTS = ("arrow", "large", "strings")
