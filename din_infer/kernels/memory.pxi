# Memory that a column owns or holds, and that of large results.

cdef class _Memory:
    """A block of memory that grows; freed with the object."""

    cdef uint8_t *data
    cdef Py_ssize_t capacity

    def __cinit__(self, Py_ssize_t num_bytes=0):
        self.reserve(num_bytes)

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef int reserve(self, Py_ssize_t num_bytes) except -1:
        """Grow to at least so many bytes; what is new is 0."""
        cdef Py_ssize_t capacity
        cdef uint8_t *data
        if num_bytes <= self.capacity:
            return 0
        capacity = max(num_bytes, 2 * self.capacity, 64)
        data = <uint8_t *> PyMem_Realloc(self.data, capacity)
        if data == NULL:
            raise MemoryError
        memset(data + self.capacity, 0, capacity - self.capacity)
        self.data = data
        self.capacity = capacity
        return 0


cdef class _Buffer:
    """A held Python buffer."""

    cdef Py_buffer view

    def __cinit__(self, exporter):
        PyObject_GetBuffer(exporter, &self.view, PyBUF_ND)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)  # which does nothing where none is held


cdef class _ArrowOwner:
    """An Arrow array moved out of its capsule or stream; released with the object."""

    cdef ArrowArray array

    def __dealloc__(self):
        if self.array.release != NULL:
            self.array.release(&self.array)


cdef class _SchemaOwner:
    """An Arrow schema, as `_ArrowOwner`."""

    cdef ArrowSchema schema

    def __dealloc__(self):
        if self.schema.release != NULL:
            self.schema.release(&self.schema)


# Ids of 80 MB, encoded by two threads: 38 ms in pages that are new, 22 in pages that
# were there. Below the least, malloc gives memory again by itself.
cdef Py_ssize_t LEAST_REUSED = 1 << 20
cdef Py_ssize_t MOST_REUSED = 1 << 28  # of one block, and of all that wait

cdef struct _Block:
    void *data
    Py_ssize_t num_bytes

cdef _Block _waiting[16]  # the oldest first; the GIL is their lock
cdef Py_ssize_t _num_waiting = 0, _bytes_waiting = 0


cdef _Block _take_waiting(Py_ssize_t i) noexcept:
    """Take out block i."""
    global _num_waiting, _bytes_waiting
    cdef _Block block = _waiting[i]
    _num_waiting -= 1
    _bytes_waiting -= block.num_bytes
    for i in range(i, _num_waiting):
        _waiting[i] = _waiting[i + 1]
    return block


cdef class _Pages:
    """The buffer of a large array; its memory waits for another when the last is gone.

    An array over it keeps it, so nobody's result is ever overwritten.
    """

    cdef _Block block

    def __cinit__(self, Py_ssize_t num_bytes):
        cdef Py_ssize_t i
        for i in range(_num_waiting - 1, -1, -1):  # the latest is the likeliest cached
            if num_bytes <= _waiting[i].num_bytes <= 2 * num_bytes:
                self.block = _take_waiting(i)
                return
        self.block.data = din_allocate_pages(num_bytes)
        if self.block.data == NULL:
            raise MemoryError
        self.block.num_bytes = num_bytes

    def __dealloc__(self):
        global _num_waiting, _bytes_waiting
        if self.block.data == NULL:
            return
        while _num_waiting == 16 or _bytes_waiting + self.block.num_bytes > MOST_REUSED:
            free(_take_waiting(0).data)
        _waiting[_num_waiting] = self.block
        _num_waiting += 1
        _bytes_waiting += self.block.num_bytes

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(
            buffer, self, self.block.data, self.block.num_bytes, False, flags)


cdef object _new_ids(shape, double num_ids):
    """As np.empty of int64; a large array lies in memory that is used again."""
    cdef double num_bytes = 8 * num_ids
    if LEAST_REUSED <= num_bytes <= MOST_REUSED:
        return np.ndarray(shape, _INT64, _Pages(<Py_ssize_t> num_bytes))
    return _empty(shape, _INT64)
