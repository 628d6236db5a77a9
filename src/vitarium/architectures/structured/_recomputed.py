"""Reversible blocks whose backward pass computes activations again, from the outputs alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active as functorch_active
from torch.func import functional_call

RngState = tuple[Tensor, Tensor | None]
"""Of the CPU's generator, and of the device's, where it is a GPU."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def through_blocks(blocks: nn.Sequential, tokens: Tensor, *, recompute: bool) -> Tensor:
    """Both streams [batch, n, 2 * dim] through reversible blocks, to the same shape.

    Outputs are those of `blocks(tokens)`, bit for bit, and gradients differ by rounding. With
    `recompute` only the outputs are stored for backward, whatever the number of blocks. Ordinary
    autograd is used all the same where a block's activations are read by hooks, in torch.func's
    transforms (stacks of models), which know no saved tensors of ours, and in torch.compile.
    """
    is_ordinary = torch.compiler.is_compiling() or functorch_active() or _has_hooks(blocks)
    if is_ordinary or not recompute or not torch.is_grad_enabled() or tokens.is_meta:
        outputs: Tensor = blocks(tokens)
        return outputs
    names, weights = zip(*blocks.named_parameters(), strict=True)
    recomputed: Tensor = _Recomputed.apply(blocks, names, tokens, *weights)
    return recomputed


def _has_hooks(blocks: nn.Module) -> bool:
    return any(getattr(module, hooks) for module in blocks.modules() for hooks in _HOOKS)


class _Recomputed(torch.autograd.Function):
    """Block by block from the last: inputs from outputs, and with them gradients."""

    @staticmethod
    def forward(
        ctx: Any, blocks: nn.Sequential, names: Sequence[str], tokens: Tensor, *weights: Tensor
    ) -> Tensor:
        """Tokens [batch, n, 2 * dim] and all weights of the blocks, [*shape] -> tokens"""
        kind = tokens.device.type
        ctx.blocks, ctx.names, ctx.states = blocks, names, []
        ctx.autocast = {
            "device_type": kind,
            "enabled": torch.is_autocast_enabled(kind),
            "dtype": torch.get_autocast_dtype(kind),
            # what is cast here has no graph, and must not be taken up where there is one
            "cache_enabled": False,
        }
        first, second = tokens.chunk(2, dim=-1)
        with torch.autocast(**ctx.autocast):
            for block in blocks:
                before_attention = _rng_state(tokens.device)
                first = first + block(second, branch="attention")
                ctx.states.append((before_attention, _rng_state(tokens.device)))
                second = second + block(first, branch="mlp")
        outputs = torch.cat([first, second], dim=-1)
        ctx.save_for_backward(outputs, *weights)
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Of the outputs [batch, n, 2 * dim] -> of the tokens and of each weight"""
        # torch's once_differentiable raises nothing where derivatives are taken after some tensors
        # alone (torch.autograd.grad), and what goes through here would be missing from them
        if torch.is_grad_enabled():
            raise RuntimeError(
                "reversible: torch cannot differentiate twice what is recomputed; set `recompute` "
                "to false"
            )
        outputs, *weights = ctx.saved_tensors
        by_block = _by_block(ctx.names, weights)
        gradients: dict[str, Tensor] = {}
        first, second = outputs.chunk(2, dim=-1)
        of_first, of_second = gradient.chunk(2, dim=-1)
        for number in reversed(range(len(ctx.blocks))):
            block, own = ctx.blocks[number], by_block[str(number)]
            before_attention, before_mlp = ctx.states[number]
            branch = _Branch(block, own, ctx.autocast)
            output, added = branch.gradients("mlp", before_mlp, first, of_second, gradients)
            second, of_first = second - output, of_first + added
            output, added = branch.gradients(
                "attention", before_attention, second, of_first, gradients
            )
            first, of_second = first - output, of_second + added
        of_tokens = torch.cat([of_first, of_second], dim=-1)
        return (None, None, of_tokens, *(gradients.get(name) for name in ctx.names))


class _Branch:
    """A block whose branches are computed again, with the weights that they were computed with."""

    def __init__(
        self, block: nn.Module, weights: dict[str, tuple[str, Tensor]], autocast: dict[str, Any]
    ) -> None:
        self.block, self.autocast = block, autocast
        self.weights = {name: weight for name, (_, weight) in weights.items()}
        self.learning = {
            name: (full_name, weight)
            for name, (full_name, weight) in weights.items()
            if weight.requires_grad
        }

    def gradients(
        self,
        branch: str,
        state: RngState,
        inputs: Tensor,
        of_output: Tensor,
        collected: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """A branch's output for inputs [batch, n, dim], and the gradient of these, [batch, n, dim];
        gradients of the weights are added to `collected`, by their names among all blocks'."""
        inputs = inputs.detach().requires_grad_()
        with _replayed(state, inputs.device), torch.enable_grad(), torch.autocast(**self.autocast):
            output = functional_call(self.block, self.weights, (inputs,), {"branch": branch})
        sources = [inputs, *(weight for _, weight in self.learning.values())]
        of_inputs, *of_weights = torch.autograd.grad(
            output, sources, of_output.to(output.dtype), allow_unused=True
        )
        for (name, _), of_weight in zip(self.learning.values(), of_weights, strict=True):
            if of_weight is not None:
                summed = collected.get(name)
                collected[name] = of_weight if summed is None else summed + of_weight
        return output.detach(), of_inputs


def _by_block(
    names: Sequence[str], weights: Sequence[Tensor]
) -> dict[str, dict[str, tuple[str, Tensor]]]:
    """By a block's number and a weight's name there: its name among all, and the weight."""
    by_block: dict[str, dict[str, tuple[str, Tensor]]] = {}
    for name, weight in zip(names, weights, strict=True):
        number, _, inner = name.partition(".")
        by_block.setdefault(number, {})[inner] = (name, weight)
    return by_block


def _rng_state(device: torch.device) -> RngState:
    of_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), of_device


@contextmanager
def _replayed(state: RngState, device: torch.device) -> Iterator[None]:
    """Inside, random numbers are those that were drawn after that state."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], device)
        yield
