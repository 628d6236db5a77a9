"""`--data` with settings, and how images of imported models are normalized, in every command."""

import json

import numpy as np
import pytest
from PIL import Image

from vitarium.core.registry import section
from vitarium.data.load import load


@pytest.fixture
def photos(tmp_path):
    """Digits 3 and 7 in folders of that name, the test images in val/ and in test/."""
    data = load(section("dataset", "digits"))
    for part, split in (("train", data.train), ("val", data.test), ("test", data.test)):
        for label in (3, 7):
            folder = tmp_path / "photos" / part / str(label)
            folder.mkdir(parents=True)
            for number in np.flatnonzero(split.labels.numpy() == label)[:20]:
                image = Image.fromarray(split.images[int(number), 0].numpy())
                image.save(folder / f"{number:04}.png")
    return tmp_path / "photos"


def test_a_data_set_is_measured_with_its_settings(vitarium, grown_zoo, photos):
    data = ("--data", "image_folder", "--data-set", f"folder={photos}", "--json")
    status, out, errors = vitarium("measure", grown_zoo.path, "accuracy", *data)
    assert (status, "warning" in errors) == (0, False)
    rows = [row for row in json.loads(out) if row["part"] == ""]
    assert {row["num_images"] for row in rows} == {40}
    assert {row["data"] for row in rows} == {"image_folder"}
    own = {id: grown_zoo.data(id) for id in grown_zoo.ids()}
    for row in rows:  # among 3 and 7 alone, of gray images that became colors and gray again
        model, images = grown_zoo.load(row["model"]), own[row["model"]]
        chosen = [images[n] for label in (3, 7) for n in (images.labels == label).nonzero()[:20, 0]]
        right = [model(x[None])[0, [3, 7]].argmax().item() == (y == 7) for x, y in chosen]
        assert row["value"] == pytest.approx(np.mean(right), abs=0.051)


def test_merging_and_studies_take_them(vitarium, grown_zoo, photos):
    data = ("--data", "image-folder", "--data-set", f"folder={photos}")
    ids = [id for id in grown_zoo.ids() if grown_zoo.spec(id).stage == "finetune"]
    soup = ("merge", grown_zoo.path, *ids, "-m", "greedy_soup", *data, "--force", "--json")
    status, out, _ = vitarium(*soup)
    assert status == 0
    assert 0 <= json.loads(out)[0]["val_accuracy"] <= 1
    align = ("--align", "weight_matching", "--align-set", "attention=false")
    pair = ("merge", grown_zoo.path, *ids[:2], "-m", "slerp", *align)
    status, _, errors = vitarium(*pair)
    assert "has no setting 'attention'" in errors
    assert "--align weight_matching: settings are given by --align-set" in errors
    study = ("study", "soups", grown_zoo.path, "--data", "image_folder", "--out", "-")
    status, _, errors = vitarium(*study)
    assert (status, "--data-set NAME=VALUE" in errors) == (2, True)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("measure", ["accuracy"]),
        ("merge", ["--where", "stage = 'finetune'", "-m", "greedy_soup"]),
        ("compress", ["--where", "stage = 'finetune'"]),
    ],
)
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--data", "image_folder"], "folder: missing"),
        (["--data", "image_folder"], "settings are given by --data-set NAME=VALUE"),
        (
            ["--data-set", "folder=x"],
            "--data-set folder=x: name what it is a setting of with --data",
        ),
        (["--data", "digits", "--data-set", "foldr=x"], "dataset 'digits' has no setting 'foldr'"),
        (["--data", "digits", "--data-set", "x"], "--data-set x: write NAME=VALUE"),
        (["--data", "digitz"], "unknown dataset 'digitz'; did you mean 'digits'?"),
    ],
)
def test_errors_name_the_option(vitarium, grown_zoo, command, arguments, given, words):
    status, _, errors = vitarium(command, grown_zoo.path, *arguments, *given)
    assert status == 2
    assert words in " ".join(errors.split())


def test_a_normalization_is_asked_for_and_given(vitarium, grown_zoo, imported_digits):
    (id,) = imported_digits(grown_zoo, {})
    request = ("measure", grown_zoo.path, "accuracy", "--where", f"id = '{id}'", "--data", "digits")
    status, _, errors = vitarium(*request, "--force")
    assert status == 2
    assert "nothing is known of how its images were normalized" in errors
    assert "--normalization" in errors
    for given in ("data", "0.5/0.5"):
        status, _, errors = vitarium(*request, "--normalization", given)
        assert status == 0
        assert f"warning: {id}: its outputs are taken" in errors
        assert "by number" in errors
    assert "neither 'data' nor a mean" in vitarium(*request, "--normalization", "half")[2]


@pytest.mark.parametrize("name", ["image_folder:{}", "image_folder,folder={}", "{}"])
def test_settings_beside_the_name_are_refused_with_the_way_to_write_them(
    vitarium, grown_zoo, tmp_path, name
):
    status, _, errors = vitarium(
        "measure", grown_zoo.path, "accuracy", "--data", name.format(tmp_path)
    )
    folder = tmp_path if name == "{}" else "PATH"
    assert status == 2
    assert f"--data image_folder --data-set folder={folder}" in " ".join(errors.split())
