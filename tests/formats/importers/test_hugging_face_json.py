"""Configurations that make no sense, or more than one: a line that names the file and the key."""

import json

import pytest
import torch
import transformers

from reference.transformers_models import SIZES, VIT, randomized
from vitarium import Zoo
from vitarium.core.errors import CorruptFile, InvalidInput, VitariumError
from vitarium.formats.foreign_zoo import find_models
from vitarium.formats.import_zoo import import_zoo

NUMBERS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")


@pytest.fixture
def source(tmp_path):
    """A ViT's folder; `source(config={...}, preprocessor_config=...)` changes its files."""
    folder = tmp_path / "theirs"
    config = transformers.ViTConfig(**VIT, num_labels=3)
    randomized(transformers.ViTForImageClassification(config)).save_pretrained(folder)

    def changed(config=None, preprocessor_config=None):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | (config or {})))
        if preprocessor_config is not None:
            text = json.dumps(preprocessor_config)
            (folder / "preprocessor_config.json").write_text(text)
        return folder

    return changed


def check_refused(folder, file, message, tmp_path):
    with pytest.raises(VitariumError, match=message) as error:
        import_zoo(folder, tmp_path / "zoo")
    assert str(folder / file) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id2label": None}, "id2label: None is not a valid dictionary"),
        ({"id2label": ["a", "b", "c"]}, r"id2label: \['a', 'b', 'c'\] is not a valid dictionary"),
        ({"id2label": {"x": "a"}}, "id2label: its keys are not the numbers of classes"),
        ({"id2label": {"-1": "a"}}, "id2label: its keys are not the numbers of classes"),
        ({"id2label": {"0": None}}, "id2label.0"),
        ({"id2label": {"0": ["a"] * 1000}}, "id2label.0"),
        ({"architectures": "ViTModel"}, "architectures: 'ViTModel' is not a valid list"),
        ({"architectures": None}, "architectures: None is not a valid list"),
        ({"architectures": []}, "architectures: names none"),
        ({"architectures": [None]}, "architectures.0: None is not a valid string"),
        ({"hidden_act": 3}, "hidden_act: 3 is a number, not text"),
        ({"qkv_bias": "no"}, "qkv_bias: 'no' is not a valid boolean"),
        ({"layer_norm_eps": -1}, "layer_norm_eps: -1 is not greater than 0"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps: nan is not"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob: 1.0 is not less than 1"),
        ({"image_size": []}, "image_size"),
        ({"patch_size": 5}, "img_size 16 is not divisible by patch_size 5"),
        *(({name: -4}, f"{name}.*-4 is not greater than 0") for name in NUMBERS),
        *(({name: 10**30}, f"{name}.*10+ is not") for name in NUMBERS),
        *(({name: "4"}, f"{name}.*'4' is not a valid integer") for name in NUMBERS),
    ],
)
def test_a_config_that_makes_no_sense_is_named_with_its_key(source, tmp_path, change, message):
    check_refused(source(change), "config.json", message, tmp_path)


@pytest.mark.parametrize("name", [*NUMBERS, "intermediate_size"])
def test_a_missing_key_is_named(source, tmp_path, name):
    file = source() / "config.json"
    values = json.loads(file.read_text())
    del values[name]
    file.write_text(json.dumps(values))
    check_refused(source(), "config.json", f"{name}: missing", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "it holds a list, not an object"),
        ({"resample": [1]}, r"resample: \[1\] is not a valid integer"),
        ({"resample": 6}, "resample: 6 is not less than or equal to 5"),
        ({"resample": -1}, "resample: -1 is not"),
        ({"image_mean": "a", "image_std": 0.5}, "image_mean"),
        ({"image_mean": [0.5] * 2, "image_std": [0.5] * 2}, "image_mean: has 2 numbers for images"),
        ({"image_mean": [0.5] * 3, "image_std": [0.5, 0.5, 0]}, "image_std.*0 is not greater"),
        ({"image_mean": 1e300, "image_std": 0.5}, "image_mean"),
        ({"size": {"height": -1, "width": 16}}, "size.*-1 is not greater than 0"),
        ({"size": 10**12}, "size.*1000000000000 is not"),
        ({"size": []}, "size"),
        ({"crop_size": {"height": "16"}}, "crop_size"),
        ({"rescale_factor": 0}, "rescale_factor: 0 is not greater than 0"),
        ({"do_normalize": "yes"}, "do_normalize: 'yes' is not a valid boolean"),
    ],
)
def test_a_processor_that_makes_no_sense_is_named_with_its_key(source, tmp_path, content, message):
    folder = source(preprocessor_config=content)
    check_refused(folder, "preprocessor_config.json", message, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 10**5, '{"a": ' + "9" * 5000 + "}"])
def test_what_is_no_json_object_is_named(source, tmp_path, text):
    folder = source()
    (folder / "config.json").write_text(text)
    for importer in (None, "hugging_face", "timm"):
        with pytest.raises(CorruptFile, match=r"config\.json"):
            find_models(folder, importer=importer)


