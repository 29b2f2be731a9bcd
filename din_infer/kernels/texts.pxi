# Lists that are written as text: what stands between separators becomes elements.

cdef int _put_text(Column column, din_key *keys) except -1:
    """Write where the text of each row is; of null, no data."""
    cdef int64_t row, at = 0, count = 0, first = 0
    cdef Py_ssize_t k
    cdef din_column *c
    cdef const din_values *v
    for k in range(column.num_chunks):
        c = column.chunk(k)
        for row in range(c.num_rows):
            din_row_bounds(c, row, &at, &count)
            keys[first + row].data = NULL
            keys[first + row].num_bytes = 0
            if count == 0:
                continue
            v = din_resolve(c, &at)
            if v != NULL:
                keys[first + row] = din_key_at(v, v.type, at)
        first += c.num_rows
    return 0


cdef const uint8_t *_find(
    const uint8_t *data, const uint8_t *stop, const uint8_t *separator, size_t size
) noexcept nogil:
    """Find the next separator; `stop` where there is none."""
    cdef const uint8_t *found
    if data > stop:  # fewer are found than before: somebody has changed the text
        return data
    while <size_t> (stop - data) >= size:
        found = <const uint8_t *> memchr(data, separator[0], stop - data - size + 1)
        if found == NULL:
            return stop
        if memcmp(found, separator, size) == 0:
            return found
        data = found + 1
    return stop


cdef bint _read_digits(
    const uint8_t *data, const uint8_t *stop, int64_t *number
) noexcept nogil:
    """Read a plain integer of at most 18 digits; False where it is anything else."""
    cdef bint is_negative = False
    cdef int64_t found = 0
    if data < stop and (data[0] == c"-" or data[0] == c"+"):
        is_negative = data[0] == c"-"
        data += 1
    if data == stop or stop - data > 18:
        return False
    while data < stop:
        if data[0] < c"0" or data[0] > c"9":
            return False
        found = found * 10 + (data[0] - c"0")
        data += 1
    number[0] = -found if is_negative else found
    return True


def read_texts(Column column not None):
    """Copy a scalar column of strings: bytes or None of each row."""
    cdef _Memory places = _Memory(column.num_rows * sizeof(din_key))
    cdef din_key *keys = <din_key *> places.data
    cdef int64_t row
    cdef list found = []
    if column.kind == "null":
        return [None] * column.num_rows
    column.require(DIN_READS_BYTES, False)
    _put_text(column, keys)
    for row in range(column.num_rows):
        if keys[row].data == NULL:
            found.append(None)
        else:
            found.append((<const char *> keys[row].data)[:keys[row].num_bytes])
    return found


def split_texts(
    Column column not None, bytes separator not None, str dtype not None, read not None
):
    """Split a scalar column of strings into a column of lists.

    A null text is a null list, an empty one an empty list. Nothing between two
    separators is an empty string, or null among numbers. `read` makes a number of other
    bytes than plain integers: it returns an int or a float, or None for null, and
    raises ValueError for what is none.

    Returns
    -------
    Column, list of int
        The lists, and the rows with an element that is none, which are null there.
    """
    cdef _Memory places = _Memory(column.num_rows * sizeof(din_key))
    cdef din_key *keys = <din_key *> places.data
    cdef _Memory offsets = _Memory((column.num_rows + 1) * sizeof(int64_t))
    cdef _Memory row_valid = _Memory(column.num_rows // 8 + 1)
    cdef _Memory valid, numbers, text
    cdef int64_t *ends = <int64_t *> offsets.data
    cdef int64_t row, i, n, size = 0, number = 0, last = -1
    cdef int64_t *values
    cdef double x
    cdef const uint8_t *sign = <const uint8_t *> PyBytes_AS_STRING(separator)
    cdef size_t width = PyBytes_GET_SIZE(separator)
    cdef const uint8_t *data
    cdef const uint8_t *stop
    cdef const uint8_t *end
    cdef bint is_text = dtype == "string", is_int = dtype == "int64"
    cdef list bad = []
    if width == 0:
        raise InputError("a separator of at least one character", "none", column.name)
    column.require(DIN_READS_BYTES, False)
    _put_text(column, keys)
    with nogil:
        for row in range(column.num_rows):
            n = ends[row]
            if keys[row].data != NULL:
                row_valid.data[row >> 3] |= <uint8_t> (1 << (row & 7))
                size += keys[row].num_bytes
            if keys[row].num_bytes > 0:
                data = keys[row].data
                stop = data + keys[row].num_bytes
                n += 1
                while True:
                    data = _find(data, stop, sign, width)
                    if data == stop:
                        break
                    data += width
                    n += 1
            ends[row + 1] = n
    n = ends[column.num_rows]
    valid = _Memory(n // 8 + 1)
    numbers = _Memory((n + 1) * sizeof(int64_t))
    text = _Memory(size if is_text else 0)
    values = <int64_t *> numbers.data
    i = size = 0
    with nogil:
        for row in range(column.num_rows):
            if ends[row] == ends[row + 1]:
                continue
            data = keys[row].data
            stop = data + keys[row].num_bytes
            for i in range(ends[row], ends[row + 1]):
                end = _find(data, stop, sign, width)
                if is_text:
                    memcpy(text.data + size, data, end - data)
                    size += end - data
                    values[i + 1] = size
                    valid.data[i >> 3] |= <uint8_t> (1 << (i & 7))
                elif end > data:
                    if is_int and _read_digits(data, end, &number):
                        values[i] = number
                        valid.data[i >> 3] |= <uint8_t> (1 << (i & 7))
                    else:
                        with gil:
                            try:
                                found = read((<const char *> data)[:end - data])
                                if found is not None:
                                    if is_int:
                                        values[i] = <int64_t> found
                                    else:
                                        x = <double> found
                                        memcpy(&values[i], &x, 8)
                                    valid.data[i >> 3] |= <uint8_t> (1 << (i & 7))
                            except (OverflowError, ValueError):
                                row_valid.data[row >> 3] &= <uint8_t> ~(1 << (row & 7))
                                if row != last:
                                    bad.append(row)
                                    last = row
                data = end + width
    return _lists_of(column, dtype, offsets, row_valid, valid, numbers, text), bad


cdef Column _lists_of(
    Column column,
    str dtype,
    _Memory offsets,
    _Memory row_valid,
    _Memory valid,
    _Memory numbers,
    _Memory text,
):
    """Make a column of lists, of memory that it keeps."""
    cdef Column made = Column(column.name)
    cdef din_column *c = made.new_chunk()
    made.is_list = True
    made.num_rows = c.num_rows = column.num_rows
    made.owners.extend((offsets, row_valid, valid, numbers, text))
    c.nesting = DIN_LIST64
    c.offsets = offsets.data
    c.validity = row_valid.data
    c.values.length = (<int64_t *> offsets.data)[column.num_rows]
    c.values.data = numbers.data
    if dtype == "string":
        made.kind, made.type_name = "string", column.type_name
        c.values.type = DIN_BYTES64
        c.values.bytes = text.data
        c.values.num_bytes = (<int64_t *> numbers.data)[c.values.length]
        return made
    c.values.validity = valid.data
    if dtype == "int64":
        made.kind = "int"
        made.type_name = "int64"
        c.values.type = DIN_INT64
    else:
        made.kind = "float"
        made.type_name = "float64"
        c.values.type = DIN_FLOAT64
    return made
