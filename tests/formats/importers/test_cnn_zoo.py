"""The earlier zoos of small CNNs: trials of Ray, tensors without an architecture."""

import pytest
import torch
from torch import nn

from vitarium.core.errors import InvalidInput
from vitarium.formats.foreign_zoo import find_models
from vitarium.formats.import_zoo import import_zoo
from vitarium.zoo import Zoo


class Cnn(nn.Module):
    """As those are made: layers in a list, so that their names are module_list.0.weight, ..."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.module_list = nn.ModuleList(
            [nn.Conv2d(1, 8, 5), nn.MaxPool2d(2), nn.Tanh(), nn.Linear(36, 20), nn.Linear(20, 10)]
        )


@pytest.fixture
def cnns(theirs, tmp_path):
    for seed in range(2):
        config = {
            "model::type": "CNN",
            "model::o_dim": 4,
            "optim::optimizer": "adam",
            "optim::lr": 3e-4,
            "seed": seed,
            "training::epochs_train": 3,
        }
        weights = {n: Cnn(10 * seed + n).state_dict() for n in (0, 3)}
        folder = tmp_path / "zoo_of_cnns" / f"NN_tune_trainable_{seed}"
        theirs.write_trial(folder, config, theirs.lines([0, 1, 2, 3]), weights, "params.json")
    (tmp_path / "zoo_of_cnns" / "index_dict.json").write_text("{}")
    (tmp_path / "zoo_of_cnns" / "config.json").write_text("{}")
    return tmp_path / "zoo_of_cnns"


def test_tensors_factors_and_metrics_come_over(cnns, tmp_path):
    ids = import_zoo(cnns, tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    rows = zoo.models().set_index("name")
    assert sorted(rows["seed"]) == [0, 1]
    assert set(rows["optimizer"]) == {"adam"}
    assert set(rows["status"]) == {"finished"}
    assert rows["test_accuracy"].notna().all()
    for id in ids:
        seed = zoo.spec(id).origin.settings["seed"]
        for epoch in (0, 3):
            read, own = zoo.state_dict(id, epoch), Cnn(10 * seed + epoch).state_dict()
            assert all(torch.equal(read[name], own[name]) for name in own)
        assert zoo.folder(id).about().num_outputs == 10, "the last layer's; o_dim is of channels"
    with pytest.raises(InvalidInput, match="nothing here builds its architecture"):
        zoo.load(ids[0])


def test_trials_may_lie_one_folder_deeper(cnns, tmp_path):
    (tmp_path / "all").mkdir()
    cnns.rename(tmp_path / "all" / "mnist")
    found = find_models(tmp_path / "all")
    assert found.importer == "cnn_zoo"
    assert found.models[0].name == "mnist/NN_tune_trainable_0"


def test_a_configuration_that_ray_repeats_in_every_line_is_not_needed_twice(cnns):
    model = find_models(cnns, stage="cnn").models[0]
    assert model.stage == "cnn"
    assert "config" not in model.epochs[0].metrics
