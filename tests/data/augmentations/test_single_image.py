"""One image in its frame is the same as in a batch of frames, however it is resampled."""

import pytest
import torch
from torchvision.transforms.v2.functional import resized_crop

from vitarium.data.augmentations._crops import (
    CROP_NUMBERS,
    Frame,
    random_resized_crops,
    resized_crops,
)
from vitarium.data.augmentations._single_image import cut_image

SIZE = (24, 20)
DRAWN = torch.Generator().manual_seed(0)


def image(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=DRAWN)


def check(frame: Frame, pixels: torch.Tensor) -> None:
    expected = frame.cut(pixels[None])[0] * 255
    difference = (cut_image(frame, pixels).double() - expected).abs()
    # of rounding to whole gray levels, once or after rows and after columns
    assert difference.max() <= (1.1 if frame.interpolation == "bilinear" else 0.501)


def test_bilinear_pixels_are_torchvisions():
    numbers = torch.rand(8, CROP_NUMBERS, dtype=torch.float64, generator=DRAWN)
    for drawn in numbers:
        frame = random_resized_crops(
            (40, 63), SIZE, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), numbers=drawn[None]
        )
        pixels = image(40, 63)
        box = [
            int(value)
            for axis in ("start", "length")
            for value in (getattr(frame.rows, axis), getattr(frame.columns, axis))
        ]
        assert torch.equal(cut_image(frame, pixels), resized_crop(pixels, *box, list(SIZE)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("shape", [(40, 63), (15, 11), (24, 20), (7, 90)])
def test_random_resized_crops(shape, interpolation):
    numbers = torch.rand(8, CROP_NUMBERS, dtype=torch.float64, generator=DRAWN)
    for number, drawn in enumerate(numbers):
        frame = random_resized_crops(
            shape,
            SIZE,
            scale=(0.08, 1.0),
            ratio=(3 / 4, 4 / 3),
            numbers=drawn[None],
            interpolation=interpolation,
            flipped=torch.tensor([number % 2 == 0]),
        )
        check(frame, image(*shape))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shorter": 31},
        {"shorter": 16},  # narrower than the crop: black margins
        {"squashed": (24, 20)},
        {"squashed": (30, 18), "interpolation": "bicubic"},
        {"padding": 4, "crop_numbers": torch.tensor([[0.9, 0.1]]), "flipped": torch.tensor([True])},
        {"padding": 4, "padding_mode": "reflect", "crop_numbers": torch.tensor([[0.9, 0.1]])},
    ],
)
@pytest.mark.parametrize("shape", [(40, 63), (24, 20), (33, 21)])
def test_crops_of_resized_images(shape, options):
    check(resized_crops(shape, SIZE, **options), image(*shape))


def test_a_long_strip_is_not_resized_as_a_whole(monkeypatch):
    """Its shorter side becomes that of the frame: 20 by 4,000 pixels, of which 20 by 24 are seen."""
    shapes = []
    resample = torch.nn.functional.interpolate

    def recorded(pixels, size, **options):
        shapes.append(size)
        return resample(pixels, size, **options)

    monkeypatch.setattr(torch.nn.functional, "interpolate", recorded)
    check(resized_crops((2, 400), SIZE), image(2, 400))
    check(resized_crops((40, 63), SIZE), image(40, 63))
    assert len(shapes) == 1
