"""Progress while a zoo grows: bars and lines, the time that is left, a timeline."""
