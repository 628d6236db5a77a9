"""Checkpoint files: bit-exact in every dtype, packed or plain, and damage is never read."""

import json
import mmap
import shutil
from functools import partial

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vitarium.core.errors import CorruptFile, InvalidInput, UnknownName
from vitarium.core.files import digest, write_lines
from vitarium.formats.weights import fingerprint
from vitarium.zoo._format import coding
from vitarium.zoo._format.description import DTYPES, Base
from vitarium.zoo.checkpoint import LONGEST_CHAIN, MAX_DEPTH, Checkpoint
from vitarium.zoo.checkpoint_folder import CheckpointFolder

A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def same(one, other):
    """Equal names, dtypes, shapes and bits, NaNs too."""
    return one.keys() == other.keys() and all(
        (one[n].dtype, one[n].shape) == (other[n].dtype, other[n].shape)
        and torch.equal(bits(one[n]), bits(other[n]))
        for n in one
    )


def weights(seed=0, scale=1.0):
    """Tensors of every kind: large, small, without elements, of whole numbers, of one number."""
    draw = torch.Generator().manual_seed(seed)
    return {
        "large": torch.randn(700, 500, generator=draw) * scale,  # runs of 1 MiB: more than one
        "block.weight": torch.randn(40, 30, generator=draw) * 0.02,
        "bias": torch.zeros(30),
        "half": torch.randn(50, 20, generator=draw).bfloat16(),
        "double": torch.randn(300, generator=draw).double(),
        "steps": torch.tensor(7),
        "index": torch.arange(900).reshape(30, 30),
        "mask": torch.rand(2000, generator=draw) > 0.5,
        "none": torch.empty(0, 3),
    }


def nudged(tensors, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return {
        name: tensor + tensor * 1e-3 * torch.randn(tensor.shape, generator=draw).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in tensors.items()
    }


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path, A)


def test_what_is_written_comes_back_bit_for_bit(folder):
    first = weights()
    second = nudged(first)
    assert not same(first, second)
    contents = [folder.write(0, first, []), folder.write(1, second, [(A, 0)])]
    contents.append(folder.write_plain(2, second))
    for epoch, expected in enumerate((first, second, second)):
        opened = folder.open(epoch, contents[epoch])
        assert same(opened.state_dict(), expected)
        assert list(opened) == list(expected)
    assert contents[1] == contents[2], "the content is the same however it is stored"
    assert contents[0] != contents[1]


