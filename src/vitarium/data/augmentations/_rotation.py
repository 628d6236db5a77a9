"""Rotations of whole batches."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vitarium.data._to_device import to_device


def rotated_images(images: Tensor, degrees: Tensor) -> Tensor:
    """Each image [n, c, h, w] turned counter-clockwise about its middle; black comes in."""
    height, width = images.shape[-2:]
    cos, sin = (f(torch.deg2rad(degrees.double())) for f in (torch.cos, torch.sin))
    zero = torch.zeros_like(cos)
    # where each pixel comes from: the turn back, in coordinates from -1 to 1 on either axis
    rows = ((cos, -sin * height / width, zero), (sin * width / height, cos, zero))
    turn = torch.stack([torch.stack(row, 1) for row in rows], 1)
    on_device = to_device(turn.float(), images.device)
    grid = F.affine_grid(on_device, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
