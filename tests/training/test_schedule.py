"""The learning rate's factor, value by value."""

from __future__ import annotations

import math

import pytest

from scm_media.training.optimization import rate_factor


def test_warm_up_is_linear_and_never_zero():
    factors = [rate_factor(step, 100, 4, "constant", None) for step in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert rate_factor(0, 100, 0, "constant", None) == 1.0


def test_cosine_falls_from_the_warm_up_to_zero():
    assert rate_factor(10, 110, 10, "cosine", None) == pytest.approx(1.0)
    assert rate_factor(60, 110, 10, "cosine", None) == pytest.approx(0.5)
    assert rate_factor(35, 110, 10, "cosine", None) == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert rate_factor(110, 110, 10, "cosine", None) == pytest.approx(0.0)
    assert rate_factor(200, 110, 10, "cosine", None) == pytest.approx(0.0)
    assert rate_factor(4, 110, 10, "cosine", None) == pytest.approx(0.5)


def test_inverse_root_holds_then_falls():
    assert rate_factor(50, 1000, 0, "inverse_sqrt", 100) == 1.0
    assert rate_factor(100, 1000, 0, "inverse_sqrt", 100) == 1.0
    assert rate_factor(400, 1000, 0, "inverse_sqrt", 100) == pytest.approx(0.5)
    assert rate_factor(0, 1000, 0, "inverse_sqrt", 100) == 1.0


def test_wrong_settings_say_what_to_give():
    with pytest.raises(ValueError, match="decay_steps must be given for decay 'inverse_sqrt'"):
        rate_factor(0, 10, 0, "inverse_sqrt", None)
    with pytest.raises(ValueError, match="decay must be constant, cosine or inverse_sqrt, got 'linear'"):
        rate_factor(0, 10, 0, "linear", None)
