"""Contract tests of plug-ins, for ours and for those in other packages.

    from vitarium.testing import check_architecture

    def test_my_architecture():
        check_architecture("my_architecture")

Each check raises AssertionError that names the plug-in and the broken rule.
"""

from vitarium.testing.architectures import check_architecture
from vitarium.testing.augmentations import check_augmentation
from vitarium.testing.datasets import check_dataset
from vitarium.testing.objectives import check_objective

__all__ = [
    "check_architecture",
    "check_augmentation",
    "check_dataset",
    "check_objective",
]
