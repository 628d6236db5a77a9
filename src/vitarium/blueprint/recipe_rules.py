"""What the factors of a recipe have to do with each other."""

from typing import TYPE_CHECKING

from vitarium.core.errors import InvalidInput, did_you_mean

if TYPE_CHECKING:
    from vitarium.blueprint.recipe import Recipe

_CLIPPING = ("clip_grad_norm", "clip_grad_value", "adaptive_clip")


def misfits(recipe: "Recipe") -> dict[str, str]:
    """What is wrong, by factor, though each factor is right by itself."""
    if recipe.objective.is_missing:
        return {}
    problems: dict[str, str] = {}
    for rule in _RULES:
        problems |= rule(recipe)
    return problems


def score_names(recipe: "Recipe") -> list[str]:
    """Names of the scores that a model has after its last epoch: `val_accuracy`, `v2_ema_loss`.

    Empty where its objective does not declare them.
    """
    names = [
        f"{images}_{score}"
        for images in ("val", "test", *recipe.evaluate_on)
        for score in recipe.objective.facts["scores"]
    ]
    if recipe.ema is None:
        return names
    weights = "trained" if recipe.checkpoint_weights == "ema" else "ema"
    return [*names, *(name.replace("_", f"_{weights}_", 1) for name in names)]


def _mixing(recipe: "Recipe") -> dict[str, str]:
    problems: dict[str, str] = {}
    augmentation, objective = recipe.augmentation.config, recipe.objective
    if getattr(augmentation, "mixup", 0) or getattr(augmentation, "cutmix", 0):
        if recipe.batch_size % 2:
            message = f"{recipe.batch_size} is odd, but mixup and cutmix mix images in pairs"
            problems["batch_size"] = message
        if objective.plugin.facts["views"] > 1:
            message = f"objective '{objective.name}' compares views: no mixup, no cutmix"
            problems["augmentation"] = message
    return problems


def _repeats(recipe: "Recipe") -> dict[str, str]:
    repeats = getattr(recipe.augmentation.config, "repeats", 1)
    if repeats <= recipe.batch_size:
        return {}
    message = f"repeats is {repeats}, more than the {recipe.batch_size} images of a batch"
    return {"augmentation": message}


def _views(recipe: "Recipe") -> dict[str, str]:
    """An augmentation may treat each of an objective's views in a way of its own."""
    objective = recipe.objective
    if recipe.architecture.is_missing:
        return {}
    try:
        augmentation = recipe.augmentation(recipe.architecture.config.input_size, 1)
    except InvalidInput:  # which is said where the augmentation is looked at
        return {}
    count, views = len(augmentation.changes), objective.plugin.facts["views"]
    if count in (0, views):
        return {}
    name = recipe.augmentation.name
    message = f"'{name}' makes {count} views, and objective '{objective.name}' takes {views}"
    return {"augmentation": message}


def _colors(recipe: "Recipe") -> dict[str, str]:
    """Colors are those of gray images and RGB: other images have channels of other kinds."""
    if recipe.architecture.is_missing or (channels := recipe.image_size[0]) in (1, 3):
        return {}
    settings = recipe.augmentation.config
    jitters = getattr(settings, "color_jitter_probability", 1)
    changed = [name for name in ("color_jitter", "hue") if jitters and getattr(settings, name, 0)]
    changed += [name for name in ("grayscale", "policy") if getattr(settings, name, None)]
    if not changed:
        return {}
    need = "need" if len(changed) > 1 else "needs"
    what = f"{' and '.join(changed)} {need} gray images or RGB, not {channels} channels"
    return {"augmentation": f"{what}: switch them off, e.g. `{changed[0]}: 0`"}


def _early_stopping(recipe: "Recipe") -> dict[str, str]:
    stopping = recipe.early_stopping
    if stopping is None:
        return {}
    if stopping.images != "val":
        if stopping.images not in recipe.evaluate_on:
            fault = f"'{stopping.metric}' is no score of the validation split"
            hint = f"nor is '{stopping.images}' a data set in `evaluate_on`"
            return {"early_stopping": f"{fault}, {hint}"}
        if recipe.evaluate_on[stopping.images].epochs != "all":
            return {"early_stopping": f"'{stopping.images}' has to be scored after all epochs"}
    metric, which = stopping.metric, recipe.checkpoint_weights
    of_average, of_trained = (f"{stopping.images}_{name}_" for name in ("ema", "trained"))
    average, trained = metric.startswith(of_average), metric.startswith(of_trained)
    if (average or trained) and not recipe.ema:
        return {"early_stopping": f"there is no {metric} without a moving average: give `ema`"}
    if (average and which == "ema") or (trained and which == "trained"):
        plain = metric.replace(f"_{which}_", "_", 1)
        message = f"checkpoint_weights is {which}, so {metric} is called {plain}"
        return {"early_stopping": message}
    prefix = of_average if average else of_trained if trained else f"{stopping.images}_"
    scores = [prefix + score for score in recipe.objective.facts["scores"]]
    if metric.endswith("_map"):  # in the place of accuracies, of images with several labels
        scores += [score.replace("_accuracy", "_map") for score in scores]
    if scores and metric not in scores:
        what = f"objective '{recipe.objective.name}' gives no {metric}"
        return {
            "early_stopping": f"{what}{did_you_mean(metric, scores)}; it gives {', '.join(scores)}"
        }
    return {}


