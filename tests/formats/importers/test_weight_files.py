"""Files of weights without a table: what names and shapes tell, and what they do not."""

import argparse
import csv

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights, InvalidInput, UntrustedFile
from vitarium.core.registry import section
from vitarium.formats._weight_checks import check_weights
from vitarium.formats.foreign_zoo import find_models
from vitarium.formats.import_zoo import import_zoo
from vitarium.formats.importers._vit_shapes import infer_head, infer_vit
from vitarium.zoo import Zoo

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 192, "depth": 12, "num_heads": 3}
SMALL = {"img_size": 14, "patch_size": 7, "embed_dim": 32, "depth": 2, "num_heads": 2}


def vit(num_classes=5, **settings):
    torch.manual_seed(0)
    return VisionTransformer(**{**SMALL, "in_chans": 1, **settings}, num_classes=num_classes).eval()


def write(path, weights, **beside):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save({"state_dict": weights, **beside} if beside else weights, path)
    return path


def on_meta(build):
    with meta_device():
        return build()


def computes(model):
    """What of a model of timm its shapes do not tell."""
    block = model.blocks[0]
    return {
        "heads": block.attn.num_heads,
        "activation": type(block.mlp.act).__name__,
        "epsilon": block.norm1.eps,
        "blocks": (type(block).__name__, type(block.attn).__name__, type(block.mlp).__name__),
        "pooling": model.global_pool,
        "images": model.patch_embed.img_size,
        "norms": (type(model.norm).__name__, type(model.fc_norm).__name__),
    }


@pytest.mark.parametrize(
    ("name", "inferred"),
    [
        ("vit_tiny_patch16_224", {"model": "vit_tiny_patch16_224"}),
        ("vit_small_patch16_384", {"model": "vit_small_patch16_224", "img_size": 384}),
        ("vit_base_patch8_224", {"model": "vit_base_patch8_224"}),
        ("vit_large_patch32_224", {"model": "vit_large_patch32_224"}),
        ("deit_base_patch16_224", {"model": "vit_base_patch16_224"}),
        ("vit_small_patch14_dinov2", {"model": "vit_small_patch14_dinov2"}),
        ("vit_base_patch14_reg4_dinov2", {"model": "vit_base_patch14_reg4_dinov2"}),
        (
            "deit3_small_patch16_224",
            {"model": "vit_small_patch16_224", "init_values": 1e-5, "no_embed_class": True},
        ),
        ("vit_base_patch16_224_miil", {"model": "vit_base_patch16_224", "qkv_bias": False}),
        ("vit_small_patch16_224.mae", {"model": "vit_small_patch16_224"}),
    ],
)
def test_plain_vits_of_timm_are_told_by_their_shapes(name, inferred):
    name = name.partition(".")[0]
    reference = on_meta(lambda: timm.create_model(name, num_classes=7))
    shapes = {key: tensor.shape for key, tensor in reference.state_dict().items()}
    architecture, _ = infer_vit(shapes, {})
    assert architecture == {"name": "timm", **inferred}
    assert infer_head(shapes) == (None, 7)
    ours = on_meta(lambda: section("architecture", architecture)(7))
    assert computes(ours) == computes(reference)
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_base_patch32_clip_quickgelu_224", "CLIP"),
        ("vit_base_patch16_siglip_224", "attention pooling"),
        ("vit_base_patch16_gap_224", "without a class token"),  # of 16 heads
        ("vit_base_patch16_rpn_224", "without a class token"),  # of other blocks
        ("deit_tiny_distilled_patch16_224", "two heads"),
        ("vit_giant_patch14_dinov2", "its MLPs are gated"),
        ("vit_wee_patch16_reg1_gap_256", "without a class token"),
        ("test_vit", r"no usual number of heads.*architecture=\{'num_heads': N\}"),
        ("resnet18", "no plain ViT under timm's names.*patch_embed"),
        ("beit_base_patch16_224", "no plain ViT under timm's names.*pos_embed"),
    ],
)
def test_what_shapes_do_not_tell_is_refused(name, reason):
    reference = on_meta(lambda: timm.create_model(name, num_classes=7))
    shapes = {key: tensor.shape for key, tensor in reference.state_dict().items()}
    with pytest.raises(InvalidInput, match=reason):
        infer_vit(shapes, {})


