"""Images are prepared as image processors of transformers do it: to 1.5 gray values, which they
round to between the steps, where a kernel is as wide as Pillow's."""

import json

import numpy as np
import pytest
import torch
import transformers
from transformers.image_processing_backends import TorchvisionBackend

from reference.transformers_models import VIT, randomized
from vitarium import Zoo
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import section
from vitarium.data.model_images import prepared
from vitarium.data.preprocessing import preprocessing_of
from vitarium.formats._transformers.processor import _PROCESSORS
from vitarium.formats.import_zoo import import_zoo

SIDE = 16
PHOTO = np.random.default_rng(0).integers(96, 160, (3, 43, 61), np.uint8)
SQUARE = np.ascontiguousarray(PHOTO[:, :43, :43])
STATED = {"image_mean": [0.3, 0.4, 0.5], "image_std": [0.2, 0.3, 0.7], "resample": 2}
CROP = {"do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE}}
SQUASHED, SHORTER = {"size": {"height": SIDE, "width": SIDE}}, {"size": {"shortest_edge": SIDE}}
APPLIED = {
    "squashed": ("ViT", SQUASHED, PHOTO),
    "a number that is a square": ("ViT", {"size": SIDE}, PHOTO),
    "the middle of what is squashed": (
        "DeiT",
        {"size": {"height": 21, "width": 27}, **CROP},
        PHOTO,
    ),
    "the middle, rounded down": ("Bit", {"size": {"shortest_edge": 19}, **CROP}, PHOTO),
    "a number that is a side": ("CLIP", {"size": 21, **CROP}, PHOTO),
    "a number without a crop": ("Siglip", {"size": SIDE, "do_center_crop": False}, SQUARE),
    "padded": ("Bit", {"size": {"shortest_edge": 13}, **CROP}, PHOTO),
    "cropped alone": ("Bit", {"do_resize": False, **CROP}, PHOTO),
    "not cropped": ("Bit", {**SHORTER, "do_center_crop": False}, SQUARE),
    "a share": ("ConvNext", {**SHORTER, "crop_pct": 0.8}, PHOTO),
    "the usual share": ("ConvNext", SHORTER, PHOTO),
    "before the resizing, in floats": ("DINOv3ViT", SQUASHED, PHOTO),
    "levels": ("ViT", {**SQUASHED, "do_rescale": False, "image_mean": [99.0] * 3}, PHOTO),
    "another factor": ("ViT", {**SQUASHED, "rescale_factor": 1 / 127.5}, PHOTO),
    "not normalized": ("ViT", {**SQUASHED, "do_normalize": False}, PHOTO),
    "as its class resamples": ("Beit", {**SQUASHED, "resample": None}, PHOTO),
    **{f"resample {n}": ("ViT", {**SQUASHED, "resample": n}, PHOTO) for n in range(6)},
}
REFUSED = {
    "do_center_crop=False": ("Bit", {"size": {"shortest_edge": 20}, "do_center_crop": False}),
    "do_center_crop=False; that": ("ViT", {"size": {"height": 20, "width": 20}}),
    "crop_size=": ("ConvNext", {"size": {"shortest_edge": 20}}),
    "size.longest_edge=30": ("Bit", {"size": {"shortest_edge": 16, "longest_edge": 30}, **CROP}),
    "size.max_height=16": ("Bit", {"size": {"max_height": 16, "max_width": 16}, **CROP}),
    "image_processor_type=Levit": ("Levit", {"size": {"shortest_edge": 16}, **CROP}),
    "do_pad=True": ("ViT", {**SQUASHED, "do_pad": True}),
}


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """A ViT whose images are prepared so: what is recorded of it."""
    folder = tmp_path_factory.mktemp("vit") / "source"
    config = transformers.ViTConfig(**VIT, num_labels=3)
    randomized(transformers.ViTForImageClassification(config)).save_pretrained(folder)

    def imported(kind, content):
        content = {"image_processor_type": f"{kind}ImageProcessor", **STATED, **content}
        content = {key: value for key, value in content.items() if value is not None}
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
        zoo = tmp_path_factory.mktemp("zoo") / "zoo"
        (id,) = import_zoo(folder, zoo)
        return Zoo.open(zoo).spec(id), folder

    return imported


@pytest.mark.parametrize("name", APPLIED)
def test_images_are_those_of_the_processor(spec, name):
    kind, content, photo = APPLIED[name]
    preprocessing, folder = spec(kind, content)
    preprocessing = preprocessing_of(preprocessing)
    assert not preprocessing.faults
    backend = "pil" if content.get("resample") in (4, 5) else "torchvision"  # which lacks these
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend=backend)
    assert type(processor).__name__.removesuffix("Pil") == f"{kind}ImageProcessor"
    (expected,) = processor(torch.from_numpy(photo), return_tensors="pt")["pixel_values"]
    pixels = preprocessing.frames().plain(*photo.shape[1:]).cut(torch.from_numpy(photo)[None])[0]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in preprocessing.normalization)
    difference = (pixels - mean) / std - expected
    assert difference.shape == (3, SIDE, SIDE)
    assert (difference * std).abs().max() < 1.5 / 255


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_applied_is_refused_by_the_name_of_the_setting(spec, message):
    stated, _ = spec(*REFUSED[message])
    with pytest.raises(NotApplicable, match=f"preprocessing.{message}"):
        prepared(stated, section("dataset", "digits"))


@pytest.mark.parametrize("kind", _PROCESSORS)
def test_what_is_known_of_a_class_is_what_its_source_says(kind):
    about, processor = _PROCESSORS[kind], getattr(transformers, f"{kind}ImageProcessor")
    assert about.squares == processor.default_to_square
    assert about.crops == bool(getattr(processor, "do_center_crop", False))
    assert about.resample == processor.resample
    own = {"resize", "center_crop", "rescale", "normalize", "rescale_and_normalize"} & vars(
        processor
    ).keys()
    assert own == ({"resize"} if kind == "ConvNext" else set())
    assert issubclass(processor, TorchvisionBackend)
