"""Contract tests: what has to hold for every plug-in of a kind, ours and yours.

    from vitarium.testing import check_exporter

    def test_contract():
        check_exporter("my_format")

Each raises AssertionError that names the plug-in and the rule that it breaks.
"""

from vitarium.testing.formats import check_exporter, check_importer

__all__ = ["check_exporter", "check_importer"]
