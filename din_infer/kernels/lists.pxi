# Columns from Python lists.

cdef enum:
    _UNKNOWN
    _BYTES
    _INT
    _FLOAT
    _EXACT  # Decimal, and integers beyond 64 bits
    _UUID

_KINDS = ("null", "string", "int", "float", "decimal", "fixed")
_TYPES = ("null", "string", "int64", "float64", "decimal", "uuid")


cdef class _Builder:
    """Copies Python values into a column, creating no Python object per value."""

    cdef str name
    cdef int kind
    cdef int64_t row, size, num_rows, num_bytes
    cdef bint has_null, has_null_row, has_bytes
    cdef _Memory numbers     # entry i + 1: value i, or the end of its bytes
    cdef _Memory valid       # bitmap
    cdef _Memory bytes
    cdef list exact          # of kind _EXACT: an int, a Decimal or None each
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
        if self.kind == _EXACT:
            self.exact.append(None)
        elif self.kind == _UUID:
            self.num_bytes += DIN_UUID_BYTES
            self.bytes.reserve(self.num_bytes)
        self.put(self.num_bytes if self.kind == _BYTES else 0, False)
        return 0

    cdef int become(self, int kind) except -1:
        cdef int64_t i, number
        cdef double x
        cdef uint8_t *data
        if self.kind == _UNKNOWN:
            self.kind = kind
            if kind == _EXACT:
                self.exact = [None] * self.size
            elif kind == _UUID:
                self.num_bytes = DIN_UUID_BYTES * self.size
                self.bytes.reserve(self.num_bytes)
        elif self.kind == _INT and kind == _EXACT:
            self.kind = _EXACT
            self.exact = []
            for i in range(self.size):
                is_valid = self.valid.data[i >> 3] >> (i & 7) & 1
                number = (<int64_t *> self.numbers.data)[i + 1]
                self.exact.append(number if is_valid else None)
        elif self.kind == _EXACT and kind == _FLOAT:
            self.kind = _FLOAT
            for i in range(self.size):
                x = 0 if self.exact[i] is None else self.rounded(self.exact[i])
                memcpy(self.numbers.data + (i + 1) * 8, &x, 8)
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

    cdef double rounded(self, value) except? -1:
        """Round an exact number to a float that is no other whole number."""
        x = float(value)
        if abs(x) < 2**53 and x == int(x) and value != x:
            raise self.wrong("a column of one type", f"decimal {value} beside floats")
        return x

    cdef int put_exact(self, value) except -1:
        """Take a Decimal or an int of any size."""
        if isinstance(value, int):
            if not -2**255 <= value < 2**255:
                got = f"an int of {value.bit_length()}"
                raise self.wrong("a number of at most 256 bits", got)
        elif value.is_nan():
            return self.put_null()
        elif value.is_infinite():
            return self.put_float(float(value))
        if self.kind == _FLOAT:
            return self.put_float(self.rounded(value))
        if self.kind != _EXACT:
            self.become(_EXACT)
        self.exact.append(value)
        self.put(0, True)
        return 0

    cdef int put_uuid(self, bytes raw) except -1:
        if PyBytes_GET_SIZE(raw) != DIN_UUID_BYTES:
            raise self.wrong("a UUID of 16 bytes", len(raw))
        if self.kind != _UUID:
            self.become(_UUID)
        self.bytes.reserve(self.num_bytes + DIN_UUID_BYTES)
        memcpy(self.bytes.data + self.num_bytes, PyBytes_AS_STRING(raw), DIN_UUID_BYTES)
        self.num_bytes += DIN_UUID_BYTES
        self.put(0, True)
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
            if overflow or self.kind == _EXACT:
                return self.put_exact(value)
            if self.kind == _FLOAT:
                return self.put_float(<double> number)
            if self.kind != _INT:
                self.become(_INT)
            self.put(number, True)
            return 0
        if isinstance(value, float):
            return self.put_float(value)
        if isinstance(value, bytes):
            self.has_bytes = True
            return self.put_bytes(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        if isinstance(value, np.generic) and value.dtype.kind in "biuf" \
                and value.dtype.itemsize <= 8:
            return self.append(value.item())
        if isinstance(value, np.ndarray) and value.ndim == 0:
            if value is np.ma.masked:
                return self.put_null()
            inner = value[()]
            if not isinstance(inner, np.ndarray) or inner is np.ma.masked:
                return self.append(inner)
        if isinstance(value, (bytearray, memoryview)):
            return self.append(bytes(value))
        if _is_pandas_missing(value):
            return self.put_null()
        if _is_a(value, "decimal", "Decimal"):
            return self.put_exact(value)
        if _is_a(value, "uuid", "UUID"):
            return self.put_uuid(value.bytes)
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
            if row.dtype.kind in "mM":  # of nanoseconds, tolist makes integers
                rule = "a list of strings or numbers"
                raise InputError(rule, row.dtype, self.name, _CAST, row=self.row)
            row = row.tolist()  # None where a masked array has its mask
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

    cdef int32_t write_exact(self) except? -1:
        """Write the exact numbers as decimals of 256 bits; returns their scale."""
        cdef int64_t i
        cdef list pairs = [(0, 0) if v is None else _split(v) for v in self.exact]
        scale = max((-power for digits, power in pairs if digits), default=0)
        for i, (digits, power) in enumerate(pairs):
            shift = scale + power if digits else 0
            try:
                if not -2**31 < scale < 2**31 or shift > 76:
                    raise OverflowError
                raw = (digits * 10**shift).to_bytes(32, "little", signed=True)
            except OverflowError:
                self.row = self.row_of(i)
                rule = f"numbers of 256 bits, with {max(scale, 0)} decimals each"
                raise self.wrong(rule, self.exact[i]) from None
            self.bytes.reserve((i + 1) * 32)
            memcpy(self.bytes.data + i * 32, PyBytes_AS_STRING(raw), 32)
        return scale

    cdef int64_t row_of(self, int64_t i):
        """Find the row of element i."""
        cdef int64_t row = 0
        if self.offsets is None:
            return i
        while (<int64_t *> self.offsets.data)[row + 1] <= i:
            row += 1
        return row

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
            c.values.num_bytes = (<int64_t *> self.numbers.data)[self.size]
            if self.has_bytes:
                column.type_name = "binary"
        elif self.kind == _EXACT:
            c.values.type = DIN_DECIMAL256
            c.values.scale = self.write_exact()
            c.values.data = self.bytes.data
            if all(v is None or isinstance(v, int) for v in self.exact):
                column.type_name = "int"
            self.exact = None
        elif self.kind == _UUID:
            c.values.type = DIN_BYTES_FIXED
            c.values.width = column.width = DIN_UUID_BYTES
            c.values.data = self.bytes.data
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


cdef bint _is_a(object value, str module, str name):
    """Tell whether a value is of a class, without importing its module."""
    found = sys.modules.get(module)
    return found is not None and isinstance(value, getattr(found, name))


cdef tuple _split(value):
    """Return an int or a finite Decimal as (digits, power): digits * 10**power."""
    if isinstance(value, int):
        return int(value), 0
    sign, digits, power = value.as_tuple()
    text = "".join(map(str, digits)).rstrip("0")
    power += len(digits) - len(text)
    if len(text) > 78:  # then no 256 bits hold it, and int() may refuse its text
        return 10**78, power
    return (-1 if sign else 1) * int(text or "0"), power


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
    """Join rows that are all 1-D arrays of one number type; None where they are not.

    Masked arrays are not joined: that would leave out their masks.
    """
    dtype = None
    for row in rows:
        if not isinstance(row, np.ndarray) or row.ndim != 1:
            return None
        if isinstance(row, np.ma.MaskedArray):
            return None
        if dtype is None:
            dtype = row.dtype
        if row.dtype != dtype or dtype.name not in _NUMPY_TYPES:
            return None
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return np.concatenate(rows), offsets
