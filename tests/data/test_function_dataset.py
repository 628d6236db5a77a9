"""Functions as data sets: what they return, and what their parameters become."""

import os
import re
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

import vitarium
from vitarium.core import registry
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidData, InvalidInput, VitariumError
from vitarium.core.outside_modules import import_outside, outside_modules
from vitarium.core.registry import section
from vitarium.data.load import load
from vitarium.engine.plugin_modules import known_to_workers
from vitarium.testing import check_dataset

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 5, 4, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3
PARTS = {"train": slice(0, 40), "val": slice(40, 50), "test": slice(50, 60)}


@pytest.fixture(autouse=True)
def _own_data_sets():
    """Nothing that a test registers stays."""
    before = registry.plugins("dataset")
    yield
    for name in registry._plugins["dataset"].keys() - before.keys():
        del registry._plugins["dataset"][name]


def registered(images, labels=LABELS, parts=("train", "val", "test"), **facts):
    """A data set that returns parts of these."""

    def squares(split):
        """Random pixels in squares."""
        part = PARTS[split]
        return (images[part], labels[part]) if split in parts else None

    vitarium.dataset(**facts)(squares)
    return section("dataset", "squares")


FORMS = {
    "array of colors": (PIXELS, PIXELS),
    "array of gray": (PIXELS[..., 0], PIXELS[..., :1]),
    "array of one channel": (PIXELS[..., :1], PIXELS[..., :1]),
    "tensor": (torch.from_numpy(PIXELS).permute(0, 3, 1, 2), PIXELS),
    "tensor of gray": (torch.from_numpy(PIXELS[..., 0]), PIXELS[..., :1]),
    "tensor with channels last": (torch.from_numpy(PIXELS), PIXELS),
    "floats": (PIXELS / 255, PIXELS),
    "a view that cannot be written": (np.broadcast_to(PIXELS[:1], PIXELS.shape), PIXELS[:1]),
}


@pytest.mark.parametrize("form", FORMS)
def test_pixels_of_any_form_are_read(form):
    images, expected = FORMS[form]
    data = load(registered(images))
    for part in ("train", "val", "test"):
        split = getattr(data, part)
        reference = np.broadcast_to(expected, (60, *expected.shape[1:]))[PARTS[part]]
        assert np.array_equal(split.images.permute(0, 2, 3, 1).numpy(), reference)
        assert split.labels.tolist() == LABELS[PARTS[part]].tolist()
    assert data.classes == ("0", "1", "2")
    scaled = np.broadcast_to(expected, (60, *expected.shape[1:]))[PARTS["train"]] / 255
    assert data.mean == pytest.approx(scaled.mean((0, 1, 2)))
    assert data.std == pytest.approx(scaled.std((0, 1, 2)))


class Pairs(torch.utils.data.Dataset):
    """Images of Pillow's, with names of the classes."""

    classes = ("a", "b", "c")

    def __init__(self, split):
        self.rows = range(60)[PARTS[split]]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return Image.fromarray(PIXELS[self.rows[index]]), int(LABELS[self.rows[index]])


def test_a_dataset_of_pillows_images_is_decoded_when_it_is_needed():
    @vitarium.dataset
    def pairs(split):
        return Pairs(split)

    data = load(section("dataset", "pairs"))
    assert data.classes == ("a", "b", "c")
    assert torch.equal(data.test.images[3], torch.from_numpy(PIXELS[53]).permute(2, 0, 1))
    assert data.test.labels.tolist() == LABELS[50:].tolist()
    assert data.mean == (0.485, 0.456, 0.406)


