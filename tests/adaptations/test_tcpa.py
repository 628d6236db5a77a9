"""Prompts that tokens select, against a forward pass that is written out token by token."""

import copy
import math

import pytest
import torch

from vitarium.adaptations.tcpa import Pool, TokenCoordination, TokenPools, _penalty, coordinated
from vitarium.architectures.base import FollowsEpochs
from vitarium.architectures.create import create_model
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import section
from vitarium.testing import check_adaptation

SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3}
POOLS = {"pool": 4, "selected": 2, "length": 3}


def built(architecture="vit", *, changes=None, **settings):
    torch.manual_seed(0)
    plain = create_model(architecture, num_classes=3, **SMALL, **changes or {}).eval()
    adapted = copy.deepcopy(plain)
    section("adaptation", {"name": "tcpa", **POOLS, **settings})(adapted)
    return plain, adapted.eval()


def training(model):
    """As a trainer has it: the backbone in eval mode."""
    for pools in pools_of(model):
        pools.train()
    return model


def pools_of(model):
    return [module for module in model.modules() if isinstance(module, TokenPools)]


def selected(pool, token, count):
    """Numbers of the prompts of the most similar keys, and the mean distance of these."""
    similar = [torch.cosine_similarity(token, key, dim=0).item() for key in pool.keys]
    order = sorted(range(len(similar)), key=lambda number: -similar[number])[:count]
    return order, sum(1 - similar[number] for number in order) / count


def attended(block, tokens, prompts, masked):
    """Of tokens [n, c] of an image, each by itself; `masked` are numbers of keys per token."""
    attn, keys = block.attn, torch.cat([tokens[:1], prompts, tokens[1:]])
    normed, outputs = block.norm1(keys), []
    heads = attn.qkv(normed).view(len(keys), 3, attn.num_heads, attn.head_dim)
    for number in range(len(tokens)):
        row = number if number == 0 else number + len(prompts)
        parts = []
        for head in range(attn.num_heads):
            query, key, value = heads[row, 0, head], heads[:, 1, head], heads[:, 2, head]
            shares = (key @ query / math.sqrt(attn.head_dim)).softmax(0).clone()
            shares[masked[number]] = 0
            parts.append(shares @ value)
        outputs.append(attn.proj(torch.cat(parts)))
    return torch.stack(outputs)


def reference(adapted, images, config):
    """Outputs, and the sum over blocks of both pools' mean distances."""
    plain = copy.deepcopy(adapted)
    batch = plain.norm_pre(plain._pos_embed(plain.patch_embed(images)))
    total = 0.0
    size = config.pool * config.length
    for block in plain.blocks:
        pools, after, of_class, of_patches = block.pools, [], [], []
        prompts = torch.cat([p.prompts.flatten(0, 1) for p in (pools.class_pool, pools.patch_pool)])
        if config.fourier:
            prompts = torch.fft.fft(torch.fft.fft(prompts, dim=-1), dim=-2).real
        for tokens in batch:
            masked = []
            for number, token in enumerate(tokens):
                pool = pools.patch_pool if number else pools.class_pool
                chosen, distance = selected(pool, token, config.selected)
                (of_patches if number else of_class).append(distance)
                start = 1 + (size if number else 0)
                attends = {
                    start + c * config.length + i for c in chosen for i in range(config.length)
                }
                masked.append([k for k in range(1, 1 + 2 * size) if k not in attends])
            tokens = tokens + block.ls1(attended(block, tokens, prompts, masked))
            after.append(tokens + block.ls2(block.mlp(block.norm2(tokens))))
        batch = torch.stack(after)
        total += sum(of_class) / len(of_class) + sum(of_patches) / len(of_patches)
    return plain.forward_head(plain.norm(batch)), total


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("fourier", [True, False])
def test_it_is_the_definition(fourier, pool):
    plain, adapted = built(fourier=fourier, dropout=0.0, changes={"global_pool": pool})
    config = TokenCoordination(**POOLS, fourier=fourier, strength=0.7)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected, distance = reference(adapted, images, config)
    assert torch.allclose(adapted(images), expected, atol=1e-5)
    assert _penalty(config, adapted, {}) == 0  # outside of training
    assert torch.allclose(training(adapted)(images), expected, atol=1e-5)
    assert _penalty(config, adapted, {}).item() == pytest.approx(0.7 * distance, rel=1e-4)
    assert adapted.forward_features(images).shape == plain.forward_features(images).shape