@pytest.mark.parametrize("importer", ["hugging_face", "timm"])
def test_a_config_of_something_else_is_named_with_what_it_lacks(tmp_path, importer):
    (tmp_path / "config.json").write_text('{"vocab_size": 3}')
    key = "architectures" if importer == "hugging_face" else "architecture"
    with pytest.raises(InvalidInput, match=rf"config\.json: {key}: missing"):
        find_models(tmp_path, importer=importer)
    with pytest.raises(InvalidInput, match="in no known format"):
        find_models(tmp_path)


def test_what_a_folder_holds_is_said_without_naming_an_importer(tmp_path):
    for name in ("bert", "clip"):
        (tmp_path / name).mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"architectures": ["BertModel"]}')
    (tmp_path / "clip" / "config.json").write_text('{"architectures": ["CLIPModel"]}')
    with pytest.raises(InvalidInput, match=r"bert/config\.json is of a BertModel; what can be"):
        import_zoo(tmp_path / "bert", tmp_path / "zoo")
    with pytest.raises(InvalidInput, match=r"CLIPVisionModelWithProjection\.from_pretrained"):
        import_zoo(tmp_path / "clip", tmp_path / "zoo")


def test_what_is_left_out_of_a_folder_of_folders_is_noted(source, tmp_path):
    folder = source()
    (folder.parent / "bert").mkdir()
    (folder.parent / "bert" / "config.json").write_text('{"architectures": ["BertModel"]}')
    (model,) = find_models(folder.parent).models
    assert model.notes == ("left out: bert is a BertModel, which cannot be imported",)


def test_labels_that_have_no_name_are_numbered(source, tmp_path):
    (id,) = import_zoo(source({"id2label": {"2": "c", "0": "a", "7": 7}}), tmp_path / "zoo")
    classes = Zoo.open(tmp_path / "zoo").folder(id).about().classes
    assert classes == ("a", "LABEL_1", "c")


def test_the_default_of_the_library_is_two_labels(source, tmp_path):
    file = source() / "config.json"
    values = json.loads(file.read_text())
    del values["id2label"]
    file.write_text(json.dumps(values))
    (model,) = find_models(source()).models
    assert model.classes == ("LABEL_0", "LABEL_1")
    (model,) = find_models(source({"num_labels": 4})).models
    assert model.num_outputs == 4


@pytest.mark.parametrize("registers", ["", "WithRegisters"])
def test_dinov2_without_labels_gives_class_token_and_mean_patch(tmp_path, registers):
    config = getattr(transformers, f"Dinov2{registers}Config")(**SIZES, num_labels=0)
    original = getattr(transformers, f"Dinov2{registers}ForImageClassification")(config)
    randomized(original).save_pretrained(tmp_path / "theirs")
    (id,) = import_zoo(tmp_path / "theirs", tmp_path / "zoo")
    zoo, images = Zoo.open(tmp_path / "zoo"), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = original(images).logits
        torch.testing.assert_close(zoo.load(id)(images), expected, atol=1e-5, rtol=1e-5)
    assert zoo.folder(id).about().num_outputs == expected.shape[1] == 48


PREPARED = {
    "as a bit processor": (
        {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 20}, "resample": 3},
        {"augmentation.resize": 20, "augmentation.interpolation": "bicubic"},
    ),
    "squashed": (
        {"size": {"height": 16, "width": 18}, "resample": 1},
        {"preprocessing.size": [16, 18], "augmentation.interpolation": "lanczos"},
    ),
    "a number that is a square": (
        {"image_processor_type": "ViTImageProcessor", "size": 16},
        {"preprocessing.size": [16, 16]},
    ),
    "a number that is a side": (
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 16},
        {"augmentation.resize": 16, "augmentation.interpolation": "bicubic"},
    ),
    "a crop of another size": (
        {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": 18},
        {"augmentation.resize": 20, "preprocessing.crop_size": [18, 18]},
    ),
    "no crop": (
        {"size": {"shortest_edge": 20}, "do_center_crop": False, "crop_size": 16},
        {"augmentation.resize": 20, "preprocessing.do_center_crop": False},
    ),
    "the usual mean": (
        {"image_mean": [0.5] * 3, "image_std": 0.25, "rescale_factor": 1 / 255},
        {"data.mean": [0.5] * 3, "data.std": [0.25] * 3},
    ),
    "another scale": (
        {"image_mean": 1.0, "image_std": 2.0, "rescale_factor": 2 / 255},
        {
            "data.mean": [0.5] * 3,
            "data.std": [1.0] * 3,
            "preprocessing.rescale_factor": 2 / 255,
        },
    ),
    "no normalization": (
        {"do_normalize": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        {"data.mean": [0.0] * 3, "data.std": [1.0] * 3},
    ),
    "nothing": ({"do_resize": False}, {"preprocessing.do_resize": False}),
}


@pytest.mark.parametrize("name", PREPARED)
def test_how_images_are_prepared_is_kept(source, name):
    content, settings = PREPARED[name]
    (model,) = find_models(source(preprocessor_config=content)).models
    assert model.settings == settings
