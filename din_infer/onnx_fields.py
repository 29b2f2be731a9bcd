"""The fields of onnx.proto that a model file may have, message by message.

Source: onnx.proto of ONNX 1.23. Left out are sparse tensors, sequences, maps,
optionals, training, and what says where a graph is to run.
"""

from typing import Any, Final

# Wire types of protobuf.
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
# How a field is read: one of these, or the table of its own message.
TEXT, BYTES, NUMBER, FLOAT, NUMBERS, FLOATS, DOUBLES = range(7)
_WIRES = {
    TEXT: (LENGTH,),
    BYTES: (LENGTH,),
    NUMBER: (VARINT,),
    FLOAT: (FIXED32,),
    NUMBERS: (VARINT, LENGTH),  # packed or not: protobuf takes both
    FLOATS: (FIXED32, LENGTH),
    DOUBLES: (FIXED64, LENGTH),
}
# {tag, as it stands in a file: (how, name, may there be several)}
Table = dict[int, tuple[Any, str, bool]]


def _fields(*fields: tuple[int, Any, str]) -> Table:
    """Make the table of a message; fields whose name ends with "*" may be several."""
    table = {}
    for number, how, name in fields:
        for wire in (LENGTH,) if isinstance(how, dict) else _WIRES[how]:
            table[number << 3 | wire] = (how, name.rstrip("*"), name.endswith("*"))
    return table


ENTRY = _fields((1, TEXT, "key"), (2, TEXT, "value"))
OPSET = _fields((1, TEXT, "domain"), (2, NUMBER, "version"))
DIMENSION = _fields((1, NUMBER, "size"), (2, TEXT, "name"), (3, TEXT, "denotation"))
SHAPE = _fields((1, DIMENSION, "dims*"))
TENSOR_TYPE = _fields((1, NUMBER, "type"), (2, SHAPE, "shape"))
TYPE = _fields((1, TENSOR_TYPE, "tensor"), (6, TEXT, "denotation"))
VALUE_INFO = _fields(
    (1, TEXT, "name"), (2, TYPE, "type"), (3, TEXT, "doc"), (4, ENTRY, "metadata*")
)
TENSOR = _fields(
    (1, NUMBERS, "dims*"),
    (2, NUMBER, "type"),
    (4, FLOATS, "typed*"),
    (5, NUMBERS, "typed*"),
    (6, BYTES, "typed*"),
    (7, NUMBERS, "typed*"),
    (8, TEXT, "name"),
    (9, BYTES, "raw"),
    (10, DOUBLES, "typed*"),
    (11, NUMBERS, "typed*"),
    (12, TEXT, "doc"),
    (13, ENTRY, "external*"),
    (14, NUMBER, "location"),
    (16, ENTRY, "metadata*"),
)
ATTRIBUTE = _fields(
    (1, TEXT, "name"),
    (2, FLOAT, "f"),
    (3, NUMBER, "i"),
    (4, BYTES, "s"),
    (5, TENSOR, "t"),
    (6, BYTES, "g"),  # a graph, whose messages are read one by one
    (7, FLOATS, "floats*"),
    (8, NUMBERS, "ints*"),
    (9, BYTES, "strings*"),
    (13, TEXT, "doc"),
    (20, NUMBER, "type"),
    (21, TEXT, "of"),
)
NODE = _fields(
    (1, TEXT, "input*"),
    (2, TEXT, "output*"),
    (3, TEXT, "name"),
    (4, TEXT, "op"),
    (5, ATTRIBUTE, "attribute*"),
    (6, TEXT, "doc"),
    (7, TEXT, "domain"),
    (9, ENTRY, "metadata*"),
)
FUNCTION = _fields(
    (1, TEXT, "name"),
    (4, TEXT, "input*"),
    (5, TEXT, "output*"),
    (6, TEXT, "parameter*"),
    (7, NODE, "node*"),
    (8, TEXT, "doc"),
    (9, OPSET, "opset*"),
    (10, TEXT, "domain"),
    (11, ATTRIBUTE, "default*"),
    (12, VALUE_INFO, "info*"),
    (14, ENTRY, "metadata*"),
)

# Fields of a model and of a graph, by number: their messages are read one by one.
MODEL_GRAPH, MODEL_OPSET, MODEL_METADATA, MODEL_FUNCTION = 7, 8, 14, 25
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
MODEL: Final[dict[int, Any]] = {
    **{1: NUMBER, 2: TEXT, 3: TEXT, 4: TEXT, 5: NUMBER, 6: TEXT},
    **{MODEL_GRAPH: BYTES, MODEL_OPSET: OPSET, MODEL_METADATA: ENTRY},
    MODEL_FUNCTION: FUNCTION,
}
GRAPH: Final[dict[int, Any]] = {
    **{GRAPH_NODE: NODE, 2: TEXT, GRAPH_INITIALIZER: TENSOR, 10: TEXT},
    **{11: VALUE_INFO, 12: VALUE_INFO, 13: VALUE_INFO, 16: ENTRY},
}
# Attributes by their type: the one field that holds the value.
HOLDS: Final = {
    **{1: "f", 2: "i", 3: "s", 4: "t", 5: "g"},
    **{6: "floats", 7: "ints", 8: "strings"},
}
# Bytes of a value by its type; texts have no size of their own.
INT64, STRINGS = 7, 8
SIZES: Final = {
    **{1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, INT64: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8},
    16: 2,
}
