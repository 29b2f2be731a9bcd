# Hashes, vocabularies and the encoders made of them.

HASHES = {
    "xxh64": DIN_HASH_XXH64, "xxh3_64": DIN_HASH_XXH3_64,
    "murmur3_32": DIN_HASH_MURMUR3_32, "farmhash64": DIN_HASH_FARMHASH_64,
    "siphash24": DIN_HASH_SIPHASH_24, "murmur3_32_spark": DIN_HASH_MURMUR3_32_SPARK,
    "murmur3_32_vw": DIN_HASH_MURMUR3_32_VW,
}
_REDUCES = {
    "offset": DIN_REDUCE_OFFSET, "mod": DIN_REDUCE_MOD, "pmod": DIN_REDUCE_PMOD,
    "abs": DIN_REDUCE_ABS, "raw": DIN_REDUCE_RAW,
}
_READS = {
    "string": DIN_READS_BYTES, "int64": DIN_READS_INT64, "float": DIN_READS_FLOAT64,
}
_INTS_AS = {
    "bytes": DIN_INT_AS_BYTES, "text": DIN_INT_AS_TEXT, "bytes4": DIN_INT_AS_BYTES4,
}
_TYPES_OF_ENCODER = {
    "hash": DIN_ENCODE_HASH, "vocab": DIN_ENCODE_VOCAB,
    "identity": DIN_ENCODE_IDENTITY, "bucketize": DIN_ENCODE_BUCKETIZE,
}
_UNSEEN = {
    "row": DIN_UNSEEN_ROW, "missing": DIN_UNSEEN_MISSING, "error": DIN_UNSEEN_ERROR,
}


def isas():
    """Name the instruction sets that hashes can use on this machine, best first."""
    cdef const din_block_isa *isa = din_block_isa_at(0)
    names = []
    while isa != NULL:
        names.append(isa.name.decode())
        isa = din_block_isa_at(len(names))
    return names


cdef const din_block_isa *_find_isa(str name) except NULL:
    """Find the one that is named, here or in DIN_INFER_ISA; else the best."""
    cdef const char *chosen = getenv("DIN_INFER_ISA")
    cdef const din_block_isa *isa
    if name is not None:
        chosen = PyUnicode_AsUTF8AndSize(name, NULL)
    isa = din_find_block_isa(chosen)
    if isa == NULL:
        place = "DIN_INFER_ISA" if name is None else "isa"
        rule = f"an instruction set of this machine ({', '.join(reversed(isas()))})"
        raise DeviceError(rule, chosen.decode(errors="replace"), place)
    return isa


cdef class Vocabulary:
    """Keys and the table that finds them; built once, then shared and read-only.

    Raises
    ------
    InputError
        If a key is of another dtype than "string" or "int64" as given, null, or there
        twice.
    """

    cdef din_vocab c
    cdef readonly str dtype
    cdef Column keys  # where the table reads them

    def __cinit__(self, list keys not None, str dtype not None, str isa=None):
        cdef Column column = from_list(keys, "values")
        cdef din_values *v
        cdef int64_t earlier = 0, twice
        if dtype not in ("string", "int64"):
            raise InputError("string or int64", repr(dtype), "dtype")
        self.dtype = dtype
        self.c.isa = _find_isa(isa)
        column.require(_READS[dtype], False)
        v = &column.chunk(0).values
        kind = "string" if dtype == "string" else "int"
        if len(keys) > 0 and column.kind != kind or v.validity != NULL:
            raise InputError("strings or integers", "others", "values")
        if len(keys) > DIN_MAX_VOCAB:
            raise InputError(f"at most {DIN_MAX_VOCAB} values", len(keys), "values")
        self.c.num_keys = column.num_rows
        if dtype == "string":
            self.c.bytes = v.bytes
            self.c.offsets = <const int64_t *> v.data
            if len(keys) > 0 and self.c.offsets[len(keys)] > UINT32_MAX:
                raise InputError("values of at most 4 GiB", "more", "values")
        else:
            self.c.ints = <const int64_t *> v.data
        with nogil:
            twice = din_build_vocab(&self.c, &earlier)
        if twice == DIN_VOCAB_NO_MEMORY:
            raise MemoryError
        if twice != DIN_VOCAB_BUILT:
            got = f"{keys[twice]!r:.80} at {earlier} and {twice}"
            raise InputError("each value once", got, "values")
        if self.c.reads_keys:
            self.keys = column

    def __dealloc__(self):
        din_free_vocab(&self.c)

    def __len__(self):
        return self.c.num_keys


