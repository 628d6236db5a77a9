"""What a recipe has to do with the labels of its images, which its data set knows."""

from vitarium.blueprint.recipe import Recipe


def several_labels_misfits(recipe: Recipe) -> dict[str, str]:
    """What is wrong, by factor, where images have several labels."""
    problems, data = {}, f"images of '{recipe.data.name}' have several labels"
    if recipe.objective.facts.get("labels") == "single":
        objective = f"objective '{recipe.objective.name}' learns one of each"
        problems["objective"] = f"{data}, and {objective}: choose `objective: multilabel`"
    if recipe.sampling == "balanced":
        problems["sampling"] = f"{data}, and it balances classes of single ones"
    for setting, off in (("train_classes", None), ("imbalance", 1), ("label_noise", 0)):
        if getattr(recipe.data.config, setting, off) != off:
            problems["data"] = f"{data}, and {setting} changes single ones: leave it out"
    return problems