def test_a_dataset_of_tensors_without_a_list_of_labels_is_read():
    images, labels = torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.from_numpy(LABELS)

    @vitarium.dataset(classes=["a", "b", "c"], mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    def tensors(split):
        return TensorDataset(images[PARTS[split]], labels[PARTS[split]])

    data = load(section("dataset", "tensors"))
    assert torch.equal(data.val.images[0], images[40])
    assert (data.classes, data.mean) == (("a", "b", "c"), (0.1, 0.2, 0.3))


def test_missing_splits_are_taken_from_the_training_images():
    data = load(registered(PIXELS, parts=("train",)))
    assert (len(data.train), len(data.val), len(data.test)) == (29, 3, 8)
    seen = {
        image.numpy().tobytes() for s in (data.train, data.val, data.test) for image in s.images
    }
    assert len(seen) == 40


def test_a_function_keeps_to_the_contract_of_data_sets():
    @vitarium.dataset(num_classes=3, num_train=40, num_val=10)
    def noise(split, scale: float = 1.0, form: Literal["a", "b"] = "a"):
        """Noise without any shape.

        Args:
            scale: largest pixel,
                of 1 at most.
            form: of the noise.
        """
        return np.uint8(PIXELS[PARTS[split]] * scale), LABELS[PARTS[split]]

    check_dataset("noise")
    check_dataset("noise", scale=0.5)
    plugin = registry.get("dataset", "noise")
    assert plugin.summary == "Noise without any shape."
    assert plugin.config.model_fields["scale"].description == "largest pixel, of 1 at most."
    with pytest.raises(InvalidConfig, match="form: 'c' is not 'a' or 'b'"):
        section("dataset", {"name": "noise", "form": "c"})
    with pytest.raises(InvalidConfig, match="unknown factor 'scael'; did you mean 'scale'"):
        section("dataset", {"name": "noise", "scael": 1})


def test_settings_reach_the_function_and_its_folder_too(tmp_path):
    calls = []

    @vitarium.dataset
    def recorded(split, count: int, data_dir, size=2):
        calls.append((split, count, data_dir, size))
        return PIXELS[PARTS[split]], LABELS[PARTS[split]]

    chosen = section("dataset", {"name": "recorded", "count": 7})
    assert chosen.factors(defaults=False) == {"name": "recorded", "count": 7}
    load(chosen, tmp_path)
    assert calls == [(split, 7, tmp_path, 2) for split in ("train", "val", "test")]
    with pytest.raises(InvalidConfig, match="count: missing"):
        section("dataset", "recorded")


def without_split(): ...
def without_type(split, x): ...
def with_list(split, x: list): ...
def with_more(split, **more): ...
def with_reserved(split, split_seed=1): ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (without_split, "first parameter is the split"),
        (without_type, "give the setting a type, such as x: int"),
        (with_list, r"such as x: tuple\[int, \.\.\.\]"),
        (with_more, r"\*\*more has no name"),
        (with_reserved, "call the setting 'split_seed' otherwise"),
    ],
)
def test_a_function_that_cannot_be_a_data_set_is_refused_at_once(function, message):
    with pytest.raises(TypeError, match=f"data set '{function.__name__}': .*{message}"):
        vitarium.dataset(function)


