"""Which outputs of a model are a data set's classes."""

import pytest

from vitarium.data.class_outputs import ClassOutputs, class_outputs

ANIMALS = ("cat", "dog", "sea lion")


def matched(names, classes, num_outputs=None):
    return class_outputs(names, len(names) if num_outputs is None else num_outputs, classes, "pets")


def test_the_same_names_are_the_outputs_as_they_are():
    assert matched(ANIMALS, ANIMALS) == ClassOutputs()


@pytest.mark.parametrize("name", ["Sea Lion", "sea_lion", "SEA-LION", " sea  lion "])
def test_case_spaces_hyphens_and_underscores_make_no_other_name(name):
    assert matched(("dog", name, "cat"), ANIMALS).numbers == (2, 0, 1)


def test_an_exact_name_goes_before_one_that_is_written_otherwise():
    assert matched(("Crane", "crane"), ("crane", "Crane")).numbers == (1, 0)


def test_classes_may_be_some_of_the_outputs():
    outputs = matched(("tree", "dog", "car", "cat"), ("cat", "dog"))
    assert outputs == ClassOutputs((3, 1))


def test_names_that_do_not_match_are_named():
    outputs = matched(("cat", "horse", "cow"), ANIMALS)
    assert not outputs.by_number
    assert "'cat', 'horse', 'cow'" in outputs.mismatch
    assert "2 of the 3 classes of the data set 'pets': 'dog', 'sea lion'" in outputs.mismatch


def test_a_name_of_two_outputs_is_no_name():
    assert (
        "several of its outputs are called 'crane'"
        in matched(("crane", "crane", "dog"), ("crane", "dog")).mismatch
    )
    assert "'Dog', 'dog'" in matched(("dog", "cat"), ("Dog", "dog")).mismatch


def test_equal_names_that_occur_twice_are_in_one_order():
    names = ("crane", "crane", "dog")
    assert matched(names, names) == ClassOutputs()


@pytest.mark.parametrize("names", [(), ("LABEL_0", "LABEL_1", "LABEL_2"), ("0", "1", "2")])
def test_by_number_where_the_model_has_no_names(names):
    assert matched(names, ANIMALS, 3) == ClassOutputs(by_number=True)


def test_by_number_where_the_data_set_has_no_names():
    assert matched(ANIMALS, ("0", "1", "2")) == ClassOutputs(by_number=True)


def test_other_numbers_of_classes_never_match_by_number():
    assert (
        "its 7 outputs are not the 3 classes of the data set 'pets'"
        in matched((), ANIMALS, 7).mismatch
    )
    assert "its 3 outputs" in matched(ANIMALS, ("0", "1"), 3).mismatch


def test_folders_that_are_called_by_numbers_are_those_outputs():
    """As text, 10 stands before 2."""
    classes = tuple(sorted(map(str, range(12))))
    outputs = matched((), classes, 12)
    assert outputs.by_number
    assert outputs.numbers == tuple(map(int, classes))


def test_some_of_the_digits_are_called_as_outputs_are():
    assert matched(tuple("0123456789"), ("3", "7")) == ClassOutputs((3, 7))
    assert matched(tuple("0123456789"), ("3", "x")).mismatch


def test_accents_are_the_same_however_they_are_encoded():
    assert matched(("cafe\u0301", "tea"), ("tea", "caf\u00e9")).numbers == (1, 0)


def test_names_that_are_no_texts_are_taken_as_such():
    assert matched((3, 7, None), ("None", "3"), 3).numbers == (2, 0)
