"""din-init: a table looked at, and the feature spec that it seems to want."""

from din_infer.jobs.init.first_spec import FirstSpec, first_spec

__all__ = ["FirstSpec", "first_spec"]
