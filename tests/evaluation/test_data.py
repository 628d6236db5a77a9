"""Examples: the same images for every model, whole or a part of them."""

import torch


def test_every_image_comes_once_in_order(examples):
    batches = list(examples.batches(size=100))
    assert [len(batch.labels) for batch in batches] == [100, 100, 100, 59]
    assert torch.equal(torch.cat([batch.labels for batch in batches]), examples.labels)


def test_pixels_are_what_was_normalised(examples):
    batch = next(examples.batches())
    pixels = examples.pixels(batch.images)
    assert pixels.min() > -1e-6
    assert pixels.max() < 1 + 1e-6
    assert torch.allclose(examples.normalized(pixels), batch.images, atol=1e-5)


def test_the_first_are_of_each_class_in_proportion_and_always_the_same(examples):
    some = examples.first(50)
    assert len(some) == 50
    assert some.labels.bincount().tolist() == [5] * 10
    images = [torch.cat([b.images for b in examples.first(50).batches(size)]) for size in (50, 7)]
    assert torch.equal(*images)
    assert examples.first(1000) is examples


def test_shuffled_images_are_the_same_in_another_order(examples):
    def images(some):
        return torch.cat([batch.images for batch in some.batches()])

    some = examples.first(50)
    mixed = some.shuffled(seed=1)
    assert torch.equal(mixed.labels, some.shuffled(seed=1).labels)
    assert not torch.equal(mixed.labels, some.labels)
    assert not torch.equal(mixed.labels, some.shuffled(seed=2).labels)
    by_content = [sorted(map(bytes, images(of).numpy())) for of in (mixed, some)]
    assert by_content[0] == by_content[1]


def test_the_tiny_models_have_learned(subject, other):
    for one in (subject, other):
        outputs = [one.model(batch.images) for batch in one.examples.batches()]
        accuracy = (torch.cat(outputs).argmax(1) == one.examples.labels).float().mean()
        assert accuracy > 0.6
