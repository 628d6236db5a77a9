"""Folders of images as they lie on people's disks: every kind of pixel, and what is no image."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets.folder import default_loader
from torchvision.transforms.v2.functional import pil_to_tensor

from vitarium.core.errors import InvalidData
from vitarium.core.registry import section
from vitarium.data.load import load

RAMP = np.linspace(0, 1, 256).reshape(16, 16)
DRAWN = np.random.default_rng(0)


@pytest.fixture
def root(tmp_path):
    """Two classes of four gray images in train/ and val/."""
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / "mine" / part / label).mkdir(parents=True)
            for number in range(4):
                gray(30 * number).save(tmp_path / "mine" / part / label / f"{number}.png")
    return tmp_path / "mine"


def gray(value=100):
    return Image.fromarray(np.full((8, 8), value, np.uint8))


def read(root):
    return load(section("dataset", {"name": "image_folder", "folder": str(root)}))


def image_of(root, image, suffix="png", **options):
    """What becomes of an image that lies in the folder of tests."""
    image.save(root / "val" / "cat" / f"0.{suffix}", **options)
    for number in range(4):
        if suffix != "png" or number:
            (root / "val" / "cat" / f"{number}.png").unlink()
    return read(root).test.images[0]


# Pixels


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_by_their_range(root, order, suffix):
    deep = Image.fromarray(np.rint(RAMP * 65535).astype(order))
    pixels = image_of(root, deep, suffix)
    assert torch.equal(pixels[0], torch.from_numpy(np.rint(RAMP * 255)).to(torch.uint8))
    assert torch.equal(pixels[0], pixels[2])


def test_16_bits_of_a_portable_graymap(root):
    deep = Image.fromarray(np.rint(RAMP * 65535).astype("<u2"))
    pixels = image_of(root, deep.convert("I"), "pgm")
    assert torch.equal(pixels[0], torch.from_numpy(np.rint(RAMP * 255)).to(torch.uint8))


def test_dark_16_bit_images_stay_dark(root):
    dark = Image.fromarray(np.full((8, 8), 600, np.uint16))
    assert image_of(root, dark).unique().tolist() == [2]


def test_floats_are_of_zero_to_one(root):
    pixels = image_of(root, Image.fromarray(RAMP.astype(np.float32)), "tif")
    assert torch.equal(pixels[0], torch.from_numpy(np.rint(RAMP * 255)).to(torch.uint8))


@pytest.mark.parametrize("value", [1.5, -0.1, 255, np.nan, np.inf])
def test_floats_of_another_range_are_refused(root, value):
    image = Image.fromarray(np.full((4, 4), value, np.float32))
    with pytest.raises(InvalidData, match=r"cat/0\.tif has floating-point pixels from .*\[0, 1\]"):
        image_of(root, image, "tif")


def test_32_bit_integers_are_refused(root):
    with pytest.raises(InvalidData, match=r"0\.tif has integers of 32 bits"):
        image_of(root, Image.fromarray(np.full((4, 4), 9, np.int32)), "tif")


def colors(mode):
    image = Image.fromarray(DRAWN.integers(0, 256, (8, 8, 4), np.uint8), "RGBA")
    if mode == "transparent palette":
        palette = image.convert("RGB").quantize(16)
        palette.info["transparency"] = 3
        return palette
    return image.convert(mode) if mode != "P" else image.convert("RGB").quantize(16)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("1", "png"),
        ("L", "png"),
        ("LA", "png"),
        ("P", "png"),
        ("transparent palette", "png"),
        ("RGB", "png"),
        ("RGBA", "png"),
        ("CMYK", "jpg"),
        ("CMYK", "tif"),
        ("YCbCr", "jpg"),
        ("P", "bmp"),
        ("RGBA", "webp"),
    ],
)
def test_all_else_becomes_what_torchvision_makes_of_it(root, mode, suffix):
    pixels = image_of(root, colors(mode), suffix)
    expected = default_loader(str(root / "val" / "cat" / f"0.{suffix}"))
    assert torch.equal(pixels, pil_to_tensor(expected))


def test_colors_below_transparency_stay(root):
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[..., 0] = 200
    assert image_of(root, Image.fromarray(clear, "RGBA"))[:, 0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_exif_says(root, suffix, orientation):
    """The pixels as they lie in the file, by the definition: row 0 is the visual top, right, ..."""
    upright = torch.zeros(3, 16, 24, dtype=torch.uint8)
    upright[:, :8, :8] = 250  # light at the upper left
    upright[:, :8, 16:] = 120
    turned = {
        1: upright,
        2: upright.flip(2),
        3: upright.flip(1, 2),
        4: upright.flip(1),
        5: upright.transpose(1, 2),
        6: upright.transpose(1, 2).flip(1),
        7: upright.transpose(1, 2).flip(1, 2),
        8: upright.transpose(1, 2).flip(2),
    }[orientation]
    image = Image.fromarray(turned.permute(1, 2, 0).contiguous().numpy())
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = image_of(root, image, suffix, exif=exif).float()
    assert pixels.shape == upright.shape
    assert (pixels - upright).abs().mean() < 8


def test_an_image_that_is_cut_short_is_named(root):
    file = root / "val" / "cat" / "0.png"
    Image.fromarray(DRAWN.integers(0, 256, (64, 64, 3), np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:-4000])
    with pytest.raises(InvalidData, match=f"{file} cannot be decoded"):
        read(root).test.images[0]


def test_an_image_that_would_fill_the_memory_is_named(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(InvalidData, match=r"cannot be decoded: .*exceeds limit"):
        read(root).test.images[0]


# Folders and files


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir"])
@pytest.mark.parametrize("inside", ["", "cat"])
def test_hidden_folders_are_neither_classes_nor_of_them(root, name, inside):
    for part in ("train", "val"):
        (root / part / inside / name).mkdir()
        gray().save(root / part / inside / name / "copy.png")
    data = read(root)
    assert data.classes == ("cat", "dog")
    assert (len(data.train) + len(data.val), len(data.test)) == (8, 8)


def test_hidden_and_other_files_are_no_images(root):
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "notes.txt"):
        (root / "train" / "cat" / name).write_bytes(b"\0\5\26\7")
    (root / "train" / "readme.txt").write_text("cats and dogs")
    data = read(root)
    assert len(data.train) + len(data.val) == 8
    assert data.classes == ("cat", "dog")


def test_extensions_may_be_in_capitals(root):
    (root / "train" / "cat" / "0.png").rename(root / "train" / "cat" / "0.PNG")
    gray().save(root / "train" / "cat" / "9.JPeG", format="jpeg")
    data = read(root)
    assert len(data.train) + len(data.val) == 9


def test_folders_below_a_class_are_of_it(root):
    (root / "train" / "dog" / "2024").mkdir()
    gray().save(root / "train" / "dog" / "2024" / "a.png")
    data = read(root)
    assert (data.train.labels == 1).sum() + (data.val.labels == 1).sum() == 5


@pytest.mark.parametrize(("part", "whole"), [("train", "val"), ("val", "train")])
def test_a_class_that_is_missing_in_one_split_is_named_with_both_folders(root, part, whole):
    (root / whole / "horse").mkdir()
    gray().save(root / whole / "horse" / "0.png")
    fault = f"{root / part} has no folder of horse; {root / whole} has"
    with pytest.raises(InvalidData, match=f"^{fault}$"):
        read(root)


def test_an_empty_class_is_named(root):
    (root / "train" / "horse").mkdir()
    with pytest.raises(InvalidData, match=f"{root / 'train' / 'horse'} has no image files"):
        read(root)


def test_images_without_classes_are_refused(root, tmp_path):
    for part in ("train", "val"):
        (tmp_path / "flat" / part).mkdir(parents=True)
        gray().save(tmp_path / "flat" / part / "0.png")
    with pytest.raises(InvalidData, match="has no folders of classes"):
        read(tmp_path / "flat")
