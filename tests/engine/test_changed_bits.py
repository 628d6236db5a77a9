"""Growing again says where weights are not the same bits as before."""

import shutil

import pytest

from vitarium import Blueprint, grow
from vitarium.core import files
from vitarium.engine.events import Notice
from vitarium.zoo import ModelFolder
from vitarium.zoo.verify import verify

PLAIN = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1, "progress": False}


def grown_again(zoo, tiny):
    notices = []

    def listen(event):
        if isinstance(event, Notice):
            notices.append(event.text)

    growth = grow(Blueprint.read(tiny), zoo, listener=listen, **PLAIN)
    return growth, notices


@pytest.fixture
def parent(grown_zoo):
    return next(model.id for model in grown_zoo if model.parent is None)


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_model_with_the_same_bits_is_grown_again_without_a_word(grown_zoo, tiny, parent, by_hand):
    before = grown_zoo.folder(parent).epochs()[-1].checkpoint
    if by_hand:
        shutil.rmtree(grown_zoo.folder(parent).path)
    else:
        grown_zoo.remove(parent, keep_dependents=True)
    growth, notices = grown_again(grown_zoo, tiny)
    assert growth.grown == [parent]
    assert grown_zoo.folder(parent).epochs()[-1].checkpoint == before
    assert notices == []
    assert verify(grown_zoo.path) == []


def test_other_bits_are_said_of_the_model_and_of_who_started_from_it(
    grown_zoo, tiny, parent, monkeypatch
):
    grown_zoo.remove(parent, keep_dependents=True)
    commit = ModelFolder.commit

    def disturbed(folder, number, metrics, weights, *more, **options):
        if folder.path.name == parent and weights:
            weights = {name: tensor * (1 + 1e-6) for name, tensor in weights.items()}
        commit(folder, number, metrics, weights, *more, **options)

    monkeypatch.setattr(ModelFolder, "commit", disturbed)
    _, notices = grown_again(grown_zoo, tiny)
    assert notices[0].startswith(f"{parent}: not the weights that it had before it was removed")
    children = ", ".join(grown_zoo.children(parent))
    assert notices[1:] == [f"{parent}@2 has other weights than 2 models started from: {children}"]
    assert "not the weights" in grown_zoo.folder(parent).result()["message"]
    _, again = grown_again(grown_zoo, tiny)  # of those that exist, too
    assert again == notices[1:]
    assert [fault.path for fault in verify(grown_zoo.path)] == [f"models/{parent}"]


def test_a_worker_that_does_not_see_the_zoo_leaves_the_comparison_to_the_engine(
    grown_zoo, tiny, parent
):
    grown_zoo.remove(parent, keep_dependents=True)
    file = grown_zoo.path / "removed" / parent / "epochs.jsonl"
    lines = files.read_lines(file, sealed=True)
    files.write_lines(file, [{**line, "checkpoint": "0" * 64} for line in lines])
    hidden = file.parent.rename(grown_zoo.path / "elsewhere")
    _, notices = grown_again(grown_zoo, tiny)
    assert notices == []
    hidden.rename(file.parent)
    from vitarium.engine.changed_bits import changed_bits

    (text,) = changed_bits(grown_zoo, [parent], [])
    assert text == f"{parent}: not the weights that it had before it was removed (epochs 0-2)"


def test_with_what_models_were_trained_is_in_the_tables(grown_zoo):
    table = grown_zoo.models()
    assert set(table["trained.precision"]) == {"fp32"}
    assert set(table["trained.threads"]) == {1}
    assert not table["trained.stacked"].any()
    assert table["trained.torch"].notna().all()
    assert table["trained.device"].str.startswith("cpu").all()
    counts = grown_zoo.query("SELECT trained.precision, count(*) AS n FROM models GROUP BY ALL")
    assert counts["n"].tolist() == [6]
    from vitarium.zoo.listing import listing, select

    assert len(select(grown_zoo, where="trained.precision <> 'bf16'")) == 6
    # it distinguishes no models in a listing
    assert not [name for name in listing(grown_zoo.path).rows[0] if "trained" in name]
