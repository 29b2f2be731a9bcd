# Columns from NumPy arrays, and lists of them by offsets.

_NUMPY_TYPES = {
    "bool": DIN_UINT8, "int8": DIN_INT8, "int16": DIN_INT16, "int32": DIN_INT32,
    "int64": DIN_INT64, "uint8": DIN_UINT8, "uint16": DIN_UINT16,
    "uint32": DIN_UINT32, "uint64": DIN_UINT64, "float16": DIN_FLOAT16,
    "float32": DIN_FLOAT32, "float64": DIN_FLOAT64,
}


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
        column.fix = _CAST if kind in "mM" else ""
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
    cdef int64_t num_values = array.size
    cdef _Memory bytes_ = _Memory(1)
    cdef _Memory offsets = _Memory((num_values + 1) * sizeof(int64_t))
    cdef int64_t width = array.dtype.itemsize // (4 if is_text else 1)
    cdef int64_t used = 0, i, k, n
    cdef int64_t *ends = <int64_t *> offsets.data
    cdef uint32_t code
    cdef const uint32_t *letters
    cdef const uint8_t *raw
    cdef uint8_t *out
    cdef din_column *c
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
    c.values.num_bytes = used
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
        raise InputError("scalars beside offsets", values.describe(), values.name)
    if values.num_chunks > 1:
        rule = "values in one chunk beside offsets"
        raise InputError(rule, values.num_chunks, values.name)
    offsets = check_offsets(offsets, values.num_rows, values.name)
    buffer = _Buffer(offsets)
    column.owners.extend((values, buffer))
    column.kind = values.kind
    column.type_name = values.type_name
    column.width = values.width
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
    if np.ma.is_masked(offsets):
        raise InputError("offsets without a mask", "a masked array", name)
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
