"""Bring copies whose units stand in another order into one order, before anything is compared: they
compute the same, but their weights are as far from their parent's as an unrelated model's."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import pdist, squareform
from timm.layers.mlp import GluMlp, Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.symmetries.base import Symmetries, UnitTransforms, composed, moved
from vitarium.architectures.symmetries.vit import STREAM, vit_symmetries
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights, InvalidInput, NotApplicable
from vitarium.core.seeds import derive
from vitarium.evaluation.compatible import mismatch
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import ModelSet
from vitarium.operators.alignment._matching import TOLERANCE, Kinds, Matching

MAX_CANDIDATE_DISTANCE = 0.6
"""Groups are matched where units of the residual stream, in the best order, are nearer than this,
by what each reads of pixels and positions: squared distance by the sum of both squares. In two zoos
of small ViTs it was at most 0.42 in a tree, and 0.61 between trees that did not begin alike."""
MAX_MATCHED_RATIO = 0.6
"""Models are the same in another order where this much of what lay between them is left, at most:
of the mean over matrices, or of the farthest one (and of 1, which chance alone can exceed)."""
_CANDIDATES_PER_GROUP = 8
"""Groups that each is compared with: those that are most alike in any order."""
_NUM_PROJECTIONS = 32  # random projections of a unit's numbers that order invariants are made of
_MAX_SWEEPS = 100
"""Sweeps of coordinate ascent over the groups of units; it ends earlier where nothing changes."""


class AlignedModels(NamedTuple):
    model_set: ModelSet  # in one order of units; the same object where nothing was permuted
    permuted: Mapping[str, str]
    """By name of every model that was permuted, the model that it was matched to."""
    notes: Sequence[str]


def align_units(model_set: ModelSet, groups: Sequence[Sequence[int]]) -> AlignedModels:
    """Permute units of relatives of other models into those models' order. Units of the residual
    stream, heads, their channels and hidden units of MLPs may be in another order, each where the
    architecture allows it. Groups (indices of models that are related as they stand) are compared
    by what no order changes; only those that are alike in it are matched (Ainsworth et al. 2023,
    arXiv 2209.04836), and stay as they are where that does not bring them near. Of two groups the
    one with fewer models is moved, all in the same way."""
    if len(groups) < 2:
        return AlignedModels(model_set, {}, ())
    try:
        symmetries, notes = symmetries_of(model_set)
    except IncompatibleWeights as error:
        note = f"Copies with their units in another order were not looked for: {error}."
        return AlignedModels(model_set, {}, (note,))
    alignment = _Alignment(model_set, symmetries, [sorted(group) for group in groups])
    for first, second in alignment.candidates():
        alignment.join(first, second)
    if not alignment.matched:
        return AlignedModels(model_set, {}, notes)
    models = list(model_set.models)
    for index, moves in alignment.moves.items():
        models[index] = PermutedWeights(models[index], symmetries, moves)
    names, matched = model_set.names, sorted(alignment.matched.items())
    permuted = {names[index]: names[reference] for index, reference in matched}
    return AlignedModels(replace(model_set, models=models), permuted, notes)


class _Alignment:
    """Groups of models that are joined as their units are matched."""

    def __init__(
        self, model_set: ModelSet, symmetries: Symmetries, groups: Sequence[list[int]]
    ) -> None:
        self.model_set, self.symmetries = model_set, symmetries
        self.centers = [_center(model_set, group) for group in groups]
        self.members = dict(enumerate(groups))
        """Models of each group that is not part of another by now."""
        self.group_of = list(range(len(groups)))
        self.moves: dict[int, UnitTransforms] = {}
        self.matched: dict[int, int] = {}

    def candidates(self) -> list[tuple[int, int]]:
        """Pairs of groups whose units could be the same in another order, the likeliest first."""
        units = [_units(self.model_set.models[center], self.symmetries) for center in self.centers]
        if not units[0].size:
            return []
        distances = squareform(pdist([_order_invariants(group_units) for group_units in units]))
        np.fill_diagonal(distances, np.inf)
        nearest = distances.argsort(axis=1, kind="stable")[:, :_CANDIDATES_PER_GROUP]
        pairs = {
            (min(first, second), max(first, second))
            for first, neighbors in enumerate(nearest.tolist())
            for second in neighbors
            if second != first
        }
        far = {pair: _best_order_distance(units[pair[0]], units[pair[1]]) for pair in sorted(pairs)}
        near = (pair for pair in far if far[pair] < MAX_CANDIDATE_DISTANCE)
        return sorted(near, key=far.__getitem__)

    def join(self, first: int, second: int) -> None:
        """Match the smaller of two groups to the other, if that brings it near."""
        if self.group_of[first] == self.group_of[second]:
            return

        def precedence(group: int) -> tuple[int, str]:
            """Larger groups stay; of equal ones, the first by the name of its center."""
            part = self.group_of[group]
            return -len(self.members[part]), self.model_set.names[self.centers[part]]

        fixed, moving = sorted((first, second), key=precedence)
        self.model_set.progress.step("matching units", 0, 1)
        moves = self._match(self._now(self.centers[fixed]), self._now(self.centers[moving]))
        if moves is None:
            return
        absorbed, remaining = self.group_of[moving], self.group_of[fixed]
        for index in self.members[absorbed]:
            self.moves[index] = composed(self.symmetries, self.moves.get(index, {}), moves)
            self.matched[index] = self.centers[remaining]
        self.members[remaining] += self.members.pop(absorbed)
        self.group_of = [remaining if part == absorbed else part for part in self.group_of]

    def _now(self, index: int) -> dict[str, Tensor]:
        model = self.model_set.models[index]
        weights = {name: model[name] for name in self.model_set.tensors}
        return moved(self.symmetries, weights, self.moves.get(index, {}))

    def _match(self, fixed: dict[str, Tensor], moving: dict[str, Tensor]) -> UnitTransforms | None:
        kinds: Kinds = dict.fromkeys(self.symmetries.groups, "permutation")
        matching = Matching(self.symmetries, fixed, moving, kinds)
        matching.settle()
        order = torch.Generator().manual_seed(derive(0, "lineage alignment"))
        matching.ascend(_MAX_SWEEPS, TOLERANCE, order)
        before = _distances(fixed, moving)
        after = _distances(fixed, moved(self.symmetries, moving, matching.moves))
        nearer = (w(after) < MAX_MATCHED_RATIO * min(w(before), 1) for w in (np.mean, np.max))
        return matching.moves if any(nearer) else None


def _center(model_set: ModelSet, group: Sequence[int]) -> int:
    """The model nearest to all of its group; of equally near ones the first by name."""
    if len(group) == 1:
        return group[0]
    sums = model_set.subset(group).statistics.squared_distances().sum(0)
    return min(zip(sums, (model_set.names[index] for index in group), group, strict=True))[2]


def _units(model: Weights, symmetries: Symmetries) -> np.ndarray:
    """What each unit of the residual stream reads of pixels, its positions, norms and biases, which
    the order of other units does not change, float64 [units, n]. Every tensor has a mean of zero
    over the units, and counts by how many numbers it has of one."""
    blocks = []
    for piece, axis_index in symmetries.having(STREAM):
        if sum(axis.group is not None for axis in piece.axes) == 1:
            part = piece.of({piece.tensor: model[piece.tensor]}).double().movedim(axis_index, 0)
            numbers = part.flatten(1).numpy() if part.ndim > 1 else part[:, None].numpy()
            numbers = numbers - numbers.mean(0)
            length = np.linalg.norm(numbers)
            blocks.append(numbers * (numbers.shape[1] ** 0.5 / length if length > 0 else 0))
    return np.concatenate(blocks, axis=1) if blocks else np.zeros((0, 0))


def _order_invariants(units: np.ndarray) -> np.ndarray:
    """Invariants [d] of the order of units [units, n]: products of random projections."""
    chance = np.random.default_rng(derive(0, "lineage alignment"))
    projected = units @ chance.normal(size=(units.shape[1], _NUM_PROJECTIONS))
    products = (projected.T @ projected).ravel()
    return products / max(float(np.linalg.norm(products)), 1e-30)


def _best_order_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared distance of two models' units [units, n] where each has its best partner, by the sum
    of both squares: 1 where they have nothing in common."""
    scores = first @ second.T
    best = scores[linear_sum_assignment(scores, maximize=True)].sum()
    squared_norms = np.square(first).sum() + np.square(second).sum()
    return float(1 - 2 * best / squared_norms) if squared_norms > 0 else 1.0


