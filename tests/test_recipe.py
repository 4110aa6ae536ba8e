"""Composing recipes: what comes out, a user's own files, and one clear line for every mistake."""

from __future__ import annotations

import pytest

from scm_media import recipe
from scm_media.recipe import composing


def message(name: str, *overrides: str) -> str:
    with pytest.raises(ValueError) as error:
        recipe.compose(name, overrides)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_composes_a_plain_resolved_dictionary():
    config = recipe.compose("image/tiny")
    assert type(config) is dict
    assert config["recipe"] == "image/tiny"
    assert config["run_dir"] == "runs/image/tiny/main"
    assert config["autoencoder"]["network"]["sigma_data"] == config["flow"]["sigma_data"]
    assert type(config["student"]["loss"]["timesteps"]) is dict


def test_overrides_and_groups_reach_the_configuration():
    config = recipe.compose(
        "image/tiny",
        ["student.objective=sct", "teacher.max_steps=3", "optimizer@teacher.optimizer=adamw", "logger=none"],
    )
    assert config["student"]["objective"] == "sct"
    assert config["teacher"]["max_steps"] == 3
    assert config["teacher"]["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert config["student"]["optimizer"]["_target_"] == "torch.optim.RAdam"
    assert config["logger"] == {}


def test_composing_twice_leaves_nothing_behind():
    changed = recipe.compose("image/tiny", ["seed=7"])
    assert changed["seed"] == 7
    assert recipe.compose("image/tiny")["seed"] == 0


def test_a_key_that_nothing_takes_is_not_said_to_be_addable():
    for override in ("student.max_step=3", "recipe.foo=1", "student.max_steps.foo=1", "~student.max_step"):
        assert "no key takes" in message("image/tiny", override)
        assert "added" not in message("image/tiny", override)
    added = recipe.compose("image/tiny", ["+student.loss.timesteps={stratified: true}"])
    assert added["student"]["loss"]["timesteps"]["stratified"] is True


def test_keys_of_a_group_that_is_chosen_are_known():
    given = ["data=manifest", "data.path=a.csv"]
    said = message("image/folder", *given, "data.classes={mood: [calm, loud]}")
    assert "data.classes is given keys that this recipe has not set: add them by +data.classes={…}" in said
    classes = recipe.compose("image/folder", [*given, "+data.classes={mood: [calm, loud]}"])["data"]["classes"]
    assert classes == {"mood": ["calm", "loud"]}
    assert "(nearest: data.scalars" in message("image/folder", *given, "data.scalar=[a]")


def test_a_file_of_the_other_yaml_suffix_is_asked_to_be_renamed(tmp_path):
    (tmp_path / "mine.yml").write_text("defaults: [image/tiny, _self_]\n")
    assert message(str(tmp_path / "mine.yml")).endswith("mine.yml: a recipe's file ends in .yaml; rename it")


def test_unknown_recipe_names_the_nearest():
    assert "unknown recipe 'image/tny' (nearest: image/tiny" in message("image/tny")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("studnt.max_steps=3", "no key takes the override 'studnt.max_steps' (nearest: student.max_steps"),
        ("student.max_step=3", "no key takes the override 'student.max_step' (nearest: student.max_steps"),
        (
            "student.loss.timesteps.stratified=true",
            "one that student.loss.timesteps takes and this recipe has not set is added by "
            "+student.loss.timesteps.stratified=VALUE",
        ),
        (
            "student.loss.timesteps={stratified: true}",
            "student.loss.timesteps is given keys that this recipe has not set: add them by "
            "+student.loss.timesteps={…}",
        ),
        ("+student.max_steps=3", "student.max_steps is set already: leave out the +"),
        ("+student.max_step=3", "unknown key 'student.max_step' (nearest: max_steps"),
        ("dta=folder", "no key takes the override 'dta' (nearest: data)"),
        ("data=fashon", "nothing is called 'data/fashon' (nearest: fashion); there are:"),
        ("student.max_steps=many", "student.max_steps must be a whole number, got 'many'"),
        ("student.max_steps=-1", "student.max_steps must be at least 0, got -1"),
        ("teacher.batch_size=0", "teacher.batch_size must be at least 1, got 0"),
        ("trainer.compile=3", "trainer.compile must be true or false, got 3"),
        *[
            (f"trainer.{key}=0", f"trainer.{key} must be at least 1, got 0")
            for key in ("log_every", "checkpoint_every", "sample_every", "validate_every", "keep_checkpoints")
        ],
        ("trainer.num_preview_samples=0", "trainer.num_preview_samples must be at least 1, got 0"),
        ("precision=16-mixed", "precision must be one of 32-true, bf16-mixed, got '16-mixed'"),
        ("device=tpu", "device must be one of auto, cpu, cuda, mps, got 'tpu'"),
        ("strategy=fsdp2", "strategy must be one of auto, ddp, fsdp, got 'fsdp2'"),
        (
            "~feature_extractor.max_steps",
            "feature_extractor needs the key 'max_steps'; it takes max_steps, batch_size, warmup_steps",
        ),
        ("~feature_extractor.optimizer", "feature_extractor needs the key 'optimizer'"),
        ("~feature_extractor.batch_size", "feature_extractor needs the key 'batch_size'"),
        ("feature_extractor.batch_size=0", "feature_extractor.batch_size must be at least 1, got 0"),
        ("feature_extractor.optimizer=adam", "feature_extractor.optimizer must be a mapping of keys, got 'adam'"),
        ("+feature_extractor.max_step=3", "unknown key 'feature_extractor.max_step' (nearest: max_steps"),
        ("feature_extractor=none", "feature_extractor must be a mapping of keys or null, got 'none'"),
        (
            "guide={max_steps: 3}",
            "guide needs the key 'backbone'; it takes max_steps, batch_size, warmup_steps",
        ),
        ("guide={max_steps: 3, backbone: 4}", "guide.backbone must be a mapping of keys, got 4"),
        ("guide={max_steps: 3, backbone: {}, max_step: 4}", "unknown key 'guide.max_step' (nearest: max_steps"),
        ("teacher.ema_std=null", "teacher.ema_std must be a number, got null"),
        ("+student.backbone.width=wide", "student.backbone.width must be a whole number, got 'wide'"),
        ("sampler.guidance_interval=[1.0,0.5]", "sampler.guidance_interval must be [low, high] in radians within"),
        ("sampler.guidance_interval=[0,2]", "sampler.guidance_interval must be at most 1.571, got 2"),
        ("sampler.steps=0", "sampler.steps must be at least 1, got 0"),
        ("teacher.ema_std=wide", "teacher.ema_std must be a number, got 'wide'"),
        ("student.objective=scx", "student.objective must be one of scd, sct, got 'scx'"),
        (
            "stage=techer",
            "stage must be one of all, feature_extractor, autoencoder, teacher, guide, trajectories, warm_start, "
            "student, got 'techer'",
        ),
        ("run_dir=???", "run_dir has no value; pass run_dir=VALUE"),
        ("teacher=null", "teacher must be a mapping of keys, got null"),
        ("seed=[1", "image/tiny: "),
        ("seed", "image/tiny: "),
        ("seed=${nowhere}", "nowhere"),
    ],
)
def test_a_wrong_override_is_one_clear_line(override, expected):
    assert expected in message("image/tiny", override)


