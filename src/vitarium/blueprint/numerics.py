"""How a project's models are computed, where that is not left to the machine."""

from typing import Any, Literal, Self

from pydantic import NonNegativeInt, PositiveInt

from vitarium.core.config import Config


class Numerics(Config):
    """Defaults for whoever grows the blueprint; what is said when it is grown comes first.

    They are no factors: a model's id does not depend on them, though its last bits may.
    """

    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """`auto`: the fastest on the machine, measured once; bf16 is autocast."""
    compiled: bool | Literal["auto"] = "auto"
    """Use torch.compile; `auto`: if the plan is long enough to repay it."""
    stacked: PositiveInt | Literal["auto"] = "auto"
    """Train up to so many similar models as one computation; `auto`: as many as pays."""
    deterministic: bool = True
    """The same bits from the same spec; false: a GPU may use faster kernels."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `cuda` or one GPU, `cuda:1`."""
    workers: NonNegativeInt | None = None
    """Models trained at a time; null: one per core or GPU."""
    threads: PositiveInt | None = None
    """Of each worker; null: the cores divided among the workers."""

    def updated(self, **settings: Any) -> Self:
        """With those of the settings that are not None in the place of these."""
        return self.changed({name: v for name, v in settings.items() if v is not None})
