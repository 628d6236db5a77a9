"""Parameters, floating-point operations and memory, counted by hand."""

import torch
from torch import nn

from vitarium import create_model
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import EvalModel, Weights


def test_parameters_are_those_of_the_model_and_of_its_head(subject):
    model = subject.model
    weights = Weights("a@0", model.state_dict(), skeleton=lambda: model)
    values = choose("measure", "parameters")(weights)
    total = sum(p.numel() for p in model.parameters())
    head = sum(p.numel() for p in model.head.parameters())
    assert values == {"": total, "backbone": total - head}


def test_weights_that_are_stored_as_integers_are_counted():
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    plain, quantized = (create_model(n, num_classes=10, **sizes) for n in ("vit", "quantized_vit"))
    values = [
        choose("measure", "parameters")(Weights("a@0", m.state_dict(), skeleton=lambda m=m: m))
        for m in (plain, quantized)
    ]
    assert values[0] == values[1]


def test_operations_of_linear_layers_are_two_for_each_weight(examples):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10)).eval()
    operations = choose("measure", "flops")(EvalModel("a@0", model, examples))
    assert operations == 2 * (64 * 30 + 30 * 10)


def test_modules_may_be_given_parameters(examples):
    class Query(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.layer = nn.Parameter(torch.ones(3, 30)), nn.Linear(30, 10)

        def forward(self, images):
            return self.layer(self.query)

    operations = choose("measure", "flops")(EvalModel("a@0", Query().eval(), examples))
    assert operations == 2 * 3 * 30 * 10


def test_operations_of_a_vision_transformer_are_those_of_its_matrix_products(subject):
    model = subject.model
    width = model.embed_dim
    tokens, patches = 1 + model.patch_embed.num_patches, model.patch_embed.num_patches
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    embedding = patches * model.patch_embed.proj.weight.numel()
    expected = 2 * (embedding + len(model.blocks) * block + model.head.weight.numel())
    assert choose("measure", "flops")(subject) == expected


def test_memory_of_linear_layers_is_that_of_weights_and_of_two_layers_outputs(examples):
    layers = [nn.Linear(64, 300, bias=False), nn.ReLU(), nn.Linear(300, 10, bias=False)]
    model = nn.Sequential(nn.Flatten(), *layers).eval()
    values = choose("measure", "peak_memory", batch_size=3)(EvalModel("a@0", model, examples))
    weights = 4 * (64 * 300 + 300 * 10)
    # the image is in use until the end; the activation is made while its input is there
    assert values == {"": weights + 4 * 3 * (64 + 300 + 300), "weights": weights}


def test_memory_counts_what_is_in_use_together_and_views_once(examples):
    class Turns(nn.Module):
        def forward(self, images):
            for _ in range(5):
                images = images.flatten(1).view_as(images) + 1
            return images

    values = choose("measure", "peak_memory")(EvalModel("a@0", Turns().eval(), examples))
    assert values == {"": 4 * 64 * 3, "weights": 0}  # given, an earlier one, and the new one
