from ._model_files import About as About
from ._model_files import Epoch as Epoch
from ._model_files import Record as Record
from ._model_files import Status as Status
from .checkpoint import Checkpoint as Checkpoint
from .model import Model as Model
from .model_folder import ModelFolder as ModelFolder
from .zoo import Zoo as Zoo
