# Columns to numbers, ragged ids to padded ones, logits to scores.

_TYPES_OF_SCALE = {
    "standard": DIN_SCALE_STANDARD, "log1p": DIN_SCALE_LOG1P,
    "minmax": DIN_SCALE_MINMAX, "quantile": DIN_SCALE_QUANTILE,
}


cdef class Scale:
    """The constants of a dense field's scale; read-only, so that threads may share it.

    Of "quantile", `boundaries` has the rising numbers of each of the K values, one at
    least; of the others `shift` and `divisor` have one number each.
    """

    cdef din_scale c
    cdef readonly int64_t num_values
    cdef list owners

    def __cinit__(
        self, str type not None, int64_t num_values, *, shift=(), divisor=(),
        boundaries=(),
    ):
        cdef _Buffer flat
        cdef _Buffer starts
        self.num_values = num_values
        self.c.kind = _TYPES_OF_SCALE[type]
        is_quantile = type == "quantile"
        given = [boundaries] if is_quantile else [shift, divisor]
        if num_values < 1 or any(len(numbers) != num_values for numbers in given):
            got = ", ".join(str(len(numbers)) for numbers in given)
            raise InputError(f"constants of {num_values} values", got, "scale")
        if is_quantile:
            flat = _Buffer(np.array([b for own in boundaries for b in own], np.float64))
            sizes = [len(own) for own in boundaries]
            starts = _Buffer(np.cumsum([0, *sizes], dtype=np.int64))
            self.c.boundaries = <const double *> flat.view.buf
            self.c.boundary_start = <const int64_t *> starts.view.buf
        else:
            flat = _Buffer(np.array(shift, np.float64))
            starts = _Buffer(np.array(divisor, np.float64))
            self.c.shift = <const double *> flat.view.buf
            self.c.divisor = <const double *> starts.view.buf
        self.owners = [flat, starts]

    def apply(self, values):
        """Scale the K values of a row, in double: a list; NaN where it cannot."""
        cdef double[::1] view = np.array(values, np.float64)
        if view.shape[0] != self.num_values:
            raise InputError(f"{self.num_values} values", view.shape[0], "scale")
        din_scale_values(&self.c, 0, self.num_values, &view[0])
        return list(view)


def signed_log1p(const double[::1] values not None):
    """Return sign(x) * log1p(|x|) of float64 [n], equal on every platform."""
    cdef int64_t i
    cdef double[::1] view
    out = np.empty(values.shape[0], np.float64)
    view = out
    with nogil:
        for i in range(values.shape[0]):
            view[i] = din_signed_log1p(values[i])
    return out


def read_raw_dense(Column column not None, int64_t num_values):
    """Read `num_values` (K) numbers per row as float64 [B, K]; null is NaN.

    Raises
    ------
    InputError
        Naming the row that has another number of values.
    """
    cdef double[:, ::1] view
    cdef din_tally tally
    cdef int64_t row = 0
    cdef Py_ssize_t i
    cdef din_column *chunk
    if num_values < 1:
        raise InputError("at least 1 value", num_values, column.name)
    column.require(DIN_READS_FLOAT64, column.is_list)
    memset(&tally, 0, sizeof(tally))
    out = np.empty((column.num_rows, num_values), dtype=np.float64)
    view = out
    for i in range(column.num_chunks):
        chunk = column.chunk(i)
        if chunk.num_rows == 0:
            continue
        with nogil:
            din_read_dense(
                chunk, 0, num_values, True, 0.0, NULL, NULL, NULL, &view[row, 0],
                &tally)
        if tally.fault != DIN_FINE:
            unit = "value" if num_values == 1 else "values"
            raise _fault(column, i, row, &tally, f"{num_values} {unit}")
        row += chunk.num_rows
    return out


