"""``python -m din_infer`` prints what a report of a fault needs to say of a machine."""

import sys

from din_infer.closed_pipe import STATUS, write_output
from din_infer.environment import environment

if __name__ == "__main__":
    sys.exit(0 if write_output(environment() + "\n") else STATUS)
