"""Exit depth: what is measured of all exits at once is what the model does, image by image."""

import pytest
import torch

from vitarium.architectures.early_exit._rule import Certainty
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import EvalModel
from vitarium.measures.representations.block_accuracy import block_features

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "num_heads": 2}
POOL = {"global_pool": "avg", "class_token": False}


def exiting(examples, **settings):
    torch.manual_seed(0)
    model = choose("architecture", "early_exit_vit", **SIZES, **POOL, depth=4, **settings)(10)
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.6)
    for module in model.exits.values():  # so that some exits agree
        module.head.load_state_dict(model.head.state_dict())
    return EvalModel("eeeeeeeeeeee@1", model.eval(), examples)


def measured(subject, **settings):
    return choose("measure", "exit_depth", **settings)(subject)


@pytest.mark.parametrize("criterion", ["confidence", "entropy", "patience"])
def test_it_is_what_images_do_one_by_one(examples, criterion):
    few = examples.first(20)
    (batch,) = few.batches()
    first = exiting(few).model.exit_logits(batch.images)[:, 0]
    median = Certainty(criterion, 3).after(first).median().item()
    threshold = 0.4 if criterion == "patience" else median  # half of the images leave at once
    subject = exiting(few, threshold=threshold, criterion=criterion)
    values = measured(subject, per_image=True)
    depths, correct = [], []
    for image, label in zip(batch.images, batch.labels, strict=True):
        outputs, number = subject.model.classified(image.unsqueeze(0))
        depths.append((1, 2, 3, 4)[number])
        correct.append(outputs.argmax().item() == label.item())
    assert len(set(depths)) > 1
    assert values[""] == sum(depths) / 20
    assert values["accuracy"] == sum(correct) / 20
    assert [values[f"image/{n}"] for n in few.numbers.tolist()] == depths
    assert [values[f"exit/{n}"] for n in range(4)] == [depths.count(n + 1) / 20 for n in range(4)]


def test_other_thresholds_are_those_of_twins(examples):
    few = examples.first(30)
    thresholds = (0.0, 0.3, 0.6, 1.0)
    values = measured(exiting(few), thresholds=thresholds)
    for threshold in thresholds:
        twin = measured(exiting(few, threshold=threshold))
        assert values[f"{threshold:g}"] == twin[""]
        assert values[f"{threshold:g}/accuracy"] == twin["accuracy"]
    means = [values[f"{threshold:g}"] for threshold in thresholds]
    assert means == sorted(means)
    assert (means[0], means[-1]) == (1, 4)


def test_another_criterion_is_that_of_the_thresholds_alone(examples):
    few = examples.first(30)
    values = measured(exiting(few, threshold=0.4), thresholds=(0.4,), criterion="patience")
    assert values[""] == measured(exiting(few, threshold=0.4))[""]
    patient = measured(exiting(few, threshold=0.4, criterion="patience"))
    assert values["0.4"] == patient[""]


def test_images_leave_a_model_without_exits_after_its_last_block(examples):
    model = choose("architecture", "vit", **SIZES, depth=3)(10).eval()
    values = measured(EvalModel("ffffffffffff@1", model, examples), per_image=False)
    assert values[""] == 3
    assert values["exit/2"] == 1


def test_blocks_that_see_a_part_of_the_images_are_not_looked_into(examples):
    subject = exiting(examples, threshold=0.4)
    with pytest.raises(NotApplicable, match="eeeeeeeeeeee@1: images leave it at its exits"):
        block_features(subject, examples, "mean")
    assert len(block_features(exiting(examples, threshold=1.0), examples, "mean")) == 4
