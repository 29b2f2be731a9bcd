"""Whether a DIN fits the rows of Parquet files, measured before training.

`sequences` and `tables` count; `facts` are the results; `verdict` judges them, `text`
and `plot` show them; `inspection` joins these, and `files` reads and counts rows.
"""

from din_infer.jobs.inspect.files import inspect_files
from din_infer.jobs.inspect.inspection import Inspection, check_picture, write_picture

__all__ = ["Inspection", "check_picture", "inspect_files", "write_picture"]
