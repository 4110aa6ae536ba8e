"""The keys that are printed for a recipe, and the page of docs that lists them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from scm_media import recipe
from scm_media.cli import main
from scm_media.losses import ConsistencyLoss
from scm_media.recipe.reference import list_keys, parameter_descriptions, reference_page

PAGE = Path(__file__).parents[2] / "docs" / "recipe-keys.md"


def printed(capsys, *words: str) -> str:
    assert main(["recipes", *words]) == 0
    return capsys.readouterr().out


def leaves(config: dict, prefix: str = "") -> set[str]:
    """Dotted keys of plain values; what is below a part's key that is no part itself counts as one value."""
    found = set()
    for key, value in config.items():
        if (
            isinstance(value, dict)
            and value
            and (prefix == "" or "_target_" in value or key in ("network", "loss", "mask"))
        ):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found.add(f"{prefix}{key}")
    return found


@pytest.mark.parametrize("name", ["image/tiny", "audio/notes", "video/scenes-actions", "image/imagenet64-s"])
def test_every_key_of_a_recipe_is_listed_with_its_value(name):
    config = recipe.compose(name, ["++data.root=x"])
    listed = {key.key: key for key in list_keys(config)}
    assert len(listed) == len(list(list_keys(config))), "each key once"
    assert not leaves(config) - listed.keys()
    assert listed["teacher.optimizer.lr"].value == config["teacher"]["optimizer"]["lr"]
    assert listed["student.max_steps"].value == config["student"]["max_steps"]
    assert not [key.key for key in listed.values() if "._target_" not in key.key and key.type == ""]


def test_keys_as_json_say_type_unit_bounds_default_and_value(capsys):
    printed_json = json.loads(printed(capsys, "image/tiny", "--keys", "--json"))
    keys = {key["key"]: key for key in printed_json["keys"]}
    assert printed_json["recipe"] == "image/tiny"
    assert keys["sampler.second_time"] == {
        "key": "sampler.second_time",
        "type": "a number",
        "unit": "rad",
        "bounds": f"above 0 and below {math.pi / 2:.4g}",
        "required": False,
        "default": 1.1,
        "value": 1.1,
        "description": "time of the student's second step",
    }
    assert keys["student.loss.tangent_method"]["type"] == "one of one_pass, forward, finite_difference"
    assert keys["student.loss.tangent_method"]["choices"] == ["one_pass", "forward", "finite_difference"]
    assert keys["trainer.compile"]["choices"] == ["true", "false"] and "choices" not in keys["teacher.max_steps"]
    assert keys["feature_extractor.warmup_steps"]["value"] == 0, "a key that is left out has its default"
    assert keys["guide"]["value"] is None


def test_keys_are_printed_for_people_and_need_a_recipe(capsys):
    text = printed(capsys, "image/tiny", "--keys")
    assert (
        "student.max_steps = 100  (a whole number, at least 0 and at most 1000000000, in steps, default: 4000)" in text
    )
    assert "\n    length of the training\n" in text
    for words in (["--keys"], ["image/tiny", "--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["recipes", *words])
        assert ended.value.code == 2


def test_descriptions_of_parameters_come_from_docstrings():
    def part(window: int, hop: int, phase: str, other: int) -> None:
        """Makes a spectrogram of other: things.

        window, hop: in samples. The rest is not theirs.
        phase: absolute, or
        advance. ``phase: no``
        """

    found = parameter_descriptions(part)
    assert found["window"] == found["hop"] == "in samples"
    assert found["phase"] == "absolute, or advance"
    assert "guidance_max" in parameter_descriptions(ConsistencyLoss)


def test_the_page_of_keys_is_what_the_settings_say():
    assert PAGE.read_text(encoding="utf-8") == reference_page(), "scm-media recipes --reference > docs/recipe-keys.md"
