"""By which mean and std a teacher's images are normalized, where that is not as its student's."""

from pathlib import Path

from vitarium.blueprint import ModelSpec, Recipe
from vitarium.blueprint.normalization import MeanStd
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.data import load as datasets
from vitarium.data.expected import Normalization, per_channel
from vitarium.data.preprocessing import preprocessing_of
from vitarium.engine.teachers import SETTINGS, find_path, in_zoo, teacher_of
from vitarium.formats._foreign_json import read_object
from vitarium.objectives.distillation.base import TeacherRef
from vitarium.zoo import Zoo


def teacher_normalization(
    spec: ModelSpec, zoo: Zoo, data_dir: Path | None = None
) -> Normalization | None:
    """Of the images of a model's teacher, per channel; None: the student's, or not known.

    Known is what the recipe or the importer of a model of the zoo says, and what a folder in timm's
    layout does. Raises as `in_zoo`, and InvalidInput where what is known makes no sense.
    """
    teacher = teacher_of(spec)
    return None if teacher is None else named_teachers_normalization(teacher, spec, zoo, data_dir)


def named_teachers_normalization(
    teacher: TeacherRef, spec: ModelSpec, zoo: Zoo, data_dir: Path | None = None
) -> Normalization | None:
    """As `teacher_normalization`, of a teacher that the model names."""
    if teacher.is_file:
        return None
    channels = spec.recipe.architecture.config.input_size[0]
    if teacher.is_path:
        return _of_folder(find_path(teacher, zoo), channels)
    model = zoo.spec(in_zoo(teacher, spec, zoo).model)
    if normalization := preprocessing_of(model).normalization:
        return normalization
    origin = model.origin
    if isinstance(origin, Recipe) and origin.data == spec.recipe.data:
        data = datasets.load(origin.data, data_dir)  # known from the files alone, which are here
        return per_channel(data.mean, channels), per_channel(data.std, channels)
    return None


def _of_folder(folder: Path, channels: int) -> Normalization | None:
    values = read_object(folder / SETTINGS)
    described = values.get("pretrained_cfg", values)
    about = described if isinstance(described, dict) else {}
    if about.get("mean") is None or about.get("std") is None:
        return None
    try:
        known = MeanStd.read({name: about[name] for name in ("mean", "std")})
    except InvalidConfig as error:
        problems = "; ".join(map(str, error.problems))
        raise InvalidInput(f"{folder / SETTINGS}: mean and std of no images: {problems}") from None
    if misfit := known.misfit(channels):
        raise InvalidInput(f"{folder / SETTINGS}: {misfit}")
    mean, std = known.values
    return per_channel(mean, channels), per_channel(std, channels)
