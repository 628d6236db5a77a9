"""Contract tests: what has to hold for every plug-in of a kind, ours and yours.

    from vitarium.testing import check_measure

    def test_contract():
        check_measure("my_measure")

Each raises AssertionError that names the plug-in and the rule that it breaks; keyword settings
stand in place of the plug-in's `tiny` ones.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
