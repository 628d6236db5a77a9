"""`python -m vitarium.cli`: the command line without its script."""

from vitarium.cli import main

main()
