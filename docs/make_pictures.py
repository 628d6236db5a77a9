"""Draw the pictures of README and docs from a grown demo zoo.

vitarium demo && python docs/make_pictures.py demo-zoo
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from vitarium import Zoo

HERE = Path(__file__).parent
COLORS = {"supervised": "#1f6feb", "simclr": "#8250df", "scratch": "#9a6700"}


def main(folder: str) -> None:
    """Learning curves of every model, beside the fine-tuned models' scores by their factors."""
    zoo = Zoo.open(folder)
    table = zoo.models().set_index("id")
    parents = table["objective"].to_dict()
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "vitarium", "svg.fonttype": "none"})
    figure, (curves, scores) = plt.subplots(1, 2, figsize=(9.6, 3.6), width_ratios=[3, 2])
    for id, row in table[table["stage"] != "pretrain"].iterrows():
        kind = parents.get(row["parent"], "scratch")
        epochs = zoo.epochs(str(id))
        curves.plot(epochs["epoch"], epochs["test_accuracy"], color=COLORS[kind], alpha=0.8)
    labels = {
        "supervised": "after supervised pre-training",
        "simclr": "after contrastive pre-training",
        "scratch": "from scratch",
    }
    for kind, text in labels.items():
        curves.plot([], [], color=COLORS[kind], label=text)
    curves.set(xlabel="epoch", ylabel="test accuracy on digits", ylim=(0, 1), title="Every model")
    curves.legend(frameon=False, loc="lower right")
    ways = [(head, optimizer) for head in ("linear", "mlp") for optimizer in ("adamw", "sgd")]
    for place, (head, optimizer) in enumerate(ways):
        chosen = table[(table["head"] == head) & (table["optimizer"] == optimizer)]
        for _, row in chosen[chosen["stage"] != "pretrain"].iterrows():
            kind = parents.get(row["parent"], "scratch")
            scores.plot(row["test_accuracy"], place, "o", color=COLORS[kind], alpha=0.8)
    scores.set_yticks(range(4), [f"{head} head, {optimizer}" for head, optimizer in ways])
    scores.set(xlabel="test accuracy after the last epoch", xlim=(0, 1.02), title="By factors")
    for axes in (curves, scores):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(HERE / "demo.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1])
