"""Recipes refer to their own keys: nothing reads the environment or evaluates text, and models' files least of all."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from scm_media import recipe, training
from scm_media.cli import main
from tests.pipeline.tiny import write_tiny_model

SECRET = "s3cr3t-of-the-environment"


@pytest.fixture(autouse=True)
def _secret(monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)


READS = [
    "${oc.env:SECRET}",
    "https://example.invalid/${oc.env:SECRET,none}",
    "${oc.decode:'${oc.env:SECRET}'}",
    r"${oc.decode:'\${oc.env:SECRET}'}",
    "${oc.create:{a:${oc.env:SECRET}}}",
    "${oc.${about.licence}:SECRET}",
    "${hydra:runtime.cwd}",
    "${python_version:}",
    "a ${seed} ${ oc.env : SECRET }",
]


@pytest.mark.parametrize("text", READS)
def test_a_resolver_that_is_not_allowed_is_refused_by_key_and_nothing_is_read(tmp_path, text):
    config = {"defaults": ["image/tiny", "_self_"], "about": {"data": text, "licence": "env"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError) as error:
        recipe.compose(str(tmp_path / "mine.yaml"))
    assert SECRET not in str(error.value)
    assert "about.data calls the resolver" in str(error.value)
    assert "pass it on the command line, where the shell fills it in: 'about.data='\"$VARIABLE\"" in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        "defaults: [image/tiny, _self_]\nlogger: {_target_: x.y, url: 'https://x.invalid/${oc.env:SECRET}'}\n",
        "defaults: [image/tiny, _self_]\nmodality: {size: '${oc.env:SECRET}'}\n",
        "defaults: [image/tiny, _self_]\ntrainer: {sample_early: [1, '${oc.env:SECRET}']}\n",
        "defaults: [image/tiny, _self_]\nrecipe: ${oc.env:SECRET}\n",
        "defaults: [image/tiny, {override /data: '${oc.env:SECRET}'}, _self_]\n",
        "defaults: ['${oc.env:SECRET}', _self_]\n",
    ],
)
@pytest.mark.parametrize("way", [[], ["-m", "seed=1,2"], ["--cfg", "job", "--resolve"]])
def test_no_command_reads_the_environment_for_a_recipe(tmp_path, monkeypatch, capsys, content, way):
    monkeypatch.chdir(tmp_path)
    started: list[dict] = []
    monkeypatch.setattr(training, "run", lambda config, *_: started.append(config))
    (tmp_path / "mine.yaml").write_text(content)
    assert main(["train", "mine.yaml", *way]) == 1
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert said.err.count("\n") == 1
    assert started == []
    assert not list(tmp_path.rglob(f"*{SECRET}*"))


def test_values_that_are_swept_over_are_checked_in_each_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    started: list[dict] = []
    monkeypatch.setattr(training, "run", lambda config, *_: started.append(config))
    assert main(["train", "image/tiny", "-m", "about.data='${oc.env:SECRET}',b"]) == 1
    assert [config["about"]["data"] for config in started] == ["b"]
    assert SECRET not in capsys.readouterr().err


def test_references_and_the_clock_are_allowed(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "defaults: [image/tiny, _self_]\nseed: 4\nstudent: {batch_size: '${teacher.batch_size}'}\n"
        "about: {data: '${oc.select:about.no,none} ${now:%Y}'}\n"
    )
    config = recipe.compose(str(tmp_path / "mine.yaml"))
    assert config["student"]["batch_size"] == config["teacher"]["batch_size"]
    assert config["about"]["data"].startswith("none 2")


def test_resolvers_of_the_process_are_as_before(tmp_path):
    from omegaconf import OmegaConf

    recipe.compose("image/tiny")
    assert OmegaConf.create({"a": "${oc.env:SECRET}"}).a == SECRET


def test_nothing_that_came_with_a_model_is_interpolated(tmp_path, capsys):
    folder = write_tiny_model(tmp_path / "model")
    description = json.loads((folder / "model.json").read_text())
    description |= {"data": "${oc.env:SECRET}", "licence": "${oc.env:SECRET}"}
    (folder / "model.json").write_text(json.dumps(description))
    config = recipe.compose("image/tiny", ["teacher.batch_size=2", "student.batch_size=2"])
    config["recipe"] = "${oc.env:SECRET}"
    (folder / "recipe.yaml").write_text(yaml.safe_dump(config))
    assert main(["generate", str(folder), "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    assert main(["export", str(folder), str(tmp_path / "exported")]) == 0
    assert main(["bench", str(folder), "--repeats", "1", "--batch-size", "2", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 6
    assert not any(SECRET.encode() in path.read_bytes() for path in written)
    shutil.rmtree(tmp_path / "exported")
