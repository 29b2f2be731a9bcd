"""Check the wheel din-infer-cuda: one library, which loads without a driver."""

import ctypes
from importlib.metadata import distribution
from pathlib import Path

wheel = distribution("din-infer-cuda")
files = [file for file in wheel.files or () if ".dist-info" not in file.parts[0]]
assert [str(file) for file in files] == ["din_infer_cuda/_ops_cuda.so"], files
library = Path(str(wheel.locate_file(files[0])))
loaded = ctypes.CDLL(str(library))  # so that din-infer can tell what is missing
for name in ("RegisterCustomOps", "din_lane_open"):
    getattr(loaded, name)
print(f"{library}: {library.stat().st_size} bytes, loads without a driver")
