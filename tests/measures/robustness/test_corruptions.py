"""The mean corruption error by brute force, and in relation to another model's."""

import numpy as np
import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose
from vitarium.measures.robustness._corruption_functions import corrupted
from vitarium.measures.robustness._perturbation import streams

SMALL = {"names": ["gaussian_noise", "contrast"], "severities": [1, 4], "num_images": 80}


def measured(subject, **settings):
    return choose("measure", "corruptions", **{**SMALL, **settings})(subject)


def error(subject, name, severity):
    """Image by image, in batches of one."""
    examples, wrong = subject.examples.first(80), []
    for place, batch in enumerate(examples.batches(1)):
        pixels = examples.pixels(batch.images).clamp(0, 1)
        generators = streams(0, f"corruption/{name}", [place])
        changed = corrupted(pixels, name, severity, generators)
        with torch.no_grad():
            logits = subject.model(examples.normalized(changed))
        wrong.append(logits.argmax().item() != batch.labels.item())
    return float(np.mean(wrong))


def test_it_is_the_mean_of_the_errors_of_all_corruptions_and_severities(subject):
    values = measured(subject)
    errors = {
        (name, severity): error(subject, name, severity)
        for name in SMALL["names"]
        for severity in SMALL["severities"]
    }
    for (name, severity), expected in errors.items():
        assert values[f"{name}/{severity}"] == pytest.approx(expected)
    for name in SMALL["names"]:
        assert values[name] == pytest.approx(np.mean([errors[name, 1], errors[name, 4]]))
    assert values[""] == pytest.approx(np.mean(list(errors.values())))
    assert values["increase"] == pytest.approx(values[""] - values["clean"])
    assert set(values) == {
        *("", "clean", "increase", "gaussian_noise", "contrast"),
        *(f"{name}/{severity}" for name, severity in errors),
    }


def test_the_clean_error_is_that_of_the_images_as_they_are(subject, predictions):
    values = measured(subject, num_images=359)
    assert values["clean"] == pytest.approx(1 - predictions.correct.float().mean().item())


def test_corrupted_images_are_harder(subject):
    values = measured(subject, severities=[1, 5], names=["contrast"])
    assert values["contrast/5"] > values["contrast/1"] > values["clean"]


def test_relative_to_another_model_each_corruption_is_divided_by_that_ones_error(subject):
    plain = measured(subject)
    reference = {"gaussian_noise": 0.5, "contrast": 0.8, "clean": 0.1}
    values = measured(subject, reference=reference)
    ratios = [plain["gaussian_noise"] / 0.5, plain["contrast"] / 0.8]
    assert values["gaussian_noise/relative"] == pytest.approx(ratios[0])
    assert values[""] == pytest.approx(sum(ratios) / 2)
    rises = [
        (plain["gaussian_noise"] - plain["clean"]) / 0.4,
        (plain["contrast"] - plain["clean"]) / 0.7,
    ]
    assert values["relative"] == pytest.approx(sum(rises) / 2)
    assert {part: values[part] for part in plain if part} == {k: v for k, v in plain.items() if k}


def test_a_model_is_as_good_as_itself(subject):
    names = ["contrast", "motion_blur"]
    plain = measured(subject, names=names)
    reference = {name: plain[name] for name in (*names, "clean")}
    values = measured(subject, names=names, reference=reference)
    assert values[""] == pytest.approx(1)
    assert values["relative"] == pytest.approx(1)


def test_without_the_references_clean_error_there_is_no_relative_one(subject):
    assert "relative" not in measured(subject, reference={"gaussian_noise": 0.5, "contrast": 0.8})


def test_another_seed_draws_other_noise(subject):
    values = [measured(subject, seed=seed, severities=[1, 2, 3, 4, 5]) for seed in (0, 1)]
    noises = [{k: v for k, v in one.items() if k.startswith("gaussian")} for one in values]
    assert noises[0] != noises[1]
    assert values[0]["contrast"] == values[1]["contrast"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"names": ["fog"]}, "fog"),
        ({"names": []}, "names"),
        ({"severities": [0]}, "severities"),
        ({"severities": [6]}, "severities"),
        ({"names": ["jpeg", "jpeg"]}, "names says something twice: jpeg, jpeg"),
        ({"names": ["jpeg"], "reference": {"fog": 0.5}}, "reference has fog, which is not"),
        ({"names": ["jpeg", "contrast"], "reference": {"jpeg": 0.5}}, "reference lacks contrast"),
        ({"names": ["jpeg"], "reference": {"jpeg": 0.0}}, "no error above its clean 0 for jpeg"),
        (
            {"names": ["jpeg"], "reference": {"jpeg": 0.3, "clean": 0.3}},
            "above its clean 0.3 for jpeg",
        ),
        ({"names": ["jpeg"], "reference": {"jpeg": -1}}, "reference"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(InvalidConfig, match=message):
        choose("measure", "corruptions", **wrong)
