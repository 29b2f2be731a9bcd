# Columns to ids. Above 400 lines: each kind of column, and what can be wrong with it.

cdef class _Codes:
    """The ids of one chunk's dictionary."""

    cdef din_codes c
    cdef _Memory ids, codes


cdef _Codes _find_codes(const din_column *chunk, Encoder encoder):
    """Encode a chunk's dictionary; None where there is none, or it is no gain."""
    cdef _Codes found
    cdef int64_t first = 0, stop = 0
    cdef int64_t size = chunk.dictionary.length
    if not chunk.has_dictionary or encoder.c.is_seeded:
        return None
    din_check_rows(chunk, &first, &stop)
    if size > stop - first:
        return None
    found = _Codes()
    found.ids = _Memory(size * sizeof(int64_t))
    found.codes = _Memory(size)
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
    cdef const din_values *v
    cdef din_key key
    if i < 0:
        return None
    v = din_resolve(chunk, &i)
    if v == NULL:
        return None
    cdef int64_t at = i + v.offset
    if v.type >= DIN_BYTES32:
        key = din_key_at(v, v.type, i)
        raw = (<const char *> key.data)[:min(key.num_bytes, 200)]
        if v.type == DIN_UUID_TEXT:
            from uuid import UUID
            return str(UUID(bytes=raw))
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
    if v.type == DIN_BOOL8:
        return (<const uint8_t *> v.data)[at] != 0
    if DIN_DECIMAL32 <= v.type <= DIN_DECIMAL256:
        return _decimal_at(v, at)
    return din_index_at(v, i)


cdef object _decimal_at(const din_values *v, int64_t at):
    """Return a decimal, or an int where it has no scale."""
    from decimal import Decimal
    cdef int64_t size = 4 << (v.type - DIN_DECIMAL32)
    raw = (<const char *> v.data)[at * size:(at + 1) * size]
    whole = int.from_bytes(raw, "little", signed=True)
    if v.scale == 0:
        return whole
    digits = tuple(map(int, str(abs(whole))))
    return Decimal((int(whole < 0), digits, -v.scale))


cdef object _fault(
    Column column, Py_ssize_t chunk, int64_t first_row, const din_tally *tally, str rule
):
    """Return the error that a tally stands for."""
    found = _value_at(column.chunk(chunk), tally.bad)
    value = str(found) if column.kind == "decimal" else repr(found)
    fix = ""
    if tally.fault == DIN_NOT_WHOLE:
        rule = "a whole number"
    elif tally.fault == DIN_NOT_EXACT:
        rule = f"a whole number that {column.type_name} holds exactly"
    elif tally.fault == DIN_BEYOND_INT64:
        rule = "a 64-bit signed integer"
    elif tally.fault == DIN_BEYOND_64:
        rule = "an integer in [-2**63, 2**64)"
    elif tally.fault == DIN_BEYOND_INT32:
        rule = "an integer in [-2**31, 2**31)"
    elif tally.fault == DIN_TOO_LONG:
        rule = f"a key of at most {DIN_MAX_PREFIXED} bytes with its prefix"
        value = "a longer one"
    elif tally.fault == DIN_IS_MISSING:
        rule = "a finite number"
        if value in ("None", "nan"):
            value = "null" if value == "None" else "NaN"
            fix = "Say in the spec what it stands for: missing = .."
    elif tally.fault == DIN_WRONG_COUNT:
        value = str(tally.count)
    return InputError(rule, value, column.name, fix, row=first_row + tally.bad_row)


cdef struct _Part:
    const din_column *chunk
    const din_encoder *encoder
    const din_codes *codes
    const din_window *window  # NULL: scalars
    int64_t *ids
    const int64_t *weights
    uint8_t *is_bad


cdef void _encode_part(
    const _Part *p, int64_t first, int64_t stop, din_tally *tally
) noexcept nogil:
    """Encode rows up to a fault; past it, where bad rows are marked."""
    cdef din_tally one
    cdef int64_t row = first
    cdef int64_t count = stop - first
    if p.encoder.is_seeded and p.weights != NULL and count > 1:
        # each is encoded once, since then its seed is gone
        while row < stop and (tally.fault == DIN_FINE):
            memset(&one, 0, sizeof(one))
            _encode_part(p, row, row + 1, &one)
            one.nulls += tally.nulls
            tally[0] = one
            row += 1
        return
    while row < stop:
        _encode_rows(p, row, row + count, tally)
        if tally.fault == DIN_FINE:
            row += count
            count = min(2 * count, stop - row)
        elif p.is_bad == NULL:
            return
        else:
            # Up to a block behind a fault is read in vain: less of it, where the next
            # bad row is near.
            p.is_bad[tally.bad_row] = True
            row = tally.bad_row + 1
            count = min(1, stop - row)
            tally.fault = DIN_FINE
    if p.weights == NULL or tally.nulls + tally.unseen == 0:
        return
    if p.encoder.is_seeded:
        tally.nulls *= p.weights[first]
        return
    # which of them are they?
    tally.nulls = tally.unseen = 0
    for row in range(first, stop):
        memset(&one, 0, sizeof(one))
        _encode_rows(p, row, row + 1, &one)
        tally.nulls += one.nulls * p.weights[row]
        tally.unseen += one.unseen * p.weights[row]