WRONG = {
    "labels": ((PIXELS, LABELS / 2), "labels are torch.float64"),
    "count": ((PIXELS, LABELS[:3]), "60 images and 3 labels"),
    "range": ((PIXELS * 1.0, LABELS), "floating-point pixels from 0 to 255; scale"),
    "type": ((PIXELS.astype(int), LABELS), "pixels are torch.int64"),
    "shape": ((PIXELS[0, 0], LABELS), r"images are \[4, 3\]"),
    "colors": ((np.zeros((60, 5, 5, 2), np.uint8), LABELS), "1 or 3 colors"),
    "nothing": (None, "no images to train on"),
    "text": ("images", "returned str"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_function_returns_is_checked(case):
    returned, message = WRONG[case]
    vitarium.dataset(name="wrong")(lambda split: returned)
    with pytest.raises(InvalidData, match=rf"data set 'wrong'.*{message}"):
        load(section("dataset", "wrong"))


def test_a_function_that_fails_is_named_with_its_error():
    def broken(split):
        raise KeyError("pixels")

    vitarium.dataset(broken)
    with pytest.raises(InvalidInput, match=r"'broken': its function failed .* 'train': KeyError"):
        load(section("dataset", "broken"))


@pytest.mark.parametrize("page", ["data", "plugins"])
def test_the_example_of_the_documents_keeps_to_the_contract(page):
    text = (Path(__file__).parents[2] / "docs" / f"{page}.md").read_text()
    (example,) = re.findall(r"```python\n(import numpy as np, vitarium.*?)```", text, re.DOTALL)
    assert example.count("\n") <= 12
    exec(example, {"__name__": "example_of_documents"})
    (name,) = re.findall(r"def (\w+)\(split", example)
    check_dataset(name)


MODULE = """
import numpy as np, vitarium

@vitarium.dataset
def stripes(split, count: int = 40):
    "Stripes of two directions."
    labels = np.arange(count) % 2
    line = np.arange(8) % 2 * 255
    noise = np.random.default_rng(sum(map(ord, split))).integers(0, 200, (count, 8, 8))
    pixels = np.where(labels[:, None, None] == 0, line, line[:, None])
    return np.maximum(pixels - noise, 0).astype(np.uint8), labels
"""


@pytest.fixture
def stripes(tmp_path, monkeypatch):
    """The file of a module that registers the data set `stripes`, which is forgotten afterwards."""
    file = tmp_path / "stripes_module.py"
    file.write_text(MODULE)
    monkeypatch.setitem(sys.modules, "stripes_module", None)
    del sys.modules["stripes_module"]
    return file


def blueprint():
    architecture = {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16}
    sizes = {"depth": 1, "num_heads": 2}
    stage = {"architecture": architecture | sizes, "data": {"name": "stripes", "count": 48}}
    stage |= {"epochs": 1, "batch_size": 8}
    return {"name": "x", "stages": {"a": stage}}


def test_a_module_may_be_named_by_its_file(stripes):
    import_outside(str(stripes))
    assert outside_modules(["stripes_module", "vitarium.zoo", "json"]) == [str(stripes), "json"]
    import_outside(str(stripes))  # once is enough
    with pytest.raises(ImportError, match="another module is called json"):
        import_outside("json.py")


def test_workers_are_told_the_modules_of_a_plan(stripes, monkeypatch):
    monkeypatch.setenv("VITARIUM_PLUGINS", "json")
    import_outside(str(stripes))
    planned = vitarium.plan(blueprint())
    with known_to_workers(planned):
        assert os.environ["VITARIUM_PLUGINS"] == f"json,{stripes}"
    assert os.environ["VITARIUM_PLUGINS"] == "json"
    monkeypatch.delenv("VITARIUM_PLUGINS")
    with known_to_workers(planned):
        assert os.environ["VITARIUM_PLUGINS"] == str(stripes)
    assert "VITARIUM_PLUGINS" not in os.environ


def test_a_model_is_trained_on_what_a_function_returns(stripes, tmp_path):
    import_outside(str(stripes))
    plain = {"progress": False, "precision": "fp32", "compiled": False, "stacked": 1}
    growth = vitarium.grow(blueprint(), tmp_path / "zoo", workers=0, **plain)
    table = growth.zoo.models()
    assert table["data"].tolist() == ["stripes"]
    assert table["data.count"].tolist() == [48]
    assert table["test_accuracy"].notna().all()


def test_a_data_set_of_the_program_itself_is_refused_for_workers(tmp_path):
    def stripes(split, count: int = 40):
        return PIXELS[PARTS[split]], LABELS[PARTS[split]]

    stripes.__module__ = "__main__"
    vitarium.dataset(stripes)
    with pytest.raises(
        VitariumError, match=r"'stripes' is defined in the program itself, .*workers"
    ):
        vitarium.grow(blueprint(), tmp_path / "zoo", workers=1, progress=False)
    assert not (tmp_path / "zoo").exists()
