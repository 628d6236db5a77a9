"""Which models descend from which, and how sure that is."""

import vitarium.studies.report  # noqa: F401 -- says which extra is missing
