"""What the extension calls of C: Python's, and what csrc/ declares."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, UINT32_MAX


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1


cdef extern from "arrow_abi.h" nogil:
    struct ArrowSchema:
        const char *format
        const char *name
        const char *metadata
        int64_t n_children
        ArrowSchema **children
        ArrowSchema *dictionary
        void (*release)(ArrowSchema *) noexcept

    struct ArrowArray:
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void **buffers
        ArrowArray **children
        ArrowArray *dictionary
        void (*release)(ArrowArray *) noexcept

    struct ArrowArrayStream:
        int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept nogil
        int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept nogil
        const char *(*get_last_error)(ArrowArrayStream *) noexcept
        void (*release)(ArrowArrayStream *) noexcept


cdef extern from "hash.h" nogil:
    enum:
        DIN_HASH_XXH64, DIN_HASH_XXH3_64, DIN_HASH_MURMUR3_32, DIN_HASH_FARMHASH_64,
        DIN_HASH_SIPHASH_24, DIN_HASH_MURMUR3_32_SPARK, DIN_HASH_MURMUR3_32_VW
    enum:
        DIN_REDUCE_OFFSET, DIN_REDUCE_MOD, DIN_REDUCE_PMOD, DIN_REDUCE_ABS,
        DIN_REDUCE_RAW

    ctypedef struct din_reduction:
        int32_t kind

    int din_hash_has_32_bits(int32_t) noexcept
    void din_prepare_reduction(int32_t, int32_t, uint64_t, din_reduction *) noexcept


cdef extern from "block.h" nogil:
    ctypedef struct din_block_isa:
        const char *name

    const din_block_isa *din_block_isa_at(int32_t) noexcept
    const din_block_isa *din_find_block_isa(const char *) noexcept


cdef extern from "link.h" nogil:
    enum:
        DIN_LINK_NONE, DIN_LINK_IDENTITY, DIN_LINK_SIGMOID

    int64_t din_link(float *, int64_t, int32_t, double, double) noexcept


cdef extern from "scale.h" nogil:
    enum:
        DIN_SCALE_STANDARD, DIN_SCALE_LOG1P, DIN_SCALE_MINMAX, DIN_SCALE_QUANTILE

    ctypedef struct din_scale:
        int32_t kind
        const double *shift
        const double *divisor
        const double *boundaries
        const int64_t *boundary_start

    double din_signed_log1p(double) noexcept
    void din_scale_values(const din_scale *, int64_t, int64_t, double *) noexcept


cdef extern from "column.h" nogil:
    enum:
        DIN_SCALAR, DIN_LIST32, DIN_LIST64, DIN_LIST_VIEW32, DIN_LIST_VIEW64,
        DIN_FIXED_LIST
    enum:
        DIN_NULL, DIN_BOOL, DIN_BOOL8, DIN_INT8, DIN_INT16, DIN_INT32, DIN_INT64,
        DIN_UINT8, DIN_UINT16, DIN_UINT32, DIN_UINT64, DIN_FLOAT16, DIN_FLOAT32,
        DIN_FLOAT64, DIN_DECIMAL32, DIN_DECIMAL64, DIN_DECIMAL128, DIN_DECIMAL256,
        DIN_BYTES32, DIN_BYTES64, DIN_BYTES_VIEW, DIN_BYTES_FIXED, DIN_UUID_TEXT
    enum:
        DIN_UUID_BYTES

    ctypedef struct din_values:
        int32_t type
        int64_t length
        int64_t offset
        const uint8_t *validity
        const void *data
        const uint8_t *bytes
        int64_t num_bytes
        const void *const *buffers
        const uint8_t *buffer_sizes
        int64_t num_buffers
        int32_t scale
        int32_t width

    ctypedef struct din_column:
        int32_t nesting
        int32_t has_dictionary
        int64_t num_rows
        int64_t offset
        const uint8_t *validity
        const void *offsets
        const void *sizes
        int64_t list_size
        din_values values
        din_values dictionary

    int64_t din_check_rows(const din_column *, int64_t *, int64_t *) noexcept
    int64_t din_check_values(
        din_values *, int64_t, int64_t, const din_block_isa *) noexcept
    int64_t din_check_indices(
        din_column *, int64_t, int64_t, const din_block_isa *) noexcept
    void din_row_lengths(const din_column *, int64_t *) noexcept
    int64_t din_count_valid(const din_column *, int64_t, int64_t) noexcept
    int64_t din_count_valid_rows(const din_column *) noexcept
    void din_row_bounds(const din_column *, int64_t, int64_t *, int64_t *) noexcept


cdef extern from "column_inline.h" nogil:
    ctypedef struct din_key:
        const uint8_t *data
        int64_t num_bytes

    din_key din_key_at(const din_values *, int32_t, int64_t) noexcept
    int din_is_uuid_text(din_key, int) noexcept
    int64_t din_index_at(const din_values *, int64_t) noexcept
    const din_values *din_resolve(const din_column *, int64_t *) noexcept
    int din_is_valid(const din_values *, int64_t) noexcept
    int din_bit(const uint8_t *, int64_t) noexcept
    int32_t din_read_i32(const void *, int64_t) noexcept
    uint64_t din_read_ui64(const void *, int64_t) noexcept
    float din_read_f32(const void *, int64_t) noexcept
    double din_read_f64(const void *, int64_t) noexcept
    double din_read_f16(const void *, int64_t) noexcept


cdef extern from "pages.h" nogil:
    void *din_allocate_pages(uint64_t) noexcept


cdef extern from "vocab.h" nogil:
    const int64_t DIN_MAX_VOCAB

    enum:
        DIN_VOCAB_BUILT, DIN_VOCAB_NO_MEMORY

    ctypedef struct din_vocab:
        const din_block_isa *isa
        int64_t num_keys
        const int64_t *ints
        const uint8_t *bytes
        const int64_t *offsets
        int32_t reads_keys

    int64_t din_build_vocab(din_vocab *, int64_t *) noexcept
    void din_free_vocab(din_vocab *) noexcept


cdef extern from "encode.h" nogil:
    enum:
        DIN_ENCODE_HASH, DIN_ENCODE_VOCAB, DIN_ENCODE_IDENTITY, DIN_ENCODE_BUCKETIZE
    enum:
        DIN_READS_BYTES, DIN_READS_INT64, DIN_READS_FLOAT64
    enum:
        DIN_INT_AS_BYTES, DIN_INT_AS_TEXT, DIN_INT_AS_BYTES4
    enum:
        DIN_UNSEEN_ROW, DIN_UNSEEN_MISSING, DIN_UNSEEN_ERROR
    enum:
        DIN_FINE, DIN_HAS_NO_ID, DIN_NOT_WHOLE, DIN_NOT_EXACT, DIN_BEYOND_INT64,
        DIN_BEYOND_64, DIN_BEYOND_INT32, DIN_TOO_LONG, DIN_IS_MISSING, DIN_WRONG_COUNT
    const int64_t DIN_MAX_PREFIXED
    const uint64_t DIN_FIRST_SEED

    ctypedef struct din_encoder:
        int32_t type
        int32_t reads
        int32_t unseen
        int32_t int_as
        int32_t hash
        int32_t is_seeded
        int32_t has_sign
        int32_t has_mask
        const din_block_isa *isa
        uint64_t seed
        uint64_t second_seed
        din_key mask_key
        int64_t mask_number
        din_key prefix
        din_reduction reduction
        int64_t num_rows
        din_vocab vocab
        const double *boundaries
        int64_t num_boundaries

    ctypedef struct din_tally:
        int64_t nulls
        int64_t unseen
        int32_t fault
        int64_t bad_row
        int64_t bad
        int64_t count

    ctypedef struct din_codes:
        const int64_t *ids
        const uint8_t *codes
        int64_t num_ids
        int32_t has_special

    ctypedef struct din_window:
        int64_t width
        int32_t newest_first
        const int64_t *skip
        const int64_t *kept
        const int64_t *positions
        const int64_t *position_start

    ctypedef struct din_pad_value:
        const uint8_t *data
        int64_t num_bytes
        int64_t number

    void din_encode_dictionary(
        const din_column *, const din_encoder *, int64_t *, uint8_t *,
        int32_t *) noexcept
    void din_encode_scalars(
        const din_column *, const din_encoder *, const din_codes *, int64_t, int64_t,
        int64_t *, din_tally *) noexcept
    void din_encode_lists(
        const din_column *, const din_encoder *, const din_codes *,
        const din_window *, int64_t, int64_t, int64_t *, din_tally *) noexcept
    int64_t din_mark_repeats(
        const din_column *, int64_t, int64_t, uint8_t *) noexcept
    void din_trim_rows(
        const din_column *, const din_pad_value *, int64_t *, int64_t *) noexcept
    void din_drop_pads(
        const din_column *, const din_pad_value *, const int64_t *, const int64_t *,
        int64_t *, int64_t *) noexcept
    void din_read_dense(
        const din_column *, int64_t, int64_t, int32_t, double, const din_scale *,
        const int64_t *, float *, double *, din_tally *) noexcept
    void din_read_elements_float64(const din_column *, int64_t, double *) noexcept
    void din_read_scalars_int64(
        const din_column *, int64_t, int64_t *, uint8_t *, din_tally *) noexcept


cdef extern from "pad.h" nogil:
    void din_pad_int64(
        const int64_t *, const int64_t *, int64_t, int64_t, int64_t *,
        int64_t *) noexcept
