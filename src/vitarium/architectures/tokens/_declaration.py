"""Symmetries of vision transformers with a tokenizer of their own at `patch_embed`."""

from typing import Any

from torch import Tensor

from vitarium.architectures.symmetries.base import Axis, UnitGroup
from vitarium.architectures.symmetries.vit import NOTHING, VitDeclaration


class TokenizerDeclaration(VitDeclaration):
    """Of a tokenizer whose layer `proj` alone writes to the residual stream.

    Where others write to it or read it, too, or units inside can be exchanged, `tokenizer` is
    overridden; whatever it does not note stays where it is.
    """

    def embedding(self) -> None:
        """Of the tokenizer, and the tokens and positions that are added."""
        tokenizer = self.model.patch_embed
        self.tokenizer("patch_embed", tokenizer)
        noted = {piece.tensor for piece in self.pieces}
        for name, tensor in tokenizer.state_dict(prefix="patch_embed.").items():
            if tensor.is_floating_point() and name not in noted:
                self.piece(name, tensor.shape, (NOTHING,) * tensor.ndim)
        self.tokens()

    def tokenizer(self, at: str, tokenizer: Any) -> None:
        """Of its parts, whose names begin with `at`."""
        self.linear(f"{at}.proj", self.written, NOTHING, tokenizer.proj)

    def added(self, name: str, tensor: Tensor) -> None:
        """What is added to the stream or stands in it: [..., embed_dim]"""
        fixed = (NOTHING,) * (tensor.ndim - 1)
        self.piece(name, tensor.shape, (*fixed, self.written))

    def inner_mlp(self, at: str, mlp: Any) -> None:
        """An MLP that neither reads nor writes the stream; its hidden units can be exchanged."""
        self.groups[at] = UnitGroup(mlp.fc1.out_features)
        self.linear(f"{at}.fc1", Axis(at), NOTHING, mlp.fc1)
        self.linear(f"{at}.fc2", NOTHING, Axis(at, reads=True), mlp.fc2)
