"""The one door between Python and csrc/.

Everything that could corrupt memory is refused here, in every build: no call, however
wrong, may end the process. What a value *means* (which column may hold strings) is
decided in `columns.py`. Above 400 lines: one file means one place to audit.

Letters: B rows, T positions, K dense values, V elements of all lists together.
"""

import sys

from cpython.buffer cimport (
    PyBUF_ND,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport (
    INT64_MAX,
    int32_t,
    int64_t,
    uint8_t,
    uint32_t,
    uint64_t,
)
from libc.stdlib cimport getenv
from libc.string cimport memcpy, memset

import numpy as np

from din_infer.errors import DeviceError, InputError

# Rows, or elements, of one column: their sizes in bytes still fit.
cdef int64_t MAX_ROWS = INT64_MAX // 64

# So few take microseconds: a thread that gave the GIL away for them would wait longer
# to have it back. Two callers of one row each get a fifth more done.
cdef int64_t FEW_ELEMENTS = 1024

cdef object _empty = np.empty
cdef object _INT64 = np.dtype(np.int64)


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1


cdef extern from "arrow_abi.h" nogil:
    struct ArrowSchema:
        const char *format
        const char *name
        int64_t n_children
        ArrowSchema **children
        ArrowSchema *dictionary
        void (*release)(ArrowSchema *) noexcept

    struct ArrowArray:
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void **buffers
        ArrowArray **children
        ArrowArray *dictionary
        void (*release)(ArrowArray *) noexcept

    struct ArrowArrayStream:
        int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept nogil
        int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept nogil
        const char *(*get_last_error)(ArrowArrayStream *) noexcept
        void (*release)(ArrowArrayStream *) noexcept


cdef extern from "hash.h" nogil:
    const int DIN_HASH_XXH64
    const int DIN_HASH_XXH3_64
    const int DIN_HASH_MURMUR3_32
    const int DIN_HASH_FARMHASH_64
    const int DIN_REDUCE_OFFSET
    const int DIN_REDUCE_MOD
    const int DIN_REDUCE_PMOD
    const int DIN_REDUCE_ABS
    const int DIN_REDUCE_RAW

    ctypedef struct din_reduction:
        pass

    void din_prepare_reduction(int32_t, int32_t, uint64_t, din_reduction *) noexcept


cdef extern from "block.h" nogil:
    ctypedef struct din_block_isa:
        const char *name

    const din_block_isa *din_block_isa_at(int32_t) noexcept
    const din_block_isa *din_find_block_isa(const char *) noexcept


cdef extern from "link.h" nogil:
    const int DIN_LINK_NONE
    const int DIN_LINK_IDENTITY
    const int DIN_LINK_SIGMOID

    int64_t din_link(float *, int64_t, int32_t, double, double) noexcept


cdef extern from "column.h" nogil:
    const int DIN_SCALAR
    const int DIN_LIST32
    const int DIN_LIST64
    const int DIN_LIST_VIEW32
    const int DIN_LIST_VIEW64
    const int DIN_FIXED_LIST
    const int DIN_NULL
    const int DIN_BOOL
    const int DIN_INT8
    const int DIN_INT16
    const int DIN_INT32
    const int DIN_INT64
    const int DIN_UINT8
    const int DIN_UINT16
    const int DIN_UINT32
    const int DIN_UINT64
    const int DIN_FLOAT16
    const int DIN_FLOAT32
    const int DIN_FLOAT64
    const int DIN_BYTES32
    const int DIN_BYTES64
    const int DIN_BYTES_VIEW

    ctypedef struct din_values:
        int32_t type
        int64_t length
        int64_t offset
        const uint8_t *validity
        const void *data
        const uint8_t *bytes
        const void *const *buffers
        const uint8_t *buffer_sizes
        int64_t num_buffers

    ctypedef struct din_column:
        int32_t nesting
        int32_t has_dictionary
        int64_t num_rows
        int64_t offset
        const uint8_t *validity
        const void *offsets
        const void *sizes
        int64_t list_size
        din_values values
        din_values dictionary

    int64_t din_check_rows(const din_column *, int64_t *, int64_t *) noexcept
    int64_t din_check_values(
        const din_values *, int64_t, int64_t, const din_block_isa *) noexcept
    int64_t din_check_indices(
        const din_column *, int64_t, int64_t, const din_block_isa *) noexcept
    void din_row_lengths(const din_column *, int64_t *) noexcept
    int64_t din_count_valid(const din_column *, int64_t, int64_t) noexcept
    int64_t din_count_valid_rows(const din_column *) noexcept
    void din_row_bounds(const din_column *, int64_t, int64_t *, int64_t *) noexcept


cdef extern from "column_inline.h" nogil:
    ctypedef struct din_key:
        const uint8_t *data
        int64_t num_bytes

    din_key din_key_at(const din_values *, int32_t, int64_t) noexcept
    int64_t din_index_at(const din_values *, int64_t) noexcept
    int din_is_valid(const din_values *, int64_t) noexcept
    int din_bit(const uint8_t *, int64_t) noexcept
    uint64_t din_read_ui64(const void *, int64_t) noexcept
    float din_read_f32(const void *, int64_t) noexcept
    double din_read_f64(const void *, int64_t) noexcept
    double din_read_f16(const void *, int64_t) noexcept


cdef extern from "vocab.h" nogil:
    const int64_t DIN_MAX_VOCAB

    ctypedef struct din_int_slot:
        pass

    ctypedef struct din_vocab:
        const din_block_isa *isa
        void *slots
        int64_t num_slots
        int64_t num_keys
        const int64_t *ints
        const uint8_t *bytes
        const int64_t *offsets

    int64_t din_vocab_num_slots(int64_t) noexcept
    int64_t din_fill_vocab(const din_vocab *, int64_t *) noexcept


cdef extern from "encode.h" nogil:
    const int DIN_ENCODE_HASH
    const int DIN_ENCODE_VOCAB
    const int DIN_ENCODE_IDENTITY
    const int DIN_ENCODE_BUCKETIZE
    const int DIN_READS_BYTES
    const int DIN_READS_INT64
    const int DIN_READS_FLOAT64
    const int DIN_UNSEEN_ROW
    const int DIN_UNSEEN_MISSING
    const int DIN_UNSEEN_ERROR
    const int DIN_FINE
    const int DIN_HAS_NO_ID
    const int DIN_NOT_WHOLE
    const int DIN_NOT_EXACT
    const int DIN_BEYOND_INT64
    const int DIN_IS_MISSING
    const int DIN_WRONG_COUNT

    ctypedef struct din_encoder:
        int32_t type
        int32_t reads
        int32_t unseen
        int32_t int_as_text
        int32_t hash
        const din_block_isa *isa
        uint64_t seed
        din_reduction reduction
        int64_t num_rows
        din_vocab vocab
        const double *boundaries
        int64_t num_boundaries

    ctypedef struct din_tally:
        int64_t nulls
        int64_t unseen
        int32_t fault
        int64_t bad_row
        int64_t bad

    ctypedef struct din_codes:
        const int64_t *ids
        const uint8_t *codes
        int64_t num_ids
        int32_t has_special

    ctypedef struct din_window:
        int64_t width
        int32_t newest_first
        const int64_t *skip
        const int64_t *kept
        const int64_t *positions
        const int64_t *position_start

    ctypedef struct din_pad_value:
        const uint8_t *data
        int64_t num_bytes
        int64_t number

    void din_encode_dictionary(
        const din_column *, const din_encoder *, int64_t *, uint8_t *,
        int32_t *) noexcept
    void din_encode_scalars(
        const din_column *, const din_encoder *, const din_codes *, int64_t, int64_t,
        int64_t *, din_tally *) noexcept
    void din_encode_lists(
        const din_column *, const din_encoder *, const din_codes *,
        const din_window *, int64_t, int64_t, int64_t *, din_tally *) noexcept
    int64_t din_mark_repeats(
        const din_column *, int64_t, int64_t, uint8_t *) noexcept
    void din_trim_rows(
        const din_column *, const din_pad_value *, int64_t *, int64_t *) noexcept
    void din_drop_pads(
        const din_column *, const din_pad_value *, const int64_t *, int64_t *,
        int64_t *) noexcept
    void din_read_dense(
        const din_column *, int64_t, int32_t, float, const int64_t *, float *,
        din_tally *) noexcept
    void din_read_scalars_float64(const din_column *, double *) noexcept
    void din_read_scalars_int64(
        const din_column *, int64_t *, uint8_t *, din_tally *) noexcept


cdef extern from "pad.h" nogil:
    void din_pad_int64(
        const int64_t *, const int64_t *, int64_t, int64_t, int64_t *,
        int64_t *) noexcept


# --------------------------------------------------------------------------- memory

cdef class _Memory:
    """A block of memory that grows; freed with the object."""

    cdef uint8_t *data
    cdef Py_ssize_t capacity

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef int reserve(self, Py_ssize_t num_bytes) except -1:
        """Make room, zeroing what is new."""
        cdef Py_ssize_t capacity
        cdef uint8_t *data
        if num_bytes <= self.capacity:
            return 0
        capacity = max(num_bytes, 2 * self.capacity, 64)
        data = <uint8_t *> PyMem_Realloc(self.data, capacity)
        if data == NULL:
            raise MemoryError
        memset(data + self.capacity, 0, capacity - self.capacity)
        self.data = data
        self.capacity = capacity
        return 0


cdef class _Buffer:
    """A held Python buffer."""

    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, exporter):
        PyObject_GetBuffer(exporter, &self.view, PyBUF_ND)
        self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef class _ArrowOwner:
    """An Arrow array moved out of its capsule or stream; released with the object."""

    cdef ArrowArray array

    def __dealloc__(self):
        if self.array.release != NULL:
            self.array.release(&self.array)


