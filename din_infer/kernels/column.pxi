# A column: its chunks, their checks, and rows picked out of them.

cdef class Column:
    """One column of a batch: C views of its chunks and what keeps them alive.

    `kind` is "null", "string", "int", "float", "decimal", "fixed" (bytes, `width` each,
    for `as_strings`) or "other" (which no kernel reads); `type_name` is what an error
    calls it, `fix` how to mend the type, where that is known. Of a column made by
    `take_runs`, row r counts as many times as `weights` says.
    """

    cdef readonly str name
    cdef readonly str kind
    cdef readonly str type_name
    cdef readonly str fix
    cdef readonly int32_t width
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
        self.fix = ""
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
        cdef int64_t first = 0, stop = 0, bad
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
        numbers = ("int", "float", "decimal")
        kinds = ("string",) if reads == DIN_READS_BYTES else numbers
        # A scalar column of nulls serves as lists too, but lists never as scalars.
        if self.kind == "null" and (is_list or not self.is_list):
            return 0
        if self.kind not in kinds or self.is_list != is_list:
            rule = "a list column" if is_list else "a scalar column"
            rule = f"{rule} of {'strings' if len(kinds) == 1 else 'numbers'}"
            raise InputError(rule, self.describe(), self.name)
        return 0

    def describe(self):
        """Return the type as an error names it."""
        return f"lists of {self.type_name}" if self.is_list else self.type_name

    def has_values(self, bint of_rows):
        """Tell whether any element (`of_rows`: any row) is not null."""
        cdef int64_t first = 0, stop = 0
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

    cdef Column alike(self):
        """Return a column of the same chunks, whose types may then be changed."""
        cdef Column column = Column(self.name)
        cdef Py_ssize_t i
        column.is_list = self.is_list
        column.num_rows = self.num_rows
        column.weigh_as(self)
        column.owners.append(self)
        for i in range(self.num_chunks):
            column.new_chunk()[0] = self.chunk(i)[0]
        return column

    def as_strings(self, bint as_text):
        """Return a column of kind "fixed" as strings: its bytes, or UUIDs' text.

        Raises
        ------
        InputError
            If the column is of another kind, or text is asked for of other than 16
            bytes.
        """
        cdef Column column = self.alike()
        cdef din_values *v
        cdef Py_ssize_t i
        if self.kind != "fixed" or as_text and self.width != DIN_UUID_BYTES:
            raise InputError("16 bytes a value", self.describe(), self.name)
        column.kind = "string"
        column.type_name = self.type_name
        for i in range(column.num_chunks):
            v = &column.chunk(i).values
            if column.chunk(i).has_dictionary:
                v = &column.chunk(i).dictionary
            if as_text and v.type == DIN_BYTES_FIXED:
                v.type = DIN_UUID_TEXT
        return column

    def find_uuid(self, bint in_capitals, bint raw):
        """Find the first of strings that is the text of a UUID, 8-4-4-4-12 digits.

        `in_capitals`: only such as are not in lower case; `raw`: or 16 bytes. Returns
        (row, bytes), or None.
        """
        cdef int64_t start = 0, count = 0, first_row = 0, row, i, at
        cdef Py_ssize_t k
        cdef din_column *c
        cdef const din_values *v
        cdef din_key key
        for k in range(self.num_chunks):
            c = self.chunk(k)
            for row in range(c.num_rows):
                din_row_bounds(c, row, &start, &count)
                for i in range(start, start + count):
                    at = i
                    v = din_resolve(c, &at)
                    if v == NULL:
                        continue
                    key = din_key_at(v, v.type, at)
                    if raw and key.num_bytes == DIN_UUID_BYTES \
                            or din_is_uuid_text(key, in_capitals):
                        found = (<const char *> key.data)[:key.num_bytes]
                        return first_row + row, found
            first_row += c.num_rows
        return None

    def as_untyped(self):
        """Return a column of the same lists, all their elements null."""
        cdef Column column = self.alike()
        cdef din_column *c
        cdef Py_ssize_t i
        for i in range(self.num_chunks):
            c = column.chunk(i)
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


cdef int _refuse(list errors, object error) except -1:
    """Raise the error of a row, or collect it."""
    if errors is None:
        raise error
    errors.append(error)
    return 0


cdef object _malformed(str rule, str name):
    return InputError(rule, "a malformed Arrow array", name)


cdef int _look_rows_up(
    Column column, din_column *c, const din_values *indices, int64_t num_rows
) except -1:
    """Make of a checked chunk of lists one whose rows are those that indices name."""
    cdef din_column lists = c[0]
    cdef _Memory offsets = _Memory(num_rows * sizeof(int64_t))
    cdef _Memory sizes = _Memory(num_rows * sizeof(int64_t))
    cdef _Memory valid = _Memory(num_rows // 8 + 1)
    cdef int64_t row, index
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
