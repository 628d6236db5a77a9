"""How a model's images are prepared: what recipes and importers say, and what cannot be applied."""

import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform

from vitarium.blueprint import Imported, ImportedSpec, ModelSpec, Recipe
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.core.registry import section
from vitarium.data.model_images import prepared as prepared_for
from vitarium.data.preprocessing import preprocessing_of, read_normalization

PHOTO = np.random.default_rng(0).integers(96, 160, (64, 96, 3), np.uint8)
"""Pillow clips what is brighter than white between columns and rows: this is gray enough; and of
these sizes no pixel's center lies on the edge of a box."""
HALVES = {"data.mean": [0.5] * 3, "data.std": [0.5] * 3}
SIZE = {"name": "vit", "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}


def imported(architecture=SIZE, **settings):
    values = {"source": "s", "name": "n", "weights": "w", "architecture": architecture}
    return ImportedSpec(stage="s", imported=Imported.read({**values, "settings": settings}))


def recipe(data="cifar10", **factors):
    values = {"architecture": SIZE, "data": data, "epochs": 1, "batch_size": 2, **factors}
    return ModelSpec(stage="s", recipe=Recipe.read(values))


def prepared(spec, image):
    """[h, w, c] -> [c, h, w]"""
    preprocessing = preprocessing_of(spec)
    frame = preprocessing.frames().plain(*image.shape[:2])
    pixels = frame.cut(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in preprocessing.normalization)
    return (pixels - mean) / std


def test_a_recipe_implies_the_normalization_of_its_data_and_its_augmentation():
    resized = recipe(augmentation={"resize": 40, "interpolation": "bicubic"})
    preprocessing = preprocessing_of(resized)
    assert preprocessing.input_size == (3, 32, 32)
    assert (preprocessing.resize, preprocessing.interpolation) == (40, "bicubic")
    assert preprocessing.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-3)
    own = {"name": "image_folder", "folder": "f", "mean": (0.1,) * 3, "std": (0.2,) * 3}
    assert preprocessing_of(recipe(own)).normalization == ((0.1,) * 3, (0.2,) * 3)


def test_augmentations_that_score_alike_are_the_same_preprocessing():
    plain, mixed = recipe(), recipe(augmentation={"mixup": 0.2})
    assert preprocessing_of(plain) == preprocessing_of(mixed)


def test_colors_of_a_gray_model_are_mixed():
    gray = recipe(architecture=SIZE | {"in_chans": 1})
    ((mean,), (std,)) = preprocessing_of(gray).normalization
    of_colors = preprocessing_of(recipe()).normalization
    assert mean == pytest.approx(sum(of_colors[0]) / 3)
    assert std == pytest.approx(sum(of_colors[1]) / 3)


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "box", "hamming"])
@pytest.mark.parametrize("share", [1.0, 0.875])
def test_words_of_timm_prepare_as_timm_does(mode, interpolation, share):
    words = {"crop_pct": share, "crop_mode": mode, "interpolation": interpolation}
    spec = imported(**HALVES, **{f"preprocessing.{word}": value for word, value in words.items()})
    transform = create_transform(32, mean=(0.5,) * 3, std=(0.5,) * 3, **words)
    expected = transform(Image.fromarray(PHOTO))
    assert (prepared(spec, PHOTO) - expected).abs().max() < 2.5 / 255 / 0.5


def test_words_of_a_model_of_timm_give_the_images_of_its_own_configuration():
    model = timm.create_model("vit_tiny_patch16_224")
    about = timm.data.resolve_data_config({}, model=model)
    words = {f"preprocessing.{word}": about[word] for word in ("crop_pct", "crop_mode")}
    words["preprocessing.interpolation"] = about["interpolation"]
    mean_and_std = {"data.mean": list(about["mean"]), "data.std": list(about["std"])}
    spec = imported({"name": "timm", "model": "vit_tiny_patch16_224"}, **words, **mean_and_std)
    photo = np.random.default_rng(1).integers(96, 160, (300, 260, 3), np.uint8)
    expected = create_transform(**about)(Image.fromarray(photo))
    assert (prepared(spec, photo) - expected).abs().max() < 2.5 / 255 / min(about["std"])