cdef din_key _key_of(str text, list owners):
    """View a text's UTF-8, which `owners` keep."""
    cdef din_key key
    cdef bytes raw = text.encode()
    owners.append(raw)
    key.data = <const uint8_t *> <const char *> raw
    key.num_bytes = len(raw)
    return key


cdef class Encoder:
    """A compiled encoder; read-only, so that threads may share it.

    `seed` is two numbers for siphash24. With `is_seeded` the encoding needs another
    one before it, or begins with the seed: `prepare_scalars`.
    """

    cdef din_encoder c
    cdef str rule
    cdef readonly str dtype
    cdef readonly str isa
    cdef readonly str uuid_as  # what `require_dtype` makes of UUIDs; None: refuse them
    cdef list owners

    def __cinit__(
        self, str type not None, str dtype not None, *, rows, str hash="xxh64", seed=0,
        str reduce="offset", str int_as="bytes", Vocabulary vocabulary=None,
        str unseen="error", boundaries=(), str uuid_as=None, str isa=None,
        mask_value=None, str prefix not None="", bint alternate_sign=False,
        bint is_seeded=False,
    ):
        cdef _Buffer buffer
        if not 1 <= rows < 2**63:
            raise InputError("rows in [1, 2**63)", rows, "encoder")
        self.owners = [vocabulary]
        self.dtype = dtype
        self.uuid_as = uuid_as
        self.c.type = _TYPES_OF_ENCODER[type]
        self.c.reads = _READS[dtype]
        self.c.unseen = _UNSEEN[unseen]
        self.c.hash = HASHES[hash]
        self.c.isa = _find_isa(isa)
        self.isa = self.c.isa.name.decode()
        self.c.seed, self.c.second_seed = seed if isinstance(seed, tuple) else (seed, 0)
        self.c.int_as = _INTS_AS[int_as]
        self.c.num_rows = rows
        self.rule = f"an id in [0, {rows})"
        if self.c.reads == DIN_READS_FLOAT64 and type not in ("hash", "bucketize"):
            raise InputError("hash or bucketize for floats", type, "encoder")
        if self.c.reads == DIN_READS_BYTES and type not in ("hash", "vocab"):
            raise InputError("hash or vocab for strings", type, "encoder")
        if type == "hash":
            if alternate_sign:
                rows = max(1, rows // 2)
            if rows < 2 and reduce == "offset":
                raise InputError("at least 2 buckets", rows, "encoder")
            self.c.is_seeded = is_seeded
            if is_seeded and din_hash_has_32_bits(self.c.hash):
                self.c.seed |= DIN_FIRST_SEED
            self.c.has_sign = alternate_sign
            din_prepare_reduction(
                _REDUCES[reduce], self.c.hash, rows, &self.c.reduction)
            self.c.has_mask = mask_value is not None
            self.c.prefix = _key_of(prefix, self.owners)
            if self.c.prefix.num_bytes >= DIN_MAX_PREFIXED // 2:
                raise InputError("a short prefix", self.c.prefix.num_bytes, "encoder")
            if self.c.has_mask and self.c.reads == DIN_READS_BYTES:
                self.c.mask_key = _key_of(mask_value, self.owners)
            elif self.c.has_mask:
                self.c.mask_number = mask_value
        if type == "bucketize":
            buffer = _Buffer(np.array(boundaries, dtype=np.float64))
            self.owners.append(buffer)
            self.c.boundaries = <const double *> buffer.view.buf
            self.c.num_boundaries = len(boundaries)
        if type == "vocab":
            self.rule = "a value of the vocabulary"
            if vocabulary is None or vocabulary.dtype != dtype:
                got = "none" if vocabulary is None else vocabulary.dtype
                raise InputError(f"a vocabulary of {dtype}", got, "encoder")
            if rows < len(vocabulary) + 2:
                rule = f"at least {len(vocabulary) + 2} rows"
                raise InputError(rule, rows, "encoder")
            self.c.vocab = vocabulary.c
