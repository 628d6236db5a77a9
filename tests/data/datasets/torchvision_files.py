"""Tiny copies of what torchvision's data sets look like on the disk."""

import bz2
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

WRITERS: dict[str, Callable[[Path], None]] = {}
CHECKED_BY_MD5 = ("cifar", "fer2013", "flowers102", "places365", "semeion", "stl10", "svhn")
"""Modules of torchvision.datasets that read published files alone, told by their checksum."""
_random = np.random.default_rng(0)


def writes(*names: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def register(function: Callable[[Path], None]) -> Callable[[Path], None]:
        WRITERS.update(dict.fromkeys(names, function))
        return function

    return register


def image(*path: object) -> None:
    """A file with an image of 6 by 5 random pixels."""
    file = Path(*map(str, path))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(6, 5, 3)).save(file)


def text(content: str, *path: object) -> None:
    file = Path(*map(str, path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def pixels(*shape: int) -> np.ndarray:
    return _random.integers(0, 256, shape, dtype=np.uint8)


def idx(values: np.ndarray) -> bytes:
    """MNIST's format: two zeros, the type, the dimensions, and the values, big-endian."""
    kinds = {"uint8": 8, "int32": 12}
    head = bytes([0, 0, kinds[values.dtype.name], values.ndim])
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return head + sizes + values.astype(values.dtype.newbyteorder(">")).tobytes()


def idx_pair(folder: Path, images: str, labels: str, values: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / images).write_bytes(idx(pixels(len(values), 28, 28)))
    (folder / labels).write_bytes(idx(values))


@writes("KMNIST", "MNIST", "FashionMNIST")
def mnist(root: Path) -> None:
    for name in ("KMNIST", "MNIST", "FashionMNIST"):
        for part, count in (("train", 20), ("t10k", 10)):
            files = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
            idx_pair(root / name / "raw", *files, np.arange(count, dtype=np.uint8) % 10)


@writes("EMNIST")
def emnist(root: Path) -> None:
    for part, count in (("train", 50), ("test", 47)):
        names = [f"emnist-balanced-{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
        idx_pair(root / "EMNIST" / "raw", *names, np.arange(count, dtype=np.uint8) % 47)


@writes("QMNIST")
def qmnist(root: Path) -> None:
    for part, count in (("train", 20), ("test", 10)):
        labels = np.arange(count * 8, dtype=np.int32).reshape(count, 8)
        labels[:, 0] = np.arange(count) % 10
        names = f"qmnist-{part}-images-idx3-ubyte", f"qmnist-{part}-labels-idx2-int"
        idx_pair(root / "QMNIST" / "raw", *names, labels)


@writes("USPS")
def usps(root: Path) -> None:
    for name, count in (("usps.bz2", 20), ("usps.t.bz2", 10)):
        lines = (
            f"{n % 10 + 1} "
            + " ".join(f"{k}:{v}" for k, v in enumerate(_random.uniform(-1, 1, 256)))
            for n in range(count)
        )
        (root / name).write_bytes(bz2.compress("\n".join(lines).encode()))


@writes("EuroSAT")
def eurosat(root: Path) -> None:
    for number in range(20):
        name = ("Forest", "River")[number % 2]
        image(root, "eurosat", "2750", name, f"{name}_{number}.png")


@writes("GTSRB")
def gtsrb(root: Path) -> None:
    folder = root / "gtsrb" / "GTSRB"
    rows = ["Filename;ClassId"]
    for number in range(12):
        image(folder, "Training", f"{number % 2:05d}", f"{number}.ppm")
        image(folder, "Final_Test", "Images", f"{number}.ppm")
        rows.append(f"{number}.ppm;{number % 2}")
    text("\n".join(rows), root, "gtsrb", "GT-final_test.csv")


@writes("Country211")
def country211(root: Path) -> None:
    for number in range(4):
        for part in ("train", "valid", "test"):
            image(root, "country211", part, ("AD", "AE")[number % 2], f"{part}{number}.png")


@writes("RenderedSST2")
def rendered_sst2(root: Path) -> None:
    for number in range(4):
        for part in ("train", "valid", "test"):
            name = ("negative", "positive")[number % 2]
            image(root, "rendered-sst2", part, name, f"{part}{number}.png")


@writes("Imagenette")
def imagenette(root: Path) -> None:
    for number in range(12):
        for part in ("train", "val"):
            name = ("n01440764", "n02102040")[number % 2]
            image(root, "imagenette2", part, name, f"{part}{number}.jpeg")


@writes("DTD")
def dtd(root: Path) -> None:
    for part in ("train", "val", "test"):
        names = [f"{('banded', 'woven')[n % 2]}/{part}_{n}.jpg" for n in range(4)]
        text("\n".join(names), root, "dtd/dtd/labels", f"{part}1.txt")
        for name in names:
            image(root, "dtd/dtd/images", name)


@writes("Food101")
def food101(root: Path) -> None:
    for part in ("train", "test"):
        names = {c: [f"{c}/{part}{n}" for n in range(10)] for c in ("apple_pie", "waffles")}
        text(json.dumps(names), root, "food-101/meta", f"{part}.json")
        for name in chain.from_iterable(names.values()):
            image(root, "food-101/images", f"{name}.jpg")


@writes("OxfordIIITPet")
def pets(root: Path) -> None:
    for part in ("trainval", "test"):
        names = [f"{('Abyssinian', 'great_pyrenees')[n % 2]}_{part}{n}" for n in range(12)]
        lines = [f"{name} {n % 2 + 1} 1 1" for n, name in enumerate(names)]
        text("\n".join(lines), root, "oxford-iiit-pet/annotations", f"{part}.txt")
        for name in names:
            image(root, "oxford-iiit-pet/images", f"{name}.jpg")


@writes("FGVCAircraft")
def aircraft(root: Path) -> None:
    folder = root / "fgvc-aircraft-2013b" / "data"
    text("707-320\nA 300\n", folder, "variants.txt")
    for part in ("train", "val", "test"):
        rows = [f"{part}{n} {('707-320', 'A 300')[n % 2]}" for n in range(4)]
        text("\n".join(rows), folder, f"images_variant_{part}.txt")
        for row in rows:
            image(folder, "images", f"{row.split()[0]}.jpg")


@writes("Caltech101")
def caltech101(root: Path) -> None:
    image(root, "caltech101/101_ObjectCategories/BACKGROUND_Google/image_0001.jpg")
    for number in range(20):
        folder = ("accordion", "yin_yang")[number % 2]
        image(root, "caltech101/101_ObjectCategories", folder, f"image_{number // 2 + 1:04d}.jpg")


@writes("Caltech256")
def caltech256(root: Path) -> None:
    for number in range(20):
        which = number % 2 + 1
        folder = root / "caltech256/256_ObjectCategories" / f"{which:03d}.{'ab'[which - 1]}"
        image(folder, f"{which:03d}_{number // 2 + 1:04d}.jpg")


@writes("SUN397")
def sun397(root: Path) -> None:
    text("/a/abbey\n/b/bar/indoor\n", root, "SUN397/ClassName.txt")
    for number in range(20):
        image(root, "SUN397", ("a/abbey", "b/bar/indoor")[number % 2], f"sun_{number}.jpg")


@writes("INaturalist")
def inaturalist(root: Path) -> None:
    for part in ("2021_train", "2021_valid"):
        for number in range(8):
            kind = f"{number % 2:05d}_Animalia_Chordata_Aves_Order_Family_Genus_s{number % 2}"
            image(root, part, kind, f"{part}{7 - number}.jpg")


@writes("CLEVRClassification")
def clevr(root: Path) -> None:
    for part in ("train", "val"):
        scenes = []
        for number in range(16):
            image(root, "clevr/CLEVR_v1.0/images", part, f"{part}{number}.png")
            objects = [{}] * (3 + number % 8)
            scenes.append({"image_filename": f"{part}{number}.png", "objects": objects})
        file = f"clevr/CLEVR_v1.0/scenes/CLEVR_{part}_scenes.json"
        text(json.dumps({"scenes": scenes}), root, file)


@writes("Flowers102")
def flowers(root: Path) -> None:
    from scipy.io import savemat

    folder = root / "flowers-102"
    for number in range(1, 13):
        image(folder, "jpg", f"image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.arange(12) % 102 + 1})
    parts = {"trnid": [3, 1, 2, 4], "valid": [5, 6, 7, 8], "tstid": [9, 10, 11, 12]}
    savemat(folder / "setid.mat", parts)


@writes("StanfordCars")
def cars(root: Path) -> None:
    from scipy.io import savemat

    folder = root / "stanford_cars"
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit/cars_meta.mat", {"class_names": names})
    files = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for part, file in files.items():
        rows = [(f"{part}{n}.jpg", n % 2 + 1) for n in range(12)]
        table = np.array(rows, dtype=[("fname", object), ("class", object)])
        savemat(folder / file, {"annotations": table})
        for name, _ in rows:
            image(folder, f"cars_{part}", name)


@writes("SVHN")
def svhn(root: Path) -> None:
    from scipy.io import savemat

    for part, count in (("train", 20), ("test", 10)):
        labels = np.arange(count)[:, None] % 10 + 1
        savemat(root / f"{part}_32x32.mat", {"X": pixels(32, 32, 3, count), "y": labels})


@writes("STL10")
def stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir()
    for part, count in (("train", 20), ("test", 10)):
        (folder / f"{part}_X.bin").write_bytes(pixels(count, 3, 96, 96).tobytes())
        (folder / f"{part}_y.bin").write_bytes((np.arange(count) % 10 + 1).astype("u1").tobytes())
    text("\n".join("abcdefghij"), folder, "class_names.txt")


@writes("FER2013")
def fer2013(root: Path) -> None:
    rows = ["emotion,pixels,Usage"]
    for number in range(28):
        usage = "PublicTest" if number >= 14 else "Training"
        rows.append(f"{number % 7},{' '.join(map(str, pixels(48 * 48)))},{usage}")
    text("\n".join(rows), root, "fer2013/fer2013.csv")


@writes("SEMEION")
def semeion(root: Path) -> None:
    rows = np.zeros((50, 266))
    rows[:, :256] = _random.integers(0, 2, (50, 256))
    rows[np.arange(50), 256 + np.arange(50) % 10] = 1
    np.savetxt(root / "semeion.data", rows, fmt="%.4f")


@writes("CIFAR10")
def cifar10(root: Path) -> None:
    import pickle

    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    names = [f"data_batch_{n}" for n in range(1, 6)]
    for name in [*names, "test_batch"]:
        batch = {"data": pixels(10, 3 * 32 * 32), "labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(batch))
    labels = [f"class {n}" for n in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": labels}))


@writes("Places365")
def places365(root: Path) -> None:
    text("/a/airfield 0\n/z/zen_garden 1\n", root, "categories_places365.txt")
    rows = []
    for number in range(12):
        path = f"/{('a/airfield', 'z/zen_garden')[number % 2]}/{number}.jpg"
        image(root, f"data_large_standard{path}")
        rows.append(f"{path} {number % 2}")
    text("\n".join(rows), root, "places365_train_standard.txt")
    names = [f"Places365_val_{n:08d}.jpg" for n in range(4)]
    for name in names:
        image(root, "val_large", name)
    text("\n".join(f"{n} {k % 2}" for k, n in enumerate(names)), root, "places365_val.txt")


@writes("ImageNet")
def imagenet(root: Path) -> None:
    import torch

    words = {"n01440764": ("tench", "Tinca tinca"), "n02102040": ("English springer",)}
    torch.save((words, ["n01440764"]), root / "meta.bin")
    for number in range(12):
        for part in ("train", "val"):
            image(root, part, [*words][number % 2], f"{part}{number}.JPEG")


class FakeH5:
    """What h5py.File gives: arrays by name."""

    def __init__(self, path: Path) -> None:
        seed = sum(path.name.encode())
        shape = (8, 6, 6, 3) if path.stem.endswith("x") else (8, 1, 1, 1)
        values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        self.arrays = {"x": values, "y": values % 2}

    def __enter__(self) -> dict[str, np.ndarray]:
        return self.arrays

    def __exit__(self, *_: object) -> None: ...


@writes("PCAM")
def pcam(root: Path) -> None:
    for part in ("train", "valid", "test"):
        for kind in "xy":
            text("", root, f"pcam/camelyonpatch_level_2_split_{part}_{kind}.h5")
