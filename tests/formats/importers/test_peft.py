"""Adapters of peft in a zoo: the weights that peft merges, and one clear error for what is no LoRA."""

import json
import math

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from vitarium import Zoo, cli, grow, import_zoo
from vitarium.core.errors import CorruptFile, InvalidInput, UntrustedFile
from vitarium.formats.foreign_zoo import find_models
from vitarium.zoo.verify import verify

VIT = {
    "name": "vit",
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
}
QKV = "blocks.0.attn.qkv"
A, B = (f"base_model.model.{QKV}.lora_{letter}.weight" for letter in "AB")
SETTINGS = {
    "all of qkv": {"target_modules": ["qkv"]},
    "several ranks": {
        "target_modules": ["qkv", "mlp.fc1"],
        "rank_pattern": {"fc1": 2, "blocks.1.attn.qkv": 5},
        "alpha_pattern": {"^blocks.0.mlp.fc1": 3},
    },
    "root of the rank": {
        "target_modules": ["proj"],
        "use_rslora": True,
    },  # patches are a convolution
    "an expression": {"target_modules": r".*\.(qkv|fc\d)", "exclude_modules": ["blocks.1.mlp.fc2"]},
    "biases": {"target_modules": ["fc2"], "bias": "all"},
    "more layers": {
        "target_modules": ["qkv"],
        "layers_to_transform": [1],
        "layers_pattern": "blocks",
        "modules_to_save": ["head", "norm"],
    },
}


@pytest.fixture
def base(lone):
    """A zoo of one model, and its id."""
    zoo = lone(architecture=VIT)
    return zoo, zoo.ids()[0]


@pytest.fixture
def saved(base, tmp_path):
    """Save a random adapter of the base: `saved("my-lora", target_modules=...)`, with the model."""

    def save(name="my-lora", num_classes=10, **settings):
        torch.manual_seed(0)
        zoo, id = base
        model = zoo.load(id)
        if num_classes != 10:
            model.head = nn.Linear(16, num_classes)
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=6, **settings))
        for parameter in filter(lambda p: p.requires_grad, adapted.parameters()):
            parameter.data = 0.1 * torch.randn_like(parameter)
        adapted.save_pretrained(tmp_path / name)
        return tmp_path / name, adapted.eval()

    return save


def edited(folder, change=None, **settings):
    """The folder with other settings, and tensors that were changed in place."""
    file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    tensors = load_file(weights)
    if change:
        change(tensors)
    save_file(tensors, weights)
    return folder


@pytest.mark.parametrize("name", SETTINGS)
def test_a_child_has_the_weights_and_outputs_that_peft_gives(base, saved, name):
    zoo, id = base
    folder, adapted = saved(**SETTINGS[name])
    (child,) = import_zoo(folder, zoo, base=id[:6])
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert (zoo.load(child)(images) - adapted(images)).abs().max() < 1e-5
    merged, weights = adapted.merge_and_unload().state_dict(), zoo.state_dict(child)
    assert merged.keys() == weights.keys()
    assert max((merged[k] - weights[k]).abs().max() for k in merged) < 1e-6
    spec = zoo.spec(child)
    assert (spec.parent, spec.parent_epoch) == (id, zoo.at(id).epoch)
    assert spec.described()["adaptation.rank"] == 4
    assert spec.described()["adaptation.alpha"] == 6
    assert verify(zoo.path, deep=True) == []


def test_a_new_head_brings_its_number_of_outputs(base, saved):
    zoo, id = base
    folder, adapted = saved(num_classes=3, target_modules=["qkv"], modules_to_save=["head"])
    (child,) = import_zoo(folder, zoo, base=id)
    assert zoo.folder(child).about().num_outputs == 3
    images = torch.randn(4, 1, 8, 8)
    assert (zoo.load(child)(images) - adapted(images)).abs().max() < 1e-5


def test_a_head_comes_to_a_base_without_one(lone, tmp_path):
    zoo = lone(architecture=VIT, head="none", objective="simclr", augmentation="simclr")
    model = zoo.load(zoo.ids()[0])
    model.head = nn.Linear(16, 5)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(target_modules=["qkv"], modules_to_save=["head"])
    )
    adapted.save_pretrained(tmp_path / "lora")
    (child,) = import_zoo(tmp_path / "lora", zoo, base=zoo.ids()[0])
    images = torch.randn(4, 1, 8, 8)
    assert (zoo.load(child)(images) - adapted.eval()(images)).abs().max() < 1e-5