@pytest.mark.parametrize("share", [1.0, 0.9])
@pytest.mark.parametrize("size", [(32, 48), (48, 32), (24, 64)])
def test_images_cover_a_rectangle_as_those_of_timm_do(size, share):
    architecture = {"name": "timm", "model": "vit_tiny_patch16_224", "img_size": size}
    architecture |= {"patch_size": 8, "depth": 1}
    spec = imported(architecture, **HALVES, **{"preprocessing.crop_pct": share})
    transform = create_transform((3, *size), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=share)
    expected = transform(Image.fromarray(PHOTO))
    assert (prepared(spec, PHOTO) - expected).abs().max() < 2.5 / 255 / 0.5


@pytest.mark.parametrize("size", [(32, 48), (48, 32), (16, 64)])
@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (64, 64), (16, 24)])
def test_images_of_a_recipe_cover_a_rectangle_in_their_own_shape(size, shape):
    sizes = {"img_size": size[0], "img_width": size[1], "num_fine": 2}
    spec = recipe(architecture={**SIZE, "name": "mixed_scale", **sizes})
    photo = np.random.default_rng(1).integers(96, 160, (*shape, 3), np.uint8)
    normalization = preprocessing_of(spec).normalization
    mean, std = (tuple(values) for values in normalization)
    expected = create_transform((3, *size), mean=mean, std=std, crop_pct=1.0)(
        Image.fromarray(photo)
    )
    assert (prepared(spec, photo) - expected).abs().max() < 2.5 / 255 / min(std)
    augmentation = spec.recipe.augmentation((3, *size), 10)
    numbers = torch.rand(1, augmentation.numbers, dtype=torch.float64)
    seen = augmentation.frame(numbers, *shape).cut(torch.from_numpy(photo).permute(2, 0, 1)[None])
    torch.testing.assert_close(
        (seen[0] - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1),
        prepared(spec, photo),
    )


def of_timm(architecture, **settings):
    """A model that timm's importer read."""
    values = {"source": "timm", "name": "n", "weights": "w", "architecture": architecture}
    return ImportedSpec(stage="s", imported=Imported.read({**values, "settings": settings}))


@pytest.mark.parametrize("words", [{}, {"interpolation": "nearest", "crop_pct": 0.72}])
def test_what_a_model_of_timm_lacks_is_what_timm_takes_by_default(words):
    spec = of_timm(SIZE, **HALVES, **{f"preprocessing.{word}": v for word, v in words.items()})
    about = timm.data.resolve_data_config(
        {"input_size": (3, 32, 32)}, pretrained_cfg={"mean": (0.5,) * 3, "std": (0.5,) * 3, **words}
    )
    photo = np.ascontiguousarray(PHOTO[:63, :95])  # no pixel's center lies between two of them
    expected = create_transform(**about)(Image.fromarray(photo))
    assert (prepared(spec, photo) - expected).abs().max() < 2.5 / 255 / 0.5


def test_an_input_size_is_applied_where_the_model_takes_it():
    words = {**HALVES, "preprocessing.input_size": [3, 40, 40]}
    spec = of_timm({"name": "timm", "model": "resnet10t"}, **words)
    assert preprocessing_of(spec).input_size == (3, 40, 40)
    assert not preprocessing_of(spec).faults
    dynamic = {"name": "timm", "model": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 8}
    dynamic |= {"depth": 1, "dynamic_img_size": True}
    assert preprocessing_of(of_timm(dynamic, **words)).input_size == (3, 40, 40)


def test_an_input_size_that_the_model_does_not_take_is_refused():
    spec = of_timm(SIZE, **HALVES, **{"preprocessing.input_size": [3, 40, 40]})
    with pytest.raises(NotApplicable, match=r"input_size=\[3, 40, 40\]; .* \[3, 32, 32\]"):
        prepared_for(spec, section("dataset", "digits"))


