"""Pipelines of diffusers that are damaged, or made to do harm."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from scm_media import recipe, weights
from scm_media.adapters import DiffusersFolder, load_teacher
from scm_media.adapters.backbone import diffusers_backbone
from scm_media.adapters.lora_files import describe_lora, restore_student
from scm_media.cli import main
from scm_media.networks import restore
from scm_media.pipeline import Pipeline
from scm_media.prompts import PromptBank
from scm_media.training.context import prepare
from tests.adapters.pipelines import save_pipeline
from tests.adapters.small import KINDS, TOKENS, network
from tests.adapters.test_autoencoders import KL
from tests.adapters.test_lora import base, student_of
from tests.adapters.test_walk import SETTINGS
from tests.training.small import DISTIL

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A pipeline of pictures, and a run with a LoRA student of it."""
    folder = tmp_path_factory.mktemp("trained")
    pipeline, run = save_pipeline("image", folder / "pipeline"), folder / "run"
    short = ("warm_start.max_steps=2", "student.max_steps=2", "student.lora={rank:2}")
    settings = [
        each for each in SETTINGS if each.partition("=")[0] not in ("warm_start.max_steps", "student.max_steps")
    ]
    words = ["train", "image/distil", *settings, *short, f"teacher_from={pipeline}", f"run_dir={run}"]
    assert main(words) == 0
    return pipeline, run, words


@pytest.mark.parametrize("name", ["..", "/etc", "a/b", ".hidden"])
def test_parts_are_folders_beside_the_index(tmp_path, name):
    (tmp_path / "model_index.json").write_text(json.dumps({name: ["diffusers", "UNet2DModel"]}))
    with pytest.raises(ValueError, match="is no name of a part"):
        DiffusersFolder(tmp_path)


def test_an_export_copies_no_link_and_no_pickle(trained, tmp_path, capsys):
    source, run, _ = trained
    pipeline, secret = tmp_path / "pipeline", tmp_path / "secret.json"
    shutil.copytree(source, pipeline)
    index = json.loads((pipeline / "model_index.json").read_text())
    secret.write_text("{}")
    (pipeline / "extra").mkdir()
    (pipeline / "extra" / "config.json").symlink_to(secret)
    (pipeline / "model_index.json").write_text(json.dumps({**index, "extra": ["diffusers", "Something"]}))
    target = tmp_path / "exported"
    words = ["export", str(run), str(target), "--format", "diffusers", "--pipeline", str(pipeline)]
    assert main(words) == 1
    assert "is a link out of the model's folder" in capsys.readouterr().err
    (pipeline / "extra" / "config.json").unlink()
    (pipeline / "extra" / "pytorch_model.bin").write_bytes(b"x")
    assert main(words) == 1
    assert "pytorch_model.bin is not copied, and extra has no other weights" in capsys.readouterr().err
    assert not target.exists() and not list(tmp_path.glob(".exported*"))
    (pipeline / "extra" / "model.safetensors").write_bytes(b"y")
    assert main(words) == 0
    assert sorted(each.name for each in (target / "extra").iterdir()) == ["model.safetensors"]


def test_a_pipeline_of_another_scheduler_is_refused_for_an_export(trained, tmp_path, capsys):
    source, run, _ = trained
    pipeline = tmp_path / "pipeline"
    shutil.copytree(source, pipeline)
    file = pipeline / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": "v_prediction"}))
    assert main(["export", str(run), str(tmp_path / "x"), "--format", "diffusers", "--pipeline", str(pipeline)]) == 1
    assert "or a scheduler of another configuration" in capsys.readouterr().err


def test_a_lora_model_is_saved_with_its_teacher_after_it_was_used(trained, tmp_path):
    _, run, _ = trained
    pipeline = Pipeline.from_pretrained(run, device="cpu")
    first = pipeline(2, steps=1).samples
    pipeline.save_pretrained(tmp_path / "saved")
    assert torch.equal(Pipeline.from_pretrained(tmp_path / "saved", device="cpu")(2, steps=1).samples, first)