def masks(**settings):
    torch.manual_seed(0)
    config = TokenCoordination(**POOLS | settings)
    return TokenPools(config, 12).eval(), torch.randn(2, 5, 12), config.pool * config.length


def test_a_token_attends_to_whole_prompts_of_its_own_pool_alone():
    pools, tokens, size = masks()
    mask = pools.mask(tokens)
    assert mask.shape == (2, 5, 2 * size)
    assert not mask[:, 0, size:].any()
    assert not mask[:, 1:, :size].any()
    assert (mask.sum(-1) == POOLS["selected"] * POOLS["length"]).all()
    by_prompt = mask.unflatten(-1, (-1, POOLS["length"]))
    assert (by_prompt == by_prompt[..., :1]).all()


def test_all_of_a_pool_selected_masks_nothing_of_it():
    pools, tokens, size = masks(selected=4)
    mask = pools.mask(tokens)
    assert mask[:, 0, :size].all()
    assert mask[:, 1:, size:].all()


def test_what_is_masked_is_missing_in_the_sum():
    plain, _ = built()
    attn = plain.blocks[0].attn
    torch.nn.init.eye_(attn.proj.weight)
    torch.nn.init.zeros_(attn.proj.bias)
    # values of one: outputs are sums of rows
    attn.qkv.weight.data[24:], attn.qkv.bias.data[24:] = 0.0, 1.0
    tokens, mask = torch.randn(2, 1 + 4 + 2, 12), torch.zeros(2, 3, 4)
    full = coordinated(attn, tokens, torch.ones_like(mask))
    assert torch.allclose(full, torch.ones_like(full))
    mask[:, 1, 2] = 1
    sums = coordinated(attn, tokens, mask)
    assert (sums < 1).all()
    rest = coordinated(attn, tokens, 1 - mask)
    ordinary = coordinated(attn, tokens, torch.zeros_like(mask))
    assert torch.allclose(sums + rest - ordinary, full, atol=1e-6)  # 1 less what is masked


def test_the_first_epochs_select_at_random_in_training_alone():
    pools, tokens, _ = masks(random_epochs=2)
    assert isinstance(pools, FollowsEpochs)
    by_likeness = pools.mask(tokens)
    pools.at_epoch(2)
    assert torch.equal(pools.mask(tokens), by_likeness)
    pools.train()
    torch.manual_seed(3)
    at_random = pools.mask(tokens)
    assert not torch.equal(at_random, by_likeness)
    assert torch.equal(at_random.sum(-1), by_likeness.sum(-1))
    torch.manual_seed(3)
    assert torch.equal(pools.mask(tokens), at_random)
    pools.at_epoch(3)
    assert torch.equal(pools.mask(tokens), by_likeness)


def test_keys_learn_from_the_penalty_alone():
    _, adapted = built()
    training(adapted)(torch.randn(2, 3, 16, 16)).sum().backward()
    keys = [p for n, p in adapted.named_parameters() if n.endswith("keys")]
    assert all(key.grad is None for key in keys)
    training(adapted)(torch.randn(2, 3, 16, 16))
    _penalty(TokenCoordination(**POOLS), adapted, {}).backward()
    assert all(key.grad.abs().sum() > 0 for key in keys)


def test_the_graph_of_a_pass_is_let_go_and_models_are_copied():
    _, adapted = built()
    training(adapted)(torch.randn(2, 3, 16, 16))
    _penalty(TokenCoordination(**POOLS), adapted, {})
    assert all(pools.distance is None for pools in pools_of(adapted))
    copy.deepcopy(adapted)


def test_pools_are_drawn_between_minus_one_and_one():
    torch.manual_seed(0)
    pool = Pool(TokenCoordination(pool=50, length=4), 64)
    for tensor in (pool.keys, pool.prompts):
        assert tensor.abs().max() <= 1
        assert tensor.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(
    ("architecture", "changes", "fault"),
    [
        ("vit", {"reg_tokens": 1}, "without registers"),
        ("vit", {"class_token": False, "global_pool": "avg"}, "class token"),
        ("mini_deit", {}, "takes no prompts"),
    ],
)
def test_models_without_class_token_or_with_registers_are_refused(architecture, changes, fault):
    with pytest.raises(InvalidInput, match=f"'tcpa': .*{fault}"):
        built(architecture, changes=changes)


def test_more_cannot_be_selected_than_there_is():
    with pytest.raises(InvalidConfig, match="selected 5 is more than a pool has, 4"):
        built(selected=5)


def test_it_keeps_to_the_contract_without_a_transform_too():
    check_adaptation("tcpa", fourier=False, pool=2, selected=2)
