"""Contract tests: what has to hold for every plug-in of a kind, ours and yours.

    from vitarium.testing import check_measure

    def test_contract():
        check_measure("my_measure")

Each raises AssertionError that names the plug-in and the rule that it breaks; keyword settings
stand in place of the plug-in's `tiny` ones.
"""

from vitarium.testing.architectures import check_architecture as check_architecture
from vitarium.testing.architectures import check_head as check_head
from vitarium.testing.architectures import check_initialization as check_initialization
from vitarium.testing.augmentations import check_augmentation as check_augmentation
from vitarium.testing.datasets import check_dataset as check_dataset
from vitarium.testing.formats import check_exporter as check_exporter
from vitarium.testing.formats import check_importer as check_importer
from vitarium.testing.lineage import check_lineage as check_lineage
from vitarium.testing.measures import check_measure as check_measure
from vitarium.testing.objectives import check_objective as check_objective
from vitarium.testing.operators import check_operator as check_operator
from vitarium.testing.studies import check_study as check_study
from vitarium.testing.training import check_optimizer as check_optimizer
from vitarium.testing.training import check_schedule as check_schedule
