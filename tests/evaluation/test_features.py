"""Layers are tapped where they are, in one pass, and the model is left as it was."""

import weakref

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from reference.recorded import layer_vectors
from vitarium.core.errors import NotApplicable, UnknownName
from vitarium.core.registry import choose
from vitarium.evaluation import features as representations
from vitarium.evaluation.features import cosines, rebatch, taps
from vitarium.evaluation.inputs import Representation

CKA, RSA = choose("measure", "cka", batch_size=8), choose("measure", "rsa", batch_size=8)


def vit(**overrides):
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 3, "num_heads": 2}
    return VisionTransformer(**sizes | overrides, num_classes=3).eval()


def images(n, size=8):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def features_of(model, tokens, layer=-1):
    """By a hook of our own: what the tap makes of a layer's output."""
    tap = taps(model, Representation())[layer]
    seen = []
    hook = tap.module.register_forward_hook(lambda _, __, output: seen.append(output))
    model(images(5, model.patch_embed.img_size[0]))
    hook.remove()
    output = seen[0]
    return output, tap.features(output, tokens)


@pytest.mark.parametrize(("registers", "prefix"), [(0, 1), (3, 4)])
def test_patches_are_all_tokens_but_class_token_and_registers(registers, prefix):
    model = vit(reg_tokens=registers)
    output, mean = features_of(model, "mean")
    assert output.shape == (5, prefix + 4, 8)
    assert torch.equal(mean, output[:, prefix:].mean(1))
    assert torch.equal(features_of(model, "class")[1], output[:, 0])
    assert torch.equal(features_of(model, "patches")[1], output[:, prefix:].flatten(1))


def test_a_model_without_class_token_has_none_to_compare():
    model = vit(class_token=False, global_pool="avg", reg_tokens=1)
    with pytest.raises(NotApplicable, match=r"blocks\.2 gives no class token"):
        features_of(model, "class")
    assert features_of(model, "patches")[1].shape == (5, 4 * 8)


