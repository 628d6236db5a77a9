"""Loss of softmax regression and its derivatives in closed form, in float64.

With p the probabilities and x the pixels with a 1 after them, the gradient of the mean loss after
the weights [classes, pixels + 1] is the mean of (p - y) x', and the Hessian is the mean of
(diag(p) - p p') (x) x x', with (x) the Kronecker product.
"""

import torch


def gradient(subject):
    """By the names of the model's parameters."""
    x, p, y = _at(subject)
    whole = (p - y).T @ x / len(x)
    return {"1.weight": whole[:, :-1], "1.bias": whole[:, -1]}


def hessian(subject):
    """[parameters, parameters] in the model's order: all weights, class by class, then biases."""
    x, p, _ = _at(subject)
    classes, inputs = p.shape[1], x.shape[1]
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    whole = torch.einsum("nij,nk,nl->ikjl", inner, x, x) / len(x)
    numbers = torch.arange(classes * inputs).view(classes, inputs)
    order = torch.cat([numbers[:, :-1].flatten(), numbers[:, -1]])
    return whole.reshape(classes * inputs, -1)[order][:, order]


def _at(subject):
    batches = list(subject.examples.batches())
    x = torch.cat([batch.images.flatten(1) for batch in batches]).double()
    y = torch.cat([batch.targets for batch in batches]).double()
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    head = subject.model[1]
    weights = torch.cat([head.weight, head.bias[:, None]], dim=1).double()
    return x, (x @ weights.T).softmax(1), y