cdef void _encode_rows(
    const _Part *p, int64_t first, int64_t stop, din_tally *tally
) noexcept nogil:
    if p.window == NULL:
        din_encode_scalars(p.chunk, p.encoder, p.codes, first, stop, p.ids, tally)
    else:
        din_encode_lists(
            p.chunk, p.encoder, p.codes, p.window, first, stop, p.ids, tally)


cdef class Encoding:
    """One column on its way to ids: `run` over all rows, then `finish`.

    Rows may be run in any parts, in any order and by any thread: the ids, the counts
    and the errors are the same. Made by `prepare_scalars` and `prepare_lists`, which
    check that the encoder reads the column; by itself it is empty.
    """

    cdef readonly int64_t num_rows
    cdef readonly int64_t num_counted   # rows that these stand for
    cdef readonly int64_t num_elements  # about so many are encoded
    cdef Column column
    cdef Encoder encoder
    cdef Encoding before  # of the column whose hashes are the seeds; or None
    cdef Window window  # None: scalars
    cdef din_window w
    cdef list codes
    cdef object out
    cdef int64_t *ids  # the data of `out`; NULL where it is empty
    cdef int64_t num_run  # rows
    cdef int64_t nulls, unseen
    cdef int64_t first_bad  # row, while none are collected; else num_rows
    cdef list errors        # None: that of the first bad row is raised
    cdef _Memory bad_rows
    cdef uint8_t *is_bad    # of each row, while they are collected; else NULL

    cdef int open(
        self, Column column, Encoder encoder, int64_t num_elements, shape, list errors,
        Encoding before,
    ) except -1:
        cdef Py_ssize_t i
        cdef Py_buffer view
        cdef double width
        self.column = column
        self.encoder = encoder
        self.num_rows = self.first_bad = column.num_rows
        self.num_counted = column.num_counted
        self.num_elements = num_elements
        self.codes = []
        for i in range(column.num_chunks):
            self.codes.append(_find_codes(column.chunk(i), encoder))
        if before is not None:
            if not encoder.c.is_seeded or before.out is None \
                    or before.encoder.c.reduction.kind != DIN_REDUCE_RAW:
                raise InputError("hashes as seeds", "others", column.name)
            if before.out.shape != shape:
                rule = f"{before.num_rows} rows, as `{before.column.name}` has"
                raise InputError(rule, column.num_rows, column.name)
            self.before = before
            self.num_elements += before.num_elements
        if errors is not None:
            self.errors = errors
            self.bad_rows = _Memory(self.num_rows)
            self.is_bad = self.bad_rows.data
        width = 1.0 if self.window is None else <double> self.w.width
        self.out = (
            _new_ids(shape, self.num_rows * width) if before is None else before.out)
        PyObject_GetBuffer(self.out, &view, PyBUF_ND)
        if view.len > 0:
            self.ids = <int64_t *> view.buf
        PyBuffer_Release(&view)
        return 0

    def run(self, int64_t first, int64_t stop):
        """Encode rows [first, stop). Releases the GIL."""
        cdef din_tally tally
        cdef const din_column *chunk
        cdef int64_t start = 0  # of the chunk
        cdef int64_t a, b, at, width
        cdef Py_ssize_t i
        name = "Encoding" if self.column is None else self.column.name
        if not 0 <= first <= stop <= self.num_rows:
            rule = f"rows in [0, {self.num_rows}]"
            raise InputError(rule, f"[{first}, {stop})", name)
        if stop - first > self.num_rows - self.num_run:
            raise InputError("each row once", "some again", name)
        self.num_run += stop - first
        if self.before is not None:
            self.before.run(first, stop)
        if self.ids == NULL:
            return
        if self.encoder.c.is_seeded and self.before is None:
            width = 1 if self.window is None else self.w.width
            for at in range(first * width, stop * width):
                self.ids[at] = <int64_t> self.encoder.c.seed
        for i in range(self.column.num_chunks):
            chunk = self.column.chunk(i)
            a = max(first - start, 0)
            b = min(stop - start, chunk.num_rows)
            if a < b:
                self.encode(i, start, a, b, &tally)
                self.nulls += tally.nulls
                self.unseen += tally.unseen
                if tally.fault != DIN_FINE:
                    self.first_bad = min(self.first_bad, start + tally.bad_row)
                    return
            start += chunk.num_rows

    cdef void encode(
        self, Py_ssize_t i, int64_t start, int64_t first, int64_t stop,
        din_tally *tally
    ) noexcept:
        """Encode rows [first, stop) of chunk i, and count them by their weights."""
        cdef din_window window = self.w
        cdef _Part p
        p.chunk = self.column.chunk(i)
        p.encoder = &self.encoder.c
        p.codes = NULL if self.codes[i] is None else &(<_Codes> self.codes[i]).c
        p.window = NULL
        p.ids = self.ids + start
        p.weights = self.column.weights_from(start)
        p.is_bad = NULL if self.is_bad == NULL else self.is_bad + start
        if self.window is not None:
            self.window.show(&window, start)
            p.window = &window
            p.ids = self.ids + start * window.width
        memset(tally, 0, sizeof(tally[0]))
        if self.num_elements <= FEW_ELEMENTS:
            _encode_part(&p, first, stop, tally)
            return
        with nogil:
            _encode_part(&p, first, stop, tally)

    def finish(self):
        """Return (ids int64 [B] or [B, T], nulls, unseen).

        Raises
        ------
        InputError
            At the first value that has no id, unless errors are collected; if rows
            were not run.
        """
        if self.before is not None:
            self.before.finish()
        if self.first_bad < self.num_rows:
            self.refuse()
        if self.num_run < self.num_rows:
            rule = f"{self.num_rows} rows, all of them run"
            raise InputError(rule, self.num_run, self.column.name)
        if self.is_bad != NULL:
            self.refuse()
        return self.out, self.nulls, self.unseen

    cdef int refuse(self) except -1:
        """Encode each bad row alone, for its error; then its ids are 0."""
        cdef const uint8_t *is_bad = self.is_bad
        cdef int64_t width = 1 if self.window is None else self.w.width
        cdef int64_t start = 0  # of the chunk
        cdef int64_t row
        cdef int64_t at  # the row among those of all chunks
        cdef Py_ssize_t i
        cdef din_tally tally
        self.is_bad = NULL
        for i in range(self.column.num_chunks):
            for row in range(self.column.chunk(i).num_rows):
                at = start + row
                if at == self.first_bad or is_bad != NULL and is_bad[at]:
                    self.encode(i, start, row, row + 1, &tally)
                    if tally.fault == DIN_FINE:  # somebody has changed the value
                        tally.bad_row = row
                        tally.bad = -1
                    error = _fault(self.column, i, start, &tally, self.encoder.rule)
                    _refuse(self.errors, error)
                    memset(self.ids + at * width, 0, width * sizeof(int64_t))
            start += self.column.chunk(i).num_rows
        return 0


