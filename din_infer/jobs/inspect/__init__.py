"""Whether a DIN fits the rows of Parquet files, measured before training.

`sequences` and `tables` count; `facts` are the results; `verdict` judges them, `text`
and `plot` show them; `inspection` reads rows and joins the others.
"""

from din_infer.jobs.inspect.inspection import (
    Inspection,
    check_picture,
    inspect_files,
    write_picture,
)

__all__ = ["Inspection", "check_picture", "inspect_files", "write_picture"]