def test_without_a_crop_images_have_to_come_out_right():
    words = {**HALVES, "preprocessing.do_center_crop": False}
    spec = imported(**words, **{"augmentation.resize": 32})
    assert prepared(spec, PHOTO[:, :64]).shape == (3, 32, 32)
    with pytest.raises(
        InvalidInput, match=r"do_center_crop=False: an image of 64×96 pixels .* 32×48"
    ):
        prepared(spec, PHOTO)
    spec = imported(**words, **{"preprocessing.size": [40, 40]})
    with pytest.raises(NotApplicable, match="do_center_crop=False; that leaves images of 40×40"):
        prepared_for(spec, section("dataset", "digits"))


def test_how_the_middle_is_rounded_tells_two_preparations_apart():
    first = preprocessing_of(imported(**HALVES))
    second = preprocessing_of(imported(**HALVES, **{"preprocessing.do_center_crop": False}))
    assert first.key == repr(first)
    assert first.key != second.key


def test_our_words_go_before_those_of_others():
    ours = {"augmentation.resize": 36, "augmentation.interpolation": "nearest"}
    reference = {"preprocessing.crop_pct": 0.5, "preprocessing.interpolation": "box"}
    preprocessing = preprocessing_of(imported(**ours, **reference))
    assert (preprocessing.resize, preprocessing.interpolation) == (36, "nearest")


def test_an_image_is_squashed_to_a_size():
    preprocessing = preprocessing_of(imported(**{"preprocessing.size": [40, 48]}))
    assert preprocessing.resize == (40, 48)


@pytest.mark.parametrize(
    ("word", "value", "why"),
    [
        ("preprocessing.crop_pct", -1, "a number such as 0.9"),
        ("preprocessing.crop_pct", "a", "a number such as 0.9"),
        ("preprocessing.size", [3], "a number of pixels"),
        ("augmentation.resize", 10**9, "a number of pixels"),
        ("data.mean", ["a"], "a number per channel"),
        ("data.mean", [0.5, 0.5], "3 channels"),
        ("data.std", [0.5, 0.0, 0.5], "positive"),
        ("data.std", True, "a number per channel"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(word, value, why):
    with pytest.raises(InvalidInput, match=f"{word}=.*{why}"):
        preprocessing_of(imported(**{**HALVES, word: value}))


@pytest.mark.parametrize(
    ("word", "value", "why"),
    [
        ("preprocessing.interpolation", "random", "nearest, bilinear"),
        ("augmentation.interpolation", "7", "nearest, bilinear"),
        ("preprocessing.crop_mode", "border", "center, squash"),
        ("preprocessing.crop_size", [30, 30], r"\[32, 32\]"),
    ],
)
def test_what_cannot_be_applied_is_a_fault_that_is_named(word, value, why):
    spec = imported(**{**HALVES, word: value})
    assert re.search(f"{word}=.*what can be applied is {why}", preprocessing_of(spec).faults[word])
    with pytest.raises(NotApplicable, match=f"{word}="):
        prepared_for(spec, section("dataset", "digits"))


def test_what_is_not_resized_is_cropped_as_it_is():
    spec = imported(**HALVES, **{"preprocessing.do_resize": False})
    expected = torch.from_numpy(PHOTO[16:48, 32:64]).permute(2, 0, 1) / 255
    assert torch.allclose(prepared(spec, PHOTO), (expected - 0.5) / 0.5)


def test_a_mean_without_a_deviation_is_no_normalization():
    assert preprocessing_of(imported()).normalization is None
    assert preprocessing_of(imported(**{"data.mean": [0.5] * 3})).normalization is None


def test_what_nothing_builds_has_no_images():
    with pytest.raises(NotApplicable, match="builds its architecture"):
        preprocessing_of(imported(None))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.5/0.25", ((0.5,), (0.25,))),
        ("0.1,0.2,0.3/1,2,3", ((0.1, 0.2, 0.3), (1, 2, 3))),
        ((0.5, 0.25), ((0.5,), (0.25,))),
        (([0.1], [0.2]), ((0.1,), (0.2,))),
        ("data", None),
    ],
)
def test_a_normalization_is_read(text, values):
    assert read_normalization(text) == values


@pytest.mark.parametrize("text", ["", "a", "0.5", "0.5/0", "0.5/nan", "1,2/3", (1, 2, 3), 0.5])
def test_what_is_no_normalization_is_refused(text):
    with pytest.raises(InvalidInput, match="neither 'data' nor a mean"):
        read_normalization(text)
