"""Settings of Mini-DeiT and Mini-Swin: those that are refused, and factors that come back."""

import json

import pytest

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose, section

ARCHITECTURES = ("mini_deit", "mini_swin")


def refused(name, settings, message):
    with pytest.raises(InvalidConfig, match=message) as caught:
        choose("architecture", name, **settings)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"convolution": 4}, "convolution: a kernel of 4 has no middle; use 3 or 5, or 0 for none"),
        ({"local_norm": "both"}, "local_norm: 'both' is not 'branch' or 'stream'"),
        ({"mixing_init": "zeros"}, "mixing_init: 'zeros' is not 'trunc_normal' or 'identity'"),
        ({"shares": 2}, "has no setting 'shares'; did you mean 'share'"),
        ({"img_size": 223}, r"img_size 223 is not divisible by patch_size (4|16)"),
        ({"share": 0}, "share: 0 is not a number of blocks from 1, 'all', or a list"),
        ({"share": "some"}, "share: 'some' is not a number of blocks from 1, 'all', or a list"),
        ({"share": None}, "share: None is not a number of blocks from 1"),
    ],
)
def test_settings_of_both_are_refused_once_with_what_to_change(name, settings, message):
    refused(name, settings, message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_values": 0}, "init_values: 0 is not greater than 0"),
        ({"relative_positions": {"ratoi": 2}}, r"relative_positions\.ratoi: .* mean 'ratio'"),
        ({"relative_positions": {"ratio": -1}}, r"relative_positions\.ratio: -1 is not greater"),
        ({"relative_positions": {"method": "none"}}, r"relative_positions\.method: 'none' is not"),
        ({"global_pool": "token"}, "needs the class token; use 'avg' without it"),
        (
            {"share": 7},
            "share 7 does not divide 12 blocks; use one of 1, 2, 3, 4, 6, 12, 'all', or",
        ),
        ({"share": 24}, "share 24 does not divide 12 blocks"),
        ({"share": [4, 4, 2]}, r"share \[4, 4, 2\] is for 10 blocks, but there are 12; let the"),
        ({"share": [8, 8]}, r"share \[8, 8\] is for 16 blocks, but there are 12"),
        ({"share": []}, r"share \[\] is for 0 blocks"),
        (
            {"share": 0},
            "share: 0 is not a number of blocks from 1, 'all', or a list of such numbers",
        ),
        ({"share": -2}, "share: -2 is not a number of blocks from 1"),
        ({"share": 2.5}, "share: 2.5 is not a number of blocks from 1"),
        ({"share": True}, "share: True is not a number of blocks from 1"),
        ({"share": [6, 0, 6]}, r"share: \[6, 0, 6\] is not a number of blocks from 1"),
        ({"share": [6, "all"]}, r"share: \[6, 'all'\] is not a number of blocks from 1"),
        ({"share": 4, "depth": 6}, "share 4 does not divide 6 blocks; use one of 1, 2, 3"),
    ],
)
def test_settings_that_make_no_mini_deit_are_refused(settings, message):
    refused("mini_deit", settings, message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 4}, "layers.0: share 4 does not divide 2 blocks; use one of 1, 2, 'all', or"),
        ({"share": [2, 2, 4, 2]}, "layers.2: share 4 does not divide 6 blocks; use one of 1, 2, 3"),
        ({"share": [2, 2, 6]}, "share has 3 entries, but there are 4 stages; give one for each"),
        (
            {"share": [2, 2, [3, 2], 2]},
            r"layers.2: share \[3, 2\] is for 5 blocks, but there are 6",
        ),
        ({"share": []}, "share has 0 entries, but there are 4 stages"),
        ({"share": 0}, "share: 0 is not a number of blocks from 1, 'all', or a list with one"),
        ({"share": [2, 2, "some", 2]}, r"share: \[2, 2, 'some', 2\] is not a number of blocks"),
        ({"share": [2, 2, [3, "all"], 2]}, "or a list of such numbers"),
        ({"share": [2, 2, [3, True], 2]}, "or a list of such numbers"),
        ({"num_heads": [3, 6, 12]}, r"num_heads \[3, 6, 12\] is for 3 stages, but depths"),
        ({"num_heads": [3, 6, 12, 25]}, "layers.3: its width of 768 is not divisible by num_heads"),
        ({"depths": []}, "depths: "),
        ({"window_size": 0}, "window_size: 0 is not greater than 0"),
    ],
)
def test_settings_that_make_no_mini_swin_are_refused(settings, message):
    refused("mini_swin", settings, message)


def test_a_pattern_of_sharing_is_for_the_blocks_that_there_are():
    assert choose("architecture", "mini_deit", depth=6, share=[4, 2]).config.share == (4, 2)
    stages = choose("architecture", "mini_swin", share=[2, "all", [2, 4], [1, 1]]).config
    assert stages.group_sizes == ((2,), (2,), (2, 4), (1, 1))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mini_deit", {}),
        ("mini_deit", {"share": "all", "relative_positions": None}),
        ("mini_deit", {"share": [4, 4, 2, 2], "init_values": 0.1}),
        ("mini_deit", {"relative_positions": {"on": ["q", "k"]}}),
        ("mini_swin", {"share": [2, "all", [2, 4], [1, 1]], "convolution": 0}),
    ],
)
def test_factors_are_json_come_back_and_can_be_keys(name, settings):
    chosen = section("architecture", {"name": name, **settings})
    assert chosen.factors(defaults=False) == {"name": name, **settings}
    for defaults in (True, False):
        factors = json.loads(json.dumps(chosen.factors(defaults=defaults)))
        again = section("architecture", factors)
        assert again == chosen
        assert hash(again) == hash(chosen)