@pytest.mark.parametrize(
    "settings",
    [
        {"qkv_bias": False},
        {"reg_tokens": 4},
        {"reg_tokens": 4, "no_embed_class": True},
        {"init_values": 0.1},
        {"mlp_ratio": 2.7},
        {"global_pool": "avg"},
        {"class_token": False, "global_pool": "avg"},
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        {"in_chans": 3, "img_size": 21},
    ],
)
def test_a_vit_of_any_size_is_inferred_once_its_heads_are_said(tmp_path, settings):
    model = vit(**settings)
    write(tmp_path / "m.pth", model.state_dict())
    extra = {"architecture.num_heads": 2}
    if "reg_tokens" in settings:  # 9 positions may be of 9 patches, too
        extra["architecture.no_embed_class"] = settings.get("no_embed_class", False)
    if settings.get("class_token") is False:
        extra["architecture.global_pool"] = "avg"
    (id,) = import_zoo(tmp_path / "m.pth", tmp_path / "zoo", **extra)
    ours = Zoo.open(tmp_path / "zoo").load(id)
    images = torch.randn(2, *ours.patch_embed.proj.weight.shape[1:2], *model.patch_embed.img_size)
    with torch.no_grad():
        assert torch.equal(ours(images), model(images))


@pytest.mark.parametrize(("registers", "sides"), [(4, (2, 3)), (6, (3, 4)), (8, (4, 5))])
@pytest.mark.parametrize("shared", [True, False])
def test_positions_that_two_sizes_of_images_have_are_asked_about(
    tmp_path, registers, sides, shared
):
    among, alone = (7 * side for side in sides)
    size = among if shared else alone
    model = vit(reg_tokens=registers, no_embed_class=not shared, img_size=size)
    file = write(tmp_path / "m.pth", model.state_dict())
    heads = {"architecture.num_heads": 2}
    with pytest.raises(InvalidInput) as refused:
        find_models(file, **heads)
    (line,) = str(refused.value).splitlines()
    assert f"architecture={{'img_size': {among}}} (or {alone})" in line
    assert "architecture={'no_embed_class': False} (or true)" in line
    images = torch.randn(2, 1, size, size)
    for number, answer in enumerate(({"img_size": size}, {"no_embed_class": not shared})):
        answers = {f"architecture.{name}": value for name, value in answer.items()}
        (id,) = import_zoo(file, tmp_path / f"zoo{number}", **heads, **answers)
        with torch.no_grad():
            assert torch.equal(Zoo.open(tmp_path / f"zoo{number}").load(id)(images), model(images))
    contradiction = {"architecture.img_size": size, "architecture.no_embed_class": shared}
    with pytest.raises(InvalidInput, match="pos_embed"):
        find_models(file, **heads, **contradiction)


@pytest.mark.parametrize(("shared", "size"), [(True, 28), (False, 42)])
def test_a_named_architecture_says_which_tokens_have_positions(tmp_path, shared, size):
    name = "vit_small_patch14_reg4_dinov2"
    settings = {"depth": 1, "img_size": size, "no_embed_class": not shared, "num_classes": 3}
    weights = timm.create_model(name, **settings).state_dict()
    file = write(tmp_path / "m.pth", weights, arch=name)
    extra = {"architecture.depth": 1}
    if shared:
        extra["architecture.no_embed_class"] = False
    (imported,) = find_models(file, **extra).models
    assert imported.architecture.config.input_size == (3, size, size)


@pytest.mark.parametrize(
    ("settings", "overrides", "assumed"),
    [
        ({}, {}, {"3 heads", "a head that sees the class token"}),
        ({"global_pool": "avg"}, {}, {"3 heads", "a head that sees the mean of the patches"}),
        ({"global_pool": "avg"}, {"global_pool": "avg"}, {"3 heads"}),
        ({}, {"num_heads": 6, "global_pool": "token"}, set()),
    ],
)
def test_what_shapes_do_not_tell_is_named_as_assumed(settings, overrides, assumed):
    always = {
        "GELU": "act_layer",
        "LayerNorm's epsilon 1e-6": "norm_eps",
        "square images": "img_size",
        "pre-norm blocks": "block_fn",
    }
    shapes = {key: tensor.shape for key, tensor in vit(**TINY | settings).state_dict().items()}
    assert set(infer_vit(shapes, overrides).assumptions) == assumed | always.keys()
    for assumption, setting in always.items():
        answered = infer_vit(shapes, {**overrides, setting: 32}).assumptions
        assert set(answered) == assumed | always.keys() - {assumption}


