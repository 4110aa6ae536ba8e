"""The whole way of a pipeline of diffusers: checked, distilled, exported, and run by diffusers alone."""

from __future__ import annotations

import pytest
import torch

from scm_media import TrigFlow, sample_consistency, weights
from scm_media.adapters import load_lora, load_teacher
from scm_media.adapters.few_steps import few_step_times
from scm_media.cli import main
from scm_media.pipeline import ModelFolder, Pipeline
from scm_media.prompts import PromptBank
from tests.adapters.pipelines import save_pipeline
from tests.adapters.small import POOLED, TOKENS
from tests.training.small import DISTIL

diffusers = pytest.importorskip("diffusers")
STEPS = 20
SETTINGS = (
    *DISTIL,
    f"warm_start.max_steps={STEPS}",
    "warm_start.batch_size=2",
    "warm_start.warmup_steps=1",
    f"student.max_steps={STEPS}",
    "student.batch_size=2",
    "trainer.sample_every=1000",
    "trainer.validate_every=1000",
)
NUM = 2


@pytest.fixture
def prompts(tmp_path):
    """A bank of two prompts, with the pooled vectors that sounds have."""
    tokens, pooled = torch.randn(3, 7, TOKENS), torch.randn(3, POOLED)
    file = tmp_path / "prompts.safetensors"
    PromptBank(["a bell", "a whale"], {"tokens": tokens, "pooled": pooled}).save(file)
    return file


def distil(kind, folder, run, prompts, lora):
    """Trains the student of a pipeline; returns the overrides that made it."""
    more = [] if kind == "image" else [f"data.prompts={prompts}"]
    more += ["modality.size=32", "modality.num_frames=5"] if kind == "video" else []
    more += ["student.lora={rank:4}"] if lora else []
    more += ["modality.padding=silence"] if kind == "audio" else []
    overrides = [*SETTINGS, f"teacher_from={folder}", f"run_dir={run}", *more]
    assert main(["train", f"{kind}/distil", *overrides, "--debug"]) == 0