cdef class _SchemaOwner:
    """An Arrow schema, as `_ArrowOwner`."""

    cdef ArrowSchema schema

    def __dealloc__(self):
        if self.schema.release != NULL:
            self.schema.release(&self.schema)


# -------------------------------------------------------------------------- columns

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
    "d": "decimal", "td": "date", "tt": "time", "ts": "timestamp", "tD": "duration",
    "ti": "interval", "+s": "struct", "+m": "map", "+u": "union",
    "+r": "run_end_encoded",
    "+l": "list", "+L": "large_list", "+v": "list_view", "+w": "fixed_size_list",
}
_NESTINGS = {
    "+l": DIN_LIST32, "+L": DIN_LIST64, "+vl": DIN_LIST_VIEW32, "+vL": DIN_LIST_VIEW64,
}
_NUMPY_TYPES = {
    "bool": DIN_UINT8, "int8": DIN_INT8, "int16": DIN_INT16, "int32": DIN_INT32,
    "int64": DIN_INT64, "uint8": DIN_UINT8, "uint16": DIN_UINT16,
    "uint32": DIN_UINT32, "uint64": DIN_UINT64, "float16": DIN_FLOAT16,
    "float32": DIN_FLOAT32, "float64": DIN_FLOAT64,
}


cdef class Column:
    """One column of a batch: C views of its chunks and what keeps them alive.

    `kind` is "null", "string", "int", "float" or "other" (which no kernel reads);
    `type_name` is what an error calls it. Of a column made by `take_runs`, row r counts
    as many times as `weights` says.
    """

    cdef readonly str name
    cdef readonly str kind
    cdef readonly str type_name
    cdef readonly bint is_list
    cdef readonly int64_t num_rows
    cdef _Memory memory
    cdef _Memory weights  # int64 each; None: every row counts once
    cdef int64_t sum_of_weights
    cdef Py_ssize_t num_chunks
    cdef list owners

    def __cinit__(self, str name not None):
        self.name = name
        self.kind = "null"
        self.type_name = "null"
        self.memory = _Memory()
        self.owners = []

    cdef din_column *chunk(self, Py_ssize_t i) noexcept:
        return &(<din_column *> self.memory.data)[i]

    @property
    def num_counted(self):
        """Rows that the column's own stand for."""
        return self.num_rows if self.weights is None else self.sum_of_weights

    cdef void weigh_as(self, Column other) noexcept:
        self.weights = other.weights
        self.sum_of_weights = other.sum_of_weights

    cdef const int64_t *weights_from(self, int64_t row) noexcept:
        """Point to the weights of the rows from `row` on; NULL: each is 1."""
        if self.weights is None:
            return NULL
        return &(<const int64_t *> self.weights.data)[row]

    cdef din_column *new_chunk(self) except NULL:
        """Append a zeroed chunk; pointers to earlier ones become stale."""
        self.memory.reserve((self.num_chunks + 1) * sizeof(din_column))
        self.num_chunks += 1
        memset(self.chunk(self.num_chunks - 1), 0, sizeof(din_column))
        return self.chunk(self.num_chunks - 1)

    cdef int check_chunk(self) except -1:
        """Refuse the newest chunk unless all it refers to lies inside its buffers."""
        cdef din_column *c = self.chunk(self.num_chunks - 1)
        cdef int64_t first = 0
        cdef int64_t stop = 0
        cdef int64_t bad
        cdef const din_block_isa *isa = _find_isa(None)
        with nogil:
            bad = din_check_rows(c, &first, &stop)
        if bad >= 0:
            rule = "list offsets that rise inside their values"
            row = self.num_rows + bad
            raise InputError(rule, "others", self.name, row=row)
        with nogil:
            if c.has_dictionary:
                bad = din_check_indices(c, first, stop, isa)
            else:
                bad = din_check_values(&c.values, first, stop, isa)
        if bad >= 0:
            rule = "values inside their buffers"
            if c.has_dictionary:
                rule = "indices inside their dictionary"
            raise InputError(rule, "others", self.name, within=f"element {bad}")
        return 0

    cdef int add_rows(self, int64_t more) except -1:
        """Count rows: so many at most that no size made of them overflows."""
        if more > MAX_ROWS - self.num_rows:
            raise _malformed(f"at most {MAX_ROWS} rows", self.name)
        self.num_rows += more
        return 0

    cdef int require(self, int32_t reads, bint is_list) except -1:
        """Refuse a column that the kernels would misread."""
        kinds = (("string",), ("int", "float"), ("int", "float"))[reads]
        # A scalar column of nulls serves as lists too, but lists never as scalars.
        if self.kind == "null" and (is_list or not self.is_list):
            return 0
        if self.kind not in kinds or self.is_list != is_list:
            rule = "a list column" if is_list else "a scalar column"
            rule = f"{rule} of {' or '.join(kinds)}"
            raise InputError(rule, self.describe(), self.name)
        return 0

    def describe(self):
        """Return the type as an error names it."""
        return f"lists of {self.type_name}" if self.is_list else self.type_name

    def has_values(self, bint of_rows):
        """Tell whether any element (`of_rows`: any row) is not null."""
        cdef int64_t first = 0
        cdef int64_t stop = 0
        cdef Py_ssize_t i
        if self.kind == "other":
            return self.num_rows > 0
        for i in range(self.num_chunks):
            if of_rows:
                if din_count_valid_rows(self.chunk(i)) > 0:
                    return True
            else:
                din_check_rows(self.chunk(i), &first, &stop)
                if din_count_valid(self.chunk(i), first, stop) > 0:
                    return True
        return False

    def as_null(self):
        """Return a column of as many nulls, which serves as any type."""
        cdef Column column = _null_column(self.name, self.num_rows)
        column.weigh_as(self)
        return column

    def as_untyped(self):
        """Return a column of the same lists, all their elements null."""
        cdef Column column = Column(self.name)
        cdef din_column *c
        cdef Py_ssize_t i
        column.is_list = self.is_list
        column.num_rows = self.num_rows
        column.weigh_as(self)
        column.owners.append(self)
        for i in range(self.num_chunks):
            c = column.new_chunk()
            c[0] = self.chunk(i)[0]
            c.has_dictionary = False
            c.values.type = DIN_NULL
            c.values.validity = NULL
        return column


cdef Column _null_column(str name, int64_t num_rows):
    cdef Column column = Column(name)
    cdef din_column *c = column.new_chunk()
    c.num_rows = num_rows
    c.values.type = DIN_NULL
    c.values.length = num_rows
    column.num_rows = num_rows
    return column


cdef str _text(const char *text):
    return "" if text == NULL else (<bytes> text).decode("utf-8", "replace")


cdef object _malformed(str rule, str name):
    return InputError(rule, "a malformed Arrow array", name)


# ---------------------------------------------------------------- columns from Arrow

cdef tuple _parse_format(str text):
    """Return (type, kind, type name) of a value format."""
    if text in _FORMATS:
        return _FORMATS[text]
    if text.startswith("w:"):
        # also how UUIDs and opaque handles arrive, whose bytes are no key
        return -1, "other", "fixed_size_binary"
    for key in (text[:2], text[:1]):
        if key in _OTHER_FORMATS:
            return -1, "other", _OTHER_FORMATS[key]
    return -1, "other", f"Arrow format {text!r}"


