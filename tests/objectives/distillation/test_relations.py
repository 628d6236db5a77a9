"""Relations of tokens inside of blocks: by brute force, at equality, and under rotations."""

import math

import pytest
import torch

from vitarium.objectives.distillation._relations import (
    attention_relation,
    hidden_difference,
    hidden_relation,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(width, seed=9):
    return torch.linalg.qr(normal(width, width, seed=seed))[0]


def by_loops(own, theirs, heads):
    """The definition, token by token: mean over images, heads, nine pairs and rows."""
    found = []
    for image in range(len(own)):
        for head in range(heads):
            for first in range(3):
                for second in range(3):
                    rows = []
                    for whole in (own[image], theirs[image]):
                        width = whole.shape[1] // 3
                        size = width // heads
                        x, y = (
                            whole[:, part * width + head * size : part * width + (head + 1) * size]
                            for part in (first, second)
                        )
                        rows.append(
                            [
                                [float((a * b).sum()) / math.sqrt(size) for b in y.unbind()]
                                for a in x.unbind()
                            ]
                        )
                    for mine, other in zip(*rows, strict=True):
                        weights = [math.exp(value) for value in other]
                        expected = [weight / sum(weights) for weight in weights]
                        total = sum(math.exp(value) for value in mine)
                        logs = [value - math.log(total) for value in mine]
                        found.append(-sum(p * q for p, q in zip(expected, logs, strict=True)))
    return sum(found) / len(found)


@pytest.mark.parametrize(("own", "theirs", "heads"), [(6, 6, 1), (6, 12, 1), (6, 12, 3), (8, 4, 2)])
def test_the_relation_is_that_of_a_loop_over_tokens_and_heads(own, theirs, heads):
    mine, other = normal(2, 4, 3 * own), normal(2, 4, 3 * theirs, seed=1)
    found = attention_relation(mine, other, heads).item()
    assert found == pytest.approx(by_loops(mine, other, heads), rel=1e-12)


def test_at_equality_the_relation_is_the_teachers_entropy_and_pulls_nowhere():
    theirs = normal(3, 5, 24)
    own = theirs.clone().requires_grad_()
    loss = attention_relation(own, theirs, 2)
    loss.backward()
    parts = theirs.view(3, 5, 3, 2, 4)
    entropies = []
    for x in parts.unbind(2):
        for y in parts.unbind(2):
            logits = torch.einsum("bnhd,bmhd->bhnm", x, y) / 2
            entropies.append(torch.distributions.Categorical(logits=logits).entropy().mean())
    assert loss.item() == pytest.approx(torch.stack(entropies).mean().item(), rel=1e-12)
    assert own.grad.abs().max() < 1e-15


def test_anything_else_than_the_teacher_costs_more():
    theirs = normal(3, 5, 24)
    least = attention_relation(theirs, theirs)
    assert all(
        attention_relation(theirs + 0.1 * normal(3, 5, 24, seed=s), theirs) > least
        for s in range(1, 6)
    )


def test_a_common_rotation_of_queries_keys_and_values_changes_no_relation():
    own, theirs = normal(2, 4, 24), normal(2, 4, 24, seed=1)
    turned = (own.view(2, 4, 3, 8) @ rotation(8)).flatten(2)
    assert torch.allclose(attention_relation(own, theirs), attention_relation(turned, theirs))
    apart = torch.cat((turned[..., :8], own[..., 8:]), dim=-1)
    assert not torch.allclose(attention_relation(own, theirs), attention_relation(apart, theirs))


@pytest.mark.parametrize("widths", [(6, 10), (2, 3), (2, 2), (2, 1)])
def test_the_hidden_relation_is_that_of_a_loop(widths):
    own, theirs = (normal(2, 4, width, seed=width) for width in widths)
    total = 0.0
    for image in range(2):
        for i in range(4):
            for j in range(4):
                cosines = [
                    float(torch.nn.functional.cosine_similarity(one[image, i], one[image, j], 0))
                    for one in (own, theirs)
                ]
                total += (cosines[0] - cosines[1]) ** 2
    assert hidden_relation(own, theirs).item() == pytest.approx(total / 32, rel=1e-12)


@pytest.mark.parametrize("tokens", [4, 20])
def test_the_hidden_relation_sees_neither_lengths_nor_rotations(tokens):
    theirs, lengths = normal(2, tokens, 6), normal(2, tokens, 1, seed=2).exp()
    assert hidden_relation(theirs, theirs).item() == 0
    assert abs(hidden_relation(lengths * (theirs @ rotation(6)), theirs).item()) < 1e-15
    assert hidden_relation(theirs.flip(1), theirs).item() > 1e-3


def test_the_hidden_difference_is_the_mean_of_squares():
    own, theirs = normal(2, 4, 6), normal(2, 4, 6, seed=1)
    assert hidden_difference(own, theirs).item() == pytest.approx(
        float((own - theirs).pow(2).sum()) / 48
    )


@pytest.mark.parametrize("relation", [attention_relation, hidden_relation, hidden_difference])
def test_logits_are_not_rounded_under_autocast(relation):
    own, theirs = normal(2, 4, 24).bfloat16(), normal(2, 4, 24, seed=1).bfloat16()
    exact = relation(own.double(), theirs.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = relation(own, theirs)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=1e-5)


def test_large_relations_stay_finite():
    own = (100 * normal(2, 4, 24)).float().requires_grad_()
    loss = attention_relation(own, 100 * normal(2, 4, 24, seed=1).float())
    loss.backward()
    assert loss.isfinite()
    assert own.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences():
    own = normal(1, 3, 12).requires_grad_()
    theirs = normal(1, 3, 24, seed=1)
    assert torch.autograd.gradcheck(lambda x: attention_relation(x, theirs, 2), own)
    for tokens in (3, 12):
        hidden, other = normal(2, tokens, 5).requires_grad_(), normal(2, tokens, 4, seed=1)
        assert torch.autograd.gradcheck(lambda x, t=other: hidden_relation(x, t), hidden)
