"""Every bit of a zoo: flipped, it is found by `verify --deep`, or all that can be read is as before.

`make evidence` flips all bits of all files, one after the other; what runs with the other tests
flips a bit of each byte of `zoo.json` and of the marks by which checkpoints are known, and some of
the rest.
"""

import json
import random
import warnings
from collections import Counter
from functools import cached_property
from itertools import chain

import pytest
import torch
from safetensors.torch import save_file

from vitarium import Blueprint, Zoo, merge, plan
from vitarium.core import files
from vitarium.core.errors import CorruptFile, DamagedCache
from vitarium.formats.import_zoo import import_zoo
from vitarium.measures._runner.cache import Cache
from vitarium.zoo import About, Record, _index_tables, records
from vitarium.zoo import _index as index
from vitarium.zoo import verify as verifying
from vitarium.zoo._format import container
from vitarium.zoo._lineage_faults import LineageFaults
from vitarium.zoo._model_faults import ModelFaults
from vitarium.zoo.model_folder import ModelFolder
from vitarium.zoo.records import Measured
from vitarium.zoo.verify import verify

ARCHITECTURE = {
    "name": "vit", "img_size": 8, "patch_size": 8, "in_chans": 1, "embed_dim": 4, "depth": 1,
    "num_heads": 1, "mlp_ratio": 1.0,
}  # fmt: skip
"""As small as can be; but the patch embedding is large enough to be packed as a difference."""
BLUEPRINT = {
    "name": "smallest",
    "stages": {
        "pretrain": {
            "architecture": ARCHITECTURE, "data": {"name": "digits"}, "epochs": 2,
            "batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.1}, "grid": {"seed": [1, 2]},
        },
        "finetune": {
            "start": "pretrain", "data": {"name": "digits"}, "epochs": 1, "batch_size": 32,
            "optimizer": {"name": "sgd"}, "grid": {"optimizer.lr": [0.1, 0.2]},
        },
    },
}  # fmt: skip
KINDS = {
    "zoo.json": "zoo.json",
    "blueprints": "blueprints/*",
    "model.json": "models/*/model.json",
    "epochs.jsonl": "models/*/epochs.jsonl",
    "result.json": "models/*/result.json",
    "records.jsonl": "models/*/records.jsonl",
    "packed checkpoints": "models/*/checkpoints/*.packed",
    "plain checkpoints": "models/*/checkpoints/*.safetensors",
    "progress files": "models/*/progress-*.safetensors",
    "records": "records/*",
    "index": "index/*",
}
"""Every file of a zoo is of one of them."""
MARK_BYTES = 8 + len(container._MARK) + 16


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Trained, half trained, plain, packed on a parent, imported, merged: with weights made up."""
    folder = tmp_path_factory.mktemp("every-bit")
    (folder / "smallest.yaml").write_text(json.dumps(BLUEPRINT))
    blueprint = Blueprint.load(folder / "smallest.yaml")
    zoo = Zoo.create(folder / "zoo")
    zoo.add_blueprint(blueprint)
    specs = plan(blueprint).models
    parent = next(spec for spec in specs if spec.recipe.seed == 1)
    children = [spec.id for spec in specs if spec.parent == parent.id]
    draw = torch.Generator().manual_seed(0)
    for spec in specs:
        if not spec.parent or spec.id in children:
            write_model(zoo, spec, draw, finished=spec.recipe.seed != 2)
    for epoch in (0, 1):
        zoo.folder(children[1]).unpack(epoch)
    write_imported(folder / "files", draw)
    import_zoo(folder / "files", zoo.path, architecture="vit")
    merge(zoo, "uniform_soup", models=children, device="cpu")
    numbers = [measured(id, k) for k, id in enumerate(zoo.ids())]
    records.add(zoo.path, numbers[:3])
    records.add(zoo.path, numbers[3:])
    zoo.models()
    return zoo


def write_model(zoo, spec, draw, *, finished):
    folder = zoo.folder(spec.id)
    folder.begin(spec, About(10, tuple("0123456789"), {"torch": "x"}))
    weights = spec.recipe.build(10).state_dict()
    if spec.parent:
        weights |= {n: t for n, t in zoo.state_dict(spec.parent).items() if "head" not in n}
    last = spec.recipe.epochs if finished else 1
    for epoch in range(last + 1):
        progress = None if finished and epoch == last else {"model/x": torch.rand(3)}
        folder.commit(epoch, {"val_accuracy": epoch / 10, "seconds": 1.0}, weights, progress)
        weights = {n: t + 1e-3 * torch.randn(t.shape, generator=draw) for n, t in weights.items()}
    if finished:
        folder.finish("finished")
        number = [Record(0, "weight_norm", {"p": 2}, 1.5, "")]
        files.write_lines(folder.path / "records.jsonl", [vars(record) for record in number])


def write_imported(folder, draw):
    folder.mkdir()
    shapes = {name: tensor.shape for name, tensor in smallest().state_dict().items()}
    weights = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    save_file(weights, folder / "a.safetensors")
    columns = {f"architecture.{name}": value for name, value in ARCHITECTURE.items()}
    columns = {"file": "a.safetensors"} | columns
    del columns["architecture.name"]
    rows = (columns, columns.values())
    (folder / "models.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


def smallest():
    return plan(Blueprint.read(BLUEPRINT)).models[0].recipe.build(10)


def measured(model, number):
    images = ("digits", "test", 10, "images", False, "weights")
    return Measured(model, 0, None, None, "loss", "{}", "", number / 7, "nats", *images)


def files_of(zoo, kind):
    return sorted(path for path in zoo.path.glob(KINDS[kind]) if path.is_file())


def test_every_file_of_the_zoo_is_of_one_kind(zoo):
    by_kind = {kind: files_of(zoo, kind) for kind in KINDS}
    assert all(by_kind.values())
    everything = [
        path for path in zoo.path.rglob("*") if path.is_file() and not path.name.endswith(".lock")
    ]
    assert sorted(chain.from_iterable(by_kind.values())) == sorted(everything)
    codes = {
        stored.code
        for path in by_kind["packed checkpoints"]
        for stored in checkpoint_at(path).tensors.values()
    }
    assert codes == {"plain", "same", "alone", "difference"}
    assert verify(zoo.path, deep=True) == []


def checkpoint_at(path):
    folder = ModelFolder(path.parents[1]).checkpoints
    return folder.base(int(path.stem.removeprefix("epoch-")))


class Campaign:
    """Flips one bit at a time of a zoo that is whole, and puts it back."""

    def __init__(self, zoo):
        self.zoo = zoo
        self.shapes = {}
        self.epochs = {id: zoo.folder(id).epochs() for id in zoo.ids()}

    @cached_property
    def before(self):
        return readable(self.zoo)

    def outcomes(self, path, bits):
        """How many flips of these bits of a file were found, harmless, or missed (which)."""
        count, missed = Counter(), []
        with path.open("r+b", buffering=0) as file:
            whole = file.read()
            for bit in bits:
                byte = whole[bit // 8]
                write_byte(file, bit // 8, byte ^ 1 << bit % 8)
                outcome = self.outcome(path)
                write_byte(file, bit // 8, byte)
                count[outcome] += 1
                if outcome == "missed":
                    missed.append(bit)
        assert path.read_bytes() == whole
        return count, missed

    def outcome(self, path):
        name = path.relative_to(self.zoo.path).as_posix()
        owner = "/".join(name.split("/")[:2]) if name.startswith("models/") else name
        owner = "index" if name.startswith("index/") else owner
        if any(each in (name, owner) for each in self.faulty(path, name)):
            return "found"
        if any(fault.path in (name, owner) for fault in verify(self.zoo.path, deep=True)):
            return "found"
        return "harmless" if readable(self.zoo) == self.before else "missed"

    def faulty(self, path, name):
        """Files that the part of `verify` names which reads this one, and which is quicker."""
        if not name.startswith("models/"):
            zoo = self.zoo.path
            match name.split("/")[0]:
                case "blueprints":
                    return [fault.path for fault in verifying._blueprints(zoo)]
                case "records":
                    return [file.relative_to(zoo).as_posix() for file in records.damaged(zoo)]
                case "index":
                    return ["index"] if _index_tables.disagreements(zoo) else []
                case _:
                    return [fault.path for fault in verifying._mark(zoo)]
        model = self.zoo.folder(name.split("/")[1])
        lineage = LineageFaults(self.zoo.path)
        reader = ModelFaults(self.zoo.path, model, True, self.shapes, lineage)
        read = {
            "model.json": model.spec,
            "epochs.jsonl": model.epochs,
            "result.json": model.result,
            "records.jsonl": model.records,
        }
        try:
            if path.name in read:
                read[path.name]()
            else:
                epoch = int(path.stem.rpartition("-")[2])
                lines = {line.number: line for line in self.epochs[model.path.name]}
                reader._weights(lines[epoch])
        except CorruptFile as error:
            return [error.path.relative_to(self.zoo.path).as_posix()]
        return []


def write_byte(file, place, byte):
    file.seek(place)
    file.write(bytes([byte]))


def readable(zoo):
    """Everything that can be read of a zoo, bit for bit."""
    content = {"zoo": type(zoo).open(zoo.path).ids()}
    for id in zoo.ids():
        folder = zoo.folder(id)
        about = (folder.spec(), folder.about(), folder.epochs(), folder.result(), folder.records())
        content[id] = repr(about)
        for epoch in folder.epochs():
            if epoch.checkpoint:
                content[id, epoch.number] = bits_of(folder.weights(epoch.number))
        number, tensors = folder.progress() or (None, {})
        content[id, "progress"] = number, bits_of(tensors)
    tables = index.load(zoo.path, with_entries=True)
    content["index"] = repr((tables.headings, tables.entries))
    for name in index.TABLES:
        content[name] = repr(tables.database.execute(f"FROM {name}").fetchall())
    content["measured"] = repr(records.find(zoo.path, "loss", "{}"))
    texts = zoo.path.glob("blueprints/*")
    content["blueprints"] = {path.name: path.read_bytes() for path in texts}
    return content


def bits_of(tensors):
    return {
        name: (
            str(tensor.dtype),
            tuple(tensor.shape),
            tensor.reshape(-1).view(torch.uint8).tolist(),
        )
        for name, tensor in tensors.items()
    }


@pytest.fixture
def campaign(zoo):
    return Campaign(zoo)


@pytest.mark.evidence
@pytest.mark.parametrize("kind", KINDS)
def test_every_flip_of_every_bit_is_found_or_harmless(campaign, kind, capsys):
    total, missed = Counter(), {}
    paths = files_of(campaign.zoo, kind)
    for path in paths:
        count, bits = campaign.outcomes(path, range(8 * path.stat().st_size))
        total += count
        missed |= {path.name: bits} if bits else {}
    with capsys.disabled():
        found, harmless = total["found"], total["harmless"]
        print(
            f"\n{kind}: {len(paths)} files, {total.total():,} bits flipped, {found:,} found, "
            f"{harmless:,} harmless, {total['missed']:,} missed"
        )
    assert missed == {}


@pytest.mark.parametrize("kind", ["packed checkpoints", "plain checkpoints", "progress files"])
def test_a_flip_in_any_byte_of_a_mark_is_found(campaign, kind):
    """And of the length of the header before it, and of the checksum after it."""
    path, draw = files_of(campaign.zoo, kind)[-1], random.Random(kind)
    bits = [8 * byte + draw.randrange(8) for byte in range(MARK_BYTES)]
    count, missed = campaign.outcomes(path, bits)
    assert count == {"found": MARK_BYTES}, (path, missed)


def test_a_flip_in_any_byte_of_the_mark_of_the_zoo_is_found(campaign):
    size = campaign.zoo.path.joinpath("zoo.json").stat().st_size
    count, _ = campaign.outcomes(campaign.zoo.path / "zoo.json", range(3, 8 * size, 8))
    assert count == {"found": size}


@pytest.mark.parametrize("kind", KINDS)
def test_flips_anywhere_are_found(campaign, kind):
    draw = random.Random(kind)
    for eighth in range(8):
        path = draw.choice(files_of(campaign.zoo, kind))
        bits = 8 * path.stat().st_size
        bit = draw.randrange(bits * eighth // 8, bits * (eighth + 1) // 8)
        count, missed = campaign.outcomes(path, [bit])
        assert count == {"found": 1}, (path, missed)


def test_what_a_part_of_verify_finds_all_of_it_finds(campaign):
    draw = random.Random(0)
    for kind in KINDS:
        path = draw.choice(files_of(campaign.zoo, kind))
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        name = path.relative_to(campaign.zoo.path).as_posix()
        part = set(campaign.faulty(path, name))
        assert part
        assert part <= {fault.path for fault in verify(campaign.zoo.path, deep=True)}
        path.write_bytes(whole)


def request(zoo):
    """What commands read of the index."""
    epochs = zoo.query("SELECT * FROM epochs ORDER BY ALL", timeout=None)
    return zoo.models().to_dict(), epochs.to_dict()


def flip_and_ask(zoo, paths, count, seed):
    """Whatever bit of the index is flipped, answers are the same, and the index is whole again."""
    draw, before = random.Random(seed), request(zoo)
    for _ in range(count):
        path = draw.choice(paths)
        damaged = bytearray(path.read_bytes())
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.warns(DamagedCache, match="was damaged and has been rebuilt"):
            assert repr(request(zoo)) == repr(before)
        assert _index_tables.disagreements(zoo.path) == []


def test_a_flip_in_the_index_changes_no_answer(campaign):
    flip_and_ask(campaign.zoo, files_of(campaign.zoo, "index"), 5, seed=0)


@pytest.mark.evidence
def test_hundreds_of_flips_in_the_index_change_no_answer(campaign):
    flip_and_ask(campaign.zoo, files_of(campaign.zoo, "index"), 500, seed=1)


def flip_cached(folder, bits):
    """Flip bits of predictions that are kept: they count as missing, or are those that were."""
    cache, key = Cache(folder), ("predictions", "model", "images")
    cache.put({"logits": torch.arange(20.0).reshape(4, 5)}, *key)
    (path,) = (folder / "cache" / "predictions").iterdir()
    whole = path.read_bytes()
    for bit in bits(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with warnings.catch_warnings(action="ignore", category=DamagedCache):
            assert cache.get(*key) is None
        assert not path.exists()


def test_a_flip_in_the_mark_of_what_is_cached_makes_it_missing(tmp_path):
    flip_cached(tmp_path, lambda size: range(8 * MARK_BYTES))


@pytest.mark.evidence
def test_every_flip_of_what_is_cached_makes_it_missing(tmp_path):
    flip_cached(tmp_path, range)
