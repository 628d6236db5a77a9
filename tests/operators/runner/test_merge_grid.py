"""Several settings of a method in one call: members of elastic models, and points of a path."""

import pytest
import torch

import vitarium
from vitarium import Blueprint, grow, merge, merge_grid
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.operators._runner import merge_grid as runner

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 2, "num_heads": 2}
SUPERNET = {"name": "supernet", **SIZES, "depths": [1, 2], "embed_dims": [8, 16], "mlp_ratios": [2.0, 4.0]}  # fmt: skip


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    stage = {
        "data": {"name": "digits", "train_limit": 96},
        "optimizer": {"name": "adamw", "lr": 0.003},
        "epochs": 1,
        "batch_size": 32,
        "grid": {
            "architecture": [{"name": "matvit", **SIZES}, SUPERNET, {"name": "vit", **SIZES}],
            "seed": [0, 1],
        },
    }
    blueprint = Blueprint.read({"name": "elastic", "stages": {"pretrain": stage}})
    plain = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1}
    return grow(blueprint, tmp_path_factory.mktemp("elastic"), progress=False, **plain).zoo


def trained(zoo, architecture):
    models = zoo.query(
        f"SELECT id FROM models WHERE stage = 'pretrain' AND architecture = '{architecture}' "
        "ORDER BY seed"
    )
    return models["id"].tolist()


class Recorded:
    def __init__(self):
        self.steps = []

    def step(self, task, done, total):
        self.steps.append((task, done, total))


def test_all_members_of_a_matvit_are_models_of_the_zoo_with_their_lineage(zoo):
    full, _ = trained(zoo, "matvit")
    progress = Recorded()
    merged = merge_grid(zoo, "matvit_member", models=[full], progress=progress)
    assert [point["granularity"] for point in merged.settings.values()] == [0.125, 0.25, 0.5, 1.0]
    assert progress.steps[:5] == [("matvit_member", done, 4) for done in range(5)]
    for model, point in zip(merged.models, merged.settings.values(), strict=True):
        assert [ref.model for ref in model.ingredients] == [full]
        assert model.id == merge(zoo, "matvit_member", models=[full], **point).id


def test_the_comparison_counts_what_members_take_and_how_good_they_are(zoo):
    full, _ = trained(zoo, "matvit")
    table = merge_grid(zoo, "matvit_member", models=[full], device="cpu").comparison
    assert table["refused"].eq("").all()
    width, tokens, patches, classes = 16, 5, 4, 10
    for row in table.itertuples():
        hidden = round(64 * row.granularity)
        block = 4 * width**2 + 4 * width + 2 * width * hidden + hidden + width + 4 * width
        others = 16 * width + width + width + tokens * width + 2 * width + width * classes + classes
        assert row.parameters == 2 * block + others
        per_token = 4 * width**2 + 2 * width * hidden + 2 * tokens * width
        operations = 2 * tokens * per_token + patches * 16 * width + width * classes
        assert row.multiply_adds == operations
        accuracy = vitarium.measure(zoo, "accuracy", models=[row.model], device="cpu")
        assert row.accuracy == accuracy.query("part == ''")["value"].item()
    original = vitarium.measure(zoo, "accuracy", models=[full], device="cpu")
    assert table["accuracy"].iloc[-1] == original.query("part == ''")["value"].item()


def test_all_members_of_a_supernet_are_made_once(zoo, monkeypatch):
    full, _ = trained(zoo, "supernet")
    first = merge_grid(zoo, "supernet_member", models=[full])
    sizes = [tuple(point.values()) for point in first.settings.values()]
    assert len(sizes) == 8
    assert len(set(sizes)) == 8
    parameters = first.comparison["parameters"]
    assert parameters.iloc[0] == parameters.min()
    assert sizes[-1] == (2, 16, 4.0)
    original, largest = zoo.state_dict(full), zoo.state_dict(first.models[-1].id)
    assert all(torch.equal(largest[name], tensor) for name, tensor in original.items())

    def write(*arguments, **options):
        raise AssertionError("a model that is in the zoo is written again")

    monkeypatch.setattr("vitarium.zoo.ModelFolder.commit", write)
    assert merge_grid(zoo, "supernet_member", models=[full]).settings == first.settings


