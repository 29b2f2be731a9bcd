# Which elements of each list are behaviors.

cdef class Window:
    """Which elements of each list are behaviors, judged on one column of lists.

    Made of the first column of a sequence; then at most one of `trim`, `drop`, `take`
    narrows it, and `prepare_lists` applies it to that column and its parallels.
    """

    cdef readonly Column column
    cdef int64_t[::1] lengths    # of the lists themselves
    cdef int64_t[::1] kept, skip, positions, position_start
    cdef int64_t num_kept        # once finished: elements of all rows together
    cdef bint is_narrowed
    # A memoryview never set is not None: it needs a flag.
    cdef bint has_skip, has_positions

    def __cinit__(self, Column column not None):
        _check_lists(column)
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
        cdef int64_t row = 0, total = 0
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
            with nogil:
                din_drop_pads(chunk, &pad, &self.lengths[row], &position_start[row],
                              &positions[0], &kept[row])
            row += chunk.num_rows
        self.check_whole()
        self.positions = positions
        self.position_start = position_start
        self.kept = kept
        self.is_narrowed = self.has_positions = True

    def take(self, Column lengths not None, list errors=None):
        """Keep the first `lengths` elements of each list.

        With `errors`, a length that no list can have is appended, and counts as 0.
        """
        cdef Py_ssize_t i
        cdef int64_t[::1] kept
        cdef uint8_t[::1] valid
        self.check_whole()
        lengths.require(DIN_READS_INT64, False)
        kept, valid = read_int64(lengths, errors)
        if kept.shape[0] != self.lengths.shape[0]:
            rule = f"{self.lengths.shape[0]} rows"
            raise InputError(rule, kept.shape[0], lengths.name)
        for i in range(kept.shape[0]):
            if not valid[i] or kept[i] < 0 or kept[i] > self.lengths[i]:
                size = self.lengths[i]
                rule = f"a length in [0, {size}], the length of `{self.column.name}`"
                got = kept[i] if valid[i] else "null"
                _refuse(errors, InputError(rule, got, lengths.name, row=i))
                kept[i] = 0
        self.kept = kept
        self.is_narrowed = True

    def finish(self, int64_t max_len, bint is_fixed):
        """Return (lengths int64 [B], T, rows that lost behaviors, empty rows).

        The rows are counted by their weights.
        """
        cdef int64_t longest = 0, truncated = 0, empty = 0, n, weight = 1
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

    def places(self, int64_t width, bint newest_first):
        """Return which elements of its list each row's ids are: int64 [B, width].

        Numbers of elements from 0, in the order of the ids that `prepare_lists` with
        these arguments makes: oldest first, right-padded with 0.
        """
        cdef int64_t row, count, first, t, i
        cdef int64_t[:, ::1] view
        _check_width(width, self.column)
        out = np.zeros((self.kept.shape[0], width), dtype=np.int64)
        view = out
        for row in range(self.kept.shape[0]):
            count = min(self.kept[row], width)
            first = 0 if newest_first else self.kept[row] - count
            for t in range(count):
                i = first + (count - 1 - t if newest_first else t)
                if self.has_positions:
                    i = self.positions[self.position_start[row] + i]
                elif self.has_skip:
                    i += self.skip[row]
                view[row, t] = i
        return out

    cdef Window parallel(self, Column column, list errors):
        """Return the window of a parallel column: lists of other lengths are empty."""
        cdef const int64_t[::1] lengths
        cdef Window window = self
        cdef Py_ssize_t i
        if column is self.column:
            return self
        lengths = _lengths_of(column)
        name = self.column.name
        if lengths.shape[0] != self.lengths.shape[0]:
            rule = f"{self.lengths.shape[0]} rows, as `{name}` has"
            raise InputError(rule, lengths.shape[0], column.name)
        for i in range(lengths.shape[0]):
            if lengths[i] != self.lengths[i]:
                rule = f"{self.lengths[i]} elements, as `{name}` has"
                _refuse(errors, InputError(rule, lengths[i], column.name, row=i))
                if window is self:
                    window = self.copy()
                window.kept[i] = 0
                if window.has_skip:
                    window.skip[i] = 0
        return window

    cdef Window copy(self):
        """Return a narrowed window whose rows may be taken out."""
        cdef Window window = Window(self.column)
        window.kept = np.array(self.kept)
        if self.has_skip:
            window.skip = np.array(self.skip)
        window.positions = self.positions
        window.position_start = self.position_start
        window.is_narrowed = True
        window.has_skip = self.has_skip
        window.has_positions = self.has_positions
        return window


cdef int _check_lists(Column column) except -1:
    if column.kind != "null" and not column.is_list or column.kind == "other":
        raise InputError("a list column", column.describe(), column.name)
    return 0


cdef int _check_width(int64_t width, Column column) except -1:
    if width < 0:
        raise InputError("a width of at least 0", width, column.name)
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
        if chunk.num_rows <= FEW_ELEMENTS:
            din_row_lengths(chunk, &view[row])
        else:
            with nogil:
                din_row_lengths(chunk, &view[row])
        row += chunk.num_rows
    return out
