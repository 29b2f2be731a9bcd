# Columns from Arrow data, through its C interface.
# Above 400 lines: each type, list and dictionary checked before it is viewed.

_FORMATS = {
    "n": (DIN_NULL, "null", "null"),
    "b": (DIN_BOOL, "int", "bool"),
    "c": (DIN_INT8, "int", "int8"),
    "C": (DIN_UINT8, "int", "uint8"),
    "s": (DIN_INT16, "int", "int16"),
    "S": (DIN_UINT16, "int", "uint16"),
    "i": (DIN_INT32, "int", "int32"),
    "I": (DIN_UINT32, "int", "uint32"),
    "l": (DIN_INT64, "int", "int64"),
    "L": (DIN_UINT64, "int", "uint64"),
    "e": (DIN_FLOAT16, "float", "float16"),
    "f": (DIN_FLOAT32, "float", "float32"),
    "g": (DIN_FLOAT64, "float", "float64"),
    "u": (DIN_BYTES32, "string", "string"),
    "U": (DIN_BYTES64, "string", "large_string"),
    "vu": (DIN_BYTES_VIEW, "string", "string_view"),
    "z": (DIN_BYTES32, "string", "binary"),
    "Z": (DIN_BYTES64, "string", "large_binary"),
    "vz": (DIN_BYTES_VIEW, "string", "binary_view"),
}
_OTHER_FORMATS = {
    "w": "fixed_size_binary", "td": "date", "tt": "time", "ts": "timestamp",
    "tD": "duration", "ti": "interval", "+s": "struct", "+m": "map", "+u": "union",
    "+r": "run_end_encoded",
    "+l": "list", "+L": "large_list", "+v": "list_view", "+w": "fixed_size_list",
}
_DECIMALS = {  # bits: type, most digits
    32: (DIN_DECIMAL32, 9), 64: (DIN_DECIMAL64, 18), 128: (DIN_DECIMAL128, 38),
    256: (DIN_DECIMAL256, 76),
}
# Extension types that mean no more than their storage does, of these formats.
_EXTENSIONS = {
    "arrow.uuid": ("w:16",), "arrow.json": ("u", "U", "vu"), "arrow.bool8": ("c",),
}
# Lists, where the tensors have one dimension.
_TENSORS = (
    "arrow.fixed_shape_tensor", "ray.data.arrow_tensor", "ray.data.arrow_tensor_v2",
)
# How to mend a type that no kernel reads.
_CAST = "Cast it to int64 or to text, as it was in training."
_TURN = "Turn it into text, numbers or lists of them."
_FIXES = {
    "td": _CAST, "tt": _CAST, "ts": _CAST, "tD": _CAST, "ti": _CAST,
    "+r": "Decode it: pyarrow.compute.run_end_decode(column).",
    "+s": "Make a column of each of its fields that is read.",
    "+m": _TURN, "+u": _TURN,
    "_p": "Cast it to Int64, Decimal or String.",
}
_NESTINGS = {
    "+l": DIN_LIST32, "+L": DIN_LIST64, "+vl": DIN_LIST_VIEW32, "+vL": DIN_LIST_VIEW64,
}


cdef str _text(const char *text):
    return "" if text == NULL else (<bytes> text).decode("utf-8", "replace")


cdef int64_t _whole(str text):
    """Read a number below 2**31 that a format ends with; -1 for anything else."""
    if not 0 < len(text) <= 10 or not text.isascii() or not text.isdecimal():
        return -1
    number = int(text)
    return number if number < 2**31 else -1


cdef void *_pointer(object capsule, const char *kind, str place) except NULL:
    """Return what a capsule of Arrow's holds."""
    if not PyCapsule_IsValid(capsule, kind):
        rule = f"a capsule of kind {kind.decode()}"
        raise InputError(rule, type(capsule).__name__, place)
    return PyCapsule_GetPointer(capsule, kind)


cdef tuple _read_extension(const char *metadata, str name):
    """Return the name of an extension type, "" for none, and what is said of it."""
    cdef int32_t count, size
    cdef dict found = {}
    if metadata == NULL:
        return "", ""
    count = din_read_i32(metadata, 0)
    metadata += 4
    if count < 0:
        raise _malformed("metadata of keys and values", name)
    for _ in range(count):
        pair = []
        for _ in range(2):
            size = din_read_i32(metadata, 0)
            if size < 0:
                raise _malformed("metadata of keys and values", name)
            pair.append((<bytes> metadata[4:4 + size]).decode("utf-8", "replace"))
            metadata += 4 + size
        found[pair[0]] = pair[1]
    about = found.get("ARROW:extension:metadata", "")
    return found.get("ARROW:extension:name", ""), about


