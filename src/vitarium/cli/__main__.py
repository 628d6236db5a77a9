"""`python -m vitarium.cli`, as `python -m vitarium`."""

from vitarium.cli import main

main()
