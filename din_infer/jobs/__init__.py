"""Jobs on files and engines; what they need beside NumPy, they import themselves."""

# Rows that are read, scored and written at a time: some megabytes, so that what is in
# flight is small, and long against what handing a batch on costs.
BATCH_ROWS = 4096
# Rows of one input that do not fit and are left out or null; more are an error.
MAX_BAD_ROWS = 1000
