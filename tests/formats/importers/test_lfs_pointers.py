"""Folders that were cloned without Git LFS: the file that is a pointer is named."""

import json

import pytest
import timm
import transformers
from safetensors.torch import save_file

from reference.transformers_models import VIT
from vitarium.core.errors import InvalidInput
from vitarium.formats.foreign_zoo import find_models
from vitarium.formats.import_zoo import import_zoo

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def hugging_face(folder):
    config = transformers.ViTConfig(num_labels=3, **VIT)
    transformers.ViTForImageClassification(config).save_pretrained(folder, max_shard_size="20KB")


def timm_folder(folder):
    folder.mkdir()
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": sizes}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("write", "pattern"),
    [
        (hugging_face, "model-00002-*.safetensors"),
        (hugging_face, "model.safetensors.index.json"),
        (hugging_face, "config.json"),
        (timm_folder, "model.safetensors"),
        (timm_folder, "config.json"),
    ],
)
def test_a_pointer_in_the_place_of_a_file_is_named(tmp_path, write, pattern):
    write(tmp_path / "cloned")
    assert len(find_models(tmp_path / "cloned").models) == 1
    (file,) = (tmp_path / "cloned").glob(pattern)
    file.write_text(POINTER)
    with pytest.raises(InvalidInput, match=r"is a Git LFS pointer.*run `git lfs pull`") as error:
        import_zoo(tmp_path / "cloned", tmp_path / "zoo")
    assert str(file) in str(error.value)
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("write", [hugging_face, timm_folder])
def test_pickles_that_are_pointers_are_named(tmp_path, write):
    write(tmp_path / "cloned")
    for file in (tmp_path / "cloned").glob("model*"):
        file.unlink()
    (tmp_path / "cloned" / "pytorch_model.bin").write_text(POINTER)
    with pytest.raises(InvalidInput, match=r"pytorch_model\.bin is a Git LFS pointer"):
        import_zoo(tmp_path / "cloned", tmp_path / "zoo")
