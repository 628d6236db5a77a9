"""How diverse a population is, and why."""
