"""Classes by nearest neighbors: how good features are, without training a head."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vitarium.core.devices import without_autocast


def knn_classify(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, *, k: int, temperature: float = 0.07
) -> Tensor:
    """Classes by votes of the k nearest features of a bank.

    A neighbor of cosine similarity s has exp(s / temperature) votes (Wu et al. 2018, arXiv
    1805.01978, Sec. 3.4). bank [n, width], bank_labels [n], queries [m, width] -> classes [m]
    """
    return knn_votes(bank, bank_labels, queries, k=k, temperature=temperature).argmax(1)


def knn_votes(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, *, k: int, temperature: float = 0.07
) -> Tensor:
    """As `knn_classify`, votes for each class: float [m, classes]. Of several labels, bool [n,
    classes], a neighbor votes for each; these votes are shares of those of all neighbors."""
    with without_autocast(bank):  # bfloat16 would reorder neighbors
        bank, queries = F.normalize(bank.float(), dim=1), F.normalize(queries.float(), dim=1)
        similarity, neighbors = (queries @ bank.T).topk(min(k, len(bank)), dim=1)
    weight = (similarity / temperature).exp()
    if bank_labels.ndim == 2:
        by_label = (bank_labels[neighbors] * weight.unsqueeze(2)).sum(1)
        return by_label / weight.sum(1, keepdim=True)
    votes = torch.zeros(len(queries), int(bank_labels.max()) + 1, device=queries.device)
    # index_put_ and scatter_add_ are not deterministic on GPUs; one-hot sums are
    hot = F.one_hot(bank_labels[neighbors], votes.shape[1])
    return votes.add_((hot * weight.unsqueeze(2)).sum(1))
