# Columns from Python lists.

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
    cdef int64_t row, size, num_rows, num_bytes
    cdef bint has_null, has_null_row
    cdef _Memory numbers     # entry i + 1: value i, or the end of its bytes
    cdef _Memory valid       # bitmap
    cdef _Memory bytes
    cdef _Memory offsets     # this and the next: of lists alone
    cdef _Memory row_valid   # bitmap

    def __cinit__(self, str name, bint is_list):
        self.name = name
        self.numbers = _Memory(64)
        self.valid = _Memory()
        self.bytes = _Memory(64)
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

    cdef int become(self, int kind) except -1:
        cdef int64_t i, number
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

    cdef int put_bytes(self, const char *data, Py_ssize_t size) except -1:
        if self.kind != _BYTES:
            self.become(_BYTES)
        self.bytes.reserve(self.num_bytes + size)
        memcpy(self.bytes.data + self.num_bytes, data, size)
        self.num_bytes += size
        self.put(self.num_bytes, True)
        return 0

    cdef int put_float(self, double x) except -1:
        cdef int64_t number
        if x != x:  # pandas says "missing" with NaN in columns of any type
            return self.put_null()
        if self.kind != _FLOAT:
            self.become(_FLOAT)
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
                raise self.wrong("text that has a UTF-8 form", ascii(value)) from None
            return self.put_bytes(text, size)
        if isinstance(value, int):
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow:
                raise self.wrong("a 64-bit signed integer", value)
            if self.kind == _FLOAT:
                return self.put_float(<double> number)
            if self.kind != _INT:
                self.become(_INT)
            self.put(number, True)
            return 0
        if isinstance(value, float):
            return self.put_float(value)
        if isinstance(value, bytes):
            return self.put_bytes(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
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
        cdef Py_ssize_t i, n
        self.offsets.reserve((self.num_rows + 2) * sizeof(int64_t))
        self.row_valid.reserve((self.num_rows + 8) // 8)
        if isinstance(row, np.ndarray) and row.ndim == 1:
            row = row.tolist()
        elif isinstance(row, tuple):
            row = list(row)
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
            self.row_valid.data[self.num_rows >> 3] |= (
                <uint8_t> (1 << (self.num_rows & 7)))
        elif row is None or _is_nan(row) or _is_pandas_missing(row):
            self.has_null_row = True
        else:
            raise self.wrong("a list", f"{type(row).__name__} {row!r:.80}")
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
    cdef Py_ssize_t i = 0, reserved = 0
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