cdef bint _is_vector(str about):
    """Tell whether a tensor type, of which `about` is said, has one dimension."""
    import json
    try:
        shape = json.loads(about)
    except (ValueError, RecursionError):  # Ray's of old is a pickle
        return False
    if isinstance(shape, dict):
        shape = shape.get("shape")
    return isinstance(shape, list) and len(shape) == 1


cdef class _Leaf:
    """A type of single values: its own, its kind and name, and their sizes."""

    cdef int32_t type, scale, width
    cdef str kind, name, fix

    def __cinit__(self, str text not None, str column not None):
        self.fix = ""
        if text in _FORMATS:
            self.type, self.kind, self.name = _FORMATS[text]
        elif text.startswith("d:"):
            self.kind, self.name = "decimal", "decimal"
            self.type, self.scale = _parse_decimal(text[2:], column)
        elif text == "_pli128":  # of polars, alike
            self.type, self.kind, self.name = DIN_DECIMAL128, "decimal", "int128"
        elif text[:2] == "w:" and _whole(text[2:]) > 0:
            self.width = <int32_t> _whole(text[2:])
            self.type, self.kind = DIN_BYTES_FIXED, "fixed"
            self.name = f"fixed_size_binary[{self.width}]"
        else:
            self.type, self.kind = -1, "other"
            self.fix = _FIXES.get(text[:2], "")
            self.name = _OTHER_FORMATS.get(
                text[:2], _OTHER_FORMATS.get(text[:1], f"Arrow format {text!r}"))


cdef tuple _parse_decimal(str text, str column):
    """Return (type, scale) of "precision,scale" or "precision,scale,bits"."""
    try:
        precision, scale, *rest = map(int, text.split(","))
        bits, = rest or [128]
        type_, most = _DECIMALS[bits]
    except (ValueError, KeyError):
        precision = scale = most = 0
    if not 1 <= precision <= most or not -2**31 < scale < 2**31:
        raise _malformed("a decimal's precision and scale", column)
    return type_, scale


cdef int _check_array(
    ArrowArray *a, int64_t min_buffers, int64_t skipped, str name
) except -1:
    if not 0 <= a.length <= MAX_ROWS or not 0 <= a.offset <= MAX_ROWS \
            or skipped > a.length:
        raise _malformed("a length and an offset that fit", name)
    if a.n_buffers < min_buffers or (min_buffers > 0 and a.buffers == NULL):
        raise _malformed(f"{min_buffers} buffers", name)
    return 0


cdef const uint8_t *_validity(ArrowArray *a, str name) except? NULL:
    if a.null_count == 0 or a.length == 0:
        return NULL
    if a.buffers[0] == NULL and a.null_count > 0:
        raise _malformed("a validity buffer beside nulls", name)
    return <const uint8_t *> a.buffers[0]


cdef int _view_values(
    ArrowArray *a, int32_t type_, int64_t skipped, din_values *v, str name,
    _Leaf leaf=None
) except -1:
    """View an array's values, the first `skipped` left out."""
    cdef int64_t min_buffers = 2
    if leaf is not None:
        type_ = leaf.type
        v.scale = leaf.scale
        v.width = leaf.width
    if type_ == DIN_NULL:
        min_buffers = 0
    elif type_ == DIN_BYTES32 or type_ == DIN_BYTES64 or type_ == DIN_BYTES_VIEW:
        min_buffers = 3
    _check_array(a, min_buffers, skipped, name)
    v.type = type_
    v.length = a.length - skipped
    v.offset = a.offset + skipped
    if type_ == DIN_NULL:
        return 0
    if v.width > 0 and a.length + a.offset > INT64_MAX // v.width:
        raise _malformed("a length and an offset that fit", name)
    v.validity = _validity(a, name)
    v.data = a.buffers[1]
    if v.length > 0 and v.data == NULL:
        raise _malformed("a data buffer", name)
    if type_ == DIN_BYTES_VIEW:
        v.num_buffers = a.n_buffers - 3
        v.buffers = a.buffers + 2
        v.buffer_sizes = <const uint8_t *> a.buffers[a.n_buffers - 1]
        if v.num_buffers > 0 and v.buffer_sizes == NULL:
            raise _malformed("the sizes of the view's buffers", name)
    elif min_buffers == 3:
        v.bytes = <const uint8_t *> a.buffers[2]
    return 0


