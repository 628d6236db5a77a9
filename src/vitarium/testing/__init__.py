"""Contract tests: what has to hold for every plug-in of a kind, ours and yours.

    from vitarium.testing import check_measure

    def test_contract():
        check_measure("my_measure")

Each raises AssertionError that names the plug-in and the rule that it breaks.
"""

from vitarium.testing.measures import check_measure
from vitarium.testing.studies import check_study

__all__ = ["check_measure", "check_study"]
