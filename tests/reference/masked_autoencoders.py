"""Masked autoencoders in float64, written from the papers' code: shuffle, keep, encode, restore.

Weights are those of a ViT and of a decoder by name; images are encoded one at a time.
"""

import math

import torch


class MaskedAutoencoder:
    """weights, decoder: tensors by name. heads, decoder_heads: of attention; prefix: class token
    and registers, of which the first `positioned` rows of the position embedding are."""

    def __init__(self, model, companions, patch, heads, decoder_heads):
        self.weights = {k: v.detach().double() for k, v in model.state_dict().items()}
        self.decoder = {k: v.detach().double() for k, v in companions.state_dict().items()}
        self.patch, self.heads, self.decoder_heads = patch, heads, decoder_heads
        names = [name for name in ("cls_token", "reg_token") if name in self.weights]
        tokens = [self.weights[name][0] for name in names]
        self.prefix = torch.cat(tokens) if tokens else torch.zeros(0, 0)

    def patches(self, image):
        """[c, h, w] -> each patch [c, p, p], row by row"""
        p, (_, height, width) = self.patch, image.shape
        corners = [(r, c) for r in range(0, height, p) for c in range(0, width, p)]
        return [image[:, r : r + p, c : c + p].double() for r, c in corners]

    def encode(self, image, keep):
        """Normed tokens [prefix + visible, d], in the order of `keep`, and each block's output."""
        kernel = self.weights["patch_embed.proj.weight"]
        bias = self.weights["patch_embed.proj.bias"]
        embedded = [
            torch.einsum("dchw,chw->d", kernel, each) + bias for each in self.patches(image)
        ]
        positions, prefix = self.weights["pos_embed"][0], self.prefix
        if len(positions) > len(embedded):  # class token and registers have rows of their own
            prefix = prefix + positions[: len(prefix)]
            positions = positions[len(prefix) :]
        patches = torch.stack(embedded) + positions
        x = torch.cat([prefix, patches[keep]]) if len(prefix) else patches[keep]
        outputs, depth = [], 0
        while f"blocks.{depth}.norm1.weight" in self.weights:
            x = block(self.weights, f"blocks.{depth}", x, self.heads)
            outputs.append(x)
            depth += 1
        return self.final_norm(x), outputs

    def final_norm(self, x):
        name = "norm" if "norm.weight" in self.weights else "fc_norm"
        return norm(self.weights, name, x)

    def shuffled_tokens(self, encoded, ids_shuffle):
        """What the decoder begins with, patches in shuffled order: [prefix + n, width]"""
        x, count = linear(self.decoder, "decoder.embed", encoded), len(self.prefix)
        hidden = len(ids_shuffle) - (len(x) - count)
        token = self.decoder["decoder.mask_token"]
        patches = torch.cat([x[count:], token.expand(hidden, -1)])
        side = math.isqrt(len(ids_shuffle))
        return torch.cat([x[:count], patches + positions_2d(side, x.shape[1])[ids_shuffle]])

    def decode(self, x):
        """Ordinary blocks."""
        depth = 0
        while f"decoder.blocks.{depth}.norm1.weight" in self.decoder:
            x = block(self.decoder, f"decoder.blocks.{depth}", x, self.decoder_heads)
            depth += 1
        return x

    def predict(self, x, ids_shuffle):
        """Pixels of each patch, restored to their order: [n, 3 p^2]"""
        pixels = linear(self.decoder, "decoder.predict", norm(self.decoder, "decoder.norm", x))
        return pixels[len(self.prefix) :][torch.argsort(ids_shuffle)]

    def loss(self, image, predicted, hidden, correction):
        """Mean over the hidden patches (indices) of one image; correction: of the variance; None:
        pixels as they are."""
        total = 0.0
        for index in hidden:
            patch = self.patches(image)[index].permute(1, 2, 0).flatten()  # row, column, channel
            if correction is not None:
                variance = ((patch - patch.mean()) ** 2).sum() / (len(patch) - correction)
                patch = (patch - patch.mean()) / (variance + 1e-6).sqrt()
            total += ((predicted[index] - patch) ** 2).mean()
        return total / len(hidden)


def positions_2d(side, width):
    """As MAE's util/pos_embed.py: w goes first in the grid."""

    def of_axis(d, positions):
        omega = torch.tensor([1 / 10000 ** (i / (d / 2)) for i in range(d // 2)]).double()
        out = torch.outer(positions.double(), omega)
        return torch.cat([out.sin(), out.cos()], dim=1)

    columns = torch.tensor([c for _ in range(side) for c in range(side)])
    rows = torch.tensor([r for r in range(side) for _ in range(side)])
    return torch.cat([of_axis(width // 2, columns), of_axis(width // 2, rows)], dim=1)


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights, name, x):
    centered = x - x.mean(-1, keepdim=True)
    scaled = centered / ((centered**2).mean(-1, keepdim=True) + 1e-6).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attend(q, k, v, heads):
    """[m, d], [n, d], [n, d] -> [m, d], head by head"""
    size, outputs = q.shape[1] // heads, []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[:, part] @ k[:, part].T / math.sqrt(size)
        outputs.append(scores.softmax(-1) @ v[:, part])
    return torch.cat(outputs, dim=1)


def self_attention(weights, name, x, heads):
    q, k, v = linear(weights, f"{name}.qkv", x).chunk(3, dim=-1)
    return linear(weights, f"{name}.proj", attend(q, k, v, heads))


def mlp(weights, name, x):
    inner = linear(weights, f"{name}.fc1", x)
    return linear(weights, f"{name}.fc2", inner * (1 + torch.erf(inner / math.sqrt(2))) / 2)


def block(weights, name, x, heads):
    x = x + self_attention(weights, f"{name}.attn", norm(weights, f"{name}.norm1", x), heads)
    return x + mlp(weights, f"{name}.mlp", norm(weights, f"{name}.norm2", x))
