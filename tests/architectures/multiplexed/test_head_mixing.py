"""Head mixing against an einsum in float64, and what it keeps in every use."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from vitarium.architectures.multiplexed._blocks import (
    HeadMixing,
    MultiplexedAttention,
    SharedAttention,
)

HEADS = 3


def mixing(*, bias: bool, dtype: torch.dtype = torch.float64, seed: int = 0) -> HeadMixing:
    generator = torch.Generator().manual_seed(seed)
    module = HeadMixing(HEADS, bias=bias).to(dtype)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    return module


def maps(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(7))


def expected(module: HeadMixing, inputs: Tensor) -> Tensor:
    found = torch.einsum("ah,bhij->baij", module.weight, inputs)
    return found if module.bias is None else found + module.bias.reshape(1, -1, 1, 1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("heads_first", [False, True])
def test_each_map_becomes_a_sum_of_the_heads_maps(bias: bool, heads_first: bool) -> None:
    module = mixing(bias=bias)
    inputs = maps(2, HEADS, 5, 4)
    if heads_first:
        inputs = maps(HEADS, 2, 5, 4).transpose(0, 1)
    torch.testing.assert_close(module(inputs), expected(module, inputs), rtol=0, atol=1e-14)


def test_maps_that_lie_in_memory_in_any_way_are_taken() -> None:
    module = mixing(bias=True)
    inputs = maps(2, 5, HEADS, 8)[..., ::2].permute(0, 2, 3, 1)
    torch.testing.assert_close(module(inputs), expected(module, inputs), rtol=0, atol=1e-14)


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_those_of_finite_differences(bias: bool) -> None:
    module = mixing(bias=bias)
    names = [name for name, _ in module.named_parameters()]

    def mixed(inputs: Tensor, *parameters: Tensor) -> Tensor:
        found: Tensor = functional_call(module, dict(zip(names, parameters, strict=True)), inputs)
        return found

    inputs = maps(2, HEADS, 2, 2).requires_grad_()
    parameters = [parameter.detach().requires_grad_() for parameter in module.parameters()]
    assert torch.autograd.gradcheck(mixed, (inputs, *parameters))


@pytest.mark.parametrize("bias", [False, True])
def test_stacked_models_are_mixed_as_one_by_one(bias: bool) -> None:
    modules = [mixing(bias=bias, seed=seed) for seed in range(3)]
    stacked = {
        name: torch.stack([module.state_dict()[name] for module in modules])
        for name in modules[0].state_dict()
    }
    inputs = maps(3, 2, HEADS, 4, 4)
    found = vmap(lambda own, each: functional_call(modules[0], own, each))(stacked, inputs)
    for number, module in enumerate(modules):
        torch.testing.assert_close(
            found[number], expected(module, inputs[number]), rtol=0, atol=1e-14
        )


def attention(dim: int = 12, dtype: torch.dtype = torch.float64) -> MultiplexedAttention:
    module = MultiplexedAttention(
        SharedAttention(dim, qkv_bias=True).to(dtype),
        HEADS,
        before=mixing(bias=True, dtype=dtype, seed=1),
        after=mixing(bias=True, dtype=dtype, seed=2),
    )
    return module.eval()


def by_hand(module: MultiplexedAttention, tokens: Tensor) -> Tensor:
    """The attention as the paper writes it, head by head."""
    query, key, value = (
        part.unflatten(-1, (HEADS, -1)) for part in module.qkv(tokens).chunk(3, dim=-1)
    )
    logits = torch.einsum("bihd,bjhd->bhij", query, key) / module.head_dim**0.5
    assert module.before is not None
    assert module.after is not None
    shares = expected(module.after, expected(module.before, logits).softmax(dim=-1))
    found: Tensor = module.proj(torch.einsum("bhij,bjhd->bihd", shares, value).flatten(2))
    return found


def test_attention_mixes_logits_and_probabilities() -> None:
    module, tokens = attention(), maps(2, 5, 12)
    torch.testing.assert_close(module(tokens), by_hand(module, tokens), rtol=0, atol=1e-13)


def test_a_hook_sees_the_mixed_probabilities_of_each_image_and_head() -> None:
    module, tokens, seen = attention(), maps(2, 5, 12), []
    module.attn_drop.register_forward_hook(lambda _, inputs, output: seen.append(output))
    module(tokens)
    assert seen[0].shape == (2, HEADS, 5, 5)
    assert module.after is not None
    assert module.after.bias is not None
    rows = expected(module.after, torch.full((2, HEADS, 5, 1), 1.0, dtype=torch.float64))
    sums = rows + 4 * module.after.bias.reshape(1, -1, 1, 1)  # the bias stands at each of 5 tokens
    torch.testing.assert_close(seen[0].sum(-1, keepdim=True), sums, rtol=0, atol=1e-13)


def test_the_order_of_the_heads_does_not_matter() -> None:
    module, tokens, order = attention(), maps(2, 5, 12), torch.tensor([2, 0, 1])
    before = module(tokens)
    rows = torch.arange(12).unflatten(0, (HEADS, -1))[order].flatten()
    qkv, proj = module.qkv.lender, module.proj.lender
    with torch.no_grad():
        for parameter in qkv.parameters():
            parameter.copy_(torch.cat([part[rows] for part in parameter.chunk(3)]))
        proj.weight.copy_(proj.weight[:, rows])
        for mixed in (module.before, module.after):
            mixed.weight.copy_(mixed.weight[order][:, order])
            mixed.bias.copy_(mixed.bias[order])
    torch.testing.assert_close(module(tokens), before, rtol=0, atol=1e-13)


def test_softmax_is_computed_in_float32_under_autocast() -> None:
    module = attention(dtype=torch.float32)
    tokens, logits, probabilities = maps(2, 5, 12, dtype=torch.float32), [], []
    assert module.before is not None
    assert module.after is not None
    module.before.register_forward_hook(lambda _, inputs, output: logits.append(output))
    module.after.register_forward_pre_hook(lambda _, inputs: probabilities.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        found = module(tokens)
    exact = logits[0].float().softmax(dim=-1)
    torch.testing.assert_close(probabilities[0].float(), exact, rtol=2**-8, atol=0)
    torch.testing.assert_close(found.float(), by_hand(module, tokens), rtol=0.1, atol=0.1)
