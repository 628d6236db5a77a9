"""What efficient twins cost, lose and save, beside their originals."""

import vitarium.studies.report  # noqa: F401 -- says which extra is missing