def read_dense(
    Column column not None, int64_t num_values, missing, list errors=None,
    Scale scale=None,
):
    """Read `num_values` (K) numbers per row: (float32 [B, K], missing ones, weighted).

    Null, NaN and infinity become `missing`; None: they raise. With `errors`, one per
    bad row is appended instead, and its values are 0. `scale` is then applied, in
    double; what float32 does not hold is missing, too.

    Raises
    ------
    InputError
        Naming the row that has another number of values, or a missing one.
    """
    cdef float[:, ::1] view
    cdef din_tally tally
    cdef din_column *chunk
    cdef const int64_t *weights
    cdef double replacement = 0.0 if missing is None else missing
    cdef const din_scale *scaled = NULL
    cdef int32_t replace = missing is not None
    cdef int64_t row = 0, first
    cdef Py_ssize_t i
    if num_values < 1:
        raise InputError("at least 1 value", num_values, column.name)
    if scale is not None and scale.num_values != num_values:
        raise InputError(f"a scale of {num_values} values", scale.num_values, "scale")
    if scale is not None:
        scaled = &scale.c
    column.require(DIN_READS_FLOAT64, column.is_list)
    memset(&tally, 0, sizeof(tally))
    out = np.empty((column.num_rows, num_values), dtype=np.float32)
    view = out
    for i in range(column.num_chunks):
        chunk = column.chunk(i)
        weights = column.weights_from(row)
        first = 0
        while first < chunk.num_rows:
            with nogil:
                din_read_dense(
                    chunk, first, num_values, replace, replacement, scaled, weights,
                    &view[row, 0], NULL, &tally)
            if tally.fault == DIN_FINE:
                break
            unit = "value" if num_values == 1 else "values"
            _refuse(errors, _fault(column, i, row, &tally, f"{num_values} {unit}"))
            view[row + tally.bad_row, :] = 0
            first = tally.bad_row + 1
            tally.fault = DIN_FINE
        row += chunk.num_rows
    return out, tally.nulls


def read_float64(Column column not None):
    """Read a column as float64, null as NaN: [B], or all elements of all lists."""
    cdef double[::1] view
    cdef din_column *chunk
    cdef int64_t row, start = 0, count = 0, done = 0, size
    cdef Py_ssize_t i
    column.require(DIN_READS_FLOAT64, column.is_list)
    sizes = []
    for i in range(column.num_chunks):
        chunk = column.chunk(i)
        size = 0 if column.is_list else chunk.num_rows
        for row in range(chunk.num_rows if column.is_list else 0):
            din_row_bounds(chunk, row, &start, &count)
            size += count
        sizes.append(size)
    out = np.empty(sum(sizes), dtype=np.float64)
    view = out
    for i, size in enumerate(sizes):
        if size:
            chunk = column.chunk(i)
            with nogil:
                din_read_elements_float64(chunk, size, &view[done])
            done += size
    return out


def read_int64(Column column not None, list errors=None):
    """Read whole numbers: (int64 [B], valid uint8 [B]), null as 0.

    With `errors`, what is no whole number is appended, and counts as a valid 0.
    """
    cdef int64_t[::1] view
    cdef uint8_t[::1] valid_view
    cdef din_tally tally
    cdef din_column *chunk
    cdef int64_t row = 0, first
    cdef Py_ssize_t i
    column.require(DIN_READS_INT64, False)
    memset(&tally, 0, sizeof(tally))
    out = np.empty(column.num_rows, dtype=np.int64)
    valid = np.empty(column.num_rows, dtype=np.uint8)
    view = out
    valid_view = valid
    for i in range(column.num_chunks):
        chunk = column.chunk(i)
        first = 0
        while first < chunk.num_rows:
            with nogil:
                din_read_scalars_int64(
                    chunk, first, &view[row], &valid_view[row], &tally)
            if tally.fault == DIN_FINE:
                break
            _refuse(errors, _fault(column, i, row, &tally, "a whole number"))
            first = tally.bad_row + 1
            view[row + tally.bad_row] = 0
            valid_view[row + tally.bad_row] = True
            tally.fault = DIN_FINE
        row += chunk.num_rows
    return out, valid


def pad(const int64_t[::1] values not None, offsets, int64_t max_len):
    """Pad ragged ids; see `din_infer.encode.pad`."""
    cdef const int64_t[::1] ends = check_offsets(offsets, values.shape[0], "offsets")
    cdef int64_t num_rows = ends.shape[0] - 1
    cdef int64_t width = 0, i
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
