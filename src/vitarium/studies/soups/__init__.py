"""When models of a population may be averaged."""

import vitarium.studies.report  # noqa: F401 -- says which extra is missing
