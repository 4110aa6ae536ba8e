"""Recipes that stand for more than a machine holds are refused before they are filled in."""

from __future__ import annotations

import os
import time

import pytest

from scm_media import recipe
from scm_media.recipe.interpolation import check_expansion

HEAD = "defaults: [image/tiny, _self_]\n"


def refused(tmp_path, text, match):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    began = time.monotonic()
    with pytest.raises(ValueError, match=match) as error:
        recipe.compose(str(file))
    assert time.monotonic() - began < 5
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def chain(words):
    return "".join(f"k{n}: '{words(n)}'\n" for n in range(40)) + f"k40: {'x' * 20}\n"


@pytest.mark.parametrize(
    "words",
    [
        lambda n: f"${{k{n + 1}}}${{k{n + 1}}}",
        lambda n: f"${{oc.select:k{n + 1}}}${{oc.select:k{n + 1},1}}",
        lambda n: f"${{.k{n + 1}}}-${{.k{n + 1}}}",
    ],
)
def test_references_that_double_are_refused(tmp_path, words):
    refused(tmp_path, HEAD + chain(words), "its interpolations .* stand for more than 1048576 characters")


def test_references_by_computed_names_are_refused(tmp_path):
    links = "".join(f"  k{n}: '${{m.${{n{n + 1}}}}}${{m.${{n{n + 1}}}}}'\n" for n in range(40))
    names = "".join(f"n{n}: k{n}\n" for n in range(41))
    refused(tmp_path, f"{HEAD}m:\n{links}  k40: {'x' * 20}\n{names}", "its interpolations .* stand for more than")


def test_mappings_that_double_are_refused(tmp_path):
    lines = "".join(f"m{n}: {{a: '${{m{n + 1}}}', b: '${{m{n + 1}}}'}}\n" for n in range(40))
    refused(tmp_path, f"{HEAD}{lines}m40: 1\n", "its interpolations .* stand for more than")


def test_anchors_that_double_are_refused(tmp_path):
    lines = "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    refused(tmp_path, f"{HEAD}a0: &a0 [x]\n{lines}", "by its aliases")


def test_a_file_beside_the_recipe_is_held_to_the_same(tmp_path):
    lines = "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    (tmp_path / "other.yaml").write_text(f"a0: &a0 [x]\n{lines}")
    refused(tmp_path, "defaults: [image/tiny, other, _self_]\n", "by its aliases")


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " * 1000, "a: {" * 20_000, "- " * 30_000, "\x00", "? " * 5000])
def test_nests_are_refused(tmp_path, text):
    refused(tmp_path, text, r"mine\.yaml")


def test_pipes_and_huge_files_are_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    os.mkfifo(file)
    with pytest.raises(ValueError, match=r"mine\.yaml"):
        recipe.compose(str(file))
    file.unlink()
    file.write_text(f"{HEAD}# {'x' * (1 << 17)}\n")
    with pytest.raises(ValueError, match="expected at most 131072"):
        recipe.compose(str(file))


def test_ordinary_references_are_counted_right():
    check_expansion(
        {"a": "x" * 1000, "b": [f"${{a}}{n}" for n in range(900)], "c": "${b[3]} ${.a} ${oc.select:no,1}"}, ""
    )
    with pytest.raises(ValueError, match="mine: its interpolations"):
        check_expansion({"a": "x" * 1000, "b": [f"${{a}}{n}" for n in range(1100)]}, "mine")


def test_shipped_recipes_compose(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"{HEAD}seed: 3\nteacher: {{batch_size: '${{student.batch_size}}'}}\n")
    composed = recipe.compose(str(tmp_path / "mine.yaml"))
    assert composed["teacher"]["batch_size"] == composed["student"]["batch_size"]
