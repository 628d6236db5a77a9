"""Fisher merging and RegMean as their papers define them, in float64 and one image at a time."""

import copy

import torch


def diagonal_fisher(model, images, labels=None):
    """Mean over images of sum_c p(c | x) (d log p(c | x))^2; of the labels alone where given."""
    model = copy.deepcopy(model).double().requires_grad_(True)
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for number, image in enumerate(images.double()):
        logs = model(image[None]).log_softmax(1)[0]
        chosen = range(len(logs)) if labels is None else [int(labels[number])]
        for c in chosen:
            slopes = torch.autograd.grad(logs[c], list(model.parameters()), retain_graph=True)
            weight = logs[c].exp().detach() if labels is None else 1.0
            for name, slope in zip(sums, slopes, strict=True):
                sums[name] += weight * slope**2
    return {name: total / len(images) for name, total in sums.items()}


def fisher_of_softmax_regression(weight, bias, images):
    """In closed form: d log p(c) / d w_kj = (1[k = c] - p_k) x_j, so the expectation over the
    model's own classes is p_k (1 - p_k) x_j^2. For weights [classes, pixels], then biases."""
    x = images.double().flatten(1)
    p = (x @ weight.double().T + bias.double()).softmax(1)
    uncertain = p * (1 - p)
    return torch.einsum("nk,nj->kj", uncertain, x**2) / len(x), uncertain.mean(0)


def regression_mean(weights, inputs, off_diagonal, ridge):
    """W = (sum_i G_i)^-1 sum_i G_i W_i, written for weights [inputs, outputs]."""
    left, right = 0, 0
    for weight, x in zip(weights, inputs, strict=True):
        x = x.double()
        gram = x.T @ x / len(x)
        diagonal = torch.diag(torch.diag(gram))
        gram = off_diagonal * gram + (1 - off_diagonal) * diagonal
        gram = gram + ridge * torch.trace(gram) / len(gram) * torch.eye(len(gram)).double()
        left, right = left + gram, right + gram @ weight.double()
    return torch.linalg.inv(left) @ right


def examples(split="train"):
    """Images of scikit-learn's digits."""
    from vitarium.core.registry import section
    from vitarium.data import load as dataset
    from vitarium.data.loader import Batches
    from vitarium.evaluation.data import EvalData

    size = (1, 8, 8)
    data = dataset.load(section("dataset", "digits"))
    augmentation = section("augmentation", "standard")(size, data.num_classes)
    return EvalData(Batches(data, augmentation, size, batch_size=1, seed=0), split)


def ingredients(models, shown, split_of=lambda number, shown: shown):
    """Models as operators are given them, each on its own images."""
    from vitarium.evaluation.inputs import EvalModel, Weights
    from vitarium.operators.base import Ingredients

    weights = [Weights(f"m{number}", model.state_dict()) for number, model in enumerate(models)]

    def subject(number):
        return EvalModel(f"m{number}", copy.deepcopy(models[number]), split_of(number, shown))

    return Ingredients(weights, subject=subject)
