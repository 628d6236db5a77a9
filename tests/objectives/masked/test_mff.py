"""MFF: the fusion by its definition, its limits, and what it leaves behind."""

import pytest
import torch

from reference.masked_autoencoders import linear
from vitarium.architectures.create import create_model
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import section
from vitarium.objectives.masked.mff import Fusion

TAPS = {"taps": (0, 1, 2)}


def by_definition(reference, image, ids_shuffle, visible):
    _, outputs = reference.encode(image, ids_shuffle[:visible])
    weights = reference.decoder["fusion.logits"].exp()
    projected = [linear(reference.decoder, f"fusion.project.{n}", outputs[n]) for n in (0, 1)]
    fused = sum(
        w * x for w, x in zip(weights / weights.sum(), [*projected, outputs[2]], strict=True)
    )
    tokens = reference.shuffled_tokens(reference.final_norm(fused), ids_shuffle)
    predicted = reference.predict(reference.decode(tokens), ids_shuffle)
    return reference.loss(image, predicted, ids_shuffle[visible:], correction=1)


@pytest.mark.parametrize("architecture", [{}, {"class_token": False, "global_pool": "avg"}])
def test_the_loss_is_its_definition(setup, architecture):
    mff = setup("mff", architecture, **TAPS)
    mff.companions.fusion.logits.data = torch.tensor([0.3, -1.0, 0.7])
    expected = mff.mean_over_images(by_definition)
    assert mff.loss().value.item() == pytest.approx(expected, rel=2e-5)


def test_levels_weigh_the_same_at_first_and_every_one_gets_a_gradient(setup):
    mff = setup("mff", **TAPS)
    mff.companions.fusion.logits.data.fill_(1)
    loss = mff.loss()
    weights = [loss.metrics[f"level_weight_{number}"].item() for number in range(3)]
    assert weights == pytest.approx([1 / 3] * 3)
    loss.value.backward()
    fusion = mff.companions.fusion
    assert fusion.logits.grad.abs().min() > 0
    assert all(project.weight.grad.abs().sum() > 0 for project in fusion.project)
    mff.companions.fusion.logits.data = torch.tensor([3.0, -20.0, 0.5])
    metrics = mff.loss().metrics
    assert sum(metrics[f"level_weight_{n}"].item() for n in range(3)) == pytest.approx(1)
    assert "level_weight_3" not in metrics


def test_identities_of_equal_weight_give_the_mean():
    fusion, levels = Fusion(4, 6), [torch.randn(2, 3, 6) for _ in range(4)]
    for project in fusion.project:
        torch.nn.init.eye_(project.weight)
        torch.nn.init.zeros_(project.bias)
    torch.testing.assert_close(fusion(levels), torch.stack(levels).mean(0))


def test_with_the_last_level_alone_it_is_mae(setup):
    mff, mae = setup("mff", **TAPS), setup("mae")
    mff.companions.fusion.logits.data = torch.tensor([-200.0, -200.0, 200.0])
    mae.companions.decoder.load_state_dict(mff.companions.decoder.state_dict())
    mae.model.load_state_dict(mff.model.state_dict())
    batch = {"images": mff.batch.images, "masks": mff.batch.masks}
    torch.testing.assert_close(mff.loss().value, mae.loss(**batch).value, rtol=1e-6, atol=0)
    only = setup("mff", taps=(2,))
    mae.companions.decoder.load_state_dict(only.companions.decoder.state_dict())
    mae.model.load_state_dict(only.model.state_dict())
    batch = {"images": only.batch.images, "masks": only.batch.masks}
    torch.testing.assert_close(only.loss().value, mae.loss(**batch).value, rtol=1e-6, atol=0)


def test_the_model_stays_a_plain_vision_transformer(setup):
    plain = create_model("vit", img_size=16, patch_size=4, embed_dim=16, depth=3, num_heads=2, num_classes=0)  # fmt: skip
    plain.load_state_dict(setup("mff", **TAPS).model.state_dict(), strict=True)


def companions(depth, width=12, **settings):
    objective = section("objective", {"name": "mff", **settings})
    with meta_device():
        model = create_model("vit", img_size=32, patch_size=8, embed_dim=width, depth=depth, num_heads=3, num_classes=0)  # fmt: skip
        return objective.facts["companions"](objective.config, model, 10)


@pytest.mark.parametrize(("width", "extra"), [(192, 185_286), (384, 739_206), (768, 2_952_966)])
def test_the_fusion_has_as_many_parameters_as_published(width, extra):
    assert sum(p.numel() for p in companions(12, width).fusion.parameters()) == extra


@pytest.mark.parametrize(
    ("depth", "taps"),
    [(12, (0, 2, 4, 6, 8, 11)), (24, (0, 4, 8, 13, 17, 23)), (6, (0, 1, 2, 3, 4, 5)), (4, (0, 1, 2, 3)), (2, (0, 1)), (1, (0,))],
)  # fmt: skip
def test_taps_of_other_depths_are_those_of_the_same_relative_depth(depth, taps):
    assert companions(depth).taps == taps


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        ((0, 4), "taps: there is no block 4, the last is 3"),
        ((2, 0, 3), r"taps \[2, 0, 3\] have to rise"),
        ((1, 1, 3), r"taps \[1, 1, 3\] have to rise"),
        ((0, 2), r"taps \[0, 2\]: the last block, 3, has to be among them"),
        ((), r"taps \[\]: the last block, 3, has to be among them"),
    ],
)
def test_taps_that_cannot_be_fused_are_refused(taps, message):
    with pytest.raises(InvalidInput, match=message):
        companions(4, taps=taps)