def run_theirs(kind, exported, bank, noises, monkeypatch):
    """Two steps of the exported pipeline by diffusers alone, from given noises, for both prompts, as tensors."""
    left = iter([*noises, *[torch.zeros_like(noises[0])] * 2])
    if kind == "image":
        pipeline = diffusers.DDPMPipeline.from_pretrained(exported)
        for module in ("pipelines.ddpm.pipeline_ddpm", "schedulers.scheduling_lcm"):
            monkeypatch.setattr(f"diffusers.{module}.randn_tensor", lambda *_, **__: next(left))
        made = pipeline(batch_size=NUM, num_inference_steps=2, output_type="pt").images
        return 2 * torch.as_tensor(made) - 1
    embeds = bank.embeddings["tokens"][:NUM]
    if kind == "video":
        pipeline = diffusers.WanPipeline.from_pretrained(exported, text_encoder=None, tokenizer=None)
        first = next(left)
        monkeypatch.setattr("diffusers.schedulers.scheduling_flow_match_lcm.randn_tensor", lambda *_, **__: next(left))
        given = {"prompt_embeds": embeds, "latents": first, "num_frames": 5, "height": 32, "width": 32}
        made = pipeline(**given, guidance_scale=1.0, num_inference_steps=2, output_type="pt").frames
        return 2 * made.transpose(1, 2) - 1
    transformer = diffusers.StableAudioDiTModel.from_pretrained(exported, subfolder="transformer")
    vae = diffusers.AutoencoderOobleck.from_pretrained(exported, subfolder="vae")
    scheduler = diffusers.CosineDPMSolverMultistepScheduler.from_pretrained(exported, subfolder="scheduler")
    scheduler.set_timesteps(2)
    latents = next(left) * scheduler.init_noise_sigma
    scheduler.noise_sampler = lambda *_: next(left)
    rotary = diffusers.models.embeddings.get_1d_rotary_pos_embed(8, 17, use_real=True, repeat_interleave_real=False)
    with torch.no_grad():
        for time in scheduler.timesteps:
            predicted = transformer(
                scheduler.scale_model_input(latents, time),
                time.expand(NUM),
                encoder_hidden_states=embeds,
                global_hidden_states=bank.embeddings["pooled"][:NUM, None],
                rotary_embedding=rotary,
                return_dict=False,
            )[0]
            latents = scheduler.step(predicted, time, latents, return_dict=False)[0]
        return vae.decode(latents).sample.clamp(-1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_a_pipeline_is_checked_distilled_exported_and_run_by_diffusers(
    kind, lora, prompts, tmp_path, capsys, monkeypatch
):
    folder, run, exported = save_pipeline(kind, tmp_path / "pipeline"), tmp_path / "run", tmp_path / "exported"
    assert main(["convert", str(folder), "--check", "--steps", "3"]) == 0
    assert "samples of its own scheduler and ours, 3 steps" in capsys.readouterr().err

    distil(kind, folder, run, prompts, lora)
    student = weights.read(run / "student" / "weights.safetensors")
    teacher = weights.read(run / "teacher" / "weights.safetensors")
    size, whole = (sum(each.numel() for each in found.state.values()) for found in (student, teacher))
    assert size < whole / 2 if lora else size == whole

    assert main(["export", str(run), str(exported), "--format", "diffusers"]) == 0
    assert "num_inference_steps=2" in (exported / "README.md").read_text()
    bank = PromptBank.load(prompts)
    pipeline = Pipeline.from_pretrained(run, device="cpu")
    backbone, autoencoder = pipeline.network("student"), pipeline.network("autoencoder")
    shape = (NUM, *pipeline.folder.description.latent_shape)
    noises = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    theirs = run_theirs(kind, exported, bank, noises, monkeypatch)

    name = {"image": "LCMScheduler", "video": "FlowMatchLCMScheduler"}.get(kind, "CosineDPMSolverMultistepScheduler")
    scheduler = getattr(diffusers, name).from_pretrained(exported, subfolder="scheduler")
    base = getattr(backbone, "base", backbone)
    cond = {} if kind == "image" else {"prompt": torch.arange(NUM)}
    with torch.no_grad():
        times = few_step_times(base, scheduler, 2)
        ours = sample_consistency(backbone, TrigFlow(base.sigma_data), lambda i: noises[i], times, cond)
        ours = autoencoder.decode(ours)
    assert ours.shape == theirs.shape
    # Stable Audio's scheduler keeps (1 / 500)² of the first noise in the second step.
    assert (ours - theirs).abs().max() < (2e-2 if kind == "audio" else 1e-4)

    whole = tmp_path / "model.safetensors"
    assert main(["export", str(run), str(whole), "--format", "safetensors"]) == 0
    assert ModelFolder.open(whole).has("teacher") == lora  # which a LoRA student has below its own weights
    in_one_file = Pipeline.from_pretrained(whole, device="cpu")
    assert torch.equal(
        in_one_file(NUM, seed=0).samples, Pipeline.from_pretrained(run, device="cpu")(NUM, seed=0).samples
    )
    if lora:
        refused = ["export", str(run), str(tmp_path / "x.safetensors"), "--format", "safetensors", "--no-teacher"]
        assert main(refused) == 1
        assert "is a LoRA over the teacher" in capsys.readouterr().err

    if lora:
        file = tmp_path / "lora.safetensors"
        assert main(["export", str(run), str(file), "--format", "lora"]) == 0
        loaded = load_lora(file, load_teacher(folder))
        u, t = torch.randn(shape), torch.full((NUM,), 1.2)
        loaded.base.prompts = bank if kind != "image" else None
        torch.testing.assert_close(loaded(u, t, cond), backbone(u, t, cond))
