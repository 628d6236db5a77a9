"""The norm of the gradient of the mean loss."""

import pytest

from vitarium.core.registry import choose


@pytest.mark.parametrize("batch_size", [400, 100])
def test_has_a_closed_form_for_softmax_regression(linear, softmax_regression, batch_size):
    exact = softmax_regression.gradient(linear)
    norms = {name: slope.norm().item() for name, slope in exact.items()}
    whole = (norms["1.weight"] ** 2 + norms["1.bias"] ** 2) ** 0.5
    values = choose("measure", "gradient_norm", batch_size=batch_size)(linear)
    assert values == pytest.approx({"": whole} | norms, rel=1e-4)


def test_every_parameter_has_its_own(subject):
    values = choose("measure", "gradient_norm", num_images=50)(subject)
    assert set(values) == {"", *dict(subject.model.named_parameters())}
    parts = [value**2 for name, value in values.items() if name]
    assert values[""] ** 2 == pytest.approx(sum(parts))
