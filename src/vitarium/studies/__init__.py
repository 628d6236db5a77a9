"""Studies, one file each: a population and its measures -> tables, figures, a page."""

from vitarium.core.extras import require

require("study", "a study")
