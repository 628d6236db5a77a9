"""Early exits: when images leave, what they get, and what exits learn."""

import math

import pytest
import torch
from torch.nn import functional as F

from vitarium.architectures.early_exit._rule import Certainty, ExitRule, first_exits
from vitarium.architectures.features import at_full_depth
from vitarium.architectures.heads import is_head
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose
from vitarium.objectives.distillation._blocks import recording

SIZES = {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 24, "num_heads": 2}
IMAGES = torch.randn(12, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
TARGETS = F.one_hot(torch.arange(12) % 4, 4).double()


def model_of(name="early_exit_vit", **settings):
    torch.manual_seed(0)
    model = choose("architecture", name, **SIZES, **{"depth": 5, **settings})(4).eval()
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.3)
    for module in model.exits.values():  # so that some exits agree
        module.head.load_state_dict(model.head.state_dict())
    return model.double()


@pytest.mark.parametrize("name", ["early_exit_vit", "lgvit"])
def test_a_threshold_of_one_is_the_vit_bit_by_bit(name):
    model = model_of(name, threshold=1.0)
    vit = choose("architecture", "vit", **SIZES, depth=5)(4).double().eval()
    vit.load_state_dict({k: w for k, w in model.state_dict().items() if not k.startswith("exits.")})
    assert torch.equal(model(IMAGES), vit(IMAGES))


@pytest.mark.parametrize("name", ["early_exit_vit", "lgvit"])
@pytest.mark.parametrize("criterion", ["confidence", "entropy", "patience"])
def test_a_threshold_of_zero_is_the_first_exit(name, criterion):
    model = model_of(name, threshold=0.0, criterion=criterion)
    outputs, numbers = model.classified(IMAGES)
    assert not numbers.any()
    torch.testing.assert_close(outputs, model.exit_logits(IMAGES)[:, 0])


@pytest.mark.parametrize("name", ["early_exit_vit", "lgvit"])
@pytest.mark.parametrize("criterion", ["confidence", "entropy", "patience"])
def test_what_becomes_of_an_image_does_not_depend_on_its_batch(name, criterion):
    images, pool = 5 * IMAGES, {"global_pool": "avg", "class_token": False}
    logits = model_of(name, depth=6, **pool).exit_logits(images)
    certainties = Certainty(criterion, logits.shape[1] - 1)
    first = certainties.after(logits[:, 0]).median().item()  # half of the images leave there
    threshold = 0.4 if criterion == "patience" else first
    model = model_of(name, threshold=threshold, criterion=criterion, depth=6, **pool)
    outputs, numbers = model.classified(images)
    assert len(numbers.unique()) > 1
    singly = [model.classified(image.unsqueeze(0)) for image in images]
    assert torch.equal(numbers, torch.cat([number for _, number in singly]))
    torch.testing.assert_close(outputs, torch.cat([output for output, _ in singly]))
    assert torch.equal(model(images), outputs)
    assert torch.equal(numbers, first_exits(model.exit_rule, logits))
    torch.testing.assert_close(outputs, logits[torch.arange(12), numbers])


@pytest.mark.parametrize("criterion", ["confidence", "entropy", "patience"])
def test_images_leave_later_at_a_higher_threshold(criterion):
    logits = model_of("lgvit", depth=8).exit_logits(IMAGES)
    rules = [ExitRule(threshold=k / 20, criterion=criterion) for k in range(21)]
    numbers = torch.stack([first_exits(rule, logits) for rule in rules])
    assert (numbers.diff(dim=0) >= 0).all()
    assert (numbers[0] == 0).all()
    assert (numbers[-1] == logits.shape[1] - 1).all()


def test_certainties_in_closed_form():
    logits = torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]])
    expected = torch.tensor([1 / 3, 1.0, 1 / 2])
    torch.testing.assert_close(Certainty("confidence", 2).after(logits), expected)
    entropy = (math.log(2) / 2 + math.log(4) / 2) / math.log(3)
    torch.testing.assert_close(
        Certainty("entropy", 2).after(logits), torch.tensor([0.0, 1.0, 1 - entropy])
    )


