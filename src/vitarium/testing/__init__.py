"""Contract tests: what has to hold for every plug-in of a kind, ours and yours.

    from vitarium.testing import check_measure

    def test_contract():
        check_measure("my_measure")

Each raises AssertionError that names the plug-in and the rule that it breaks; keyword settings
stand in place of the plug-in's `tiny` ones.
"""

from vitarium.testing.architectures import check_architecture, check_head, check_initialization
from vitarium.testing.augmentations import check_augmentation
from vitarium.testing.datasets import check_dataset
from vitarium.testing.formats import check_exporter, check_importer
from vitarium.testing.lineage import check_lineage
from vitarium.testing.measures import check_measure
from vitarium.testing.objectives import check_objective
from vitarium.testing.operators import check_operator
from vitarium.testing.studies import check_study
from vitarium.testing.training import check_optimizer, check_schedule

__all__ = [
    "check_architecture",
    "check_augmentation",
    "check_dataset",
    "check_exporter",
    "check_head",
    "check_importer",
    "check_initialization",
    "check_lineage",
    "check_measure",
    "check_objective",
    "check_operator",
    "check_optimizer",
    "check_schedule",
    "check_study",
]