LAYOUTS = {
    "one number with a stride": lambda t: t.reshape(1, -1)[:, 0],
    "one number of two strides": lambda t: t.as_strided((1, 1), (7, 5)),
    "no dimension": lambda t: t.as_strided((), (), 3),
    "every second": lambda t: t[::2],
    "transposed": lambda t: t.reshape(4, 6).T,
    "channels last": lambda t: t.reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "expanded": lambda t: t[:1].expand(3, 2),
    "a column": lambda t: t.reshape(4, 6)[:, 2],
    "no rows": lambda t: t.reshape(4, 6)[:0],
    "no columns, turned": lambda t: t.reshape(4, 6)[:, :0].T,
    "an offset": lambda t: t[5:9],
    "flipped": lambda t: t.flip(0),
    "overlapping": lambda t: t.as_strided((3, 4), (2, 1)),
    "a parameter": lambda t: torch.nn.Parameter(t)[::3],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("plain", [False, True])
def test_tensors_of_any_layout_in_memory_are_stored(folder, layout, dtype, plain):
    tensor = LAYOUTS[layout](torch.arange(24, dtype=torch.float32).to(dtype))
    expected = torch.tensor(tensor.tolist(), dtype=dtype).reshape(tensor.shape)
    write = folder.write_plain if plain else partial(folder.write, bases=[])
    content = write(0, {"a": tensor})
    read = folder.open(0, content)["a"]
    assert same({"a": read}, {"a": expected})
    assert fingerprint({"a": tensor}) == fingerprint({"a": expected})


def test_a_lazy_negation_is_stored_as_the_numbers_that_it_stands_for(folder):
    values = torch.complex(torch.arange(4.0), torch.arange(1.0, 5.0)).conj().imag
    assert values.is_neg()
    read = folder.open(0, folder.write(0, {"a": values}, []))["a"]
    assert read.tolist() == [-1.0, -2.0, -3.0, -4.0]


def test_a_difference_is_smaller_and_an_equal_tensor_takes_no_bytes(folder):
    first = weights()
    folder.write(0, first, [])
    folder.write(1, nudged(first), [(A, 0)])
    folder.write(2, nudged(first), [(A, 1)])
    sizes = [folder.path(epoch).stat().st_size for epoch in range(3)]
    assert sizes[1] < 0.85 * sizes[0] < sizes[0]
    assert sizes[2] < 0.02 * sizes[0]
    codes = {name: stored.code for name, stored in folder_open(folder, 1).tensors.items()}
    assert codes["large"] == codes["block.weight"] == codes["half"] == "difference"
    assert codes["index"] == codes["mask"] == codes["steps"] == "same"


def folder_open(folder, epoch):
    return Checkpoint(folder.path(epoch), folder.find)


def test_equal_tensors_are_equal_files(folder):
    contents = []
    for _ in range(5):
        folder.write(0, weights(), [])
        contents.append(folder.path(0).read_bytes())
    assert len(set(contents)) == 1


def test_any_safetensors_reader_opens_a_plain_file(folder):
    folder.write_plain(0, weights())
    assert same(load_file(folder.path(0)), weights())


FLOATS = [name for name in DTYPES if name.startswith(("F", "BF"))]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), dtype=st.sampled_from(sorted(DTYPES)), count=st.integers(1, 3000))
def test_every_bit_pattern_of_every_dtype_survives(tmp_path_factory, data, dtype, count):
    """Also NaNs with a payload, infinities, both zeros and denormal numbers."""
    folder = CheckpointFolder(tmp_path_factory.mktemp("models"), A)
    torch_dtype = getattr(torch, DTYPES[dtype])
    width = torch.empty(0, dtype=torch_dtype).element_size()
    seed = data.draw(st.integers(0, 2**32 - 1))
    noise = np.random.default_rng(seed).integers(0, 256, (2, count * width), dtype=np.uint8)
    if dtype == "BOOL":
        noise &= 1
    # neighbors, so that differences are found worth it
    near = noise[0].copy()
    near[::width] = noise[1][::width]
    tensors = [{"x": torch.from_numpy(b.copy()).view(torch_dtype)} for b in (noise[0], near)]
    folder.write(0, tensors[0], [])
    folder.write(1, tensors[1], [(A, 0)])
    for epoch in (0, 1):
        assert same(folder_open(folder, epoch).state_dict(), tensors[epoch])


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_codes_are_undone(width):
    values = np.random.default_rng(0).integers(
        0, 2 ** (8 * width), 999, f"u{width}", endpoint=False
    )
    other = values[::-1].copy()
    assert (coding.ordered(coding.ordered(values)) == values).all()
    assert (coding.rotated_back(coding.rotated(values)) == values).all()
    assert (coding.unfolded(coding.folded(values)) == values).all()
    for is_float in (True, False):
        difference = coding.difference(values, other, is_float)
        assert (coding.added(other, difference, is_float) == values).all()


def test_neighboring_floats_are_neighboring_integers():
    one = np.array([-1.0, -0.0, 0.0, 1e-45, 1.0, 3.4e38], np.float32)
    up = np.nextafter(one, np.float32(np.inf))
    step = coding.difference(up.view(np.uint32), one.view(np.uint32), True)
    assert step.tolist() == [2, 4, 2, 2, 2, 2]  # -0.0 and 0.0 are neighbors too


def reference(path, models):
    """A reader of its own, after docs/format.md, number by number."""
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["vitarium"])
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    base = description.get("base")
    under = (
        reference(
            models / base["model"] / "checkpoints" / f"epoch-{base['epoch']:04d}.packed", models
        )
        if base
        else {}
    )
    found = {}
    for name, about in description["tensors"].items():
        if about.get("code") == "same":
            found[name] = under[name]
        elif "code" not in about:
            found[name] = bits(stored[name]).numpy().tobytes()
        else:
            found[name] = unpacked(about, bits(stored[name]).numpy().tobytes(), under.get(name))
    return found


WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "BF16": 2, "BOOL": 1}


def unpacked(about, stored, base):
    width = WIDTHS[about["dtype"]]
    size, top = 8 * width, 1 << (8 * width - 1)
    count, per_run, content, place = int(np.prod(about["shape"])), 2**20 // width, b"", 0
    for number, (_, lengths) in enumerate(about["pieces"]):
        here = min(per_run, count - number * per_run)
        places = []
        for length in lengths:
            stream = stored[place : place + length]
            places.append(stream if length == here else zstandard.decompress(stream))
            place += length
        for k in range(here):
            value = int.from_bytes(bytes(p[k] for p in places), "little")
            is_float = about["dtype"].startswith(("F", "BF"))
            if about["code"] == "alone":
                value = (value >> 1) | ((value & 1) << (size - 1)) if is_float else value
            else:
                start = (number * per_run + k) * width
                old = int.from_bytes(base[start : start + width], "little")
                step = value >> 1 if value % 2 == 0 else -(value >> 1) - 1
                value = in_order((in_order(old, top, is_float) + step) % (1 << size), top, is_float)
            content += value.to_bytes(width, "little")
    return content


def in_order(bits, top, is_float):
    return bits ^ (top - 1) if is_float and bits & top else bits


def test_a_reader_written_from_the_specification_agrees(tmp_path):
    folder = CheckpointFolder(tmp_path, A)
    first = {name: tensor[:8] if tensor.dim() else tensor for name, tensor in weights().items()}
    second, third = nudged(first), nudged(first, 2)
    for epoch, (tensors, base) in enumerate(((first, []), (second, [(A, 0)]), (third, [(A, 1)]))):
        folder.write(epoch, tensors, base)
        found = reference(folder.path(epoch), tmp_path)
        assert found == {name: bits(t).numpy().tobytes() for name, t in tensors.items()}


def test_rows_are_read_by_themselves(folder):
    tensors = weights()
    folder.write(0, tensors, [])
    folder.write(1, nudged(tensors), [(A, 0)])
    folder.write_plain(2, nudged(tensors))
    for epoch in (0, 1, 2):
        opened = folder_open(folder, epoch)
        whole = opened["large"]
        for start, stop in ((0, 700), (0, 1), (523, 526), (699, 700), (5, 5)):
            assert torch.equal(opened.rows("large", start, stop), whole[start:stop])
    with pytest.raises(InvalidInput, match="large has 700 rows, so none from 690 to 701"):
        opened.rows("large", 690, 701)
    with pytest.raises(InvalidInput, match="steps has 0 rows"):
        opened.rows("steps", 0, 1)
    with pytest.raises(UnknownName, match="did you mean 'large'"):
        opened.rows("larg", 0, 1)


@pytest.mark.parametrize("names", [None, ["bias", "half", "large", "none", "other"]])
def test_what_is_fetched_ahead_reads_the_same(folder, names):
    one, two = weights(), nudged(weights())
    folder.write_plain(0, one)
    folder.write(1, two, [(A, 0)])
    for epoch, expected in enumerate((one, two)):
        checkpoint = folder_open(folder, epoch)
        checkpoint.read_ahead(names)
        assert same(dict(checkpoint), expected)


def test_neighbors_are_fetched_as_one(folder, monkeypatch):
    folder.write_plain(0, {f"w{k}": torch.zeros(3000 * k) for k in range(1, 5)})
    container, request = folder_open(folder, 0)._file, []

    class Watched:
        def madvise(self, advice, start, length):
            assert start % mmap.PAGESIZE == 0
            request.append((start, start + length))

    monkeypatch.setattr(container, "_content", Watched())
    container.read_ahead(["w4", "w1", "w2"])
    places = {name: (entry.start, entry.stop) for name, entry in container.entries.items()}
    assert [stop - container._start for _, stop in request] == [places["w2"][1], places["w4"][1]]
    starts = [start - container._start for start, _ in request]
    for start, name in zip(starts, ("w1", "w4"), strict=True):
        assert places[name][0] - mmap.PAGESIZE < start <= places[name][0]


