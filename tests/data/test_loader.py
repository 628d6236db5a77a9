"""Batches depend on seed, epoch, step and image alone."""

import gc
from dataclasses import replace
from multiprocessing import active_children
from threading import get_ident

import pytest
import torch

from vitarium.core import seeds
from vitarium.core.errors import InvalidData
from vitarium.core.registry import section
from vitarium.data._decode_ahead import AHEAD, decode_ahead
from vitarium.data.base import Split
from vitarium.data.load import load
from vitarium.data.loader import Batches, stacked_batches

SIZE = (1, 8, 8)


class Undecoded:
    """Images that are decoded when they are asked for, as those of files are."""

    thread_safe = True

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, number):
        return self.images[number].clone()


def batches(
    views=1,
    seed=1,
    batch_size=64,
    loader_workers=0,
    limit=200,
    decoded=True,
    steps_per_epoch=None,
    **settings,
) -> Batches:
    data = load(section("dataset", {"name": "digits", "train_limit": limit}))
    if not decoded:
        parts = {name: getattr(data, name) for name in ("train", "val", "test")}
        undecoded = {n: Split(Undecoded(p.images), p.labels) for n, p in parts.items()}
        data = replace(data, **undecoded)
    settings = {"name": "standard", "crop": "random", "padding": 2, **settings}
    augmentation = section("augmentation", settings)(SIZE, 10)
    return Batches(
        data,
        augmentation,
        SIZE,
        batch_size,
        seed,
        views=views,
        steps_per_epoch=steps_per_epoch,
        loader_workers=loader_workers,
    )


def equal(one, other) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(
        torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) for a, b in pairs
    )


def test_an_epoch_is_the_same_however_it_is_reached():
    first = batches(mixup=0.8, random_erasing=0.5)
    for epoch in (1, 2):
        list(first.train(epoch))
    torch.randn(5)
    fresh = batches(mixup=0.8, random_erasing=0.5)
    assert equal(first.train(3), fresh.train(3))


def test_epochs_and_seeds_differ():
    assert not equal(batches().train(1), batches().train(2))
    assert not equal(batches(seed=1).train(1), batches(seed=2).train(1))


def test_the_number_of_loader_workers_changes_nothing():
    here, there = (batches(mixup=0.8, decoded=False, loader_workers=n) for n in (0, 2))
    for epoch in (1, 2):  # the second one is drawn by the workers of the first
        assert equal(here.train(epoch), there.train(epoch))
    assert equal(here.score("val"), there.score("val"))


def test_loader_workers_stay_from_one_epoch_to_the_next():
    made = batches(decoded=False, loader_workers=1)
    before = {child.pid for child in active_children()}

    def workers():
        return {child.pid for child in active_children()} - before

    list(made.train(1))
    first = workers()
    list(made.train(2))
    assert len(first) == 1
    assert workers() == first


def test_loader_workers_end_with_their_batches():
    before = active_children()
    undecoded = batches(decoded=False, loader_workers=1)
    list(undecoded.train(1))
    assert len(active_children()) == len(before) + 1
    gc.disable()  # which comes when it likes, and after which torch waits for its workers in vain
    try:
        del undecoded
        assert active_children() == before
    finally:
        gc.enable()


def test_an_epoch_that_was_left_early_does_not_reach_the_next():
    left, whole = (batches(decoded=False, loader_workers=n) for n in (1, 0))
    next(left.train(1))
    assert equal(left.train(2), whole.train(2))


def test_two_epochs_at_a_time_do_not_mix():
    made, here = (batches(decoded=False, loader_workers=n) for n in (1, 0))
    pairs = list(zip(made.train(1), made.train(2), strict=True))
    assert equal([one for one, _ in pairs], here.train(1))
    assert equal([two for _, two in pairs], here.train(2))


