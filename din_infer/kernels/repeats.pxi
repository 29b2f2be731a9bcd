# Rows that repeat the row before them, and columns of runs.

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
    cdef int64_t count = 0, a, b
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
    cdef int64_t num_runs = starts.shape[0]
    cdef _Memory rows = _Memory((num_runs + 1) * sizeof(int64_t))
    cdef _Memory weights = _Memory(num_runs * sizeof(int64_t))
    cdef int64_t i
    cdef int64_t *first = <int64_t *> rows.data
    cdef Column taken
    if column.weights is not None:
        rule = "a column whose rows count once"
        raise InputError(rule, "runs of another", column.name)
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
    taken = _chosen_rows(column, rows, num_runs)
    taken.weights = weights
    taken.sum_of_weights = column.num_rows
    return taken


def take_rows(Column column not None, const int64_t[::1] rows not None):
    """View some rows, which rise; no element is copied.

    Raises
    ------
    InputError
        If `rows` do not rise inside the column, or it was made by `take_runs`.
    """
    cdef int64_t num_rows = rows.shape[0]
    cdef _Memory chosen = _Memory((num_rows + 1) * sizeof(int64_t))
    cdef int64_t i, least = 0
    if column.weights is not None:
        raise InputError("a column whose rows count once", "runs", column.name)
    for i in range(num_rows):
        if not least <= rows[i] < column.num_rows:
            rule = f"rows that rise inside {column.num_rows}"
            raise InputError(rule, rows[i], column.name)
        (<int64_t *> chosen.data)[i] = rows[i]
        least = rows[i] + 1
    return _chosen_rows(column, chosen, num_rows)


cdef Column _chosen_rows(Column column, _Memory rows, int64_t num_rows):
    """View rows that rise inside the column; the numbers are changed and kept."""
    cdef Column taken = Column(column.name)
    cdef int64_t *first = <int64_t *> rows.data
    cdef int64_t start = 0  # of the chunk
    cdef int64_t row = 0, n
    cdef Py_ssize_t i
    cdef din_column *c
    taken.kind = column.kind
    taken.type_name = column.type_name
    taken.fix = column.fix
    taken.width = column.width
    taken.is_list = column.is_list
    taken.owners.extend((column, rows))
    for i in range(column.num_chunks):
        n = 0
        while row + n < num_rows and first[row + n] - start < column.chunk(i).num_rows:
            first[row + n] -= start
            n += 1
        if n > 0:
            c = taken.new_chunk()
            c[0] = column.chunk(i)[0]
            _take_rows(taken, c, &first[row], n)
        row += n
        start += column.chunk(i).num_rows
    taken.num_rows = num_rows
    return taken


cdef int _take_rows(
    Column column, din_column *c, int64_t *rows, int64_t num_rows
) except -1:
    """Make of a checked chunk one of some of its rows; it keeps what lies at `rows`."""
    cdef int64_t num_elements = c.num_rows
    cdef _Memory valid
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
    valid = _Memory(num_rows // 8 + 1)
    for i in range(num_rows):
        if din_is_valid(&c.values, rows[i]):
            rows[i] = din_index_at(&c.values, rows[i])
            valid.data[i >> 3] |= <uint8_t> (1 << (i & 7))
    column.owners.append(valid)
    places.validity = valid.data
    c.values = places
    return 0
