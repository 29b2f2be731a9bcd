"""The libraries of csrc/ with instructions that few machines have in plain C.

Their logic and their rounding are tested on all x86-64 machines, beside the
instructions themselves where those exist.
"""

import os
from pathlib import Path

from tests.compiled import FLAGS, ROOT, compiled, compilers, sources_of

EMULATED = ["-fvisibility=hidden", "-DDIN_EMULATE"]


def emulated_blocks() -> Path:
    """Encoding, and a `din_block_emulated` beside each `din_block_<isa>`."""
    cc = compilers()[".c"]
    command = [cc, "-std=c11", *FLAGS, "-c"]
    commands = [[*command, str(path)] for path in sources_of("kernels")]
    renamed = ["-DDIN_EMULATE", "-Ddin_block_avx512=din_block_emulated"]
    renamed.append(f"-I{ROOT / 'tests'}")
    commands.append([*command, *renamed, str(ROOT / "csrc" / "block_avx512.c")])
    return compiled("emulated_blocks", commands, [cc])


def emulated_library() -> Path:
    """The native operators, AVX-512 and AMX emulated."""
    from tests.ops import machine_isas

    cc = compilers()[".c"]
    flags = ["-std=c11", *FLAGS, *EMULATED]
    if "avx2" in machine_isas():
        flags += ["-mfma", "-mavx2"]  # else fmaf is computed in software
    sanitize: list[str] = []
    if os.environ.get("DIN_SANITIZE") == "1":
        sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    header = ["-include", str(ROOT / "tests" / "emulate_avx512.h")]
    commands = []
    for path in sources_of("ops"):
        emulates = path.stem in ("isa_avx512", "isa_amx")
        command = [cc, *flags, *sanitize, *(header if emulates else [])]
        if path.parent.name != "ops":
            # as in `emulated_blocks`, whose objects these are: tested there
            command = [cc, "-std=c11", *FLAGS]
        commands.append([*command, "-c", str(path)])
    return compiled("emulated_ops", commands, [cc, *sanitize])


def emulated_cuda() -> Path:
    """The operators for CUDA, compiled for this processor: see tests/cuda/emulation.h.

    What they compute, and that their lanes meet where they must, is tested through ONNX
    Runtime's CPU provider; their speed, and the card itself, where there is one.
    """
    by_suffix = compilers()
    header = ["-include", str(ROOT / "tests" / "cuda" / "emulation.h")]
    commands = []
    for path in sources_of("ops_cuda"):
        flags = ["-std=c11"]
        if path.suffix == ".cu":
            flags = ["-std=c++17", *header, "-Wno-unknown-pragmas", "-x", "c++"]
        command = [by_suffix[path.suffix], *FLAGS, *EMULATED, "-g", *flags]
        commands.append([*command, "-c", str(path)])
    return compiled("emulated_ops_cuda", commands, [by_suffix[".cu"]])
