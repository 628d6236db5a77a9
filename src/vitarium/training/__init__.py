"""Training runs: optimizers, schedules, the loop, stacks of models, and exact resumption."""

from vitarium.training._stack_key import stack_key as stack_key
from vitarium.training.loop import Task as Task
from vitarium.training.loop import train as train
from vitarium.training.loop import train_together as train_together
from vitarium.training.options import EpochEnded as EpochEnded
from vitarium.training.options import Precision as Precision
from vitarium.training.options import Remarked as Remarked
from vitarium.training.options import Spent as Spent
from vitarium.training.options import Stepped as Stepped
from vitarium.training.options import TrainOptions as TrainOptions
