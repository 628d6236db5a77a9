"""Contract tests: what has to hold for every plug-in of a kind, ours and yours.

    from vitarium.testing import check_lineage

    def test_contract():
        check_lineage("my_method")

Each raises AssertionError that names the plug-in and the rule that it breaks.
"""

from vitarium.testing.lineage import check_lineage

__all__ = ["check_lineage"]
