"""Which generating factors a number of the models depends on, and how."""

import vitarium.studies.report  # noqa: F401 -- says which extra is missing
