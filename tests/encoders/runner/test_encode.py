"""Vectors of a zoo's checkpoints are the encoder's of their backbones."""

import shutil

import numpy as np
import pytest
import torch

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import InvalidInput, NotApplicable, UnknownName
from vitarium.core.registry import choose
from vitarium.encoders._runner.encode import (
    NO_WEIGHTS,
    encode,
    encode_checkpoints,
    kept_epochs,
    last_checkpoints,
    vector_cache,
)
from vitarium.evaluation.inputs import Weights

STATISTICS = choose("weight_encoder", "layer_quantiles")


def of_backbone(state):
    return Weights("", {k: v for k, v in state.items() if not k.startswith("head.")})


@pytest.mark.parametrize("name", ["layer_quantiles", "random_projection"])
def test_vectors_are_those_of_all_weights_but_the_heads(grown_zoo, name):
    encoder = choose("weight_encoder", name)
    refs, missing = last_checkpoints(grown_zoo)
    assert {ref.model for ref in refs} == {*grown_zoo.ids()}
    assert missing == {}
    result = encode_checkpoints(grown_zoo, encoder, refs)
    for ref in refs:
        state = grown_zoo.state_dict(*ref)
        assert "head.weight" in state
        expected = encoder(of_backbone(state)).to(torch.float32).numpy()
        assert np.array_equal(result.vectors[ref].values, expected)


def test_a_second_look_computes_nothing(grown_zoo, monkeypatch):
    refs, _ = last_checkpoints(grown_zoo)
    first = encode_checkpoints(grown_zoo, STATISTICS, refs)
    monkeypatch.setattr("vitarium.evaluation.loader.ModelLoader.weights", None)
    again = encode_checkpoints(grown_zoo, STATISTICS, refs)
    for ref, vector in first.vectors.items():
        assert np.array_equal(again.vectors[ref].values, vector.values)
    other = encode_checkpoints(grown_zoo, choose("weight_encoder", "layer_quantiles"), refs)
    assert len(other.vectors) == len(refs)
    with pytest.raises(TypeError):
        encode_checkpoints(grown_zoo, choose("weight_encoder", "random_projection"), refs)


def test_other_settings_have_other_vectors(grown_zoo):
    refs, _ = last_checkpoints(grown_zoo)
    encode_checkpoints(grown_zoo, STATISTICS, refs)
    more = choose("weight_encoder", "layer_quantiles", percentiles=[10])
    result = encode_checkpoints(grown_zoo, more, refs[:1])
    tensors = len(of_backbone(grown_zoo.state_dict(*refs[0])).shapes)
    assert len(result.vectors[refs[0]].values) == 3 * tensors
    assert len(vector_cache(grown_zoo, more)._vectors) == 1
    assert len(vector_cache(grown_zoo, STATISTICS)._vectors) == len(refs)


def test_models_without_weights_and_damaged_ones_say_so(grown_zoo):
    first, second, *_ = grown_zoo.ids()
    last = grown_zoo.at(first)
    shutil.rmtree(grown_zoo.folder(first).path / "checkpoints")
    folder = grown_zoo.folder(second)
    folder.drop(set(kept_epochs(grown_zoo)[second]))
    refs, missing = last_checkpoints(grown_zoo)
    assert missing == {CheckpointRef(second, 0): NO_WEIGHTS}
    result = encode_checkpoints(grown_zoo, STATISTICS, [*refs, CheckpointRef(second, 0)])
    assert str(last.model) in result.refused[last]
    assert result.refused[CheckpointRef(second, 0)] == NO_WEIGHTS


def test_an_epoch_that_is_added_is_the_last(grown_zoo):
    id = grown_zoo.ids()[0]
    epochs = kept_epochs(grown_zoo)[id]
    assert epochs == [e.number for e in grown_zoo.folder(id).epochs() if e.checkpoint]
    grown_zoo.folder(id).drop({epochs[-1]})
    assert kept_epochs(grown_zoo)[id] == epochs[:-1]


def test_the_table_has_a_row_per_checkpoint(grown_zoo):
    table = encode(grown_zoo.path, "layer_quantiles", epochs="all", percentiles=[50])
    epochs_by_model = kept_epochs(grown_zoo)
    assert [*table.index] == [
        (id, epoch) for id in grown_zoo.ids() for epoch in epochs_by_model[id]
    ]
    id = grown_zoo.ids()[0]
    encoder = choose("weight_encoder", "layer_quantiles", percentiles=[50])
    expected = encoder(of_backbone(grown_zoo.state_dict(id, epochs_by_model[id][0]))).float()
    assert np.array_equal(table.loc[(id, epochs_by_model[id][0])], expected)
    assert [*encode(grown_zoo, models=[id]).index] == [tuple(grown_zoo.at(id))]
    assert {*encode(grown_zoo, where="parent IS NULL").index} == {
        tuple(grown_zoo.at(model.id)) for model in grown_zoo if model.parent is None
    }


def with_another_block(state):
    return state | {name.replace("blocks.0", "blocks.1"): v.clone() for name, v in state.items()}


def test_what_has_no_vector_or_cannot_be_compared_is_an_error(grown_zoo, imported_digits):
    with pytest.raises(UnknownName, match="did you mean 'layer_quantiles'"):
        encode(grown_zoo, "layer_quantile")
    imported_digits(grown_zoo, {"architecture.depth": 2}, change=with_another_block)
    assert len(encode(grown_zoo)) == len(grown_zoo)
    with pytest.raises(InvalidInput, match="of one at a time"):
        encode(grown_zoo, "layer_quantiles")
    id = grown_zoo.ids()[0]
    shutil.rmtree(grown_zoo.folder(id).path / "checkpoints")
    with pytest.raises(NotApplicable, match=rf"1 of \d checkpoints have no vector[^$]*{id}"):
        encode(grown_zoo, dim=8)  # vectors of another length are not kept