def test_a_finished_lora_does_not_go_on_with_another_alpha(trained, capsys):
    _, run, words = trained
    before = (run / "student" / "weights.safetensors").read_bytes()
    others = [each for each in words if not each.startswith("student.lora")]
    assert main([*others, "student.lora={rank:2,alpha:8}"]) == 1
    assert "student.lora.alpha" in capsys.readouterr().err
    assert (run / "student" / "weights.safetensors").read_bytes() == before


def test_a_lora_of_any_rank_costs_no_memory_before_it_is_compared():
    config = describe_lora(student_of())
    config["lora"]["rank"] = 65536
    with pytest.raises(ValueError, match="does not fit this SD3Transformer2DModel"):
        restore_student(weights.Component({}, config, {}), base(), "x.safetensors")


def test_networks_larger_than_their_file_are_refused_before_they_take_memory():
    small = {"num_attention_heads": 1, "attention_head_dim": 8, "num_layers": 1, "in_channels": 1}
    config = {
        "_target_": "scm_media.adapters.backbone.diffusers_backbone",
        "network": "DiTTransformer2DModel",
        "config": {**small, "sample_size": 8, "num_embeds_ada_norm": 10},
        "scheduler": {"_class_name": "DDIMScheduler"},
    }
    state = diffusers_backbone(**{key: each for key, each in config.items() if key != "_target_"}).state_dict()
    restore(weights.Component(state, config, {}), "teacher", "x")
    config["config"] = {**config["config"], "sample_size": 3000}
    with pytest.raises(ValueError, match="x: its configuration"):
        restore(weights.Component(state, config, {}), "teacher", "x")


@pytest.mark.parametrize("content", [b"", b"\x00" * 100])
def test_damaged_weights_are_named(trained, tmp_path, content):
    pipeline = tmp_path / "pipeline"
    shutil.copytree(trained[0], pipeline)
    file = next((pipeline / "unet").glob("*.safetensors"))
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        load_teacher(pipeline)


def test_latents_of_another_size_than_the_network_expects_are_said_once_they_are_taken(tmp_path, capsys, monkeypatch):
    pipeline, (_, scheduler, _) = tmp_path / "pipeline", KINDS["DiTTransformer2DModel"]
    network("DiTTransformer2DModel").save_pretrained(pipeline / "transformer")
    diffusers.AutoencoderKL(**KL, in_channels=3, out_channels=3, latent_channels=4).save_pretrained(pipeline / "vae")
    (pipeline / "scheduler").mkdir()
    (pipeline / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    parts = {"transformer": "DiTTransformer2DModel", "vae": "AutoencoderKL", "scheduler": scheduler["_class_name"]}
    index = {name: ["diffusers", kind] for name, kind in parts.items()}
    (pipeline / "model_index.json").write_text(json.dumps(index))
    monkeypatch.setattr("scm_media.adapters.autoencoders.USUAL_STD", (100.0, 200.0))
    words = ["data=shapes", "feature_extractor=null", "device=cpu", "logger=none", "stage=autoencoder"]
    assert main(["train", "image/distil", f"teacher_from={pipeline}", f"run_dir={tmp_path / 'run'}", *words]) == 0
    assert "AutoencoderKL: its latents have a standard deviation of" in capsys.readouterr().err


def test_an_autoencoder_larger_than_its_file_is_refused_before_it_takes_memory(tmp_path):
    pipeline, prompts = save_pipeline("video", tmp_path / "pipeline"), tmp_path / "prompts.safetensors"
    PromptBank(["a bell"], {"tokens": torch.randn(2, 7, TOKENS)}).save(prompts)
    overrides = [*DISTIL, f"teacher_from={pipeline}", f"run_dir={tmp_path / 'run'}", f"data.prompts={prompts}"]
    overrides += ["modality.size=32", "modality.num_frames=5"]
    assert prepare(recipe.compose("video/distil", overrides)).latent_shape == (4, 2, 4, 4)
    file = pipeline / "vae" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_dim": 400}))
    with pytest.raises(ValueError, match=r"vae holds no whole AutoencoderKLWan .*expected shape"):
        prepare(recipe.compose("video/distil", overrides))