@pytest.mark.parametrize(
    ("name", "override", "expected"),
    [
        ("image/tiny", "+autoencoder.num_sample=3", "unknown key 'autoencoder.num_sample' (nearest: num_samples"),
        (
            "image/tiny",
            "autoencoder.num_samples=0",
            "autoencoder.num_samples must be at least 1, got 0",
        ),
        (
            "image/tiny",
            "autoencoder.num_samples=all",
            "autoencoder.num_samples must be a whole number or null, got 'all'",
        ),
        ("image/fashion-latent", "~autoencoder.batch_size", "autoencoder needs the key 'batch_size'"),
        ("image/fashion-latent", "autoencoder.max_steps=1.5", "autoencoder.max_steps must be a whole number"),
        ("image/fashion-latent", "autoencoder.loss=l1", "autoencoder.loss must be a mapping of keys, got 'l1'"),
        ("image/fashion-latent", "autoencoder.decay=slow", "autoencoder.decay must be one of constant, cosine"),
        (
            "image/fashion-latent",
            "autoencoder.precision=16",
            "must be one of 32-true, bf16-mixed or null, got 16",
        ),
    ],
)
def test_an_autoencoders_section_is_checked_by_its_kind(name, override, expected):
    assert expected in message(name, override)


def test_gradient_clip_may_be_switched_off():
    assert recipe.compose("image/tiny", ["trainer.gradient_clip=null"])["trainer"]["gradient_clip"] is None