def test_only_the_rows_that_are_asked_for_are_checked(folder):
    folder.write_plain(0, {"large": weights()["large"]})
    damaged = bytearray(folder.path(0).read_bytes())
    damaged[-1] ^= 1
    folder.path(0).write_bytes(damaged)
    opened = folder_open(folder, 0)
    assert torch.equal(opened.rows("large", 0, 9), weights()["large"][:9])
    with pytest.raises(CorruptFile):
        opened.rows("large", 690, 700)
    with pytest.raises(CorruptFile):
        opened["large"]


def test_a_tensor_that_is_changed_changes_no_file(folder):
    content = folder.write_plain(0, weights())
    folder.open(0, content)["large"].zero_()
    assert same(folder.open(0, content).state_dict(), weights())


def test_chains_are_bounded(folder):
    tensors = weights()
    for epoch in range(2 * MAX_DEPTH):
        folder.write(epoch, tensors, [(A, epoch - 1)] if epoch else [])
        tensors = nudged(tensors, epoch)
    depths = [folder_open(folder, epoch).depth for epoch in range(2 * MAX_DEPTH)]
    assert max(depths) == MAX_DEPTH
    assert depths[MAX_DEPTH + 1] == 0  # no other base was offered


def written_on(folder, epoch, base):
    """Write an epoch that is its base bit by bit, whatever chain that stands on."""
    folder.write(epoch, {"bias": torch.ones(30)}, [])
    content = folder_open(folder, epoch).content
    path = folder.path(epoch)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    about = json.loads(json.loads(whole[8 : 8 + length])["__metadata__"]["vitarium"])
    sums = about["tensors"]["bias"]["checksums"]
    about["tensors"]["bias"] = {"code": "same", "dtype": "F32", "shape": [30], "checksums": sums}
    about |= {"base": {"model": A, "epoch": base, "content": content}, "depth": 1}
    text = {"__metadata__": {"checksum": "0" * 16, "vitarium": json.dumps(about)}}
    path.write_bytes(forged(text, b""))
    return content


def test_what_a_file_says_of_its_depth_does_not_count(folder):
    folder.write(0, {"bias": torch.ones(30)}, [])
    for epoch in range(1, LONGEST_CHAIN + 1):
        content = written_on(folder, epoch, epoch - 1)
    longest = folder.open(LONGEST_CHAIN, content)
    assert (longest.depth, longest.recorded_depth) == (LONGEST_CHAIN, 1)
    assert torch.equal(longest["bias"], torch.ones(30))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_checkpoints_that_build_on_one_another_in_a_circle_are_refused(folder, length):
    for epoch in range(length):
        content = written_on(folder, epoch, (epoch + 1) % length)
    for read in (lambda file: file["bias"], lambda file: file.depth, lambda file: file.check()):
        with pytest.raises(CorruptFile, match="build on one another, perhaps in a circle"):
            read(folder.open(0, content))


def test_a_chain_without_end_is_refused(folder):
    folder.write(0, {"bias": torch.ones(30)}, [])
    for epoch in range(1, LONGEST_CHAIN + 2):
        content = written_on(folder, epoch, epoch - 1)
    with pytest.raises(CorruptFile, match=f"more than {LONGEST_CHAIN} checkpoints build on"):
        folder.open(LONGEST_CHAIN + 1, content).state_dict()


def test_the_next_base_is_taken_where_the_first_is_elsewhere(folder):
    folder.write(0, weights(), [])
    folder.write(2, nudged(weights()), [(B, 3), (A, 1), (A, 0)])
    assert folder_open(folder, 2).base.epoch == 0


def test_a_base_that_is_another_is_refused(folder):
    folder.write(0, weights(), [])
    content = folder.write(1, nudged(weights()), [(A, 0)])
    folder.write(0, weights(seed=5), [])
    with pytest.raises(CorruptFile, match=r"epoch-0000.*another checkpoint than when"):
        folder.open(1, content).state_dict()
    folder.path(0).unlink()
    with pytest.raises(CorruptFile, match=r"epoch-0000.*the file is missing"):
        folder.open(1, content).state_dict()


