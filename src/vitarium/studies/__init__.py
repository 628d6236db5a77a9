"""Studies, one file each: a population and its measures -> tables, figures, a page."""

from vitarium.studies.studying import Studied, study

__all__ = ["Studied", "study"]