cdef class _Type:
    """What a schema says about a column; read once, applied to every chunk.

    `index_type` is that of a dictionary of lists, -1 where there is none.
    """

    cdef int32_t nesting, index_type
    cdef int64_t list_size
    cdef int32_t value_type  # of the indices, where there is a dictionary
    cdef bint has_dictionary
    cdef _Leaf leaf
    cdef str extension  # the leaf's, "" for none
    cdef str tensor     # the list's, "" for none
    cdef str foreign    # an extension type that is not known, "" for none

    cdef int read(self, ArrowSchema *s, str name) except -1:
        self.nesting = DIN_SCALAR
        self.index_type = -1
        self.extension = self.tensor = self.foreign = ""
        if s.dictionary != NULL and _is_list_format(_text(s.dictionary.format)):
            self.index_type = self.read_index(s, name)
            self.read_extension(s, name)
            s = s.dictionary
        text = _text(s.format)
        if _is_list_format(text) and s.dictionary == NULL:
            self.read_extension(s, name)
            if text in _NESTINGS:
                self.nesting = _NESTINGS[text]
            else:
                self.nesting = DIN_FIXED_LIST
                self.list_size = _whole(text[3:])
                if self.list_size < 0:
                    raise _malformed("a list size", name)
            if s.n_children != 1 or s.children == NULL or s.children[0] == NULL:
                raise _malformed("one child of a list", name)
            s = s.children[0]
        self.read_extension(s, name)
        self.has_dictionary = s.dictionary != NULL
        if self.has_dictionary:
            self.value_type = self.read_index(s, name)
            s = s.dictionary
            self.read_extension(s, name)
        self.leaf = _Leaf(_text(s.format), name)
        if self.has_dictionary and s.dictionary != NULL:
            self.leaf.kind = "other"
            self.leaf.name = "dictionary of dictionary"
        if self.tensor and self.leaf.kind == "fixed":  # text of NumPy, for one
            self.foreign = f"extension type {self.tensor} of {self.leaf.name}"
        if self.foreign:
            self.leaf.kind = "other"
            self.leaf.name = self.foreign
            self.leaf.fix = _TURN
        elif self.extension == "arrow.uuid":
            self.leaf.name = "uuid"
        elif self.extension == "arrow.bool8":
            self.leaf.type, self.leaf.name = DIN_BOOL8, "bool"
        return 0

    cdef int read_extension(self, ArrowSchema *s, str name) except -1:
        """Note an extension type; its storage may be a dictionary."""
        extension, about = _read_extension(s.metadata, name)
        if not extension:
            return 0
        text = _text(s.format if s.dictionary == NULL else s.dictionary.format)
        if text in _EXTENSIONS.get(extension, ()):
            self.extension = extension
        elif extension in _TENSORS and _is_list_format(text) and _is_vector(about):
            self.tensor = extension
        else:
            self.foreign = f"extension type {extension:.80} over {_name_of(text)}"
        return 0

    cdef void describe(self, Column column) noexcept:
        """Tell a column of its type."""
        column.kind = self.leaf.kind
        column.type_name = self.leaf.name
        column.fix = self.leaf.fix
        column.width = self.leaf.width
        column.is_list = self.nesting != DIN_SCALAR

    cdef int32_t read_index(self, ArrowSchema *s, str name) except -1:
        cdef int32_t type_ = _Leaf(_text(s.format), name).type
        if not DIN_INT8 <= type_ <= DIN_UINT64:
            raise _malformed("integer dictionary indices", name)
        return type_


cdef bint _is_list_format(str text):
    return text in _NESTINGS or text.startswith("+w:")


cdef str _name_of(str text):
    """Name the type of a format."""
    if text.startswith("d:"):
        return "decimal"
    return _Leaf(text, "").name


cdef int _add_arrow_chunk(
    Column column, _Type type_, ArrowArray *a, int64_t skipped, int64_t num_rows
) except -1:
    """View rows [skipped, skipped + num_rows) of an array as one more chunk."""
    cdef din_column *c
    cdef din_values indices
    cdef str name = column.name
    if a == NULL:
        raise _malformed("a child for every column", name)
    if num_rows < 0 or skipped < 0 or a.length < 0 or skipped > a.length - num_rows:
        raise _malformed("as many rows as the table has", name)
    if type_.leaf.kind == "other" or num_rows == 0:
        column.add_rows(num_rows)
        return 0
    c = column.new_chunk()
    if type_.index_type < 0:
        _view_rows(c, type_, a, skipped, num_rows, name)
        column.check_chunk()
        column.add_rows(num_rows)
        return 0
    # Lists in a dictionary: every row is a view of one of them.
    if a.dictionary == NULL:
        raise _malformed("a dictionary", name)
    memset(&indices, 0, sizeof(indices))
    _view_values(a, type_.index_type, skipped, &indices, name)
    _view_rows(c, type_, a.dictionary, 0, a.dictionary.length, name)
    column.check_chunk()
    _look_rows_up(column, c, &indices, num_rows)
    column.add_rows(num_rows)
    return 0


