"""How diverse a population is, and why."""

import vitarium.studies.report  # noqa: F401 -- says which extra is missing