cdef int _check_array(
    ArrowArray *a, int64_t min_buffers, int64_t skipped, str name
) except -1:
    if a.length < 0 or a.offset < 0 or a.offset > INT64_MAX // 64 \
            or a.length > INT64_MAX // 64 or skipped > a.length:
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
    ArrowArray *a, int32_t type_, int64_t skipped, din_values *v, str name
) except -1:
    """View an array's values, the first `skipped` left out."""
    cdef int64_t min_buffers = 2
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

    cdef int32_t nesting
    cdef int32_t index_type
    cdef int64_t list_size
    cdef int32_t value_type
    cdef int32_t dictionary_type
    cdef bint has_dictionary
    cdef str kind
    cdef str type_name

    cdef int read(self, ArrowSchema *s, str name) except -1:
        self.nesting = DIN_SCALAR
        self.index_type = -1
        if s.dictionary != NULL and _is_list_format(_text(s.dictionary.format)):
            self.index_type = self.read_index(s, name)
            s = s.dictionary
        text = _text(s.format)
        if _is_list_format(text) and s.dictionary == NULL:
            if text in _NESTINGS:
                self.nesting = _NESTINGS[text]
            else:
                self.nesting = DIN_FIXED_LIST
                if not text[3:].isdecimal() or int(text[3:]) >= 2**31:
                    raise _malformed("a list size", name)
                self.list_size = int(text[3:])
            if s.n_children != 1 or s.children == NULL or s.children[0] == NULL:
                raise _malformed("one child of a list", name)
            s = s.children[0]
            text = _text(s.format)
        self.has_dictionary = s.dictionary != NULL
        if not self.has_dictionary:
            self.value_type, self.kind, self.type_name = _parse_format(text)
            return 0
        self.value_type = self.read_index(s, name)
        self.dictionary_type, self.kind, self.type_name = (
            _parse_format(_text(s.dictionary.format)))
        if s.dictionary.dictionary != NULL:
            self.kind = "other"
            self.type_name = "dictionary of dictionary"
        return 0

    cdef int32_t read_index(self, ArrowSchema *s, str name) except -1:
        cdef int32_t type_ = _parse_format(_text(s.format))[0]
        if not DIN_INT8 <= type_ <= DIN_UINT64:
            raise _malformed("integer dictionary indices", name)
        return type_


cdef bint _is_list_format(str text):
    return text in _NESTINGS or text.startswith("+w:")


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
    if type_.kind == "other" or num_rows == 0:
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


