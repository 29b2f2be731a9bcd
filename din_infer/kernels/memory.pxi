# Memory that a column owns or holds.

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
