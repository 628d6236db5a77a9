"""A Swin's compact student, from its weights to what it learned."""

from vitarium import Blueprint, compress, grow

QUICK = {"workers": 0, "progress": False}
SWIN = {
    "name": "timm",
    "model": "swin_tiny_patch4_window7_224",
    "img_size": 16,
    "patch_size": 2,
    "in_chans": 1,
    "window_size": 4,
    "embed_dim": 12,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "drop_path_rate": 0.0,
}


def test_a_swin_has_a_student_that_it_teaches(tmp_path):
    stage = {
        "architecture": SWIN,
        "head": {"name": "mlp", "hidden_dim": 8},
        "data": {"name": "digits", "train_limit": 64},
        "epochs": 1,
        "batch_size": 32,
    }
    blueprint = Blueprint.read({"name": "swins", "stages": {"teacher": stage}})
    zoo = grow(blueprint, tmp_path / "zoo", **QUICK).zoo
    (id,) = zoo.ids()
    done = compress(zoo, models=[id], share=2, epochs=1, **QUICK)
    (student,) = done.students.values()
    recipe = zoo.spec(student).recipe
    assert (recipe.architecture.name, recipe.objective.name) == ("mini_swin", "weight_distillation")
    assert zoo.folder(student).status == "finished"
    names = [
        name for name in zoo.state_dict(student) if name.endswith("relative_position_bias_table")
    ]
    assert names == [f"layers.{n}.shared.0.attn.relative_position_bias_table" for n in (0, 1)]
    last = zoo.epochs(student).iloc[-1]
    assert last["train_relation"] > 0
    assert last["train_hidden"] > 0
    row = done.comparison.iloc[0]
    assert row["parameters_after"] < 0.8 * row["parameters_before"]
