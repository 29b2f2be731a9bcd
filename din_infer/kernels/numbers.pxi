# Columns to numbers, ragged ids to padded ones, logits to scores.

def read_dense(
    Column column not None, int64_t num_values, missing, list errors=None
):
    """Read `num_values` (K) numbers per row: (float32 [B, K], missing ones, weighted).

    Null, NaN and infinity become `missing`; None: they raise. With `errors`, one per
    bad row is appended instead, and its values are 0.

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
    cdef int64_t row = 0, first
    cdef Py_ssize_t i
    if num_values < 1:
        raise InputError("at least 1 value", num_values, column.name)
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
                    chunk, first, num_values, replace, replacement, weights,
                    &view[row, 0], &tally)
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
        with nogil:
            din_read_scalars_float64(chunk, &view[row])
        row += chunk.num_rows
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