def prepare_scalars(
    Column column not None, Encoder encoder not None, list errors=None,
    Encoding before=None,
):
    """Return the Encoding of a scalar column to ids int64 [B].

    With `before`, of equally many rows and reduced by "raw", its hashes are the seeds
    of this column's: `run` and `finish` of this one do both.

    With `errors`, a row that has no id gets 0, and `finish` appends the error that this
    row alone would raise, by rising rows. The counts are exact where there is none.
    """
    cdef Encoding encoding = Encoding()
    column.require(encoder.c.reads, False)
    encoding.open(column, encoder, column.num_rows, (column.num_rows,), errors, before)
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


def prepare_lists(
    Column column not None, Encoder encoder not None, Window window not None,
    int64_t width, bint newest_first, list errors=None, Encoding before=None,
):
    """Return the Encoding of a list column to padded ids int64 [B, width].

    The newest `width` elements of the window, oldest first, right-padded with 0. With
    `errors` and with `before`, an Encoding by the same window, as in `prepare_scalars`;
    of a list that has another length than the window's, the error is appended at once,
    and it counts as empty.

    Raises
    ------
    InputError
        If the lists have other lengths than the window's column.
    """
    cdef Encoding encoding = Encoding()
    _check_width(width, column)
    _check_lists(column)
    if column.kind != "null":
        column.require(encoder.c.reads, True)
    encoding.window = window.parallel(column, errors)
    encoding.w.width = width
    encoding.w.newest_first = newest_first
    shape = column.num_rows, width
    encoding.open(column, encoder, window.num_kept, shape, errors, before)
    return encoding
