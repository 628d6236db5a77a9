"""What a table of checkpoints says of images and of classes."""

import csv

import pytest
import torch
from safetensors.torch import save_file

from vitarium import create_model
from vitarium.core.errors import InvalidInput
from vitarium.formats.foreign_zoo import find_models
from vitarium.formats.import_zoo import import_zoo
from vitarium.zoo import Zoo

SIZES = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture
def table(tmp_path):
    """Writes a table of one model of three outputs, with these columns beside."""

    def write(**columns):
        torch.manual_seed(0)
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        save_file(
            create_model("vit", num_classes=3, **SIZES).state_dict(), folder / "a.safetensors"
        )
        row = {"file": "a.safetensors", "architecture": "vit", **columns}
        row |= {f"architecture.{name}": value for name, value in SIZES.items()}
        with (folder / "models.csv").open("w", newline="") as file:
            rows = csv.DictWriter(file, list(row))
            rows.writeheader()
            rows.writerow(row)
        return folder

    return write


@pytest.mark.parametrize(("cell", "values"), [("0.5", [0.5]), ("[0.1, 0.2, 0.3]", [0.1, 0.2, 0.3])])
def test_mean_and_deviation_are_factors(table, cell, values):
    (model,) = find_models(table(mean=cell, std=cell)).models
    assert model.settings == {"data.mean": values, "data.std": values}


def test_classes_are_a_list_or_a_file(table, tmp_path):
    (model,) = find_models(table(classes='["cat", "dog", "sea lion"]')).models
    assert model.classes == ("cat", "dog", "sea lion")
    folder = table(classes="names.txt")
    (folder / "names.txt").write_text("cat\ndog\n\nsea lion\n", encoding="utf-8")
    (id,) = import_zoo(folder, tmp_path / "zoo")
    assert Zoo.open(tmp_path / "zoo").folder(id).about().classes == ("cat", "dog", "sea lion")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"mean": "0.5"}, "column 'mean': mean and std go together"),
        ({"std": "0.5"}, "column 'std': mean and std go together"),
        ({"mean": "half", "std": "1"}, "column 'mean': it has to be a number, or a list"),
        ({"mean": "[]", "std": "1"}, "column 'mean': it has to be a number, or a list"),
        ({"mean": "NaN", "std": "1"}, "column 'mean': it has to be a number, or a list"),
        ({"mean": "0", "std": "[1, 0, 1]"}, "column 'std': a standard deviation is positive"),
        ({"classes": '["cat"]'}, "column 'classes': 1 names, and the model has 3 outputs"),
        ({"classes": "names.txt"}, "column 'classes': neither a list as JSON nor a file"),
        ({"classes": "../names.txt"}, "column 'classes': '../names.txt' leads out of"),
    ],
)
def test_what_is_wrong_is_named_with_row_and_column(table, columns, words):
    folder = table(**columns)
    (folder.parent / "names.txt").write_text("a\nb\nc\n")
    with pytest.raises(InvalidInput, match=r"models\.csv, row 2, ") as error:
        find_models(folder)
    assert words in str(error.value)