cdef int _view_rows(
    din_column *c, _Type type_, ArrowArray *a, int64_t skipped, int64_t num_rows,
    str name
) except -1:
    """View rows of an array of scalars or lists; unchecked."""
    cdef ArrowArray *values = a
    if num_rows < 0:
        raise _malformed("a length and an offset that fit", name)
    c.nesting = type_.nesting
    c.num_rows = num_rows
    if c.nesting != DIN_SCALAR:
        is_view = c.nesting == DIN_LIST_VIEW32 or c.nesting == DIN_LIST_VIEW64
        min_buffers = 3 if is_view else 1 if c.nesting == DIN_FIXED_LIST else 2
        _check_array(a, min_buffers, skipped, name)
        c.offset = a.offset + skipped
        c.validity = _validity(a, name)
        c.list_size = type_.list_size
        if c.nesting != DIN_FIXED_LIST and num_rows > 0:
            c.offsets = a.buffers[1]
            if c.offsets == NULL:
                raise _malformed("an offsets buffer", name)
            if is_view:
                c.sizes = a.buffers[2]
                if c.sizes == NULL:
                    raise _malformed("a sizes buffer", name)
        if a.n_children != 1 or a.children == NULL or a.children[0] == NULL:
            raise _malformed("one child of a list", name)
        values = a.children[0]
        skipped = 0
    if type_.has_dictionary and type_.leaf.type == DIN_NULL:
        _check_array(values, 0, skipped, name)
        c.values.type = DIN_NULL
        c.values.length = values.length - skipped
        return 0
    if not type_.has_dictionary:
        _view_values(values, 0, skipped, &c.values, name, type_.leaf)
    else:
        _view_values(values, type_.value_type, skipped, &c.values, name)
        if values.dictionary == NULL:
            raise _malformed("a dictionary", name)
        c.has_dictionary = True
        _view_values(values.dictionary, 0, 0, &c.dictionary, name, type_.leaf)
    return 0


cdef class _Table:
    """Columns that grow with every batch of a stream, or a single column."""

    cdef str place
    cdef bint is_table
    cdef object wanted
    cdef readonly list names
    cdef readonly dict columns
    cdef readonly int64_t num_rows
    cdef list picked  # (child, Column, _Type)

    cdef int open(self, ArrowSchema *s, wanted, str place) except -1:
        cdef _Type type_
        cdef int64_t i
        self.place = place
        self.columns = {}
        self.names = []
        self.picked = []
        self.is_table = wanted is not None
        if not self.is_table:
            type_ = _Type()
            type_.read(s, place)
            self.pick(0, place, type_)
            return 0
        if _text(s.format) != "+s":
            got = f"Arrow data of format {_text(s.format)!r}"
            raise InputError("a table", got, place)
        if s.n_children < 0 or (s.n_children > 0 and s.children == NULL):
            raise _malformed("children", place)
        for i in range(s.n_children):
            if s.children[i] == NULL:
                raise _malformed("children", place)
            name = _text(s.children[i].name)
            if name in wanted:
                if name in self.columns:
                    raise InputError("each column once", "two", name)
                type_ = _Type()
                type_.read(s.children[i], name)
                self.pick(i, name, type_)
            self.names.append(name)
        return 0

    cdef int pick(self, int64_t child, str name, _Type type_) except -1:
        cdef Column column = Column(name)
        type_.describe(column)
        self.columns[name] = column
        self.picked.append((child, column, type_))
        return 0

    cdef int add(self, _ArrowOwner owner) except -1:
        cdef ArrowArray *a = &owner.array
        cdef ArrowArray *child
        cdef Column column
        cdef int64_t skipped
        if not 0 <= a.length <= MAX_ROWS or not 0 <= a.offset <= MAX_ROWS:
            raise _malformed("a length and an offset that fit", self.place)
        for i, picked, type_ in self.picked:
            child = a
            skipped = 0
            if self.is_table:
                if i >= a.n_children or a.children == NULL:
                    raise _malformed("a child for every column", self.place)
                child = a.children[<int64_t> i]
                skipped = a.offset
            column = picked
            column.owners.append(owner)
            _add_arrow_chunk(column, type_, child, skipped, a.length)
        if a.length > MAX_ROWS - self.num_rows:
            raise _malformed(f"at most {MAX_ROWS} rows", self.place)
        if self.is_table:  # by now its columns are known to have so many rows
            self.check_rows_valid(a)
        self.num_rows += a.length
        return 0

    cdef int check_rows_valid(self, ArrowArray *a) except -1:
        cdef int64_t i
        if a.null_count == 0 or a.n_buffers < 1 or a.buffers == NULL \
                or a.buffers[0] == NULL:
            return 0
        for i in range(a.length):
            if not din_bit(<const uint8_t *> a.buffers[0], a.offset + i):
                rule = "a table without null rows"
                raise InputError(rule, "a null", self.place, row=i)
        return 0