def _accumulation(recipe: "Recipe") -> dict[str, str]:
    parts, objective = recipe.accumulation, recipe.objective
    if parts == 1:
        return {}
    if not objective.plugin.facts.get("per_image", True):
        message = f"objective '{objective.name}' compares the images of a batch: no accumulation"
        return {"accumulation": message}
    if recipe.batch_size % parts:
        message = f"a batch of {recipe.batch_size} cannot be computed in {parts} equal parts"
        return {"accumulation": message}
    return {}


def _clipping(recipe: "Recipe") -> dict[str, str]:
    first, *others = [name for name in _CLIPPING if getattr(recipe, name)] or [""]
    return dict.fromkeys(others, f"gradients are clipped by {first} already; leave one out")


def _drop_path(recipe: "Recipe") -> dict[str, str]:
    if recipe.drop_path_schedule == "constant" or recipe.architecture.is_missing:
        return {}
    if getattr(recipe.architecture.config, "drop_path_rate", 0):
        return {}
    message = "there is no stochastic depth to schedule: give `architecture.drop_path_rate`"
    return {"drop_path_schedule": message}


def _average(recipe: "Recipe") -> dict[str, str]:
    if recipe.checkpoint_weights == "trained" or recipe.ema:
        return {}
    return {"checkpoint_weights": "there is no moving average to keep: give `ema`, e.g. `ema: {}`"}


def _checkpoints(recipe: "Recipe") -> dict[str, str]:
    if not isinstance(recipe.checkpoints, tuple):
        return {}
    latest = max(recipe.checkpoints, default=0)
    if latest <= recipe.epochs:
        return {}
    return {"checkpoints": f"epoch {latest} is after the last, {recipe.epochs}"}


def _head(recipe: "Recipe") -> dict[str, str]:
    problems: dict[str, str] = {}
    objective = recipe.objective
    if recipe.head.name != "none" and not objective.plugin.facts.get("trains_head", True):
        message = f"objective '{objective.name}' trains no head: write `head: none`, or nothing"
        problems["head"] = message
    needed = objective.plugin.facts.get("head")
    if needed and recipe.head.name != needed:
        problems["head"] = f"objective '{objective.name}' needs `head: {needed}`, its default"
    if recipe.head.name == "none":
        if objective.plugin.facts.get("needs_head", True):
            message = f"objective '{objective.name}' needs a head with an output per class"
            problems["head"] = message
        if recipe.adaptation.name == "head":
            problems["adaptation"] = "there is no head to train"
    return problems


def _companions(recipe: "Recipe") -> dict[str, str]:
    if not recipe.keep_companions or recipe.objective.facts.get("companions"):
        return {}
    message = f"objective '{recipe.objective.name}' brings no companions to keep; leave it out"
    return {"keep_companions": message}


def _progressive(recipe: "Recipe") -> dict[str, str]:
    progressive, facts = recipe.progressive, recipe.objective.facts
    if progressive is None:
        return {}
    if recipe.epochs % progressive.stages:
        message = f"{recipe.epochs} epochs are no multiple of {progressive.stages} stages"
        return {"progressive": message}
    needs = ("companions", "masks", "teacher_outputs", "records_blocks")
    if any(facts.get(name) for name in needs):
        message = f"objective '{recipe.objective.name}' needs images of one size; leave it out"
        return {"progressive": message}
    return {}


def _objective(recipe: "Recipe") -> dict[str, str]:
    rule = recipe.objective.facts.get("misfits")
    return dict(rule(recipe.objective.config, recipe)) if rule else {}


def _normalization(recipe: "Recipe") -> dict[str, str]:
    if recipe.normalization and not recipe.architecture.is_missing:
        misfit = recipe.normalization.misfit(recipe.image_size[0])
        return {"normalization": misfit} if misfit else {}
    return {}


_RULES = (
    _mixing,
    _repeats,
    _views,
    _colors,
    _early_stopping,
    _accumulation,
    _clipping,
    _drop_path,
    _average,
    _checkpoints,
    _head,
    _objective,
    _companions,
    _normalization,
    _progressive,
)