def _distances(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> np.ndarray:
    """Squared distance of every matrix by the sum of variances, float64 [matrices]. Not of position
    embeddings, which differ little between models that began from the same."""
    distances = []
    for name, tensor in first.items():
        if tensor.ndim > 1 and tensor.shape[0] > 1:
            a, b = (w.double() - w.double().mean() for w in (tensor, second[name]))
            of_both = float(a.square().sum() + b.square().sum())
            distances.append(float((a - b).square().sum()) / of_both if of_both > 0 else 0.0)
    return np.array(distances)


class PermutedWeights(Weights):
    """A model whose tensors are moved when they are read; those without symmetries stay."""

    def __init__(self, model: Weights, symmetries: Symmetries, moves: UnitTransforms) -> None:
        super().__init__(model.name, model, skeleton=lambda: model.skeleton, origin=model.origin)
        self.__dict__["shapes"] = model.shapes  # nothing is read for them
        self.moves = moves
        pieces = defaultdict(list)
        for piece in symmetries.pieces:
            pieces[piece.tensor].append(piece)
        self._of_tensor = {n: Symmetries(symmetries.groups, tuple(p)) for n, p in pieces.items()}

    def __getitem__(self, name: str) -> Tensor:
        tensor = super().__getitem__(name)
        if name not in self._of_tensor:
            return tensor
        return moved(self._of_tensor[name], {name: tensor}, self.moves)[name]


def symmetries_of(model_set: ModelSet) -> tuple[Symmetries, tuple[str, ...]]:
    """Permutation symmetries of the tensors that are compared, and notes. Weights alone are taken
    for a vision transformer of timm if they have its names; of its heads, which weights do not
    tell, one is declared, whose channels can stand in any order: that includes every order of more
    heads. So it is for models of different architectures. Raises IncompatibleWeights where the
    symmetries are not known."""
    first, *rest = model_set.models
    mismatches = (mismatch(first, model, head=False) for model in rest)
    notes = tuple(
        f"{message}; units are matched by shapes alone." for message in mismatches if message
    )
    try:
        declared = vit_symmetries(_timm_vit(model_set.shapes)) if notes else _declared(first)
    except (NotApplicable, InvalidInput):
        declared = vit_symmetries(_timm_vit(model_set.shapes))
    pieces = tuple(piece for piece in declared.pieces if piece.tensor in model_set.shapes)
    unknown = model_set.shapes.keys() - {piece.tensor for piece in pieces}
    if unknown:
        raise IncompatibleWeights(f"which symmetries {min(unknown)} has is not known")
    used = {axis.group for piece in pieces for axis in piece.axes}
    groups = {name: group for name, group in declared.groups.items() if name in used}
    return Symmetries(groups, pieces), notes[:1]


def _declared(model: Weights) -> Symmetries:
    """What its architecture declares; of one that is not known, what timm's has."""
    architecture = model.origin.architecture if model.origin else None
    if architecture is None:
        return vit_symmetries(model.skeleton)
    declare = architecture.facts["symmetries"]
    if declare is None or isinstance(declare, str):
        raise IncompatibleWeights(f"{architecture.name} declares no symmetries")
    declared: Symmetries = declare(model.skeleton)
    return declared


def _timm_vit(shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A model of timm, on the meta device, that has tensors of these names and shapes."""
    try:
        width, channels, *patch = shapes["patch_embed.proj.weight"]
        hidden, into = shapes["blocks.0.mlp.fc1.weight"][0], shapes["blocks.0.mlp.fc2.weight"][1]
        tokens, registers = shapes["pos_embed"][1], shapes.get("reg_token", (1, 0, width))[1]
    except KeyError as error:
        missing = f"they have no {error.args[0]}, as vision transformers of timm do"
        raise IncompatibleWeights(missing) from None
    prefix = ("cls_token" in shapes) + registers
    normed = shapes.get("blocks.0.attn.q_norm.weight")
    with meta_device():
        model = VisionTransformer(
            # a row of patches: only their number matters
            img_size=(patch[0] * (tokens - prefix), patch[1]),
            patch_size=(patch[0], patch[1]),
            in_chans=channels,
            num_classes=1,
            global_pool="avg" if "fc_norm.weight" in shapes or not prefix else "token",
            fc_norm="fc_norm.weight" in shapes,
            final_norm="norm.weight" in shapes or "fc_norm.weight" in shapes,
            pre_norm="norm_pre.weight" in shapes,
            embed_dim=width,
            depth=sum(name.endswith(".mlp.fc1.weight") for name in shapes),
            num_heads=width // normed[0] if normed else 1,
            mlp_ratio=hidden / width,
            qkv_bias="blocks.0.attn.qkv.bias" in shapes,
            qk_norm=normed is not None,
            init_values=1e-5 if "blocks.0.ls1.gamma" in shapes else None,
            class_token="cls_token" in shapes,
            reg_tokens=registers,
            mlp_layer=Mlp if hidden == into else GluMlp,
            weight_init="skip",  # most of the time of building it
        )
    built = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, shape in shapes.items():
        if built.get(name) != shape:
            why = "is not as in a vision transformer of timm"
            raise IncompatibleWeights(f"{name} {list(shape)} {why}")
    return model