def test_norm_of_queries_tells_the_number_of_heads():
    shapes = {
        k: t.shape for k, t in vit(embed_dim=48, num_heads=4, qk_norm=True).state_dict().items()
    }
    inferred, assumptions = infer_vit(shapes, {})
    assert inferred["num_heads"] == 4
    assert not any("heads" in assumption for assumption in assumptions)


@pytest.mark.parametrize(
    "name", ["my vit.pth", "a.pth.tar", "b.safetensors", "c.bin", "d.ckpt", "e.pt"]
)
def test_a_single_file_is_imported_and_what_was_inferred_is_noted(tmp_path, name):
    model = vit(**TINY)
    file = write(tmp_path / name, model.state_dict())
    (note,) = find_models(file).models[0].notes
    for part in ("vit embed_dim=192", "img_size=32", "in_chans=1", "5 outputs", "3 heads", "GELU"):
        assert part in note
    (id,) = import_zoo(file, tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.spec(id).origin.name == name.partition(".")[0]
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(zoo.load(id)(images), model(images))


def test_heads_of_weights_are_recognized(tmp_path):
    model = vit(num_classes=0, **TINY)
    mlp = {
        "head.0.weight": (6, 192),
        "head.0.bias": (6,),
        "head.2.weight": (4, 6),
        "head.2.bias": (4,),
    }
    weights = model.state_dict() | {name: torch.randn(shape) for name, shape in mlp.items()}
    (imported,) = find_models(write(tmp_path / "mlp.pth", weights)).models
    assert (imported.head.name, imported.head.config.hidden_dim, imported.num_outputs) == (
        "mlp",
        6,
        4,
    )
    (imported,) = find_models(write(tmp_path / "none.pth", model.state_dict())).models
    assert (imported.head.name, imported.num_outputs) == ("none", 192)
    odd = model.state_dict() | {"head.5.weight": torch.ones(2, 2)}
    with pytest.raises(InvalidInput, match="neither linear nor an MLP"):
        find_models(write(tmp_path / "odd.pth", odd))


def test_a_folder_is_imported_and_what_is_no_model_is_named(tmp_path):
    folder = tmp_path / "run"
    write(folder / "a.pth", vit(**TINY).state_dict())
    write(folder / "deep" / "b.safetensors", vit(**TINY).state_dict())
    torch.save({"state": {0: {"step": 1}}, "param_groups": []}, folder / "optimizer.pt")
    (folder / "weights.npz").write_bytes(b"PK\x03\x04\0\xff")
    (folder / "README.md").write_text("# Readme\n")
    foreign = find_models(folder)
    assert foreign.importer == "weight_files"
    assert [model.name for model in foreign.models] == ["a", "deep/b"]
    notes = {model.name: model.notes[0] for model in foreign.empty}
    assert "not a tensor" in notes["optimizer"]
    assert "unknown kind" in notes["weights.npz"]
    assert notes.keys() == {"optimizer", "weights.npz"}
    assert len(import_zoo(folder, tmp_path / "zoo")) == 2


def test_other_formats_and_zoos_are_not_taken_for_folders_of_files(tmp_path):
    write(tmp_path / "a.pth", vit(**TINY).state_dict())
    import_zoo(tmp_path / "a.pth", tmp_path / "zoo")
    with pytest.raises(InvalidInput, match="in no known format"):
        find_models(tmp_path / "zoo")
    with (tmp_path / "models.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file"], ["a.pth"]])
    assert find_models(tmp_path).importer == "checkpoint_table"