def test_a_base_outside_of_the_zoo_is_refused(folder):
    with pytest.raises(CorruptFile, match="which is no id"):
        folder.find(Base("../../home", 0, ""))


@pytest.mark.parametrize("base", [{"epoch": "0"}, {"model": 1}, {"content": None}])
def test_a_base_that_is_none_is_refused(base):
    with pytest.raises(ValueError, match="a base of"):
        Base(**{"model": A, "epoch": 0, "content": ""} | base)


def without_mark(folder, epoch, key=b"checksum"):
    """Flip one bit of the key by which a file is known to have checksums."""
    path = folder.path(epoch)
    whole = bytearray(path.read_bytes())
    whole[whole.index(key)] ^= 1
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize("write", [CheckpointFolder.write_plain, CheckpointFolder.write])
def test_a_file_is_not_believed_when_it_says_that_it_is_of_format_1(folder, write):
    """Though what it holds is what its name in epochs.jsonl says."""
    bases = [[]] if write is CheckpointFolder.write else []
    content = write(folder, 0, weights(), *bases)
    path = without_mark(folder, 0)
    taken_as_it_is = Checkpoint(path, folder.find, marked=False)
    assert (taken_as_it_is.content == content) == (path.suffix == ".safetensors")
    with pytest.raises(CorruptFile, match=r"epoch-0000.*does not begin with the mark"):
        folder.open(0, content)
    with pytest.raises(CorruptFile, match=r"epoch-0000.*does not begin with the mark"):
        folder.base(0)


def name_in_epochs(folder, epoch, sha256):
    lines = [{"number": epoch, "metrics": {}, "checkpoint": sha256, "progress": None}]
    write_lines(folder.folder.parent / "epochs.jsonl", lines)


def test_a_file_of_format_1_is_what_epochs_jsonl_names_or_nothing(folder):
    tensors = {name: tensor for name, tensor in weights().items() if tensor.dim()}
    folder.folder.mkdir(parents=True)
    save_file(tensors, folder.plain(0), {"vitarium": "{}"})
    sha256 = digest(folder.plain(0))
    name_in_epochs(folder, 0, sha256)
    content = folder.write(1, nudged(tensors), [(A, 0)])
    assert same(folder.open(0, sha256).state_dict(), tensors)
    assert same(folder.open(1, content).state_dict(), nudged(tensors))
    assert folder_open(folder, 1).base == Base(A, 0, folder.base(0).content)
    without_mark(folder, 0, b"vitarium")  # all tensors are as they were
    for read in (lambda: folder.open(0, sha256), lambda: folder.open(1, content).state_dict()):
        with pytest.raises(CorruptFile, match=r"epoch-0000.*does not begin with the mark"):
            read()
    with pytest.raises(CorruptFile, match="epoch-0000"):
        folder.write(1, tensors, [(A, 0)])
    (folder.folder.parent / "epochs.jsonl").unlink()
    with pytest.raises(CorruptFile, match="epoch-0000"):
        folder.base(0)


def test_a_checkpoint_at_the_place_of_another_is_refused(folder, tmp_path):
    """Also where both hold the same."""
    content = folder.write_plain(0, weights())
    for folder_, epoch in ((folder, 3), (CheckpointFolder(tmp_path, B), 0)):
        path = folder_.plain(epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder.plain(0), path)
        for read in (lambda: folder_.open(epoch, content), lambda: folder_.base(epoch)):  # noqa: B023
            with pytest.raises(CorruptFile, match=f"says that it is of model {A} after epoch 0"):
                read()


def small(folder):
    """Two small files, the second of which builds on the first."""
    first = {name: t for name, t in weights().items() if name != "large"}
    return [folder.write(0, first, []), folder.write(1, nudged(first), [(A, 0)])]


def read_everything(folder, contents):
    return [folder.open(epoch, content).state_dict() for epoch, content in enumerate(contents)]


