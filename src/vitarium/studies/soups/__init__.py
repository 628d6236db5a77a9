"""When models of a population may be averaged."""