def test_patience_counts_exits_that_agree_in_a_row():
    classes = [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 2]]  # exit by exit, of three images
    certainty = Certainty("patience", 4)
    runs = [certainty.after(F.one_hot(torch.tensor(row), 3).float()) * 4 for row in classes]
    assert torch.stack(runs).tolist() == [[1, 1, 1], [2, 1, 2], [1, 2, 3], [2, 3, 1]]


def test_exits_learn_by_cross_entropies_weighted_by_their_depths():
    model = model_of(exit_blocks=[0, 3], exit_weight=0.5).train()
    outputs = model(IMAGES)
    logits = model.exit_logits(IMAGES)
    loss = model.auxiliary_loss(TARGETS)
    classes = TARGETS.argmax(1)
    expected = (
        F.cross_entropy(logits[:, 0], classes) + 4 * F.cross_entropy(logits[:, 1], classes)
    ) / 5
    torch.testing.assert_close(loss.value, 0.5 * expected)
    torch.testing.assert_close(loss.metrics["exit_loss"], expected)
    assert loss.metrics["exit_3_accuracy"] == (logits[:, 1].argmax(1) == classes).float().mean()
    assert torch.equal(outputs, logits[:, 2])  # of all images at full depth


def test_objectives_without_class_outputs_are_refused():
    model = model_of().train()
    with pytest.raises(InvalidInput, match="which this objective does not compute: choose"):
        model.auxiliary_loss(TARGETS)
    model(IMAGES)
    with pytest.raises(InvalidInput, match="exits have 4 outputs, and there are 3 classes"):
        model.auxiliary_loss(TARGETS[:, :3])


def test_exits_are_heads_and_are_drawn_anew_for_other_classes():
    model = model_of("lgvit")
    assert is_head(model, "exits.1.head.weight")
    assert is_head(model, "head.weight")
    assert not is_head(model, "blocks.1.mlp.fc1.weight")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 1}, "no block before the last one that could have an exit"),
        ({"exit_blocks": [4]}, "exit_blocks 4: exits stand after blocks 0 to 3"),
        ({"exit_blocks": [2, 1]}, "are not in order"),
        ({"exit_blocks": [1, 1]}, "name a block twice"),
        ({"threshold": 1.5}, "threshold"),
        ({"criterion": "luck"}, "criterion"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        choose("architecture", "early_exit_vit", **SIZES, **{"depth": 5, **settings})


def test_exits_stand_after_each_quarter():
    for depth, numbers in ((12, (2, 5, 8)), (4, (0, 1, 2)), (2, (0,))):
        assert choose("architecture", "early_exit_vit", depth=depth).config.exiting == numbers


def test_with_the_last_norm_and_head_an_exit_is_the_model_cut_there():
    for pool in ("token", "avg"):
        model = model_of(global_pool=pool, exit_blocks=[1])
        norm = model.fc_norm if pool == "avg" else model.norm
        model.exits["1"].norm.load_state_dict(norm.state_dict())
        model.exits["1"].head.load_state_dict(model.head.state_dict())
        exit_outputs = model.exit_logits(IMAGES)[:, 0]
        del model.blocks[2:]
        tokens = model.blocks(model._pos_embed(model.patch_embed(IMAGES)))
        torch.testing.assert_close(exit_outputs, model.forward_head(model.norm(tokens)))


def test_blocks_are_read_at_full_depth_while_the_model_evaluates():
    model = model_of(threshold=0.0)
    with at_full_depth(model), recording(model, ["hidden.4"]) as recorded:
        outputs = model(IMAGES)
    assert recorded["hidden.4"].shape == (12, 17, 24)
    assert torch.equal(outputs, model.exit_logits(IMAGES)[:, -1])
    assert model.leaves_early
