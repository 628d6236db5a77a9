"""`vitarium tune`."""

import json


def test_a_search_prints_its_best_models_and_how_to_go_on(
    vitarium, tiny, tmp_path, write_blueprint
):
    stage = tiny["stages"]["pretrain"] | {"epochs": 1}
    del stage["grid"]
    stage["sample"] = {"factors": {"optimizer.lr": {"log_uniform": [1e-3, 1e-1]}}}
    path = write_blueprint({"name": "tiny", "stages": {"pretrain": stage}})
    zoo = tmp_path / "zoo"
    options = ("--zoo", zoo, "--workers", "0", "--precision", "fp32")
    status, out, error = vitarium("tune", path, *options, "--trials", "2", "--log", "csv")
    assert status == 0
    assert "The best of 2 trials of pretrain" in out
    assert "optimizer.lr" in out
    assert f"Go on: vitarium tune {path} --zoo {zoo} --trials 4" in " ".join(error.split())
    assert len([*zoo.glob("logs/csv/pretrain/*/metrics.csv")]) == 2
    rows = json.loads(vitarium("tune", path, *options, "--trials", "2", "--json")[1])
    best = max(rows, key=lambda row: row["val_accuracy"])
    assert f"vitarium show {zoo} {best['models'][:8]}" in " ".join(error.split())


def test_the_options_are_named_in_errors(vitarium, tiny, tmp_path, write_blueprint):
    factors = {"optimizer.lr": {"log_uniform": [1e-3, 1e-1]}}
    for stage in tiny["stages"].values():
        stage["sample"] = {"factors": factors}
        stage["grid"] = {"seed": [1]}
    status, _, error = vitarium(
        "tune", write_blueprint(tiny), "--zoo", tmp_path / "zoo", "--trials", "1"
    )
    assert (status, "choose one by --stage pretrain" in error) == (2, True)
    assert not (tmp_path / "zoo").exists()
