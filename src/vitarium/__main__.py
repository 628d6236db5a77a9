"""`python -m vitarium`: the command line without its script."""

from vitarium.cli import main

main()
