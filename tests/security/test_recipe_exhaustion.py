"""Recipes that cost seconds, or that raise what no caller expects, before anything is composed of them."""

from __future__ import annotations

import time

import pytest

from scm_media import recipe
from scm_media.reading import parse_yaml

HEAD = "defaults: [image/tiny, _self_]\n"


def refused(file, match):
    began = time.monotonic()
    with pytest.raises(ValueError, match=match) as error:
        recipe.compose(str(file))
    assert time.monotonic() - began < 5
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_lists_of_pairs_that_double_are_refused():
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} !!pairs [k: *a{n - 1}, k: *a{n - 1}]" for n in range(1, 60))]
    with pytest.raises(ValueError, match="by its aliases"):
        parse_yaml("\n".join(lines), "mine.yaml")


@pytest.mark.parametrize("text", ["!!timestamp x", "!!int ''", "!!bool x", "!!float x", "0x" + "f" * 5000, "1:" * 5000])
def test_a_tag_on_a_text_that_is_none_of_its_kind_is_named(text):
    with pytest.raises(ValueError, match=r"mine\.yaml is not readable as YAML"):
        parse_yaml(f"a: {text}\n", "mine.yaml")


@pytest.mark.parametrize("text", ["${" + " " * 100_000, "${" * 50_000, "${seed}" * 15_000])
def test_texts_with_endless_interpolations_are_refused(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(f'{HEAD}about: {{data: "{text}"}}\n')
    refused(file, r"mine\.yaml: texts with interpolations .* have \d+ characters, expected at most 20000")


def test_aliases_of_texts_with_interpolations_are_counted(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"{HEAD}a: &a '{'${seed}' * 100}'\nb: [{', '.join(['*a'] * 20_000)}]\n")
    refused(file, "texts with interpolations .* have 14000700 characters")


@pytest.mark.parametrize("key", ["seed: {}", "teacher: {{max_steps: {}}}", "sampler: {{guidance: {}}}"])
def test_numbers_of_hundreds_of_digits_are_refused(tmp_path, key):
    file = tmp_path / "mine.yaml"
    file.write_text(f"{HEAD}{key.format('9' * 400)}\n")
    refused(file, "must be (within ±|at most )")


@pytest.mark.parametrize("entries", ["{0}, {0}, {0}, {0}", "{0}@a, {0}@b, {0}@c"])
def test_lists_of_defaults_that_double_are_refused(tmp_path, entries):
    for number in range(20):
        (tmp_path / f"g{number}.yaml").write_text(f"defaults: [{entries.format(f'g{number + 1}')}]\n")
    (tmp_path / "g20.yaml").write_text("x: 1\n")
    (tmp_path / "mine.yaml").write_text("defaults: [g0, image/tiny, _self_]\n")
    refused(tmp_path / "mine.yaml", "inherits more than 500 configurations")


def test_a_list_of_thousands_of_defaults_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"defaults: [{', '.join(['image/tiny'] * 3000)}]\n")
    refused(tmp_path / "mine.yaml", "inherits more than 500 configurations")


@pytest.mark.parametrize("key", ["version", "name", "sub_dir"])
@pytest.mark.parametrize("place", ["/tmp/elsewhere", "../../elsewhere", "C:\\x"])
def test_no_text_of_a_logger_leads_out_of_the_working_directory(tmp_path, key, place):
    file = tmp_path / "mine.yaml"
    file.write_text(f"{HEAD}logger: {{root_dir: runs, {key}: '{place}'}}\n")
    refused(file, rf"logger\.{key} is .* outside the working directory")
    assert recipe.compose(str(file), [f"++logger.{key}=here"])["logger"][key] == "here"
