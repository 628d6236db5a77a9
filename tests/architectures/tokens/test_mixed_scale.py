"""Mixed-scale tokens: which pixels a token has, where it is, and which big patches are cut finely."""

import pytest
import torch
from torch.nn import functional as F

from reference.built_models import build, change_by_symmetries, images
from vitarium import create_model
from vitarium.architectures.adaptation import start_weights
from vitarium.architectures.tokens._scale_choice import entropies, gradients
from vitarium.core.config import InvalidConfig
from vitarium.testing import check_architecture

SIZES = {"img_size": 16, "patch_size": 2, "in_chans": 1}  # 64 patches, 16 big ones


def taken_from_vit(**settings):
    """A mixed-scale model with the weights of a plain one."""
    plain = build("vit", **SIZES).eval()
    model = build("mixed_scale", **SIZES, scale_embedding=False, **settings).eval()
    model.load_state_dict(plain.state_dict(), strict=True)
    return model, plain


@pytest.mark.parametrize(("big_patch", "num_fine"), [(2, 0), (2, 5), (2, 16), (4, 1), (4, 4)])
def test_every_pixel_is_in_one_token_and_a_fine_one_is_numbered_as_its_block(big_patch, num_fine):
    model = build("mixed_scale", **SIZES, big_patch=big_patch, num_fine=num_fine).eval()
    pixels = images(16, count=2, channels=1)
    embed, big = model.patch_embed, (8 // big_patch) ** 2
    coarse, fine = embed.choice(embed.scores(pixels))
    blocks = torch.arange(64.0).view(1, 1, 8, 8).repeat(2, 1, 1, 1)
    numbered = blocks.repeat_interleave(2, 2).repeat_interleave(
        2, 3
    )  # a pixel is its block's number
    cut, (_, numbers) = embed.cut(numbered, (coarse, fine))
    count = (big - num_fine) + num_fine * big_patch**2
    assert cut.shape == (2, count, 1, 2, 2)
    assert model.patch_embed(pixels).tokens.shape == (2, count, 24)
    of_fine = cut[:, big - num_fine :].flatten(2)
    assert torch.equal(of_fine, numbers.unsqueeze(-1).expand(-1, -1, 4).float())
    both = torch.cat([fine, coarse], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(big).expand(2, -1))
    for image in range(2):  # blocks of the chosen big patches, and no others
        rows, columns = numbers[image] // 8 // big_patch, numbers[image] % 8 // big_patch
        inside = (rows * (8 // big_patch) + columns).unique()
        assert torch.equal(inside, fine[image])


def test_all_patches_fine_is_the_plain_vit_in_another_order():
    model, plain = taken_from_vit(num_fine=16)
    pixels = images(16, channels=1)
    assert torch.allclose(model(pixels), plain(pixels), atol=1e-12)


def test_a_big_patch_is_shrunk_by_itself_as_torch_shrinks():
    model, _ = taken_from_vit(num_fine=0)
    pixels = images(16, count=2, channels=1)
    tokens = model.patch_embed(pixels).tokens
    for number in range(16):
        row, column = divmod(number, 4)
        big = pixels[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        small = F.interpolate(big, (2, 2), mode="bicubic", align_corners=False, antialias=True)
        assert torch.allclose(
            tokens[:, number], model.patch_embed.proj(small).flatten(1), atol=1e-6
        )


def test_no_patch_fine_is_a_vit_of_the_half_size_image():
    model, plain = taken_from_vit(num_fine=0)
    half = build("vit", **SIZES | {"img_size": 8}).eval()
    weights = plain.state_dict()
    grid = weights["pos_embed"][:, 1:].unflatten(1, (4, 2, 4, 2)).mean((2, 4)).flatten(1, 2)
    weights["pos_embed"] = torch.cat([weights["pos_embed"][:, :1], grid], dim=1)
    half.load_state_dict(weights, strict=True)
    small = images(8, channels=1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    flat = small[..., ::4, ::4].repeat_interleave(2, 2).repeat_interleave(2, 3)  # constant inside
    large = flat.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(model(large), half(flat), atol=1e-6)


def test_gradients_reach_the_vectors_of_both_scales():
    model = build("mixed_scale", **SIZES, num_fine=3)
    model(images(16, channels=1)).sum().backward()
    assert (model.scale_embed.grad.abs().amax((0, 2)) > 0).all()


def test_entropies_are_of_gray_levels_in_the_range_of_the_image():
    pixels = torch.zeros(1, 1, 4, 8, dtype=torch.float64)
    pixels[..., 4:] = torch.arange(16.0).view(4, 4)
    flat, full = entropies(pixels, 4)[0]
    assert flat == 0
    assert full.item() == pytest.approx(torch.tensor(16.0).log().item())
    both = images(8, count=2)
    assert torch.equal(entropies(both, 4).argsort(), entropies(3 * both - 1, 4).argsort())


def test_gradients_are_sobels():
    pixels, size = images(8, count=2), 4
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
    gray = F.pad(pixels.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across, down = (F.conv2d(gray, k.view(1, 1, 3, 3)) for k in (kernel, kernel.T))
    expected = F.avg_pool2d((across**2 + down**2).sqrt(), size).flatten(1)
    assert torch.allclose(gradients(pixels, size), expected)


@pytest.mark.parametrize("score", ["entropy", "gradient"])
def test_the_big_patches_with_most_in_them_are_cut_finely(score):
    model = build("mixed_scale", **SIZES, num_fine=2, score=score).eval()
    pixels = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    pixels[..., 4:8, 8:12] = images(4, count=1, channels=1)
    pixels[..., 12:, :4] = images(4, count=1, channels=1, seed=1)
    for mode in (model.eval(), model.train()):
        coarse, fine = mode.patch_embed.choice(mode.patch_embed.scores(pixels))
        assert fine.tolist() == [[6, 12]]
        assert coarse.tolist() == [[n for n in range(16) if n not in (6, 12)]]


def test_random_choices_are_drawn_in_training_and_even_in_eval_mode():
    embed = build("mixed_scale", **SIZES, num_fine=4, score="random").patch_embed
    pixels = images(16, count=200, channels=1)
    torch.manual_seed(0)
    _, drawn = embed.train().choice(embed.scores(pixels))
    counts = drawn.flatten().bincount(minlength=16)
    assert counts.sum() == 800
    assert (counts - 50).abs().max() < 31  # five deviations
    _, even = embed.eval().choice(embed.scores(pixels))
    assert torch.equal(even, torch.tensor([2, 6, 10, 14]).expand(200, -1))


def test_candidates_are_the_best_and_one_in_so_many_is_taken():
    embed = build("mixed_scale", **SIZES, num_fine=3, candidate_ratio=2).patch_embed.train()
    pixels = images(16, count=100, channels=1)
    torch.manual_seed(0)
    scores = embed.scores(pixels)
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :6]
    coarse, fine = embed.choice(scores)
    assert (fine.unsqueeze(2) == best.unsqueeze(1)).any(2).all()
    assert fine.shape == (100, 3)
    assert coarse.shape == (100, 13)
    ranks = (best.unsqueeze(2) == fine.unsqueeze(1)).any(2).double().mean(0)
    assert ((ranks - 0.5).abs() < 0.25).all()  # five deviations


def test_a_vits_weights_fit_without_vectors_for_scales():
    plain = build("vit", **SIZES, num_classes=7)
    model = build("mixed_scale", **SIZES, scale_embedding=False)
    start = start_weights(model, plain.state_dict(), head=False)
    assert {n for n in model.state_dict() if n not in start.weights} == {"head.weight", "head.bias"}


def test_symmetries_leave_outputs_as_they_are_without_positions_of_prefix_tokens():
    model = build("mixed_scale", no_embed_class=True, reg_tokens=2)
    change, count = change_by_symmetries("mixed_scale", model, images(32))
    assert change < 1e-9
    assert count > 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_fine": 50}, "num_fine 50: an image has 49 big patches"),
        ({"num_middle": 40, "big_patch": 2}, "num_middle 40: 33 big patches are not cut finely"),
        ({"num_middle": 1}, "middle_side 2 is no proper divisor of big_patch 2"),
        ({"middle_side": 3}, "middle_side 3 is of a middle scale, and num_middle is 0"),
        ({"img_width": 100}, "img_width 100: not divisible by big patches of 32 pixels"),
        ({"img_size": 32, "img_width": 64}, "num_fine 16: an image has 2 big patches"),
        ({"big_patch": 3}, "img_size 224: not divisible by big patches of 48 pixels"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        create_model("mixed_scale", **settings)


THREE = {"img_size": 16, "patch_size": 1, "in_chans": 1, "big_patch": 4, "num_fine": 3,
         "num_middle": 5, "scale_embedding": True}  # fmt: skip


def test_three_scales_have_every_pixel_once_and_cells_of_their_own_grids():
    model = build("mixed_scale", **THREE).eval()
    embed, pixels = model.patch_embed, images(16, count=2, channels=1)
    chosen = embed.choice(embed.scores(pixels))
    every = torch.cat(chosen, dim=1).sort(dim=1).values
    assert torch.equal(every, torch.arange(16).expand(2, -1))
    tokens, numbers = embed(pixels)
    assert [of_scale.shape[1] for of_scale in numbers] == [8, 5 * 4, 3 * 16]
    assert tokens.shape == (2, 8 + 20 + 48, 24)
    assert embed.num_patches == 76
    for parts, of_scale, cells in zip((1, 2, 4), chosen, numbers, strict=True):
        rows, columns = (index // parts for index in (cells // (4 * parts), cells % (4 * parts)))
        assert torch.equal((rows * 4 + columns)[:, :: parts**2], of_scale)
        for image in cells:
            assert len(image.unique()) == len(image)


def test_the_middle_scale_is_the_image_shrunk_big_patch_by_big_patch():
    model = build("mixed_scale", **THREE | {"num_fine": 0, "num_middle": 16}).eval()
    pixels = images(16, count=2, channels=1)
    tokens, (_, numbers, _) = model.patch_embed(pixels)
    small = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    for number in range(16):
        row, column = divmod(number, 4)
        big = pixels[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        small[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = F.interpolate(
            big, (2, 2), mode="bicubic", align_corners=False, antialias=True
        )
    expected = model.patch_embed.proj(small).flatten(2).transpose(1, 2)
    for image in range(2):
        torch.testing.assert_close(tokens[image], expected[image, numbers[image]])


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24), (24, 8)])
def test_tokens_have_the_mean_of_the_positions_that_they_cover(height, width):
    settings = THREE | {"img_size": height, "img_width": width}
    model = build("mixed_scale", **settings, class_token=False, global_pool="avg").eval()
    x = model.patch_embed(images(24, count=1, channels=1)[..., :height, :width])
    added = (model._pos_embed(x) - x.tokens)[0]
    grid = model.pos_embed[0].unflatten(0, (height, width))
    at = 0
    for scale, (parts, numbers) in enumerate(zip((1, 2, 4), x.numbers, strict=True)):
        cell, columns = 4 // parts, width * parts // 4
        for number in numbers[0].tolist():
            row, column = (cell * index for index in divmod(number, columns))
            block = grid[row : row + cell, column : column + cell].mean((0, 1))
            torch.testing.assert_close(added[at], block + model.scale_embed[0, scale])
            at += 1
    assert at == added.shape[0] == model.patch_embed.num_patches


def test_the_middle_scale_gets_the_next_best_and_in_training_their_candidates():
    settings = THREE | {"num_fine": 2, "num_middle": 3, "candidate_ratio": 2}
    embed = build("mixed_scale", **settings).patch_embed
    scores = torch.rand(200, 16, generator=torch.Generator().manual_seed(0))
    ranks = scores.argsort(dim=1, descending=True).argsort(dim=1)
    _, middle, fine = embed.eval().choice(scores)
    assert torch.equal(ranks.gather(1, fine).sort(dim=1).values, torch.arange(2).expand(200, -1))
    expected = torch.arange(2, 5).expand(200, -1)
    assert torch.equal(ranks.gather(1, middle).sort(dim=1).values, expected)
    torch.manual_seed(0)
    _, middle, fine = embed.train().choice(scores)
    assert set(ranks.gather(1, fine).flatten().tolist()) == set(range(4))
    assert set(ranks.gather(1, middle).flatten().tolist()) == set(range(4, 10))


def test_random_scales_are_drawn_in_training_and_evenly_spread_in_eval_mode():
    embed = build("mixed_scale", **THREE | {"score": "random", "num_fine": 2, "num_middle": 2})
    embed, pixels = embed.patch_embed, images(16, count=100, channels=1)
    _, middle, fine = embed.eval().choice(embed.scores(pixels))
    assert torch.equal(torch.cat([middle, fine], 1)[0].sort().values, torch.tensor([2, 6, 10, 14]))
    assert fine[0].tolist() == [6, 14]
    torch.manual_seed(0)
    _, middle, fine = embed.train().choice(embed.scores(pixels))
    assert len(middle.unique()) == len(fine.unique()) == 16


def test_three_scales_keep_the_contract():
    check_architecture("mixed_scale", big_patch=4, num_fine=0, num_middle=1, img_size=64)


SIDES = pytest.mark.parametrize(("height", "width"), [(8, 24), (24, 8)])  # 12 big patches of 4 x 4


def of_sides(height, width, **settings):
    """A model for images that are not square, and three of them."""
    sizes = SIZES | {"img_size": height, "img_width": width}
    model = build("mixed_scale", **sizes, **settings).eval()
    return model, images(24, channels=1)[..., :height, :width]


@SIDES
@pytest.mark.parametrize("num_fine", [0, 5, 12])
def test_every_pixel_of_an_image_that_is_not_square_is_in_one_token(height, width, num_fine):
    model, pixels = of_sides(height, width, num_fine=num_fine)
    tokens, numbers = model.patch_embed(pixels)
    assert tokens.shape == (3, (12 - num_fine) + 4 * num_fine, 24)
    assert model.patch_embed.num_patches == tokens.shape[1]
    for image in range(3):
        visits, unread = torch.zeros(height, width), iter(tokens[image])
        for side, of_scale in zip((4, 2), numbers, strict=True):
            for number in of_scale[image].tolist():
                row, column = (side * index for index in divmod(number, width // side))
                block = (slice(row, row + side), slice(column, column + side))
                visits[block] += 1
                part = pixels[image : image + 1, :, *block]
                if side > 2:
                    part = F.interpolate(part, (2, 2), mode="bicubic", antialias=True)
                expected = model.patch_embed.proj(part).flatten()
                torch.testing.assert_close(next(unread), expected)
        assert torch.equal(visits, torch.ones(height, width))


@SIDES
def test_all_patches_fine_is_timms_vit_for_images_that_are_not_square(height, width):
    model, pixels = of_sides(height, width, num_fine=12, scale_embedding=False)
    sizes = {"patch_size": 2, "in_chans": 1, "embed_dim": 24, "depth": 2, "num_heads": 2}
    plain = create_model(
        "timm", model="vit_tiny_patch16_224", img_size=[height, width], num_classes=5, **sizes
    )
    plain.double().eval().load_state_dict(model.state_dict(), strict=True)
    assert torch.allclose(model(pixels), plain(pixels), atol=1e-12)


@pytest.mark.parametrize("settings", [{"img_width": 64}, {"score": "random", "img_size": 64}])
def test_models_of_images_that_are_not_square_keep_the_contract(settings):
    check_architecture("mixed_scale", **{"img_width": 32, **settings})


def test_positions_of_a_vit_are_resampled_to_the_grid_of_patches():
    parent = build("vit", **SIZES)
    model, _ = of_sides(8, 32, num_fine=2, scale_embedding=False)
    start = start_weights(model, parent.state_dict(), head=False, parent_model=parent)
    positions = parent.pos_embed[:, 1:].unflatten(1, (8, 8)).permute(0, 3, 1, 2)
    expected = F.interpolate(positions, (4, 16), mode="bicubic", antialias=True)
    resampled = start.weights["pos_embed"][:, 1:].unflatten(1, (4, 16)).permute(0, 3, 1, 2)
    torch.testing.assert_close(resampled, expected, rtol=0, atol=1e-6)
    assert start.changes == ("positions resampled 8×8 → 4×16",)
