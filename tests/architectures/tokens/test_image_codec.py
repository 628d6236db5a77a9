"""The image codec: sizes, and what its head sees."""

import pytest
import torch
from torch.nn import functional as F

from reference.built_models import build, images
from vitarium import create_model
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device


def test_the_defaults_are_the_published_analysis_transform():
    with meta_device():
        model = create_model("image_codec", num_classes=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_443_776
    assert model.config.latent_size == (192, 16, 16)


def test_maps_are_strided_convolutions_with_relu_between_and_features_their_mean():
    model, pixels = build("image_codec"), images(16)
    first, second = model.layers[0], model.layers[2]
    hidden = F.conv2d(pixels, first.weight, first.bias, 2, 2).clamp(min=0)
    maps = F.conv2d(hidden, second.weight, second.bias, 2, 2)
    assert torch.allclose(model.forward_features(pixels), maps)
    assert maps.shape[1:] == model.config.latent_size
    features = maps.flatten(2).mean(2)
    assert torch.allclose(model.forward_head(maps, pre_logits=True), features)
    assert torch.allclose(model(pixels), F.linear(features, model.head.weight, model.head.bias))


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(InvalidConfig, match="img_size 24 cannot be halved 4 times"):
        create_model("image_codec", img_size=24)