cdef int _look_rows_up(
    Column column, din_column *c, const din_values *indices, int64_t num_rows
) except -1:
    """Make of a checked chunk of lists one whose rows are those that indices name."""
    cdef din_column lists = c[0]
    cdef _Memory offsets = _Memory()
    cdef _Memory sizes = _Memory()
    cdef _Memory valid = _Memory()
    cdef int64_t row
    cdef int64_t index
    offsets.reserve(num_rows * sizeof(int64_t))
    sizes.reserve(num_rows * sizeof(int64_t))
    valid.reserve(num_rows // 8 + 1)
    for row in range(num_rows):
        if not din_is_valid(indices, row):
            continue
        index = din_index_at(indices, row)
        if index < 0 or index >= lists.num_rows:
            rule = "indices inside their dictionary"
            row += column.num_rows
            raise InputError(rule, "others", column.name, row=row)
        if lists.validity != NULL and not din_bit(lists.validity, index + lists.offset):
            continue
        din_row_bounds(&lists, index, &(<int64_t *> offsets.data)[row],
                       &(<int64_t *> sizes.data)[row])
        valid.data[row >> 3] |= <uint8_t> (1 << (row & 7))
    column.owners.extend((offsets, sizes, valid))
    c.nesting = DIN_LIST_VIEW64
    c.num_rows = num_rows
    c.offset = 0
    c.validity = valid.data
    c.offsets = offsets.data
    c.sizes = sizes.data
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
    if type_.has_dictionary and type_.dictionary_type == DIN_NULL:
        _check_array(values, 0, skipped, name)
        c.values.type = DIN_NULL
        c.values.length = values.length - skipped
        return 0
    _view_values(values, type_.value_type, skipped, &c.values, name)
    if type_.has_dictionary:
        if values.dictionary == NULL:
            raise _malformed("a dictionary", name)
        c.has_dictionary = True
        _view_values(values.dictionary, type_.dictionary_type, 0, &c.dictionary, name)
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
        column.kind = type_.kind
        column.type_name = type_.type_name
        column.is_list = type_.nesting != DIN_SCALAR
        self.columns[name] = column
        self.picked.append((child, column, type_))
        return 0

    cdef int add(self, _ArrowOwner owner) except -1:
        cdef ArrowArray *a = &owner.array
        cdef ArrowArray *child
        cdef Column column
        cdef int64_t skipped
        if a.length < 0 or a.offset < 0 or a.offset > INT64_MAX // 64:
            raise _malformed("a length and an offset that fit", self.place)
        if self.is_table:
            self.check_rows_valid(a)
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
    schema, array = source.__arrow_c_array__()
    return _import_array(schema, array, place, wanted)


def _import_array(schema_capsule, array_capsule, str place, wanted):
    cdef ArrowSchema *schema = <ArrowSchema *> PyCapsule_GetPointer(
        schema_capsule, "arrow_schema")
    cdef ArrowArray *array = <ArrowArray *> PyCapsule_GetPointer(
        array_capsule, "arrow_array")
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
    cdef ArrowArrayStream *lent = <ArrowArrayStream *> PyCapsule_GetPointer(
        capsule, "arrow_array_stream")
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


# ------------------------------------------------------------- columns from NumPy

def from_numpy(array, str name not None):
    """View a 1-D or 2-D array of numbers, `U` or `S` text as a column.

    Numbers are not copied where they are contiguous and of native byte order.

    Raises
    ------
    InputError
        If the array has another number of axes or another dtype.
    """
    cdef Column column = Column(name)
    cdef din_column *c
    cdef _Buffer buffer
    array = np.asarray(array)  # a subclass may say anything of itself
    if array.ndim != 1 and array.ndim != 2:
        raise InputError("an array of 1 or 2 axes", array.ndim, name)
    kind = array.dtype.kind
    cdef int64_t size = array.size
    cdef int64_t num_rows = array.shape[0]
    cdef int64_t list_size = array.shape[1] if array.ndim == 2 else 0
    if kind in "US":
        _copy_fixed_text(column, array)
    elif array.dtype.name in _NUMPY_TYPES:
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        buffer = _Buffer(array)
        column.owners.append(buffer)
        c = column.new_chunk()
        c.values.type = _NUMPY_TYPES[array.dtype.name]
        c.values.data = buffer.view.buf
        column.kind = "float" if kind == "f" else "int"
        column.type_name = array.dtype.name
    else:
        column.kind = "other"
        column.type_name = str(array.dtype)
        column.is_list = array.ndim == 2
        column.num_rows = num_rows
        return column
    c = column.chunk(0)
    c.values.length = size
    c.num_rows = num_rows
    if array.ndim == 2:
        column.is_list = True
        c.nesting = DIN_FIXED_LIST
        c.list_size = list_size
    column.check_chunk()
    column.add_rows(c.num_rows)
    return column


cdef int _copy_fixed_text(Column column, array) except -1:
    """Copy `U` or `S` text as UTF-8, without the zeros at its end."""
    cdef bint is_text = array.dtype.kind == "U"
    array = np.require(array, array.dtype.newbyteorder("="), ("C", "A"))
    cdef _Buffer buffer = _Buffer(array)
    cdef _Memory bytes_ = _Memory()
    cdef _Memory offsets = _Memory()
    cdef int64_t num_values = array.size
    cdef int64_t width = array.dtype.itemsize // (4 if is_text else 1)
    cdef int64_t used = 0
    cdef int64_t i
    cdef int64_t k
    cdef int64_t n
    cdef int64_t *ends
    cdef uint32_t code
    cdef const uint32_t *letters
    cdef const uint8_t *raw
    cdef uint8_t *out
    cdef din_column *c
    offsets.reserve((num_values + 1) * sizeof(int64_t))
    bytes_.reserve(1)
    ends = <int64_t *> offsets.data
    for i in range(num_values):
        n = width
        bytes_.reserve(used + 4 * width)
        out = bytes_.data
        if is_text:
            letters = <const uint32_t *> buffer.view.buf + i * width
            while n > 0 and letters[n - 1] == 0:
                n -= 1
            for k in range(n):
                code = letters[k]
                if code < 0x80:
                    out[used] = <uint8_t> code
                    used += 1
                    continue
                if 0xD800 <= code < 0xE000 or code > 0x10FFFF:
                    row = i if array.ndim == 1 else i // array.shape[1]
                    raise InputError(
                        "text that has a UTF-8 form", hex(code), column.name,
                        row=row)
                if code < 0x800:
                    out[used] = <uint8_t> (0xC0 | (code >> 6))
                    used += 1
                elif code < 0x10000:
                    out[used] = <uint8_t> (0xE0 | (code >> 12))
                    out[used + 1] = <uint8_t> (0x80 | ((code >> 6) & 63))
                    used += 2
                else:
                    out[used] = <uint8_t> (0xF0 | (code >> 18))
                    out[used + 1] = <uint8_t> (0x80 | ((code >> 12) & 63))
                    out[used + 2] = <uint8_t> (0x80 | ((code >> 6) & 63))
                    used += 3
                out[used] = <uint8_t> (0x80 | (code & 63))
                used += 1
        else:
            raw = <const uint8_t *> buffer.view.buf + i * width
            while n > 0 and raw[n - 1] == 0:
                n -= 1
            memcpy(out + used, raw, n)
            used += n
        ends[i + 1] = used
    column.owners.extend((bytes_, offsets))
    column.kind = "string"
    column.type_name = "string" if is_text else "binary"
    c = column.new_chunk()
    c.values.type = DIN_BYTES64
    c.values.data = offsets.data
    c.values.bytes = bytes_.data
    return 0


def nest(Column values not None, offsets):
    """Make a list column of a scalar one: row r is values[offsets[r]:offsets[r + 1]].

    Raises
    ------
    InputError
        If the values are lists or in several chunks, or offsets do not describe them.
    """
    cdef Column column = Column(values.name)
    cdef _Buffer buffer
    cdef din_column *c
    if values.is_list or values.kind == "other":
        rule = "scalars beside offsets"
        raise InputError(rule, values.describe(), values.name)
    if values.num_chunks > 1:
        rule = "values in one chunk beside offsets"
        raise InputError(rule, values.num_chunks, values.name)
    offsets = check_offsets(offsets, values.num_rows, values.name)
    buffer = _Buffer(offsets)
    column.owners.extend((values, buffer))
    column.kind = values.kind
    column.type_name = values.type_name
    column.is_list = True
    c = column.new_chunk()
    if values.num_chunks == 1:
        c[0] = values.chunk(0)[0]
    c.nesting = DIN_LIST64
    c.num_rows = offsets.shape[0] - 1
    c.offset = 0
    c.validity = NULL
    c.offsets = buffer.view.buf
    column.check_chunk()
    column.add_rows(c.num_rows)
    return column


def check_offsets(offsets, int64_t num_values, str name not None):
    """Return offsets as contiguous int64, or raise InputError.

    They must begin at 0, not fall, and end at `num_values`.
    """
    cdef const int64_t[::1] view
    cdef Py_ssize_t i
    offsets = np.asarray(offsets)
    if offsets.ndim != 1 or (offsets.dtype.kind not in "iu" and offsets.size > 0):
        got = f"{offsets.ndim} axes of {offsets.dtype}"
        raise InputError("offsets as a 1-D array of integers", got, name)
    if offsets.shape[0] == 0:
        raise InputError("at least one offset", "none", name)
    # a copy: what was checked must not change while C follows it
    offsets = np.array(offsets, dtype=np.int64, order="C")
    view = offsets
    if view[0] != 0:
        raise InputError("a first offset of 0", view[0], name, within="offset 0")
    for i in range(1, view.shape[0]):
        if view[i] < view[i - 1]:
            raise InputError(
                f"an offset of at least {view[i - 1]}", view[i], name,
                within=f"offset {i}")
    if view[view.shape[0] - 1] != num_values:
        raise InputError(
            f"a last offset of {num_values}, the number of values",
            view[view.shape[0] - 1], name, within=f"offset {view.shape[0] - 1}")
    return offsets


# ----------------------------------------------------------- columns from Python lists

cdef enum:
    _UNKNOWN
    _BYTES
    _INT
    _FLOAT

_KINDS = ("null", "string", "int", "float")
_TYPES = ("null", "string", "int64", "float64")


cdef class _Builder:
    """Copies Python values into a column, creating no Python object per value."""

    cdef str name
    cdef int kind
    cdef int64_t row
    cdef int64_t size
    cdef int64_t num_rows
    cdef int64_t num_bytes
    cdef bint has_null
    cdef bint has_null_row
    cdef _Memory numbers     # entry i + 1: value i, or the end of its bytes
    cdef _Memory valid       # bitmap
    cdef _Memory bytes
    cdef _Memory offsets     # this and the next: of lists alone
    cdef _Memory row_valid   # bitmap

    def __cinit__(self, str name, bint is_list):
        self.name = name
        self.numbers = _Memory()
        self.valid = _Memory()
        self.bytes = _Memory()
        self.numbers.reserve(64)
        self.bytes.reserve(64)
        if is_list:
            self.offsets = _Memory()
            self.row_valid = _Memory()

    cdef object wrong(self, str rule, got):
        return InputError(rule, got, self.name, row=self.row)

    cdef int reserve(self, int64_t more) except -1:
        self.numbers.reserve((self.size + more + 1) * sizeof(int64_t))
        self.valid.reserve((self.size + more + 8) // 8)
        return 0

    cdef inline void put(self, int64_t number, bint is_valid) noexcept:
        (<int64_t *> self.numbers.data)[self.size + 1] = number
        if is_valid:
            self.valid.data[self.size >> 3] |= <uint8_t> (1 << (self.size & 7))
        else:
            self.has_null = True
        self.size += 1

    cdef int put_null(self) except -1:
        self.put(self.num_bytes if self.kind == _BYTES else 0, False)
        return 0

    cdef int become(self, int kind, value) except -1:
        cdef int64_t i
        cdef int64_t number
        cdef double x
        cdef uint8_t *data
        if self.kind == _UNKNOWN:
            self.kind = kind
        elif self.kind == _INT and kind == _FLOAT:
            self.kind = _FLOAT
            for i in range(1, self.size + 1):
                data = self.numbers.data + i * 8
                memcpy(&number, data, 8)
                x = <double> number
                memcpy(data, &x, 8)
        elif not (self.kind == _FLOAT and kind == _INT):
            got = f"{_TYPES[kind]} after {_TYPES[self.kind]}"
            raise self.wrong("a column of one type", got)
        return 0

    cdef int put_bytes(self, const char *data, Py_ssize_t size, value) except -1:
        if self.kind != _BYTES:
            self.become(_BYTES, value)
        self.bytes.reserve(self.num_bytes + size)
        memcpy(self.bytes.data + self.num_bytes, data, size)
        self.num_bytes += size
        self.put(self.num_bytes, True)
        return 0

    cdef int put_float(self, double x, value) except -1:
        cdef int64_t number
        if x != x:  # pandas says "missing" with NaN in columns of any type
            return self.put_null()
        if self.kind != _FLOAT:
            self.become(_FLOAT, value)
        memcpy(&number, &x, 8)
        self.put(number, True)
        return 0

    cdef int append(self, object value) except -1:
        """Take one value; the caller has reserved its place."""
        cdef Py_ssize_t size
        cdef const char *text
        cdef int overflow = 0
        cdef long long number
        if value is None:
            return self.put_null()
        if isinstance(value, str):
            try:
                text = PyUnicode_AsUTF8AndSize(value, &size)
            except UnicodeEncodeError:
                rule = "text that has a UTF-8 form"
                raise self.wrong(rule, ascii(value)) from None
            return self.put_bytes(text, size, value)
        if isinstance(value, int):
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow:
                raise self.wrong("a 64-bit signed integer", value)
            if self.kind == _FLOAT:
                return self.put_float(<double> number, value)
            if self.kind != _INT:
                self.become(_INT, value)
            self.put(number, True)
            return 0
        if isinstance(value, float):
            return self.put_float(value, value)
        if isinstance(value, bytes):
            size = PyBytes_GET_SIZE(value)
            return self.put_bytes(PyBytes_AS_STRING(value), size, value)
        if isinstance(value, np.generic) and value.dtype.kind in "biuf" \
                and value.dtype.itemsize <= 8:
            return self.append(value.item())
        if isinstance(value, np.ndarray) and value.ndim == 0:
            return self.append(value[()])
        if isinstance(value, (bytearray, memoryview)):
            return self.append(bytes(value))
        if _is_pandas_missing(value):
            return self.put_null()
        if isinstance(value, (list, tuple, np.ndarray)):
            raise self.wrong("a single value", "a list")
        rule = "a string or a number"
        raise self.wrong(rule, f"{type(value).__name__} {value!r:.80}")

    cdef int append_row(self, object row) except -1:
        """Take one list, or null."""
        cdef Py_ssize_t i
        cdef Py_ssize_t n
        self.offsets.reserve((self.num_rows + 2) * sizeof(int64_t))
        self.row_valid.reserve((self.num_rows + 8) // 8)
        if isinstance(row, np.ndarray) and row.ndim == 1:
            row = row.tolist()
        if isinstance(row, list):
            # Converting a value may run foreign code, which may change the list.
            n = PyList_GET_SIZE(row)
            self.reserve(n)
            i = 0
            while i < PyList_GET_SIZE(row):
                if i >= n:
                    self.reserve(1)
                self.append(<object> PyList_GET_ITEM(row, i))
                i += 1
        elif isinstance(row, tuple):
            n = PyTuple_GET_SIZE(row)
            self.reserve(n)
            for i in range(n):
                self.append(<object> PyTuple_GET_ITEM(row, i))
        elif row is None or _is_nan(row) or _is_pandas_missing(row):
            self.has_null_row = True
            self.row_valid.data[self.num_rows >> 3] &= (
                <uint8_t> (~(1 << (self.num_rows & 7)) & 255))
            self.num_rows += 1
            (<int64_t *> self.offsets.data)[self.num_rows] = self.size
            return 0
        else:
            raise self.wrong("a list", f"{type(row).__name__} {row!r:.80}")
        self.row_valid.data[self.num_rows >> 3] |= (
            <uint8_t> (1 << (self.num_rows & 7)))
        self.num_rows += 1
        (<int64_t *> self.offsets.data)[self.num_rows] = self.size
        return 0

    cdef Column finish(self, bint is_list):
        cdef Column column = Column(self.name)
        cdef din_column *c = column.new_chunk()
        column.kind = _KINDS[self.kind]
        column.type_name = _TYPES[self.kind]
        column.is_list = is_list
        column.owners.append(self)
        c.num_rows = self.size
        c.values.length = self.size
        if self.has_null:
            c.values.validity = self.valid.data
        if self.kind == _UNKNOWN:
            c.values.type = DIN_NULL
        elif self.kind == _BYTES:
            c.values.type = DIN_BYTES64
            c.values.data = self.numbers.data
            c.values.bytes = self.bytes.data
        else:
            c.values.type = DIN_INT64 if self.kind == _INT else DIN_FLOAT64
            c.values.data = self.numbers.data + sizeof(int64_t)
        if is_list:
            self.offsets.reserve(sizeof(int64_t))
            c.nesting = DIN_LIST64
            c.num_rows = self.num_rows
            c.offsets = self.offsets.data
            if self.has_null_row:
                c.validity = self.row_valid.data
        column.num_rows = c.num_rows
        return column


cdef bint _is_nan(object value):
    return isinstance(value, float) and value != value


cdef bint _is_pandas_missing(object value):
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)


cdef bint _is_row(object value):
    return isinstance(value, (list, tuple)) or (
        isinstance(value, np.ndarray) and value.ndim > 0)


def from_list(list values not None, str name not None):
    """Copy a list of strings, numbers or lists of them (None: null) into a column.

    Raises
    ------
    InputError
        If the values are of several types or of none that a column can have.
    """
    cdef _Builder builder
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t reserved = 0
    cdef bint is_list = False
    for value in values:
        if value is not None and not _is_nan(value):
            is_list = _is_row(value)
            break
    if is_list:
        arrays = _concatenate(values)
        if arrays is not None:
            return nest(from_numpy(arrays[0], name), arrays[1])
    builder = _Builder(name, is_list)
    while i < PyList_GET_SIZE(values):
        builder.row = i
        if is_list:
            builder.append_row(<object> PyList_GET_ITEM(values, i))
        else:
            if i >= reserved:  # the list may grow meanwhile: see append_row
                reserved = min(i + 1024, PyList_GET_SIZE(values))
                builder.reserve(reserved - i)
            builder.append(<object> PyList_GET_ITEM(values, i))
        i += 1
    return builder.finish(is_list)


def _concatenate(list rows):
    """Join rows that are all 1-D arrays of one number type; None where they are not."""
    dtype = None
    for row in rows:
        if not isinstance(row, np.ndarray) or row.ndim != 1:
            return None
        if dtype is None:
            dtype = row.dtype
        if row.dtype != dtype or dtype.name not in _NUMPY_TYPES:
            return None
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return np.concatenate(rows), offsets


# --------------------------------------------------------------------------- repeats

def mark_repeats(
    Column column not None, uint8_t[::1] same not None, int64_t first, int64_t stop
):
    """Clear same[r] of rows [first, stop) but those that repeat the row before surely.

    Where it is 0 already, nothing is compared. The first row of a chunk repeats none.
    Returns how many are left. Releases the GIL, so that threads may share the rows.

    Raises
    ------
    InputError
        If `same` has not one entry per row, or the rows are others than the column's.
    """
    cdef int64_t start = 0  # of the chunk
    cdef int64_t count = 0
    cdef int64_t a
    cdef int64_t b
    cdef Py_ssize_t i
    cdef din_column *chunk
    if same.shape[0] != column.num_rows:
        rule = f"{column.num_rows} entries, one per row"
        raise InputError(rule, same.shape[0], column.name)
    if not 0 <= first <= stop <= column.num_rows:
        rule = f"rows in [0, {column.num_rows}]"
        raise InputError(rule, f"[{first}, {stop})", column.name)
    if column.kind == "other":  # no kernel reads it
        same[first:stop] = 0
    for i in range(column.num_chunks):
        chunk = column.chunk(i)
        a = max(first - start, 0)
        b = min(stop - start, chunk.num_rows)
        if a < b:
            with nogil:
                count += din_mark_repeats(chunk, a, b, &same[start])
        start += chunk.num_rows
    return count


def take_runs(Column column not None, const int64_t[::1] starts not None):
    """View the first row of each run; what is counted in it counts for the whole run.

    Run r is the rows from starts[r] to the next start, or to the end. No element is
    copied.

    Raises
    ------
    InputError
        If `starts` do not begin at row 0 and rise inside the column, or it was made by
        this function itself.
    """
    cdef Column taken = Column(column.name)
    cdef _Memory rows = _Memory()
    cdef _Memory weights = _Memory()
    cdef int64_t num_runs = starts.shape[0]
    cdef int64_t start = 0  # of the chunk
    cdef int64_t run = 0
    cdef int64_t n
    cdef int64_t i
    cdef int64_t *first
    cdef din_column *c
    if column.weights is not None:
        rule = "a column whose rows count once"
        raise InputError(rule, "runs of another", column.name)
    rows.reserve((num_runs + 1) * sizeof(int64_t))
    weights.reserve(num_runs * sizeof(int64_t))
    first = <int64_t *> rows.data
    for i in range(num_runs):
        first[i] = starts[i]
    first[num_runs] = column.num_rows
    if first[0] != 0:
        raise InputError("a first run at row 0", first[0], column.name)
    for i in range(num_runs):
        if first[i + 1] <= first[i]:
            rule = f"runs that rise inside {column.num_rows} rows"
            raise InputError(rule, first[i], column.name, within=f"run {i}")
        (<int64_t *> weights.data)[i] = first[i + 1] - first[i]
    taken.kind = column.kind
    taken.type_name = column.type_name
    taken.is_list = column.is_list
    taken.weights = weights
    taken.sum_of_weights = column.num_rows
    taken.owners.extend((column, rows))
    for i in range(column.num_chunks):
        n = 0
        while run + n < num_runs and first[run + n] - start < column.chunk(i).num_rows:
            first[run + n] -= start
            n += 1
        if n > 0:
            c = taken.new_chunk()
            c[0] = column.chunk(i)[0]
            _take_rows(taken, c, &first[run], n)
        run += n
        start += column.chunk(i).num_rows
    taken.num_rows = num_runs
    return taken


cdef int _take_rows(
    Column column, din_column *c, int64_t *rows, int64_t num_rows
) except -1:
    """Make of a checked chunk one of some of its rows; it keeps what lies at `rows`."""
    cdef int64_t num_elements = c.num_rows
    cdef _Memory valid = _Memory()
    cdef din_values places
    cdef int64_t i
    memset(&places, 0, sizeof(places))
    places.type = DIN_INT64
    places.length = num_rows
    places.data = rows
    if c.nesting != DIN_SCALAR:
        _look_rows_up(column, c, &places, num_rows)
        return 0
    c.num_rows = num_rows
    if c.values.type == DIN_NULL:
        c.values.length = num_rows
        return 0
    if not c.has_dictionary:  # then the elements become one
        c.has_dictionary = True
        c.dictionary = c.values
        c.dictionary.length = num_elements
        c.values = places
        return 0
    valid.reserve(num_rows // 8 + 1)
    for i in range(num_rows):
        if din_is_valid(&c.values, rows[i]):
            rows[i] = din_index_at(&c.values, rows[i])
            valid.data[i >> 3] |= <uint8_t> (1 << (i & 7))
    column.owners.append(valid)
    places.validity = valid.data
    c.values = places
    return 0


# -------------------------------------------------------------------------- encoding

HASHES = {
    "xxh64": DIN_HASH_XXH64, "xxh3_64": DIN_HASH_XXH3_64,
    "murmur3_32": DIN_HASH_MURMUR3_32, "farmhash64": DIN_HASH_FARMHASH_64,
}
_REDUCES = {
    "offset": DIN_REDUCE_OFFSET, "mod": DIN_REDUCE_MOD, "pmod": DIN_REDUCE_PMOD,
    "abs": DIN_REDUCE_ABS, "raw": DIN_REDUCE_RAW,
}
_READS = {
    "string": DIN_READS_BYTES, "int64": DIN_READS_INT64, "float": DIN_READS_FLOAT64,
}
_TYPES_OF_ENCODER = {
    "hash": DIN_ENCODE_HASH, "vocab": DIN_ENCODE_VOCAB,
    "identity": DIN_ENCODE_IDENTITY, "bucketize": DIN_ENCODE_BUCKETIZE,
}
_UNSEEN = {
    "row": DIN_UNSEEN_ROW, "missing": DIN_UNSEEN_MISSING, "error": DIN_UNSEEN_ERROR,
}


def isas():
    """Name the instruction sets that hashes can use on this machine, best first."""
    cdef const din_block_isa *isa = din_block_isa_at(0)
    names = []
    while isa != NULL:
        names.append(isa.name.decode())
        isa = din_block_isa_at(len(names))
    return names


cdef const din_block_isa *_find_isa(str name) except NULL:
    """Find the one that is named, here or in DIN_INFER_ISA; else the best."""
    cdef const char *chosen = getenv("DIN_INFER_ISA")
    cdef const din_block_isa *isa
    if name is not None:
        chosen = PyUnicode_AsUTF8AndSize(name, NULL)
    isa = din_find_block_isa(chosen)
    if isa == NULL:
        place = "DIN_INFER_ISA" if name is None else "isa"
        rule = f"an instruction set of this machine ({', '.join(reversed(isas()))})"
        raise DeviceError(rule, chosen.decode(errors="replace"), place)
    return isa


cdef class Vocabulary:
    """Keys and the table that finds them; built once, then shared and read-only.

    Raises
    ------
    InputError
        If a key is of another dtype than "string" or "int64" as given, null, or there
        twice.
    """

    cdef din_vocab c
    cdef readonly str dtype
    cdef list owners

    def __cinit__(self, list keys not None, str dtype not None, str isa=None):
        cdef Column column = from_list(keys, "values")
        cdef _Memory slots = _Memory()
        cdef din_values *v
        cdef int64_t earlier = 0
        cdef int64_t twice
        cdef size_t slot_bytes = sizeof(uint64_t)
        if dtype not in ("string", "int64"):
            raise InputError("string or int64", repr(dtype), "dtype")
        self.dtype = dtype
        self.c.isa = _find_isa(isa)
        column.require(_READS[dtype], False)
        v = &column.chunk(0).values
        if column.kind == "float" or column.kind == "null" and len(keys) > 0 \
                or v.validity != NULL:
            raise InputError("strings or integers", "others", "values")
        if len(keys) > DIN_MAX_VOCAB:
            rule = f"at most {DIN_MAX_VOCAB} values"
            raise InputError(rule, len(keys), "values")
        self.c.num_keys = column.num_rows
        self.c.num_slots = din_vocab_num_slots(column.num_rows)
        if dtype == "string":
            self.c.bytes = v.bytes
            self.c.offsets = <const int64_t *> v.data
        else:
            self.c.ints = <const int64_t *> v.data
            slot_bytes = sizeof(din_int_slot)
        slots.reserve(self.c.num_slots * slot_bytes)
        self.c.slots = slots.data
        self.owners = [column, slots]
        with nogil:
            twice = din_fill_vocab(&self.c, &earlier)
        if twice >= 0:
            got = f"{keys[twice]!r:.80} at {earlier} and {twice}"
            raise InputError("each value once", got, "values")

    def __len__(self):
        return self.c.num_keys


cdef class Encoder:
    """A compiled encoder; read-only, so that threads may share it."""

    cdef din_encoder c
    cdef str rule
    cdef readonly str dtype
    cdef readonly str isa
    cdef list owners

    def __cinit__(
        self, str type not None, str dtype not None, *, rows, str hash="xxh64", seed=0,
        str reduce="offset", str int_as="bytes", Vocabulary vocabulary=None,
        str unseen="error", boundaries=(), str isa=None,
    ):
        cdef _Buffer buffer
        if not 1 <= rows < 2**63:
            raise InputError("rows in [1, 2**63)", rows, "encoder")
        self.owners = [vocabulary]
        self.dtype = dtype
        self.c.type = _TYPES_OF_ENCODER[type]
        self.c.reads = _READS[dtype]
        self.c.unseen = _UNSEEN[unseen]
        self.c.hash = HASHES[hash]
        self.c.isa = _find_isa(isa)
        self.isa = self.c.isa.name.decode()
        self.c.seed = seed
        self.c.int_as_text = int_as == "text"
        self.c.num_rows = rows
        self.rule = f"an id in [0, {rows})"
        if self.c.reads == DIN_READS_FLOAT64 and self.c.type != DIN_ENCODE_BUCKETIZE:
            raise InputError("bucketize for floats", type, "encoder")
        if self.c.reads == DIN_READS_BYTES and type not in ("hash", "vocab"):
            raise InputError("hash or vocab for strings", type, "encoder")
        if type == "hash":
            if rows < 2 and reduce == "offset":
                raise InputError("at least 2 buckets", rows, "encoder")
            din_prepare_reduction(
                _REDUCES[reduce], self.c.hash, rows, &self.c.reduction)
        if type == "bucketize":
            buffer = _Buffer(np.array(boundaries, dtype=np.float64))
            self.owners.append(buffer)
            self.c.boundaries = <const double *> buffer.view.buf
            self.c.num_boundaries = len(boundaries)
        if type == "vocab":
            self.rule = "a value of the vocabulary"
            if vocabulary is None or vocabulary.dtype != dtype:
                got = "none" if vocabulary is None else vocabulary.dtype
                raise InputError(f"a vocabulary of {dtype}", got, "encoder")
            if rows < len(vocabulary) + 2:
                rule = f"at least {len(vocabulary) + 2} rows"
                raise InputError(rule, rows, "encoder")
            self.c.vocab = vocabulary.c


cdef class _Codes:
    """The ids of one chunk's dictionary."""

    cdef din_codes c
    cdef _Memory ids
    cdef _Memory codes


cdef _Codes _find_codes(const din_column *chunk, Encoder encoder):
    """Encode a chunk's dictionary; None where there is none, or it is no gain."""
    cdef _Codes found
    cdef int64_t first = 0
    cdef int64_t stop = 0
    cdef int64_t size = chunk.dictionary.length
    if not chunk.has_dictionary:
        return None
    din_check_rows(chunk, &first, &stop)
    if size > stop - first:
        return None
    found = _Codes()
    found.ids = _Memory()
    found.codes = _Memory()
    found.ids.reserve(size * sizeof(int64_t))
    found.codes.reserve(size)
    with nogil:
        din_encode_dictionary(
            chunk, &encoder.c, <int64_t *> found.ids.data, found.codes.data,
            &found.c.has_special)
    found.c.ids = <const int64_t *> found.ids.data
    found.c.codes = found.codes.data
    found.c.num_ids = size
    return found


cdef object _value_at(const din_column *chunk, int64_t i):
    """Return one element as a Python object, for an error."""
    cdef const din_values *v = &chunk.values
    cdef din_key key
    if i < 0 or not din_is_valid(v, i):
        return None
    if chunk.has_dictionary:
        i = din_index_at(v, i)
        v = &chunk.dictionary
        if not din_is_valid(v, i):
            return None
    cdef int64_t at = i + v.offset
    if v.type >= DIN_BYTES32:
        key = din_key_at(v, v.type, i)
        raw = (<const char *> key.data)[:min(key.num_bytes, 200)]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw
    if v.type == DIN_FLOAT64:
        return din_read_f64(v.data, at)
    if v.type == DIN_FLOAT32:
        return din_read_f32(v.data, at)
    if v.type == DIN_FLOAT16:
        return din_read_f16(v.data, at)
    if v.type == DIN_UINT64:
        return din_read_ui64(v.data, at)
    if v.type == DIN_BOOL:
        return bool(din_bit(<const uint8_t *> v.data, at))
    return din_index_at(v, i)


cdef object _fault(
    Column column, Py_ssize_t chunk, int64_t first_row, const din_tally *tally, str rule
):
    """Return the error that a tally stands for."""
    value = repr(_value_at(column.chunk(chunk), tally.bad))
    if tally.fault == DIN_NOT_WHOLE:
        rule = "a whole number"
    elif tally.fault == DIN_NOT_EXACT:
        rule = f"a whole number that {column.type_name} holds exactly"
    elif tally.fault == DIN_BEYOND_INT64:
        rule = "a 64-bit signed integer"
    elif tally.fault == DIN_IS_MISSING:
        rule = "a finite number"
        if value == "None" or value == "nan":
            value = "null" if value == "None" else "NaN"
    elif tally.fault == DIN_WRONG_COUNT:
        value = str(tally.bad)
    row = first_row + tally.bad_row
    return InputError(rule, value, column.name, row=row)


cdef class Encoding:
    """One column on its way to ids: `run` over all rows, then `finish`.

    Rows may be run in any parts, in any order and by any thread: the ids, the counts
    and the error are the same. Made by `prepare_scalars` and `prepare_lists`, which
    check that the encoder reads the column; by itself it is empty.
    """

    cdef readonly int64_t num_rows
    cdef readonly int64_t num_counted   # rows that these stand for
    cdef readonly int64_t num_elements  # about so many are encoded
    cdef Column column
    cdef Encoder encoder
    cdef Window window  # None: scalars
    cdef din_window w
    cdef list codes
    cdef object out
    cdef int64_t *ids  # the data of `out`; NULL once it is handed out, or empty
    cdef int64_t num_run  # rows
    cdef int64_t nulls
    cdef int64_t unseen
    cdef Py_ssize_t bad_chunk
    cdef int64_t bad_start
    cdef din_tally bad  # the first fault, if any

    cdef int open(self, Column column, Encoder encoder) except -1:
        cdef Py_ssize_t i
        self.column = column
        self.encoder = encoder
        self.num_rows = column.num_rows
        self.num_counted = column.num_counted
        self.codes = []
        for i in range(column.num_chunks):
            self.codes.append(_find_codes(column.chunk(i), encoder))
        return 0

    def run(self, int64_t first, int64_t stop):
        """Encode rows [first, stop). Releases the GIL."""
        cdef din_tally tally
        cdef const din_column *chunk
        cdef int64_t start = 0  # of the chunk
        cdef int64_t a
        cdef int64_t b
        cdef Py_ssize_t i
        name = "Encoding" if self.column is None else self.column.name
        if not 0 <= first <= stop <= self.num_rows:
            rule = f"rows in [0, {self.num_rows}]"
            raise InputError(rule, f"[{first}, {stop})", name)
        if stop - first > self.num_rows - self.num_run:
            raise InputError("each row once", "some again", name)
        self.num_run += stop - first
        if self.ids == NULL:
            return
        for i in range(self.column.num_chunks):
            chunk = self.column.chunk(i)
            a = max(first - start, 0)
            b = min(stop - start, chunk.num_rows)
            if a < b:
                self.encode(i, start, a, b, &tally)
                self.add(i, start, &tally)
                if tally.fault != DIN_FINE:
                    return
            start += chunk.num_rows

    cdef void encode(
        self, Py_ssize_t i, int64_t start, int64_t first, int64_t stop,
        din_tally *tally
    ) noexcept:
        """Encode rows [first, stop) of chunk i, and count them by their weights."""
        cdef din_window w = self.w
        cdef const din_column *chunk = self.column.chunk(i)
        cdef const int64_t *weights = self.column.weights_from(start)
        cdef const din_codes *codes = NULL
        cdef int64_t *ids = self.ids + start
        cdef bint is_list = self.window is not None
        if self.codes[i] is not None:
            codes = &(<_Codes> self.codes[i]).c
        if is_list:
            self.window.show(&w, start)
            ids = self.ids + start * w.width
        memset(tally, 0, sizeof(tally[0]))
        if self.num_elements <= FEW_ELEMENTS:
            self.weigh_rows(chunk, codes, &w, is_list, first, stop, ids, weights, tally)
            return
        with nogil:
            self.weigh_rows(chunk, codes, &w, is_list, first, stop, ids, weights, tally)

    cdef void weigh_rows(
        self, const din_column *chunk, const din_codes *codes, const din_window *w,
        bint is_list, int64_t first, int64_t stop, int64_t *ids,
        const int64_t *weights, din_tally *tally
    ) noexcept nogil:
        cdef din_tally one
        cdef int64_t row
        self.encode_rows(chunk, codes, w, is_list, first, stop, ids, tally)
        if weights == NULL or tally.nulls + tally.unseen == 0:
            return
        # which of them are they?
        tally.nulls = tally.unseen = 0
        for row in range(first, stop if tally.fault == DIN_FINE else first):
            memset(&one, 0, sizeof(one))
            self.encode_rows(chunk, codes, w, is_list, row, row + 1, ids, &one)
            tally.nulls += one.nulls * weights[row]
            tally.unseen += one.unseen * weights[row]

    cdef void encode_rows(
        self, const din_column *chunk, const din_codes *codes, const din_window *w,
        bint is_list, int64_t first, int64_t stop, int64_t *ids, din_tally *tally
    ) noexcept nogil:
        if is_list:
            din_encode_lists(
                chunk, &self.encoder.c, codes, w, first, stop, ids, tally)
        else:
            din_encode_scalars(
                chunk, &self.encoder.c, codes, first, stop, ids, tally)

    cdef void add(
        self, Py_ssize_t chunk, int64_t start, const din_tally *tally
    ) noexcept:
        self.nulls += tally.nulls
        self.unseen += tally.unseen
        if tally.fault != DIN_FINE and (
            self.bad.fault == DIN_FINE
            or start + tally.bad_row < self.bad_start + self.bad.bad_row
        ):
            self.bad_chunk = chunk
            self.bad_start = start
            self.bad = tally[0]

    def finish(self):
        """Return (ids int64 [B] or [B, T], nulls, unseen).

        Raises
        ------
        InputError
            At the first value that has no id, or if rows were not run.
        """
        if self.bad.fault != DIN_FINE:
            raise _fault(self.column, self.bad_chunk, self.bad_start, &self.bad,
                         self.encoder.rule)
        if self.num_run < self.num_rows:
            rule = f"{self.num_rows} rows, all of them run"
            raise InputError(rule, self.num_run, self.column.name)
        self.ids = NULL
        return self.out, self.nulls, self.unseen

    cdef int allocate(self, shape) except -1:
        cdef Py_buffer view
        self.out = _empty(shape, _INT64)
        PyObject_GetBuffer(self.out, &view, PyBUF_ND)
        if view.len > 0:
            self.ids = <int64_t *> view.buf
        PyBuffer_Release(&view)
        return 0


def prepare_scalars(Column column not None, Encoder encoder not None):
    """Return the Encoding of a scalar column to ids int64 [B]."""
    cdef Encoding encoding = Encoding()
    column.require(encoder.c.reads, False)
    encoding.open(column, encoder)
    encoding.num_elements = column.num_rows
    encoding.allocate(column.num_rows)
    return encoding


def encode_scalars(Column column not None, Encoder encoder not None):
    """Encode a scalar column at once: (ids int64 [B], nulls, unseen).

    Raises
    ------
    InputError
        At the first value that has no id. Releases the GIL.
    """
    cdef Encoding encoding = prepare_scalars(column, encoder)
    encoding.run(0, encoding.num_rows)
    return encoding.finish()


cdef class Window:
    """Which elements of each list are behaviors, judged on one column of lists.

    Made of the first column of a sequence; then at most one of `trim`, `drop`, `take`
    narrows it, and `encode_lists` applies it to that column and its parallels.
    """

    cdef readonly Column column
    cdef int64_t[::1] lengths    # of the lists themselves
    cdef int64_t[::1] kept
    cdef int64_t[::1] skip
    cdef int64_t[::1] positions
    cdef int64_t[::1] position_start
    cdef int64_t num_kept        # once finished: elements of all rows together
    cdef bint is_narrowed
    # A memoryview never set is not None: it needs a flag.
    cdef bint has_skip
    cdef bint has_positions

    def __cinit__(self, Column column not None):
        if column.kind != "null" and not column.is_list or column.kind == "other":
            raise InputError("a list column", column.describe(), column.name)
        self.column = column
        self.lengths = _lengths_of(column)
        self.kept = self.lengths

    cdef void show(self, din_window *w, int64_t row) noexcept:
        """Point `w` at the rows from `row` on."""
        if self.is_narrowed:
            w.kept = &self.kept[row]
            if self.has_skip:
                w.skip = &self.skip[row]
            if self.has_positions:
                w.positions = &self.positions[0]
                w.position_start = &self.position_start[row]

    cdef int check_whole(self) except -1:
        if self.is_narrowed:
            rule = "a window that is narrowed once"
            raise InputError(rule, "twice", self.column.name)
        return 0

    cdef din_pad_value pad_value(self, object value) except *:
        cdef din_pad_value pad
        self.check_whole()
        cdef Py_ssize_t size = 0
        cdef int64_t number = 0
        memset(&pad, 0, sizeof(pad))
        if isinstance(value, str):
            self.column.require(DIN_READS_BYTES, True)
            pad.data = <const uint8_t *> PyUnicode_AsUTF8AndSize(value, &size)
            pad.num_bytes = size
        else:
            self.column.require(DIN_READS_INT64, True)
            number = value
            pad.number = number
        return pad

    # A window is changed at once, when all is known: other threads may look at it.

    def trim(self, value not None):
        """Take leading and trailing elements equal to `value` off."""
        cdef din_pad_value pad = self.pad_value(value)
        cdef int64_t row = 0
        cdef Py_ssize_t i
        cdef din_column *chunk
        cdef int64_t[::1] skip = np.zeros(self.lengths.shape[0], dtype=np.int64)
        cdef int64_t[::1] kept = np.empty(self.lengths.shape[0], dtype=np.int64)
        for i in range(self.column.num_chunks):
            chunk = self.column.chunk(i)
            if chunk.num_rows > 0:
                with nogil:
                    din_trim_rows(chunk, &pad, &skip[row], &kept[row])
            row += chunk.num_rows
        self.check_whole()
        self.skip = skip
        self.kept = kept
        self.is_narrowed = self.has_skip = True

    def drop(self, value not None):
        """Take all elements equal to `value` out."""
        cdef din_pad_value pad = self.pad_value(value)
        cdef int64_t row = 0
        cdef int64_t total = 0
        cdef Py_ssize_t num_rows = self.lengths.shape[0]
        cdef Py_ssize_t i
        cdef din_column *chunk
        cdef int64_t[::1] kept = np.empty(num_rows, dtype=np.int64)
        cdef int64_t[::1] position_start = np.empty(num_rows, dtype=np.int64)
        cdef int64_t[::1] positions
        for i in range(num_rows):
            position_start[i] = total
            if self.lengths[i] > MAX_ROWS - total:
                raise _malformed(f"at most {MAX_ROWS} elements", self.column.name)
            total += self.lengths[i]
        positions = np.empty(max(total, 1), dtype=np.int64)
        for i in range(self.column.num_chunks):
            chunk = self.column.chunk(i)
            if chunk.num_rows > 0:
                with nogil:
                    din_drop_pads(chunk, &pad, &position_start[row], &positions[0],
                                  &kept[row])
            row += chunk.num_rows
        self.check_whole()
        self.positions = positions
        self.position_start = position_start
        self.kept = kept
        self.is_narrowed = self.has_positions = True

    def take(self, Column lengths not None):
        """Keep the first `lengths` elements of each list."""
        cdef Py_ssize_t i
        cdef int64_t[::1] kept
        cdef uint8_t[::1] valid
        self.check_whole()
        lengths.require(DIN_READS_INT64, False)
        kept, valid = read_int64(lengths)
        if kept.shape[0] != self.lengths.shape[0]:
            rule = f"{self.lengths.shape[0]} rows"
            raise InputError(rule, kept.shape[0], lengths.name)
        for i in range(kept.shape[0]):
            if not valid[i] or kept[i] < 0 or kept[i] > self.lengths[i]:
                size = self.lengths[i]
                rule = f"a length in [0, {size}], the length of `{self.column.name}`"
                got = kept[i] if valid[i] else "null"
                raise InputError(rule, got, lengths.name, row=i)
        self.kept = kept
        self.is_narrowed = True

    def finish(self, int64_t max_len, bint is_fixed):
        """Return (lengths int64 [B], T, rows that lost behaviors, empty rows).

        The rows are counted by their weights.
        """
        cdef int64_t longest = 0
        cdef int64_t truncated = 0
        cdef int64_t empty = 0
        cdef int64_t n
        cdef int64_t weight = 1
        cdef const int64_t *weights = self.column.weights_from(0)
        cdef Py_ssize_t num_rows = self.kept.shape[0]
        cdef Py_ssize_t i
        cdef int64_t[::1] view
        cdef const int64_t *kept
        cdef int64_t *lengths
        out = _empty(num_rows, _INT64)
        view = out
        self.num_kept = 0
        if num_rows > 0:
            kept = &self.kept[0]
            lengths = &view[0]
            for i in range(num_rows):
                n = kept[i]
                longest = n if n > longest else longest
                if weights != NULL:
                    weight = weights[i]
                truncated += weight if n > max_len else 0
                empty += weight if n == 0 else 0
                n = n if n < max_len else max_len
                self.num_kept += n
                lengths[i] = n
        return out, max_len if is_fixed else min(longest, max_len), truncated, empty

    cdef int check_parallel(self, Column column) except -1:
        """Refuse a column whose lists have other lengths."""
        cdef const int64_t[::1] lengths
        cdef Py_ssize_t i
        if column is self.column:
            return 0
        lengths = _lengths_of(column)
        name = self.column.name
        if lengths.shape[0] != self.lengths.shape[0]:
            rule = f"{self.lengths.shape[0]} rows, as `{name}` has"
            raise InputError(rule, lengths.shape[0], column.name)
        for i in range(lengths.shape[0]):
            if lengths[i] != self.lengths[i]:
                rule = f"{self.lengths[i]} elements, as `{name}` has"
                raise InputError(rule, lengths[i], column.name, row=i)
        return 0


cdef object _lengths_of(Column column):
    cdef int64_t row = 0
    cdef Py_ssize_t i
    cdef int64_t[::1] view
    cdef din_column *chunk
    out = _empty(column.num_rows, _INT64)
    view = out
    for i in range(column.num_chunks):
        chunk = column.chunk(i)
        if 0 < chunk.num_rows <= FEW_ELEMENTS:
            din_row_lengths(chunk, &view[row])
        elif chunk.num_rows > 0:
            with nogil:
                din_row_lengths(chunk, &view[row])
        row += chunk.num_rows
    return out


def prepare_lists(
    Column column not None, Encoder encoder not None, Window window not None,
    int64_t width, bint newest_first,
):
    """Return the Encoding of a list column to padded ids int64 [B, width].

    The newest `width` elements of the window, oldest first, right-padded with 0.

    Raises
    ------
    InputError
        If the lists have other lengths than the window's column.
    """
    cdef Encoding encoding = Encoding()
    if width < 0:
        raise InputError("a width of at least 0", width, column.name)
    if column.kind != "null" and not column.is_list or column.kind == "other":
        raise InputError("a list column", column.describe(), column.name)
    if column.kind != "null":
        column.require(encoder.c.reads, True)
    window.check_parallel(column)
    encoding.open(column, encoder)
    encoding.window = window
    encoding.w.width = width
    encoding.w.newest_first = newest_first
    encoding.num_elements = window.num_kept
    encoding.allocate((column.num_rows, width))
    return encoding


# --------------------------------------------------------------------------- numbers

def read_dense(Column column not None, int64_t num_values, missing):
    """Read `num_values` (K) numbers per row: (float32 [B, K], missing ones, weighted).

    Null, NaN and infinity become `missing`; None: they raise.

    Raises
    ------
    InputError
        Naming the row that has another number of values, or a missing one.
    """
    cdef float[:, ::1] view
    cdef din_tally tally
    cdef din_column *chunk
    cdef const int64_t *weights
    cdef float replacement = 0.0 if missing is None else missing
    cdef int32_t replace = missing is not None
    cdef int64_t row = 0
    cdef Py_ssize_t i
    if num_values < 1:
        raise InputError("at least 1 value", num_values, column.name)
    column.require(DIN_READS_FLOAT64, column.is_list)
    memset(&tally, 0, sizeof(tally))
    out = np.empty((column.num_rows, num_values), dtype=np.float32)
    view = out
    for i in range(column.num_chunks):
        chunk = column.chunk(i)
        if chunk.num_rows == 0:
            continue
        weights = column.weights_from(row)
        with nogil:
            din_read_dense(
                chunk, num_values, replace, replacement, weights, &view[row, 0],
                &tally)
        if tally.fault != DIN_FINE:
            unit = "value" if num_values == 1 else "values"
            raise _fault(column, i, row, &tally, f"{num_values} {unit}")
        row += chunk.num_rows
    return out, tally.nulls


def read_float64(Column column not None):
    """Read a scalar column as float64 [B], null as NaN."""
    cdef double[::1] view
    cdef din_column *chunk
    cdef int64_t row = 0
    cdef Py_ssize_t i
    column.require(DIN_READS_FLOAT64, False)
    out = np.empty(column.num_rows, dtype=np.float64)
    view = out
    for i in range(column.num_chunks):
        chunk = column.chunk(i)
        if chunk.num_rows > 0:
            with nogil:
                din_read_scalars_float64(chunk, &view[row])
        row += chunk.num_rows
    return out


def read_int64(Column column not None):
    """Read whole numbers: (int64 [B], valid uint8 [B]), null as 0."""
    cdef int64_t[::1] view
    cdef uint8_t[::1] valid_view
    cdef din_tally tally
    cdef din_column *chunk
    cdef int64_t row = 0
    cdef Py_ssize_t i
    column.require(DIN_READS_INT64, False)
    memset(&tally, 0, sizeof(tally))
    out = np.empty(column.num_rows, dtype=np.int64)
    valid = np.empty(column.num_rows, dtype=np.uint8)
    view = out
    valid_view = valid
    for i in range(column.num_chunks):
        chunk = column.chunk(i)
        if chunk.num_rows == 0:
            continue
        with nogil:
            din_read_scalars_int64(chunk, &view[row], &valid_view[row], &tally)
        if tally.fault != DIN_FINE:
            raise _fault(column, i, row, &tally, "a whole number")
        row += chunk.num_rows
    return out, valid


def pad(const int64_t[::1] values not None, offsets, int64_t max_len):
    """Pad ragged ids; see `din_infer.encode.pad`."""
    cdef const int64_t[::1] ends = check_offsets(offsets, values.shape[0], "offsets")
    cdef int64_t num_rows = ends.shape[0] - 1
    cdef int64_t width = 0
    cdef int64_t i
    cdef int64_t[:, ::1] padded_view
    cdef int64_t[::1] lengths_view
    cdef const int64_t *first = NULL
    cdef int64_t unused = 0
    if max_len < 0:
        raise InputError("at least 0", max_len, "max_len")
    for i in range(num_rows):
        width = max(width, ends[i + 1] - ends[i])
    width = min(width, max_len)
    padded = np.empty((num_rows, width), dtype=np.int64)
    lengths = np.empty(num_rows, dtype=np.int64)
    if num_rows == 0:
        return padded, lengths
    padded_view = padded
    lengths_view = lengths
    if values.shape[0] > 0:
        first = &values[0]
    with nogil:
        din_pad_int64(
            first, &ends[0], num_rows, width,
            &padded_view[0, 0] if width > 0 else &unused, &lengths_view[0])
    return padded, lengths


LINKS = {
    "none": DIN_LINK_NONE, "identity": DIN_LINK_IDENTITY, "sigmoid": DIN_LINK_SIGMOID
}


def link(float[::1] values not None, str kind not None, double scale, double offset):
    """Put scores in the place of logits; see `din_infer.link`.

    Returns the first row that is not finite, and -1 where there is none.
    """
    cdef int64_t count = values.shape[0]
    cdef int32_t number = LINKS[kind]
    cdef int64_t row
    if count == 0:
        return -1
    if count <= FEW_ELEMENTS:
        row = din_link(&values[0], count, number, scale, offset)
    else:
        with nogil:
            row = din_link(&values[0], count, number, scale, offset)
    return row if row < count else -1
