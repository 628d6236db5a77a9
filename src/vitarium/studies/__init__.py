"""Studies, one file each: a population and its measures -> tables, figures, a page."""