def test_a_call_that_was_stopped_goes_on(zoo, monkeypatch):
    _, full = trained(zoo, "supernet")
    before, calls = set(zoo.ids()), []

    def stop(*arguments, **options):
        calls.append(options["depth"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return merge(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "merge", stop)
        with pytest.raises(KeyboardInterrupt):
            merge_grid(zoo, "supernet_member", models=[full])
    stopped = set(zoo.ids()) - before
    assert len(stopped) == 3
    assert stopped < set(merge_grid(zoo, "supernet_member", models=[full]).settings)


def test_a_grid_takes_every_combination_of_its_values_for_each_model(zoo):
    grid = {"depth": [1, 2], "embed_dim": [8]}
    merged = merge_grid(zoo, "supernet_member", grid, models=trained(zoo, "supernet"), mlp_ratio=2)
    points = [tuple(point.items()) for point in merged.settings.values()]
    assert points == 2 * [(("depth", depth), ("embed_dim", 8)) for depth in (1, 2)]
    assert {model.load().blocks[0].mlp.fc1.out_features for model in merged.models} == {16}


def test_points_of_a_path_between_two_models_are_one_call(zoo):
    pair = trained(zoo, "vit")
    merged = merge_grid(zoo, "interpolation", {"t": [0.25, 0.75]}, models=pair, stage="path")
    ends = [zoo.state_dict(id)["head.weight"].double() for id in pair]
    for model, t in zip(merged.models, (0.25, 0.75), strict=True):
        assert model.stage == "path"
        expected = ends[0].lerp(ends[1], t)
        torch.testing.assert_close(model.state_dict()["head.weight"].double(), expected)


@pytest.mark.parametrize(
    ("method", "architecture", "grid", "options", "kind", "fault"),
    [
        ("matvit_member", "vit", None, {}, IncompatibleWeights, "needs a matvit, not vit"),
        ("dense_form", "vit", None, {}, InvalidInput, "dense_form: which settings to take is not"),
        ("matvit_member", "matvit", {"granularity": [0.5, 0.3]}, {}, IncompatibleWeights, "0.3 was not trained"),
        ("matvit_member", "matvit", {"granularity": [0.5, 7]}, {}, InvalidConfig, "less than or equal to 1"),
        ("matvit_member", "matvit", {"granularity": 0.5}, {}, InvalidInput, "granularity needs a list of values, not 0.5"),
        ("matvit_member", "matvit", {"granularity": []}, {}, InvalidInput, "granularity needs a list of values"),
        ("matvit_member", "matvit", {"granularity": [0.5]}, {"granularity": 1}, InvalidInput, "granularity has a value already"),
        ("matvit_member", "matvit", {"stage": ["a", "b"]}, {}, InvalidInput, "stage is the same for all"),
        ("supernet_member", "supernet", {"member": [*range(501)]}, {}, InvalidInput, "that would make 1,002 models, and at most 1,000"),
        ("supernet_member", "supernet", {"depth": [1, 2], "embed_dim": [8, 12]}, {}, IncompatibleWeights, "embed_dim 12 was not trained"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_before_anything_is(
    zoo, method, architecture, grid, options, kind, fault
):
    before = zoo.ids()
    with pytest.raises(kind, match=fault):
        merge_grid(zoo, method, grid, models=trained(zoo, architecture), **options)
    assert zoo.ids() == before


def test_too_many_members_are_refused(zoo, monkeypatch):
    monkeypatch.setattr(runner, "MAX_MODELS", 7)
    with pytest.raises(InvalidInput, match="supernet_member: that would make 8 models, and at"):
        merge_grid(zoo, "supernet_member", models=trained(zoo, "supernet")[:1])
