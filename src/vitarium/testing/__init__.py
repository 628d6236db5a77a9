"""Contract tests of plug-ins, for ours and for those in other packages.

    from vitarium.testing import check_architecture

    def test_my_architecture():
        check_architecture("my_architecture")

Each check raises AssertionError that names the plug-in and the broken rule.
"""

from vitarium.testing.architectures import check_architecture as check_architecture
from vitarium.testing.augmentations import check_augmentation as check_augmentation
from vitarium.testing.datasets import check_dataset as check_dataset
from vitarium.testing.heads import check_head as check_head
from vitarium.testing.initializations import check_initialization as check_initialization
from vitarium.testing.objectives import check_objective as check_objective
from vitarium.testing.optimizers import check_optimizer as check_optimizer
from vitarium.testing.schedules import check_schedule as check_schedule