def test_batches_leave_the_global_generators_alone():
    with seeds.seeded(7):
        expected = torch.rand(3)
    with seeds.seeded(7):
        for _ in batches(mixup=0.8, random_erasing=0.5).train(1):
            pass
        list(batches().score("val"))
        assert torch.equal(torch.rand(3), expected)


def test_an_epoch_has_full_batches_of_different_images():
    made = batches()
    found = list(made.train(1))
    assert made.steps == len(found) == 3
    assert {len(batch.labels) for batch in found} == {64}


def test_scoring_sees_every_image_once_in_order():
    made = batches()
    labels = torch.cat([batch.labels for batch in made.score("test")])
    assert torch.equal(labels, made.dataset.test.labels)
    assert len(torch.cat([batch.labels for batch in made.score("test", 70)])) == 70
    assert list(made.score("test", 0)) == []


def test_pixels_are_normalised():
    made = batches()
    batch = next(made.score("val"))
    pixels = made.dataset.val.images[: len(batch.labels)] / 255
    expected = (pixels - made.dataset.mean[0]) / made.dataset.std[0]
    assert torch.allclose(batch.images, expected, atol=1e-6)


def test_two_views_stand_one_after_the_other():
    one, two = next(batches().train(1)), next(batches(views=2).train(1))
    assert two.images.shape == (128, *SIZE)
    assert torch.equal(two.labels, one.labels)
    first, second = two.images.chunk(2)
    assert torch.equal(first, one.images)
    assert not torch.equal(second, first)


def test_views_without_randomness_are_the_images_themselves_twice():
    first, second = next(batches(views=2, crop="center", padding=0).train(1)).images.chunk(2)
    assert torch.equal(first, second)


def test_a_batch_larger_than_the_training_split_is_refused():
    with pytest.raises(InvalidData, match="a batch of 256 images is more than the 200 training"):
        batches(batch_size=256)


