from .architectures.create import create_model as create_model
from .blueprint import Blueprint as Blueprint
from .blueprint import Plan as Plan
from .blueprint import plan as plan
from .compression.compress import Compression as Compression
from .compression.compress import compress as compress
from .core.checkpoint_ref import CheckpointRef as CheckpointRef
from .core.errors import VitariumError as VitariumError
from .core.progress import Progress as Progress
from .engine.grow import Growth as Growth
from .engine.grow import grow as grow
from .evaluation.compare import compare as compare
from .formats.export import export as export
from .formats.hub.push import push as push
from .formats.import_zoo import import_zoo as import_zoo
from .lineage.recover import Recovered as Recovered
from .lineage.recover import recover as recover
from .measures._runner.measure import measure as measure
from .operators._runner.merge import merge as merge
from .studies._runner.study import StudyResult as StudyResult
from .studies._runner.study import study as study
from .zoo import Model as Model
from .zoo import Zoo as Zoo
from .zoo.combine import ZooMerge as ZooMerge
from .zoo.combine import merge_zoos as merge_zoos
from .zoo.removal import Removal as Removal

__version__: str