def test_a_class_token_that_comes_later_is_no_patch_before():
    """CaiT's blocks see patches alone; its class token has blocks of its own."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = timm.create_model("cait_xxs24_224", **sizes).eval()
    output, patches = features_of(model, "patches")
    assert output.shape == (5, 4, 16)
    assert torch.equal(patches, output.flatten(1))


def test_maps_have_their_channels_where_the_model_says():
    torch.manual_seed(0)
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=12,
        depths=(1, 1), num_heads=(1, 2), num_classes=3,
    ).eval()  # fmt: skip
    output, mean = features_of(swin, "mean", 0)
    assert output.shape == (5, 8, 8, 12)
    assert torch.allclose(mean, output.mean((1, 2)))
    tap = taps(nn.Module(), Representation(), [""])[0]
    maps = torch.randn(5, 6, 2, 3)
    assert torch.allclose(tap.features(maps, "mean"), maps.mean((2, 3)))
    with pytest.raises(NotApplicable, match="neither tokens nor maps"):
        tap.features(torch.randn(5, 2, 2, 2, 2), "mean")


def test_of_several_outputs_the_first_is_meant():
    tap = taps(vit(), Representation())[0]
    tokens = torch.randn(5, 5, 8)
    for output in ((tokens, None), [tokens], {"last_hidden_state": tokens}, ((tokens, 1), 2)):
        assert torch.equal(tap.features(output, "class"), tokens[:, 0])
    with pytest.raises(NotApplicable, match=r"blocks\.0 gives a NoneType"):
        tap.features((None,), "mean")


def test_blocks_or_named_layers_are_tapped():
    model = vit()
    assert [t.name for t in taps(model, Representation())] == ["blocks.0", "blocks.1", "blocks.2"]
    assert [t.name for t in taps(model, Representation(layers="last"))] == ["blocks.2"]
    assert [t.name for t in taps(model, Representation(), ["norm", "head"])] == ["norm", "head"]
    with pytest.raises(UnknownName, match=r"unknown layer 'blocks\.9'; did you mean 'blocks\."):
        taps(model, Representation(), ["blocks.9"])
    with pytest.raises(NotApplicable, match="Linear has no blocks"):
        taps(nn.Linear(2, 2), Representation())


@pytest.mark.parametrize(
    ("sizes", "cut"),
    [([8, 8, 2], [8, 8]), ([3, 5, 9, 1, 2], [8, 8, 4]), ([31], [8, 8, 8, 7]), ([3], []), ([], [])],
)
def test_batches_are_cut_anew_and_three_are_left_out(sizes, cut):
    whole = images(sum(sizes))
    found = list(rebatch(whole.split(sizes), 8))
    assert [len(batch) for batch in found] == cut
    assert torch.equal(torch.cat([whole[:0], *found]), whole[: sum(cut)])


def test_several_measures_share_one_pass_and_see_what_each_would_alone():
    model, some = vit(), images(21)
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    patches = choose("measure", "cka", batch_size=8, tokens="patches")
    together = layer_vectors(model, some.split(5), [CKA, RSA, patches])
    assert len(runs) == 3
    for measure, found in zip((CKA, RSA, patches), together, strict=True):
        alone = layer_vectors(model, [some], [measure])[0]
        assert found.keys() == alone.keys() == {"blocks.0", "blocks.1", "blocks.2"}
        for layer, vector in found.items():
            assert torch.equal(vector, alone[layer])
            assert len(vector) == 2 * 28 + 10
    assert not torch.equal(together[0]["blocks.2"], together[2]["blocks.2"])


def test_one_batch_of_one_layer_is_alive_at_a_time(monkeypatch):
    alive, most = weakref.WeakSet(), []
    real = representations.Tap.features

    def watched(tap, output, tokens):
        features = real(tap, output, tokens)
        alive.add(features)
        most.append(len(alive))
        return features

    monkeypatch.setattr(representations.Tap, "features", watched)
    layer_vectors(vit(), [images(24)], [CKA, RSA])
    assert len(most) == 9
    assert max(most) == 1


def test_a_model_is_left_as_it_was():
    model = vit(drop_path_rate=0.5, proj_drop_rate=0.5).train()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    first, again = (layer_vectors(model, [images(8)], [CKA])[0] for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    with pytest.raises(AssertionError, match="doesn't match model"):
        layer_vectors(model, [images(8, size=12)], [CKA])
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training


def test_layers_that_say_nothing_have_no_value():
    model = vit()
    with pytest.raises(NotApplicable, match=r"blocks\.0 gives all images the same features"):
        layer_vectors(model, [images(1).expand(8, -1, -1, -1)], [CKA])
    with pytest.raises(NotApplicable, match="mutual_knn: there are too few images"):
        layer_vectors(model, [images(8)], [choose("measure", "mutual_knn", batch_size=8)])
    model.blocks[1].mlp.fc2.bias.data[0] = torch.nan
    for name in ("cka", "rsa", "mutual_knn"):
        with pytest.raises(NotApplicable, match=r"blocks\.1 has features that are not finite"):
            layer_vectors(model, [images(12)], [choose("measure", name)])


def test_kernels_that_overflow_have_no_value():
    model = vit()
    model.blocks[1].mlp.fc2.weight.data *= 1e25
    with pytest.raises(NotApplicable, match=r"blocks\.1: cka of it is not finite"):
        layer_vectors(model, [images(8)], [CKA], ["blocks.1"])


def test_a_layer_has_to_run_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(12, 12)])
            self.unused = nn.Linear(1, 1)

        def forward(self, x):
            return self.blocks[0](self.blocks[0](x.flatten(1)))

    for layers, message in ((None, r"blocks\.0 runs 2 times"), (["unused"], "unused runs 0 times")):
        with pytest.raises(NotApplicable, match=message):
            layer_vectors(Twice(), [images(4, size=2)], [CKA], layers)


def test_copies_of_one_model_are_the_same_to_each_other(subject):
    batches = [batch.images for batch in subject.examples.batches()]
    measures = [choose("measure", name) for name in ("cka", "rsa", "mutual_knn")]
    for found in layer_vectors(subject.model, batches, measures):
        assert torch.allclose(cosines(found, found).diagonal(), torch.ones(2).double(), atol=1e-5)
