"""``python -m din_infer`` prints what a report of a fault needs to say of a machine."""

import sys
from contextlib import suppress

from din_infer.closed_pipe import STATUS, flush_output
from din_infer.environment import environment

if __name__ == "__main__":
    with suppress(BrokenPipeError):  # which the flush meets again
        sys.stdout.write(environment() + "\n")
    sys.exit(0 if flush_output() else STATUS)