def import_arrow(source, str place not None, wanted=None):
    """Read Arrow data through its C interface, without copying.

    Parameters
    ----------
    source : object with `__arrow_c_stream__` or `__arrow_c_array__`
    place : str
        What errors call it.
    wanted : set of str or None
        The columns of a table that are looked at; None: `source` is one column.

    Returns
    -------
    names : list of str
        All columns of the table.
    columns : dict of Column
        Those of `wanted` that are there (or the one, under `place`).
    num_rows : int
    """
    if hasattr(source, "__arrow_c_stream__"):
        return _import_stream(source.__arrow_c_stream__(), place, wanted)
    pair = source.__arrow_c_array__()
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise InputError("a pair of capsules", type(pair).__name__, place)
    return _import_array(*pair, place, wanted)


def describe_arrow(source, str place not None):
    """Read an Arrow type, `source` having `__arrow_c_schema__`: (kind, description).

    As `Column.kind` and `Column.describe()` of a column of this type.

    Raises
    ------
    InputError
        If the schema is malformed.
    """
    capsule = source.__arrow_c_schema__()  # which owns the schema
    cdef ArrowSchema *schema = <ArrowSchema *> _pointer(
        capsule, "arrow_schema", place)
    cdef _Type type_ = _Type()
    column = Column(place)
    if schema.release == NULL:
        raise _malformed("a schema that is not released", place)
    type_.read(schema, place)
    type_.describe(column)
    return column.kind, column.describe()


def _import_array(schema_capsule, array_capsule, str place, wanted):
    cdef ArrowSchema *schema = <ArrowSchema *> _pointer(
        schema_capsule, "arrow_schema", place)
    cdef ArrowArray *array = <ArrowArray *> _pointer(
        array_capsule, "arrow_array", place)
    cdef _ArrowOwner owner = _ArrowOwner()
    cdef _Table table = _Table()
    if schema.release == NULL or array.release == NULL:
        raise _malformed("an array that is not released", place)
    owner.array = array[0]
    array.release = NULL
    table.open(schema, wanted, place)
    table.add(owner)
    return table.names, table.columns, table.num_rows


def _import_stream(capsule, str place, wanted):
    cdef ArrowArrayStream *lent = <ArrowArrayStream *> _pointer(
        capsule, "arrow_array_stream", place)
    cdef ArrowArrayStream own = lent[0]
    cdef ArrowArrayStream *stream = &own
    cdef _SchemaOwner schema = _SchemaOwner()
    cdef _ArrowOwner owner
    cdef _Table table = _Table()
    cdef int code
    if stream.release == NULL:
        raise _malformed("a stream that is not released", place)
    lent.release = NULL  # moved: nobody else may read it now
    try:
        with nogil:
            code = stream.get_schema(stream, &schema.schema)
        if code != 0:
            raise _stream_error(stream, code, place)
        table.open(&schema.schema, wanted, place)
        while True:
            owner = _ArrowOwner()
            with nogil:
                code = stream.get_next(stream, &owner.array)
            if code != 0:
                raise _stream_error(stream, code, place)
            if owner.array.release == NULL:
                break
            table.add(owner)
    finally:
        stream.release(stream)
    return table.names, table.columns, table.num_rows


cdef object _stream_error(ArrowArrayStream *stream, int code, str place):
    got = _text(stream.get_last_error(stream)) or f"error {code}"
    return InputError("a readable Arrow stream", got, place)
