"""Overrides: paths that look like numbers, values that Hydra cannot read, and quotes that survive Hydra."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from scm_media import recipe
from scm_media.recipe.overrides import escaped_interpolations, literal_texts, quote, takes_text
from tests.properties import repeatable


def read(value: str):
    """Returns the value that Hydra's parser reads."""
    return OverridesParser.create().parse_override(f"data.root={value}").value()


@repeatable
@given(st.text(st.characters(exclude_categories=["Cs"])))
@example('a\\"b\\')
@example("\\\\")
@example("a\\\n")
def test_a_quoted_value_is_read_back_as_it_is(text):
    assert read(quote(text)) == text


@repeatable
@given(st.text(st.sampled_from("${}\\:.,ab'\" \n[]")))
@example("a\\\\${b}")
@example("${")
@example("${oc.env:HOME}")
@example("$${a}}")
def test_escaped_interpolations_resolve_to_the_text_itself(text):
    config = OmegaConf.create({"value": escaped_interpolations(text), "a": 1})
    assert OmegaConf.to_container(config, resolve=True)["value"] == text


@pytest.mark.parametrize(
    ("key", "text"), [("recipe", True), ("data.root", True), ("data.path", True), ("seed", False), ("data.num", False)]
)
def test_which_keys_take_text(key, text):
    assert takes_text(key) is text


@pytest.mark.parametrize(
    "value", ["2024", "true", "1e3", "007", "1_000", "~/résumé", "a;b&c!", "it's", 'a"b', "a=b", "(x"]
)
def test_a_path_is_taken_as_it_was_typed_whatever_it_looks_like(value):
    (override,) = literal_texts([f"data.root={value}"])
    assert read(override.partition("=")[2]) == value


def test_a_folder_called_2024_is_composed_as_text():
    config = recipe.compose("image/tiny", ["data=folder", "data.root=2024", "run_dir=5", "about.licence=1.0"])
    assert (config["data"]["root"], config["run_dir"], config["about"]["licence"]) == ("2024", "5", "1.0")


@pytest.mark.parametrize(
    "override", ["data.root=null", "data.root=[1,2]", "seed=5", "data.root='x'", "data.root=a,b", "+x"]
)
def test_other_overrides_stay_as_they_are(override):
    assert literal_texts([override]) == [override]


@pytest.mark.parametrize(("value", "text"), [("2024", "2024"), ("'1e3'", "1e3"), ('"true"', "true")])
def test_a_path_in_a_file_is_text(tmp_path, value, text):
    inherited = "defaults: [image/tiny, override /data: folder, _self_]"
    (tmp_path / "mine.yaml").write_text(f"{inherited}\ndata: {{root: {value}}}\n")
    assert recipe.compose(str(tmp_path / "mine.yaml"))["data"]["root"] == text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("data: {root: true}", "data.root takes text, got true, which YAML reads as true or false: put it in quotes"),
        ("data: {root: 1e3}", "data.root takes text, got 1000.0, which YAML reads as a number"),
        ("data: {root: null}", "data.root must be a path, got null"),
        ("data: {root: x}\nrun_dir: null", "run_dir must be a path or a name, got null"),
        ("data: {root: [a]}", "data.root must be a path, got ['a']"),
    ],
)
def test_a_path_in_a_file_that_is_no_text_is_named(tmp_path, content, expected):
    (tmp_path / "mine.yaml").write_text(f"defaults: [image/tiny, override /data: folder, _self_]\n{content}\n")
    with pytest.raises(ValueError) as error:
        recipe.compose(str(tmp_path / "mine.yaml"))
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("override", "better"),
    [
        ("data.root=/a b,c", 'data.root="/a b,c"'),
        ('data.root=it\'s, "mine"', 'data.root="it\'s, \\"mine\\""'),
        ("data.labels=a(b", 'data.labels="a(b"'),
        ("about.data=Größe, 5", 'about.data="Größe, 5"'),
    ],
)
def test_an_override_that_hydra_cannot_read_comes_back_quoted_for_hydra_and_the_shell(override, better):
    with pytest.raises(ValueError) as error:
        recipe.compose("image/tiny", ["data=folder", "data.root=x", override])
    text = str(error.value)
    assert repr(override) in text
    assert shlex.quote(better) in text
    assert not any(word in text for word in ("mismatched", "Lexer", "EOF", "token", "\n"))
    assert OverridesParser.create().parse_override(better)


@pytest.mark.parametrize("override", ["=3", "-seed=3", "two words=3", "seed", "se ed", ""])
def test_what_is_no_override_says_how_one_looks(override):
    with pytest.raises(ValueError, match="expected KEY=VALUE"):
        recipe.compose("image/tiny", [override])
