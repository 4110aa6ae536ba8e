"""A U-Net of text that takes the guidance scale as an input: distilled from two calls, and run by diffusers."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

from scm_media import TrigFlow, recipe, sample_consistency, training
from scm_media.adapters.backbone import diffusers_backbone
from scm_media.adapters.few_steps import few_step_times
from scm_media.cli import main
from scm_media.conditioning import Conditioning
from scm_media.pipeline import Pipeline
from scm_media.prompts import PromptBank
from scm_media.training.context import prepare
from scm_media.training.stages.student import student_task
from tests.adapters.small import KINDS, TOKENS, network
from tests.training.small import DISTIL

diffusers = pytest.importorskip("diffusers")
NAME, HIGHEST = "UNet2DConditionModel", 6.0
VAE = {"block_out_channels": (8,), "norm_num_groups": 4, "latent_channels": 4, "sample_size": 8}


@pytest.fixture
def folder(tmp_path):
    """A small pipeline of Stable Diffusion, without its text encoder."""
    torch.manual_seed(2)
    made = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(**VAE),
        text_encoder=None,
        tokenizer=None,
        unet=network(NAME),
        scheduler=diffusers.EulerDiscreteScheduler.from_config({**KINDS[NAME][1], "steps_offset": 1}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.save_pretrained(tmp_path / "pipeline")
    return tmp_path / "pipeline"


@pytest.fixture
def bank(tmp_path):
    """Embeddings of two prompts, and of none."""
    made = PromptBank(["a bell", "a whale"], {"tokens": torch.randn(3, 7, TOKENS)})
    made.save(tmp_path / "prompts.safetensors")
    return made


def overrides(folder, *more):
    stages = ("student", "warm_start")
    lengths = [f"{stage}.{key}" for stage in stages for key in ("max_steps=4", "batch_size=4", "optimizer.lr=1e-2")]
    return [
        *(*DISTIL, *lengths, f"teacher_from={folder}", f"run_dir={folder.parent / 'run'}"),
        *(f"data.prompts={folder.parent / 'prompts.safetensors'}", "sampler.guidance=3"),
        *(f"student.loss.guidance_max={HIGHEST}", *more),
    ]


def test_the_scale_is_embedded_as_in_pipelines_of_latent_consistency_models():
    config, scheduler, _ = KINDS[NAME]
    backbone = diffusers_backbone(NAME, config, scheduler, guidance=True).eval()
    plain = network(NAME)
    missing = backbone.network.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["time_embedding.cond_proj.weight"]
    u, t, tokens = torch.randn(2, 4, 8, 8), torch.tensor([0.4, 1.3]), torch.randn(2, 7, TOKENS)
    without = backbone(u, t, Conditioning(tokens=tokens))
    scales = torch.tensor([1.5, 5.0])
    assert torch.equal(without, backbone(u, t, Conditioning(tokens=tokens, guidance=scales))), "no effect at first"
    torch.nn.init.normal_(backbone.network.time_embedding.cond_proj.weight)
    embed = diffusers.StableDiffusionPipeline.get_guidance_scale_embedding
    condition = embed(None, scales - 1, backbone.network.config.time_cond_proj_dim)
    time = backbone.network_time(t)
    y = backbone.scale(t)[:, None, None, None] * u
    expected = backbone.network(y, time, tokens, timestep_cond=condition, return_dict=False)[0]
    found = backbone(u, t, Conditioning(tokens=tokens, guidance=scales))
    torch.testing.assert_close(found, backbone.field(expected, u, t[:, None, None, None]), atol=1e-4, rtol=1e-4)
    assert (found - without).abs().max() > 1e-3


def test_networks_that_cannot_take_a_scale_or_do_already_are_refused():
    config, scheduler, _ = KINDS["SD3Transformer2DModel"]
    with pytest.raises(ValueError, match=r"SD3Transformer2DModel cannot be given .* \(UNet2DConditionModel can\)"):
        diffusers_backbone("SD3Transformer2DModel", config, scheduler, guidance=True)
    config, scheduler, _ = KINDS[NAME]
    with pytest.raises(ValueError, match="takes a guidance scale already"):
        diffusers_backbone(NAME, {**config, "time_cond_proj_dim": 32}, scheduler, guidance=True)


@pytest.mark.slow
def test_the_auxiliary_network_takes_scales_too_and_starts_as_the_teacher(folder, bank):
    config = recipe.compose("image/distil", overrides(folder, "stage=student"))
    for stage in ("autoencoder", "teacher", "trajectories", "warm_start"):
        training.run(recipe.compose("image/distil", overrides(folder, f"stage={stage}")))
    loss = student_task(prepare(config)).loss
    names = {"network.time_embedding.cond_proj.weight"}
    own, auxiliary = loss.backbone.state_dict(), loss.auxiliary.state_dict()
    teacher = loss.teacher.backbone.state_dict()
    assert own.keys() == auxiliary.keys() == teacher.keys() | names
    assert all(torch.equal(auxiliary[name], teacher[name]) for name in teacher)
    (name,) = names
    assert own[name].any() and not auxiliary[name].any(), "the warm start has trained it"


@pytest.mark.slow
def test_one_student_of_any_scale_runs_in_diffusers(folder, bank, tmp_path, monkeypatch):
    assert main(["train", "image/distil", *overrides(folder), "--debug"]) == 0
    run, exported = tmp_path / "run", tmp_path / "exported"
    assert json.loads((run / "model.json").read_text())["guidance_max"] == HIGHEST
    assert main(["export", str(run), str(exported), "--format", "diffusers"]) == 0
    assert "takes it as an input, 1 to 6" in (exported / "README.md").read_text()

    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(exported, text_encoder=None, tokenizer=None)
    assert pipeline.unet.config.time_cond_proj_dim == 256
    embeds, ours = bank.embeddings["tokens"][:2], Pipeline.from_pretrained(run, device="cpu")
    backbone, made = ours.network("student"), []
    for scale in (2.0, 5.0):
        noises = [torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]
        left = iter([noises[1], torch.zeros_like(noises[1])])
        monkeypatch.setattr("diffusers.schedulers.scheduling_lcm.randn_tensor", lambda *_, left=left, **__: next(left))
        given = {"prompt_embeds": embeds, "latents": noises[0], "guidance_scale": scale, "output_type": "latent"}
        theirs = pipeline(**given, num_inference_steps=2).images
        times = few_step_times(backbone, pipeline.scheduler, 2)
        cond = Conditioning(labels={"prompt": torch.arange(2)}, guidance=torch.full((2,), scale))
        with torch.no_grad():
            found = sample_consistency(backbone, TrigFlow(1.0), lambda i, noises=noises: noises[i], times, cond)
        assert (found - theirs).abs().max() < 1e-4 * theirs.abs().max()
        made.append(found)
    assert (made[0] - made[1]).abs().max() > 1e-3, "the scale changes the sample"
