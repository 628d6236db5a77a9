"""Which parts of a model are in training mode while it is trained."""

from torch import nn

from vitarium.blueprint import Recipe


def enter_training_mode(recipe: Recipe, model: nn.Module, companions: nn.Module | None) -> None:
    """Put a model and what the objective brings beside it into training mode, in place: all of it,
    or of adaptations that are `frozen_in_eval_mode` what learns as a whole."""
    if companions is not None:
        companions.train()
    model.train()
    if recipe.adaptation.facts["frozen_in_eval_mode"]:
        model.eval()
        for module in model.modules():
            parameters = list(module.parameters())
            if parameters and all(parameter.requires_grad for parameter in parameters):
                module.train()
