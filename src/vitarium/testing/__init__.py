"""Contract tests for plug-ins: `check_operator("ties")` raises AssertionError for a broken rule."""

from vitarium.testing.operators import check_operator as check_operator