def test_one_file_that_would_run_code_stops_the_import_of_its_folder(tmp_path):
    write(tmp_path / "in" / "a.pth", vit(**TINY).state_dict())
    torch.save(torch.nn.Linear(2, 2), tmp_path / "in" / "b.pth")
    with pytest.raises(UntrustedFile, match=r"b\.pth.*state_dict\(\)"):
        import_zoo(tmp_path / "in", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_an_architecture_that_is_named_is_taken(tmp_path):
    model = timm.create_model("test_vit", num_classes=3)
    file = write(tmp_path / "m.pth", model.state_dict())
    with pytest.raises(InvalidInput, match=r"m\.pth.*architecture=\{'num_heads': N\}$"):
        find_models(file)
    (imported,) = find_models(file, architecture="test_vit").models
    assert (imported.architecture.config.model, imported.num_outputs) == ("test_vit", 3)
    check_weights([imported])
    (imported,) = find_models(file, architecture="none").models
    assert (imported.architecture, imported.num_outputs) == (None, 3)
    (wrong,) = find_models(file, architecture="vit_tiny_patch16_224").models
    with pytest.raises(IncompatibleWeights, match="do not fit"):
        check_weights([wrong])
    with pytest.raises(InvalidInput, match=r"vit_tini.*did you mean"):
        find_models(file, architecture="vit_tini_patch16_224")


@pytest.mark.parametrize("name", ["test_vit", "resnet18"])
def test_what_timms_training_script_says_of_the_architecture_is_believed_if_it_fits(tmp_path, name):
    weights = timm.create_model(name, num_classes=3).state_dict()
    args = argparse.Namespace(model=name)
    file = write(tmp_path / "m.pth.tar", weights, arch=name, args=args, epoch=3)
    (imported,) = find_models(file).models
    assert imported.architecture.config.model == name
    assert imported.notes == (f"architecture {name}, as the file says",)
    tiny = vit(**TINY).state_dict()
    (imported,) = find_models(write(tmp_path / "l.pth.tar", tiny, arch=name)).models
    assert imported.architecture.name == "vit", "weights that do not fit it tell more"


def test_images_of_another_size_than_the_named_architectures(tmp_path):
    weights = timm.create_model("test_vit", img_size=64, in_chans=1, num_classes=3).state_dict()
    (imported,) = find_models(write(tmp_path / "m.pth", weights, arch="test_vit")).models
    assert imported.architecture.config.input_size == (1, 64, 64)


def test_names_of_transformers_alone_are_not_guessed(tmp_path):
    weights = {"vit.embeddings.patch_embeddings.projection.weight": torch.ones(8, 3, 2, 2)}
    with pytest.raises(InvalidInput, match=r"import its folder with config\.json"):
        find_models(write(tmp_path / "m.pth", weights))


def test_the_average_is_taken_where_it_is_asked_for(tmp_path):
    trained = vit(**TINY).state_dict()
    average = {name: tensor + 1 for name, tensor in trained.items()}
    file = write(tmp_path / "m.pth", trained, state_dict_ema=average)
    for settings, expected in (({}, trained), ({"ema": True}, average)):
        (imported,) = find_models(file, **settings).models
        assert torch.equal(imported.epochs[0].load()["norm.weight"], expected["norm.weight"])
        assert any("ema=True" in note for note in imported.notes) is not settings.get("ema", False)


HEADS = {"architecture": {"num_heads": 2}}


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.int64])
def test_whole_numbers_are_not_taken_for_weights(tmp_path, dtype):
    weights = vit().state_dict()
    weights["blocks.1.mlp.fc1.weight"] = weights["blocks.1.mlp.fc1.weight"].to(dtype)
    write(tmp_path / "source" / "a.safetensors", weights)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(IncompatibleWeights, match=rf"blocks\.1\.mlp\.fc1\.weight is of {name}"):
        import_zoo(tmp_path / "source", tmp_path / "zoo", **HEADS)
    assert not Zoo.open(tmp_path / "zoo").ids()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("head.weight", ()),
        ("pos_embed", ()),
        ("reg_token", (1,)),
        ("blocks.0.attn.q_norm.weight", (0,)),
        ("blocks.0.mlp.fc2.weight", (3,)),
        ("patch_embed.proj.weight", (32, 1, 0, 0)),
        ("blocks." + "9" * 5000 + ".norm1.weight", (32,)),
    ],
)
def test_shapes_of_no_vit_are_refused_in_a_line(tmp_path, name, shape):
    source = write(tmp_path / "a.pt", {**vit().state_dict(), name: torch.zeros(shape)})
    with pytest.raises(InvalidInput, match="architecture cannot be inferred") as refused:
        find_models(source, **HEADS)
    assert "\n" not in str(refused.value)