def test_own_file_inherits_a_shipped_recipe_and_is_called_by_its_name(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: [image/tiny, _self_]\nstudent: {max_steps: 7}\n")
    config = recipe.compose(str(path), ["seed=3"])
    assert config["student"]["max_steps"] == 7
    assert config["seed"] == 3
    assert config["recipe"] == "mine"
    assert config["run_dir"] == "runs/mine/main"
    assert config["teacher"] == recipe.compose("image/tiny")["teacher"]


def test_own_file_may_say_its_name_and_be_overridden(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: [image/tiny, _self_]\nrecipe: clothes/mine\n")
    assert recipe.compose(str(path))["recipe"] == "clothes/mine"
    assert recipe.compose(str(path), ["recipe=other"])["recipe"] == "other"


def test_own_file_takes_another_group_and_groups_of_its_own_folder(tmp_path):
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "quiet.yaml").write_text("defaults: [default]\nlog_every: 1000\nnum_preview_samples: 3\n")
    path = tmp_path / "mine.yaml"
    path.write_text(
        "defaults: [image/tiny, override /data: folder, override /trainer: quiet, _self_]\ndata: {root: x}\n"
    )
    config = recipe.compose(str(path))
    assert config["data"]["_target_"].endswith("FolderDataset")
    assert config["data"]["root"] == "x"
    assert config["trainer"]["log_every"] == 10, "the recipe's own keys stand above the group's"
    assert config["trainer"]["num_preview_samples"] == 3


def test_a_value_that_must_be_given_is_named(tmp_path):
    assert "data.root has no value; pass data.root=VALUE" in message("image/tiny", "data=folder")


def test_a_composed_recipe_written_to_a_file_composes_to_itself(tmp_path):
    from omegaconf import OmegaConf

    config = recipe.compose("image/tiny", ["seed=5"])
    OmegaConf.save(OmegaConf.create(config), tmp_path / "recipe.yaml")
    assert recipe.compose(str(tmp_path / "recipe.yaml")) == config


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("defaults: [image/tiny, _self_]\nstudnt: {max_steps: 3}\n", "unknown key 'studnt' (nearest: student)"),
        (
            "defaults: [image/tiny, _self_]\ntrainer: {log_evry: 3}\n",
            "unknown key 'trainer.log_evry' (nearest: log_every",
        ),
        ("defaults: [image/tny, _self_]\n", "it inherits 'image/tny', which does not exist (nearest: image/tiny"),
        ("student: {max_steps: 3}\n", "the key 'modality' is missing; inherit a recipe"),
        ("- a\n- b\n", "a recipe is a mapping of keys, got a list"),
        ("a: [1, 2\nb: 3\n", "not readable as YAML"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, content, expected):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    text = message(str(path))
    assert expected in text
    assert "mine.yaml" in text


def test_missing_file_is_said(tmp_path):
    assert "no such file" in message(str(tmp_path / "nowhere.yaml"))


def test_composes_inside_a_job_of_hydra():
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_module("scm_media.configs", version_base="1.3"):
        running = GlobalHydra.instance().hydra
        assert recipe.compose("image/tiny")["recipe"] == "image/tiny"
        assert GlobalHydra.instance().hydra is running


def test_describe_gives_header_and_text():
    found = recipe.describe("image/tiny")
    assert any(line.startswith("data:") for line in found.header)
    assert not any("@package" in line for line in found.header)
    assert found.text.startswith("# @package _global_")


def test_recipes_of_an_installed_package_are_found(tmp_path, monkeypatch):
    package = tmp_path / "eeg_recipes"
    (package / "eeg").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "eeg" / "small.yaml").write_text(
        "# @package _global_\n# EEG.\ndefaults: [/image/tiny, _self_]\nrecipe: eeg/small\nseed: 9\n"
    )
    info = tmp_path / "eeg_recipes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: eeg-recipes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[scm_media.recipes]\neeg = eeg_recipes\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "eeg/small" in recipe.names()
    assert recipe.compose("eeg/small")["seed"] == 9
    (package / "eeg" / "small.yaml").write_text(
        "# @package _global_\n# EEG.\ndefaults: [/image/tiny, _self_]\nrecipe: eeg/small\nseed: 10\n"
    )
    assert recipe.compose("eeg/small")["seed"] == 10, "a file that has changed is read again"
    assert recipe.compose("eeg/small", ["+student.loss.timesteps.stratified=true"])["seed"] == 10
    (package / "eeg" / "other.yaml").write_text(
        "# @package _global_\n# EEG.\ndefaults: [/eeg/small, _self_]\nrecipe: eeg/other\n"
    )
    assert recipe.compose("eeg/other")["seed"] == 10