@pytest.mark.parametrize("step", [41, pytest.param(1, marks=pytest.mark.evidence)])
def test_no_changed_byte_is_read(folder, step):
    """In `make test` all of the length and the mark before the header, and of the rest each 41st."""
    contents = small(folder)
    for epoch in (0, 1):
        path = folder.path(epoch)
        whole = path.read_bytes()
        for position in [*range(60), *range(60, len(whole), step), len(whole) - 1]:
            damaged = bytearray(whole)
            damaged[position] ^= 1 << position % 8
            path.write_bytes(damaged)
            with pytest.raises(CorruptFile, match=path.name):
                folder.open(epoch, contents[epoch]).state_dict()
        path.write_bytes(whole)
    read_everything(folder, contents)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_are_refused_whatever_the_damage(folder, data):
    """Cut, grown, overwritten, shuffled, with a header that lies: never a crash or wrong weights."""
    if not folder.path(0).exists():
        small(folder)
        test_damaged_files_are_refused_whatever_the_damage.whole = [
            folder.path(epoch).read_bytes() for epoch in (0, 1)
        ]
    whole = test_damaged_files_are_refused_whatever_the_damage.whole
    contents = [folder_open(folder, epoch).content for epoch in (0, 1)]
    epoch = data.draw(st.sampled_from([0, 1]))
    damaged = data.draw(damage(whole[epoch]))
    path = folder.path(epoch)
    path.write_bytes(damaged)
    try:
        if damaged != whole[epoch]:
            with pytest.raises(CorruptFile, match=path.name):
                folder.open(epoch, contents[epoch]).state_dict()
    finally:
        path.write_bytes(whole[epoch])


@st.composite
def damage(draw, whole):
    kind = draw(st.sampled_from(["cut", "grow", "overwrite", "swap", "zeros", "other"]))
    place = draw(st.integers(0, len(whole) - 1))
    other = draw(st.integers(0, len(whole) - 1))
    some = draw(st.binary(min_size=1, max_size=40))
    return {
        "cut": whole[:place],
        "grow": whole + some,
        "overwrite": whole[:place] + some + whole[place + len(some) :],
        "swap": whole[:place] + whole[other : other + 16] + whole[place + 16 :],
        "zeros": whole[:place] + bytes(len(whole) - place),
        "other": some,
    }[kind]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_header_that_lies_is_refused(folder, data):
    """A header that was forged, checksum and all: an error that names the file, and at once."""
    if not folder.path(0).exists():
        small(folder)
    path = folder.path(1)
    content = folder_open(folder, 1).content
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    about = json.loads(header["__metadata__"]["vitarium"])
    names = sorted(about["tensors"])
    lie = data.draw(
        st.sampled_from([0, 1, -1, 2**62, 2**40, 1.5, None, "", "F64", "same", [], {}, True, [[]]])
    )
    where = data.draw(st.sampled_from(["tensor", "entry", "base", "depth", "pieces"]))
    name = data.draw(st.sampled_from(names))
    if where == "tensor":
        about["tensors"][name][
            data.draw(st.sampled_from(["dtype", "shape", "code", "checksums"]))
        ] = lie
    elif where == "pieces" and about["tensors"][name].get("pieces"):
        about["tensors"][name]["pieces"] = [[about["tensors"][name]["pieces"][0][0], [lie] * 4]]
    elif where == "entry" and name in header:
        header[name][data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))] = lie
    elif where == "base":
        about["base"] = (
            lie if not isinstance(lie, str) else {"model": lie, "epoch": 0, "content": ""}
        )
    else:
        about["depth"] = lie
    header["__metadata__"] = {"checksum": "0" * 16, "vitarium": json.dumps(about)}
    path.write_bytes(forged(header, whole[8 + length :]))
    expected = {name: t for name, t in weights().items() if name != "large"}
    try:
        found = folder.open(1, content).state_dict()
    except CorruptFile:
        pass
    else:  # the lie changed nothing that counts
        assert same(found, nudged(expected))
    finally:
        path.write_bytes(whole)


def forged(header, content):
    from vitarium.core.files import checksum

    text = json.dumps(header, separators=(",", ":")).encode()
    assert text.startswith(b'{"__metadata__":{"checksum":"')
    text = text.replace(b"0" * 16, checksum(text).encode(), 1)
    return len(text).to_bytes(8, "little") + text + content