@pytest.mark.parametrize("views", [1, 2])
def test_images_that_are_decoded_as_they_are_needed_give_the_same_batches(views):
    settings = {"views": views, "crop": "random_resized", "horizontal_flip": 0.5, "rotation": 9}
    resident, streamed = batches(**settings), batches(**settings, decoded=False)
    gray_level = 1 / 255 / resident.dataset.std[0]
    for one, other in zip(resident.train(2), streamed.train(2), strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.allclose(one.images, other.images, atol=gray_level)
    for one, other in zip(resident.score("test"), streamed.score("test"), strict=True):
        assert torch.allclose(one.images, other.images, atol=gray_level)


@pytest.mark.parametrize("decoded", [True, False])
def test_models_that_are_trained_together_see_what_each_would_see_alone(decoded):
    settings = {"mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.5, "decoded": decoded}
    members = [batches(seed=seed, **settings) for seed in (1, 2, 3)]
    for number, member in enumerate(members):
        made = zip(stacked_batches(members, 2), member.train(2), strict=True)
        for all_of_them, own in made:
            for one, other in zip(
                (all_of_them.images, all_of_them.labels, all_of_them.targets),
                (own.images, own.labels, own.targets),
                strict=True,
            ):
                assert torch.allclose(one[number], other, atol=1e-6)


def test_framed_batches_that_wait_take_no_more_than_a_stated_amount_of_memory(monkeypatch):
    made = batches(decoded=False, loader_workers=2)
    assert made._loader(made.dataset.train, []).prefetch_factor == 4
    monkeypatch.setattr("vitarium.data.loader.PREFETCH_BYTES", 2 * 2 * 256 * 8 * 8)
    assert made._loader(made.dataset.train, []).prefetch_factor == 2


def test_repeated_augmentation_has_each_image_several_times_in_a_batch():
    repeated = batches(repeats=4, batch_size=32)
    order = repeated.order(1)
    assert order.shape == (200 // 32, 32)
    for chosen in order:
        assert sorted(torch.unique(chosen, return_counts=True)[1].tolist()) == [4] * 8
    batch = next(iter(repeated.train(1)))
    first = batch.images[:4].flatten(1)
    assert len(torch.unique(first, dim=0)) > 1  # the same image, augmented anew
    assert len(set(batch.labels[:4].tolist())) == 1


def test_a_policy_leaves_what_others_draw_as_it_is():
    """A policy of which nothing is drawn changes no bits: its numbers come last."""
    plain = batches().augmentation
    with_policy = batches(policy={"name": "randaugment"}).augmentation
    assert with_policy.numbers == plain.numbers + 4
    numbers = torch.rand(3, with_policy.numbers, dtype=torch.float64)
    images = torch.rand(3, 1, 8, 8)
    frames = [
        a.frame(n, 8, 8).cut(images) for a, n in ((with_policy, numbers), (plain, numbers[:, :-4]))
    ]
    assert torch.equal(*frames)


def test_balanced_sampling_shows_all_classes_equally_often():
    data = load(section("dataset", {"name": "digits"}))
    rare = (data.train.labels != 3) | (torch.arange(len(data.train)) % 10 == 0)
    data = replace(data, train=data.train.select(rare.nonzero().squeeze(1)))
    augmentation = section("augmentation", "standard")(SIZE, 10)
    balanced = Batches(data, augmentation, SIZE, 64, 1, sampling="balanced")
    orders = torch.cat([balanced.order(epoch).flatten() for epoch in range(1, 21)])
    shares = data.train.labels[orders].bincount() / len(orders)
    assert torch.allclose(shares, torch.full((10,), 0.1), atol=0.01)
    assert balanced.order(1).shape == (len(data.train) // 64, 64)
    assert torch.equal(balanced.order(1), balanced.order(1))


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7])
def test_epochs_of_other_lengths_go_on_through_the_same_passes(steps):
    passes = torch.cat([batches().order(number) for number in range(1, 12)])
    short = batches(steps_per_epoch=steps)
    assert short.steps == steps
    orders = torch.cat([short.order(epoch) for epoch in range(1, 5)])
    assert torch.equal(orders, passes[: 4 * steps])
    assert len(list(short.train(2))) == steps


# Decoding ahead


@pytest.fixture
def threads():
    """Two, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Counted:
    """Images that count how many have been decoded and not been taken."""

    thread_safe = True

    def __init__(self, count, broken=()):
        self.count, self.broken, self.decoded = count, broken, []

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        if number in self.broken:
            raise InvalidData(f"image {number} is broken")
        self.decoded.append(number)
        return torch.full((1, 2, 2), number)


def test_threads_change_no_bits(threads):
    here = list(batches(decoded=False, views=2, crop="random_resized").train(1))
    torch.set_num_threads(1)
    assert equal(here, batches(decoded=False, views=2, crop="random_resized").train(1))


def test_images_come_in_order_and_few_are_decoded_ahead(threads):
    images = Counted(40)
    numbers = [*range(39, -1, -1)]
    for taken, image in enumerate(decode_ahead(images, numbers)):
        assert int(image[0, 0, 0]) == numbers[taken]
        assert len(images.decoded) - taken <= 2 * AHEAD + 1


def test_the_first_image_that_cannot_be_decoded_is_named(threads):
    images = decode_ahead(Counted(40, broken=(7, 9)), [*range(40)])
    with pytest.raises(InvalidData, match="image 7"):
        list(images)


def test_images_that_are_not_said_to_be_thread_safe_are_decoded_by_this_thread(threads):
    callers = set()

    class Unsafe(Counted):
        thread_safe = False

        def __getitem__(self, number):
            callers.add(get_ident())
            return super().__getitem__(number)

    images = Split(Unsafe(9), torch.zeros(9)).select([3, 1, 2]).images
    assert [int(image[0, 0, 0]) for image in decode_ahead(images, range(3))] == [3, 1, 2]
    assert callers == {get_ident()}
    assert Split(Counted(9), torch.zeros(9)).select([3]).images.thread_safe
