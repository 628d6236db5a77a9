"""How curved the loss is around a model, over all directions."""

from typing import Literal, Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor

from vitarium.core.extras import require
from vitarium.core.seeds import derive, seeded
from vitarium.measures.base import EvalModel, NotApplicable, Values, measure
from vitarium.measures.landscape._hessian import Curvature, Hessian


class HessianTrace(Curvature):
    estimator: Literal["hutchinson", "hutch++"] = "hutchinson"
    """Hutchinson's estimator, or Hutch++, which is more accurate if few directions are curved and
    keeps `probes` / 3 vectors in memory."""
    probes: PositiveInt = 12
    """Number of products with the Hessian; for hutch++ a multiple of 3."""

    @model_validator(mode="after")
    def _thirds(self) -> Self:
        if self.estimator == "hutch++" and self.probes % 3:
            raise ValueError(f"probes {self.probes} is no multiple of 3, which hutch++ needs")
        return self


@measure(
    "hessian_trace",
    unit="nats",
    title="Hessian trace",
    quick=False,
    studies=True,
    paper="Hutchinson 1990; Meyer et al. 2021, arXiv 2010.09649",
    tiny={"probes": 2},
)
def hessian_trace(config: HessianTrace, subject: EvalModel) -> Values:
    """Trace of the Hessian of the mean loss, estimated with random vectors.

    Parts: "", "per_parameter" (the mean of the diagonal); of Hutchinson's estimator as well
    "standard_error" (with two probes or more) and the trace of every parameter's own block.
    """
    hessian = Hessian(subject, config)
    size = hessian.shape[0]
    if config.estimator == "hutch++":
        require("landscape", "the estimator hutch++")
        from curvlinops import hutchpp_trace  # its import takes a while, and few ask for it

        if config.probes >= size:
            raise NotApplicable(
                f"{subject.name} has {size} parameters: hutch++ needs fewer probes than that, not "
                f"{config.probes}"
            )
        with seeded(derive(config.seed, "hessian_trace")):
            total = float(hutchpp_trace(hessian, config.probes))
        return {"": total, "per_parameter": total / size}
    forms = quadratic_forms(hessian, config)
    totals = forms.sum(0)
    values = {"": totals.mean().item(), "per_parameter": totals.mean().item() / size}
    if config.probes > 1:
        values["standard_error"] = (totals.std() / config.probes**0.5).item()
    return values | dict(zip(hessian.names, forms.mean(1).tolist(), strict=True))


def quadratic_forms(hessian: Hessian, config: HessianTrace) -> Tensor:
    """v * Hv of random signs v, summed over each parameter, float64 [parameters, probes]."""
    generator = torch.Generator().manual_seed(derive(config.seed, "hessian_trace"))
    # Signs take a byte each, so that all probes stay in memory.
    signs = [
        torch.randint(2, hessian.shape[:1], generator=generator, dtype=torch.int8) * 2 - 1
        for _ in range(config.probes)
    ]
    forms = torch.zeros(len(hessian.names), config.probes, dtype=torch.float64)
    for number, product in hessian.shares(signs):
        pairs = zip(hessian.split(signs[number]), product, strict=True)
        dots = [(sign * tensor).sum(dtype=torch.float64) for sign, tensor in pairs]
        forms[:, number] += torch.stack(dots).cpu()
    return forms
