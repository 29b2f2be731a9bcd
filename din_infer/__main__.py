"""``python -m din_infer`` prints what a report of a fault needs to say of a machine."""

import sys

from din_infer.closed_pipe import STATUS, forget_output, write_output
from din_infer.environment import environment

if __name__ == "__main__":
    try:
        sys.exit(0 if write_output(environment() + "\n") else STATUS)
    except OSError as error:  # of a disk that is full
        forget_output()
        sys.exit(f"din_infer: {error}")