@pytest.mark.parametrize(
    "values",
    [
        ["student.max_steps=3", "run_dir=a/b c", "seed=7"],
        ["~student.loss.tangent_warmup", "+student.loss.timesteps.stratified=true", "++data.num=5"],
        ["sampler={steps: 3}", "teacher.optimizer.betas=[0.5,0.9]", "feature_extractor=null"],
        ["teacher.max_steps=${student.max_steps}", "student.max_steps=8"],
        ["student.max_steps=3", "logger=none", "data=folder", "data.root=a", "~data.labels"],
        ["optimizer@student.optimizer=adam", "student.optimizer.lr=0.5", "trajectories=default", "trajectories.num=8"],
        ["feature_extractor.max_steps=1", "trajectories={num: 9, steps: 2}", "trajectories.steps=3"],
    ],
)
def test_values_in_a_kept_recipe_give_what_composing_with_them_gives(values, monkeypatch):
    first = recipe.compose("image/tiny", values)
    with monkeypatch.context() as patch:  # Hydra is given all of them at once
        patch.setattr(composing, "_divide", lambda hydra, overrides: (tuple(overrides), []))
        assert recipe.compose("image/tiny", values) == first
    assert recipe.compose("image/tiny", values) == first
    assert recipe.compose("image/tiny", [*values, "seed=8"])["seed"] == 8
    first["student"]["max_steps"] = -1
    assert recipe.compose("image/tiny", values)["student"]["max_steps"] != -1


@pytest.mark.parametrize(
    "values",
    [
        ["data=nope"],
        ["~data"],
        ["~data=folder"],
        ["++data=folder"],
        ["data@x=folder"],
        ["nogroup@x=1"],
        ["trainer=default", "trainer.bad=1"],
        ["student.max_steps=8", "+student.max_steps=9"],
        ["data={num: 3}", "data=folder"],
    ],
)
def test_what_hydra_refuses_is_refused_in_the_same_words(values, monkeypatch):
    with pytest.raises(ValueError, match=r"^image/tiny: ") as first:
        recipe.compose("image/tiny", values)
    with monkeypatch.context() as patch:
        patch.setattr(composing, "_divide", lambda hydra, overrides: (tuple(overrides), []))
        with pytest.raises(ValueError) as whole:
            recipe.compose("image/tiny", values)
    assert str(first.value) == str(whole.value)


@pytest.mark.parametrize("value", ["5", "null", "true"])
def test_a_group_is_given_a_name(value):
    with pytest.raises(ValueError, match=rf"'data={value}': data is a group, .* as in data=NAME"):
        recipe.compose("image/tiny", [f"data={value}"])


def test_a_mistyped_key_beside_a_sweep_over_options_is_named():
    with pytest.raises(ValueError, match=r"^image/tiny: no key takes the override 'student\.max_stepz'"):
        recipe.check_sweep("image/tiny", ["data=folder,manifest", "student.max_stepz=1"])
