"""The only module that calls csrc/; its parts, by subject, are in kernels/.

Everything that could corrupt memory is refused here, in every build: no call, however
wrong, may end the process. What a value *means* (which column may hold strings) is
decided in `columns.py`. The parts are included, not imported: what they share needs no
public declarations, and C calls between them are direct.

Letters: B rows, T positions, K dense values, V elements of all lists together.
"""

import sys

from cpython.buffer cimport (
    PyBUF_ND,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport free, getenv
from libc.string cimport memchr, memcmp, memcpy, memset

import numpy as np

from din_infer.errors import DeviceError, InputError

# Rows, or elements, of one column: their sizes in bytes still fit.
cdef int64_t MAX_ROWS = INT64_MAX // 64

# So few take microseconds: a thread that gave the GIL away for them would wait longer
# to have it back. Two callers of one row each get a fifth more done.
cdef int64_t FEW_ELEMENTS = 1024

cdef object _empty = np.empty
cdef object _INT64 = np.dtype(np.int64)

include "kernels/memory.pxi"
include "kernels/column.pxi"
include "kernels/arrow.pxi"
include "kernels/numpy.pxi"
include "kernels/lists.pxi"
include "kernels/texts.pxi"
include "kernels/repeats.pxi"
include "kernels/encoder.pxi"
include "kernels/window.pxi"
include "kernels/encoding.pxi"
include "kernels/numbers.pxi"
