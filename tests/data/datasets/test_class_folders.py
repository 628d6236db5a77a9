"""Images in one folder per class, without splits."""

import pytest
from PIL import Image

from vitarium.core.errors import DataNotFound, InvalidData
from vitarium.core.registry import section
from vitarium.data.load import load
from vitarium.testing import check_dataset


@pytest.fixture
def folder(tmp_path):
    """Ten images of cats, and five of dogs."""
    for name, count in (("cat", 10), ("dog", 5)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(count):
            color = (number, 0, 100 * (name == "cat"))
            Image.new("RGB", (6, 6), color).save(tmp_path / "mine" / name / f"{number}.png")
    return tmp_path


def test_a_fifth_of_each_class_is_for_tests(folder):
    data = load(section("dataset", {"name": "class_folders", "folder": "mine"}), folder)
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.val)) == (11, 1)
    assert data.test.labels.tolist() == [0, 0, 1]


def test_they_keep_to_the_contract_of_data_sets(folder):
    check_dataset("class_folders", folder, folder="mine", num_classes=2, num_train=12)


def test_a_folder_that_is_not_there_or_has_no_classes_is_named(folder):
    with pytest.raises(DataNotFound, match=r"'yours' is not there; .*CLASS/"):
        load(section("dataset", {"name": "class_folders", "folder": "yours"}), folder)
    with pytest.raises(InvalidData, match="has no folders of classes"):
        load(section("dataset", {"name": "class_folders", "folder": "mine/cat"}), folder)