@pytest.mark.parametrize("head", [True, False])
def test_an_adapter_of_transformers_vit_fits_its_model_of_the_zoo(tmp_path, head):
    """Queries and values apart there are rows of the fused layer here."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, num_channels=1, intermediate_size=24, **sizes
    )
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "vit")
    (id,) = import_zoo(tmp_path / "vit", tmp_path / "zoo")
    names = {
        name.rpartition(".")[2]
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear)
    }
    targets = sorted(names & {"query", "value", "q_proj", "v_proj"})
    assert len(targets) == 2
    saved = ["classifier"] if head else None
    settings = peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets, modules_to_save=saved)
    adapted = peft.get_peft_model(model, settings).eval()
    for parameter in filter(lambda p: p.requires_grad, adapted.parameters()):
        parameter.data = 0.2 * torch.randn_like(parameter)
    adapted.save_pretrained(tmp_path / "lora")
    (child,) = import_zoo(tmp_path / "lora", tmp_path / "zoo", base=id)
    images, zoo = torch.randn(4, 1, 8, 8), Zoo.open(tmp_path / "zoo")
    with torch.no_grad():
        assert (zoo.load(child)(images) - adapted(images).logits).abs().max() < 1e-5
        assert (zoo.load(id)(images) - adapted(images).logits).abs().max() > 1e-2


def test_what_is_imported_again_is_the_same_and_epochs_of_a_base_differ(base, saved):
    zoo, id = base
    folder, _ = saved(target_modules=["qkv"])
    (first,) = import_zoo(folder, zoo, base=id)
    assert import_zoo(folder, zoo, base=id) == [first]
    (of_epoch,) = import_zoo(folder, zoo, base=f"{id}@0")
    assert of_epoch != first
    assert zoo.spec(of_epoch).parent_epoch == 0


def test_a_stage_starts_from_an_adapter_of_a_model_of_its_zoo(base, saved):
    zoo, id = base
    folder, adapted = saved(target_modules=["qkv"])
    start = {"checkpoint": str(folder), "importer_settings": {"base": id[:6]}}
    data = {"name": "digits", "train_limit": 64}
    stage = {"data": data, "epochs": 1, "batch_size": 32, "start": start, "adaptation": "head"}
    values = {"name": "of-peft", "stages": {"finetune": stage}}
    options = {"workers": 0, "precision": "fp32", "stacked": 1, "progress": False}
    (grown,) = grow(values, zoo, **options).grown
    parent = zoo.spec(zoo.spec(grown).parent)
    assert parent.parent == id
    merged = adapted.merge_and_unload().state_dict()
    weights = zoo.state_dict(grown)
    names = [name for name in weights if not name.startswith("head.")]
    assert max((merged[name] - weights[name]).abs().max() for name in names) < 1e-6
    assert grow(values, zoo, **options).existing == [grown]
    del start["importer_settings"]
    with pytest.raises(InvalidInput, match=r"name it: start: \{importer_settings: \{base: ID\}\}"):
        grow(values, zoo, **options)
    with pytest.raises(
        InvalidInput, match=r"changes a model, which has to be in the zoo, but .* is not a zoo"
    ):
        grow(values, folder.parent / "none", **options)


def test_pickled_tensors_are_read_as_data_and_nothing_is_run(base, saved):
    zoo, id = base
    folder, _ = saved(target_modules=["qkv"])
    (safe,) = import_zoo(folder, zoo, base=id)
    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(tensors, folder / "adapter_model.bin")
    assert import_zoo(folder, zoo, base=id) == [safe]

    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save({**tensors, A: Evil()}, folder / "adapter_model.bin")
    with pytest.raises((UntrustedFile, InvalidInput), match=r"adapter_model\.bin"):
        import_zoo(folder, zoo, base=id)


HOSTILE = {
    "no B": ({}, lambda t: t.pop(B), rf"adapter_model.safetensors: {A}: there is no lora_B of {QKV}"),
    "no A": ({}, lambda t: t.pop(A), rf"adapter_model.safetensors: {B}: there is no lora_A of {QKV}"),
    "neither": ({}, lambda t: (t.pop(A), t.pop(B)), rf"it has no lora_A and lora_B of {QKV}, which adapter_config.json names"),
    "a shape": ({}, lambda t: t.update({A: torch.zeros(4, 15)}), rf"{A}: it is \[4, 15\], not \[4, 16\]"),
    "another B": ({}, lambda t: t.update({B: torch.zeros(47, 4)}), rf"{B}: it is \[47, 4\], not \[48, 4\]"),
    "a number": ({}, lambda t: t.update({B: torch.zeros(())}), rf"{B}: it is \[\], not \[48, 4\]"),
    "another rank": ({"r": 3}, None, r"lora_A.weight: it is \[4, 16\], not \[3, 16\]: adapter_config.json has rank 3"),
    "no factors": ({"target_modules": "q.*"}, lambda t: [t.pop(n) for n in list(t)], "it has no factors of LoRA"),
    "a negative rank": ({"r": -4}, None, "adapter_config.json: r: .*-4"),
    "no rank": ({"r": 0}, None, "adapter_config.json: r: .*0"),
    "a rank in a pattern": ({"rank_pattern": {"qkv": -1}}, None, "adapter_config.json: rank_pattern.qkv: .*-1"),
    "a vast alpha": ({"lora_alpha": 1e30}, None, "adapter_config.json: lora_alpha"),
    "an expression": ({"alpha_pattern": {"(a+)+$": 3}}, None, r"adapter_config.json: the pattern '\(a\+\)\+\$' is no name"),
    "an unknown layer": ({}, lambda t: t.update({A.replace("0", "7"): t[A] + 1, B.replace("0", "7"): t[B] + 1}), "the base has no layer blocks.7.attn.qkv"),
    "an unknown target": ({"target_modules": ["qkv", "query"]}, None, "adapter_config.json: target_modules: the base has no layer 'query'"),
    "an unknown weight": ({}, lambda t: t.update({"base_model.model.neck.weight": torch.zeros(2)}), "neck.weight: the base has no neck.weight"),
    "a weight of another shape": ({}, lambda t: t.update({"base_model.model.norm.weight": torch.zeros(2)}), r"norm.weight: it is \[2\], the base's \[16\]"),
    "a weight beside factors": ({}, lambda t: t.update({f"base_model.model.{QKV}.weight": torch.zeros(48, 16)}), "is changed by another tensor"),
    "another beginning": ({}, lambda t: t.update({"model.x": torch.zeros(2)}), "model.x: names of an adapter begin with base_model.model."),
    "NaN": ({}, lambda t: t[A].fill_(math.nan), rf"{A}: it has numbers that are not finite"),
    "an overflow": ({}, lambda t: (t[A].fill_(3e38), t[B].fill_(3e38)), rf"{A}: with it, {QKV}.weight has numbers that are not finite"),
    "whole numbers": ({}, lambda t: t.update({A: torch.ones(4, 16, dtype=torch.int8)}), rf"{A}: it is of torch.int8"),
    "DoRA": ({"use_dora": True}, None, "adapter_config.json: use_dora: this variant"),
    "a variant's tensor": ({}, lambda t: t.update({f"base_model.model.{QKV}.lora_magnitude_vector": torch.ones(48)}), "variant of LoRA"),
    "another method": ({"peft_type": "IA3"}, None, "adapter_config.json: peft_type: 'IA3'"),
    "another start": ({"init_lora_weights": "pissa_niter_4"}, None, "'pissa_niter_4' changes the base, too"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_folders_are_refused_by_file_and_tensor_and_leave_nothing(base, saved, name):
    zoo, id = base
    settings, change, message = HOSTILE[name]
    folder, _ = saved(target_modules=["qkv"])
    with pytest.raises(InvalidInput, match=message):
        import_zoo(edited(folder, change, **settings), zoo, base=id)
    assert zoo.ids() == [id]


def test_files_that_are_damaged_or_missing_are_named(base, saved):
    zoo, id = base
    folder, _ = saved(target_modules=["qkv"])
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(
        CorruptFile, match=r"none of adapter_model\.safetensors, adapter_model\.bin"
    ):
        import_zoo(folder, zoo, base=id)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(CorruptFile, match=r"adapter_config.json"):
        import_zoo(folder, zoo, base=id)


def test_the_base_has_to_be_named_and_in_the_zoo(base, saved):
    zoo, id = base
    folder, _ = saved(target_modules=["qkv"])
    with pytest.raises(InvalidInput, match="name it: base=ID"):
        import_zoo(folder, zoo)
    with pytest.raises(
        InvalidInput, match="peft changes models of a zoo, and none is named: zoo=DIR"
    ):
        find_models(folder, base=id)
    with pytest.raises(InvalidInput, match="has no weights of epoch 99"):
        import_zoo(folder, zoo, base=f"{id}@99")


def test_the_command_takes_a_folder_of_adapters(base, saved, monkeypatch, capsys):
    def vitarium(*arguments):
        monkeypatch.setattr("sys.argv", ["vitarium", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr()

    zoo, id = base
    saved("loras/a", target_modules=["qkv"])
    folder, _ = saved("loras/b", target_modules=["fc1"])
    command = "import", folder.parent, "--zoo", zoo.path
    assert "name it: --set base=ID" in vitarium(*command)[1].err
    status, streams = vitarium(*command, "--set", f"base={id}", "--dry-run", "--json")
    assert [row["parent"] for row in json.loads(streams.out)] == [id, id]
    assert (status, zoo.ids()) == (0, [id])
    assert vitarium(*command, "--set", f"base={id}")[0] == 0
    assert len(zoo.children(id)) == 2
