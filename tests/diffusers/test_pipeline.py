"""Calls of an exported pipeline: labels, outputs, callbacks, guidance, precision, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from scm_media import Guided, sample_consistency
from scm_media.cli import main
from scm_media.pipeline import Pipeline
from tests.diffusers.models import write_sounds
from tests.pipeline.moves import write_moves_model
from tests.pipeline.tiny import BACKBONE, write_networks, write_tiny_model

diffusers = pytest.importorskip("diffusers")
from scm_media.diffusers import ScmMediaPipeline  # noqa: E402


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def opened(exported):
    """Returns the pipeline of a kind of samples, opened once."""
    made = {}

    def open_it(kind):
        if kind not in made:
            made[kind] = diffusers.DiffusionPipeline.from_pretrained(exported(kind)[1])
            made[kind].set_progress_bar_config(disable=True)
        return made[kind]

    return open_it


def export(model, target):
    assert main(["export", str(model), str(target), "--format", "diffusers"]) == 0
    return ScmMediaPipeline.from_pretrained(target)


@pytest.mark.parametrize(
    ("kind", "output_type", "shape"),
    [
        ("image", "np", (2, 16, 16, 1)),
        ("image", "pt", (2, 1, 16, 16)),
        ("audio", "np", (2, 1, 2048)),
        ("audio", "pt", (2, 1, 2048)),
        ("video", "np", (2, 7, 16, 16, 1)),
        ("video", "pt", (2, 7, 1, 16, 16)),
        ("video", "latent", (2, 4, 3, 4, 4)),
    ],
)
def test_output_classes_and_types_are_those_of_diffusers(kind, output_type, shape, opened):
    made = opened(kind)(batch_size=2, num_inference_steps=1, generator=seeded(), output_type=output_type)
    name = {"image": "images", "audio": "audios", "video": "frames"}[kind]
    assert list(made) == [name] and made[0] is made[name]
    assert isinstance(made[0], np.ndarray if output_type == "np" else torch.Tensor) and made[0].shape == shape
    if kind != "audio" and output_type != "latent":
        assert made[0].min() >= 0 and 0.5 < made[0].max() <= 1
    if output_type == "pt":
        made[0].requires_grad_()  # no tensor of inference mode
    again = opened(kind)(batch_size=2, num_inference_steps=1, generator=seeded(), output_type=output_type)[0]
    assert (again == made[0]).all()
    assert type(made).__module__.split(".")[0] == ("scm_media" if kind == "video" else "diffusers")


def test_pictures_are_the_default_and_frames_come_as_pictures_too(opened):
    images = opened("image")("circle", generator=seeded()).images
    assert [type(each) for each in images] == [Image.Image] and images[0].size == (16, 16)
    frames = opened("video")(batch_size=2, output_type="pil", generator=seeded()).frames
    assert [len(clip) for clip in frames] == [7, 7] and frames[0][0].size == (16, 16)
    assert isinstance(opened("audio")(generator=seeded()).audios, np.ndarray)


def test_class_numbers_are_classes_in_the_models_order(opened):
    pipeline = opened("image")
    by_name = pipeline(["T-shirt/top", "circle"], 1, seeded(), "pt").images
    for numbers in ([2, 0], torch.tensor([2, 0]), np.array([2, 0]), {"class": [2, 0]}):
        assert torch.equal(pipeline(None, 1, seeded(), "pt", class_labels=numbers).images, by_name)
    pipeline(None, 1, seeded(), "pt", class_labels=1, batch_size=3)
    assert pipeline.sample_labels == [{"class": "Ankle boot"}] * 3
    sounds = opened("audio")
    sounds(class_labels={"pitch": [0, 2], "kind": 1}, num_inference_steps=1)
    assert [(each["pitch"], each["kind"]) for each in sounds.sample_labels] == [("57", "noise"), ("64", "noise")]


def test_labels_that_are_missing_are_drawn_with_the_generator(opened):
    pipeline = opened("audio")
    runs = []
    for seed in (1, 1, 2):
        pipeline({"kind": "tone"}, 1, seeded(seed), batch_size=8)
        runs.append(pipeline.sample_labels)
    assert runs[0] == runs[1] != runs[2]
    assert {each["kind"] for each in runs[0]} == {"tone"}
    assert {each["pitch"] for each in runs[0]} == {"57", "60"}  # the data have no tone of 64
    assert all(10 <= each["level"] <= 80 for each in runs[0])


def test_a_sample_with_a_generator_of_its_own_is_the_same_in_any_batch(opened):
    pipeline = opened("image")
    together = pipeline(num_inference_steps=2, generator=[seeded(1), seeded(2)], output_type="pt").images
    alone = pipeline(num_inference_steps=2, generator=[seeded(2)], output_type="pt").images
    assert len(together) == 2
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)


def test_given_latents_are_noise_of_unit_variance(opened):
    pipeline = opened("image")
    noise = torch.randn(2, 1, 16, 16, generator=seeded(5))
    made = pipeline("circle", 1, latents=noise, output_type="pt").images
    assert torch.equal(made, pipeline("circle", 1, seeded(5), "pt", batch_size=2).images)


def test_times_of_ones_own_are_stepped_through(opened):
    pipeline = opened("image")
    made = pipeline("circle", None, seeded(), "pt", timesteps=[1.5, 0.9, 0.0]).images
    assert pipeline.scheduler.timesteps.tolist() == pytest.approx([1.5, 0.9, 0.0])
    assert torch.equal(pipeline("circle", 2, seeded(), "pt", timesteps=[1.5, 0.9]).images, made)
    assert not torch.equal(pipeline("circle", 2, seeded(), "pt").images, made)


def test_a_callback_sees_each_step_may_change_latents_and_may_interrupt(opened):
    pipeline, seen = opened("image"), []

    def watch(pipe, step, time, tensors):
        seen.append((step, round(float(time), 2), set(tensors)))
        pipe._interrupt = step == 1
        return {"latents": tensors["latents"] * 0}

    names = ["latents", "denoised"]
    given = {"callback_on_step_end": watch, "callback_on_step_end_tensor_inputs": names}
    made = pipeline("circle", 4, seeded(), "latent", **given).images
    assert seen == [(0, 1.56, set(names)), (1, 1.1, set(names))]
    assert not made.any()
    assert pipeline("circle", 4, seeded(), "latent").images.any()


def test_a_callback_of_diffusers_is_given_its_own_tensors(opened):
    class Fading(diffusers.callbacks.PipelineCallback):
        tensor_inputs = ["latents"]

        def callback_fn(self, pipeline, step, time, tensors):
            last = step == pipeline.num_timesteps - 1
            return {"latents": tensors["latents"] * 0.5} if last else {}

    pipeline = opened("image")
    made = pipeline("circle", 2, seeded(), "latent", callback_on_step_end=Fading()).images
    assert torch.equal(made, pipeline("circle", 2, seeded(), "latent").images / 2)


def test_the_progress_bar_counts_steps(exported, capsys):
    pipeline = ScmMediaPipeline.from_pretrained(exported("image")[1])
    capsys.readouterr()
    pipeline("circle", 3, seeded())
    assert "3/3" in capsys.readouterr().err


def test_guidance_by_two_calls_is_ours(exported, opened):
    ours = Pipeline.from_pretrained(exported("image")[0], device="cpu")
    made = opened("image")("circle", 2, seeded(3), "latent", guidance_scale=3.0).images
    network, cond = ours.network("student"), ours.conditioning([{"class": "circle"}])
    expected = [
        sample_consistency(each, ours.flow, cond=cond, shape=(1, 1, 16, 16), steps=2, seed=seeded(3))
        for each in (Guided(network, 3.0), network)
    ]
    torch.testing.assert_close(made, expected[0], atol=1e-5, rtol=0)
    assert (expected[0] - expected[1]).abs().max() > 1e-2


def test_a_student_that_takes_the_scale_is_given_it(tmp_path):
    model = write_tiny_model(tmp_path / "model", guidance_max=4.0)
    write_networks(model, {"teacher": BACKBONE, "student": {**BACKBONE, "guidance": True}})
    pipeline = export(model, tmp_path / "out")
    ours, noise = Pipeline.from_pretrained(model, device="cpu"), seeded(3)
    cond = replace(ours.conditioning([{"class": "circle"}]), guidance=torch.tensor([3.0]))
    expected = sample_consistency(ours.network("student"), cond=cond, shape=(1, 1, 16, 16), steps=1, seed=noise)
    made = pipeline("circle", 1, seeded(3), "latent", guidance_scale=3.0).images
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)
    assert not torch.equal(pipeline("circle", 1, seeded(3), "latent").images, made)
    with pytest.raises(ValueError, match=r"guidance must lie in \[1, 4.0\]"):
        pipeline("circle", guidance_scale=5.0)


def test_actions_are_given(tmp_path, allowed):
    model = write_moves_model(tmp_path / "model")
    pipeline, ours = export(model, tmp_path / "out"), Pipeline.from_pretrained(model, device="cpu")
    frames, shape = ours.modality.shape()[1], (2, *ours.latent_shape())
    rows = torch.randn(2, frames, 2, generator=seeded(1))
    labels = [{"way": "back"}, {"way": "forth"}]
    cond = ours.layout.assemble(ours.conditioning(labels), shape[2:], rows.transpose(1, 2))
    expected = sample_consistency(ours.network("student"), cond=cond, shape=shape, steps=2, seed=seeded(3))
    made = pipeline(labels, 2, seeded(3), "latent", actions=rows).images
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)
    assert not torch.equal(pipeline(labels, 2, seeded(3), "latent", actions=rows * 0).images, made)
    with pytest.raises(ValueError, match="no action bank to draw from: give actions"):
        pipeline(labels)


def test_bfloat16_is_our_precision_of_that_name(exported):
    model, target = exported("image")
    pipeline = diffusers.DiffusionPipeline.from_pretrained(target, torch_dtype=torch.bfloat16)
    assert pipeline.backbone.dtype == torch.bfloat16 and pipeline.autoencoder.dtype == torch.float32
    ours = Pipeline.from_pretrained(model, device="cpu", precision="bf16")
    cond, given = ours.conditioning([{"class": "circle"}]), {"shape": (1, 1, 16, 16), "steps": 2}
    with ours.autocast():
        expected = sample_consistency(ours.network("student"), cond=cond, seed=seeded(3), **given)
    made = pipeline("circle", 2, seeded(3), "latent").images
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)
    exact = sample_consistency(ours.network("student"), cond=cond, seed=seeded(3), **given)
    assert 1e-4 < (made - exact).abs().max() < 0.1
    pipeline.to(torch.float32)
    torch.testing.assert_close(pipeline("circle", 2, seeded(3), "latent").images, exact, atol=1e-5, rtol=0)
    for change in (pipeline.to, lambda dtype: ScmMediaPipeline.from_pretrained(target, torch_dtype=dtype)):
        with pytest.raises(ValueError, match=r"computes in torch.float32 or torch.bfloat16, got torch.float16"):
            change(torch.float16)


def test_hooks_that_offload_are_called_for_the_network_and_for_decoding(exported):
    accelerate = pytest.importorskip("accelerate")
    pipeline, moved = ScmMediaPipeline.from_pretrained(exported("audio")[1]), []

    class Moving(accelerate.hooks.CpuOffload):
        def pre_forward(self, module, *arguments, **options):
            moved.append(type(module).__name__)
            return super().pre_forward(module, *arguments, **options)

    for name in pipeline.model_cpu_offload_seq.split("->"):
        accelerate.hooks.add_hook_to_module(getattr(pipeline, name), Moving("cpu"))
    pipeline(num_inference_steps=2, generator=seeded())
    assert moved == ["ScmMediaBackbone"] * 2 + ["ScmMediaAutoencoder"]


@pytest.mark.parametrize("offload", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_an_offloaded_pipeline_makes_the_same_again_and_again(offload, exported):
    pytest.importorskip("accelerate")
    pipeline = ScmMediaPipeline.from_pretrained(exported("audio")[1])
    made = [pipeline(num_inference_steps=2, generator=seeded(), output_type="pt").audios]
    getattr(pipeline, offload)(device="cpu")
    made += [pipeline(num_inference_steps=2, generator=seeded(), output_type="pt").audios for _ in range(2)]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_sizes_are_the_modalitys(opened):
    assert opened("audio")(num_inference_steps=1, duration=0.128).audios.shape == (1, 1, 1024)
    with pytest.raises(ValueError, match=r"duration 1: longer than the model makes at once"):
        opened("audio")(duration=1.0)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("image", {"labels": {"class": "circl"}}, "knows no label 'circl' (did you mean 'circle'?)"),
        ("image", {"labels": {"colour": "red"}}, "the model has no label 'colour'; it knows class"),
        ("image", {"labels": ["circle"], "batch_size": 2}, "got 1 labels for 2 samples"),
        ("image", {"labels": 1}, "labels are names, got 1: give numbers of classes as class_labels"),
        ("image", {"class_labels": 3}, "class_labels of 'class' must be whole numbers from 0 to 2, got 3"),
        ("image", {"class_labels": [0.5]}, "must be whole numbers from 0 to 2, got 0.5"),
        ("image", {"class_labels": [0], "labels": "circle"}, "give labels or class_labels, not both"),
        ("image", {"class_labels": [0], "batch_size": 3}, "got 1 class_labels for 3 samples"),
        ("audio", {"class_labels": [0]}, "class_labels need one label with classes, the model has pitch, kind, level"),
        ("audio", {"class_labels": {"level": 0}}, "no label 'level' with classes; it knows pitch, kind, level"),
        ("audio", {"labels": {"level": 90}}, "label level must lie in 10 … 80"),
        ("image", {"prompt": "a cat"}, "the pipeline takes no prompt; it takes class_labels, batch_size"),
        ("image", {"batch_size": 0}, "the number of samples must be at least 1"),
        ("image", {"num_inference_steps": 0}, "steps must be at least 1, got 0"),
        ("image", {"timesteps": [1.0, 1.2]}, "times must descend"),
        ("image", {"timesteps": [1.5], "num_inference_steps": 2}, "got 1 timesteps and num_inference_steps=2"),
        ("image", {"output_type": "tf"}, "output_type must be one of pil, np, pt, latent, got 'tf'"),
        ("audio", {"output_type": "pil"}, "output_type must be one of np, pt, latent, got 'pil'"),
        ("image", {"latents": torch.zeros(1, 1, 8, 8)}, "latents must have the shape (1, 1, 16, 16), got (1, 1, 8, 8)"),
        ("image", {"generator": [None, None], "batch_size": 3}, "got 2 generators for 3 samples"),
        ("image", {"actions": [[1.0]]}, "the model was trained without actions"),
        ("image", {"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "has prompt_embeds; there are latents"),
    ],
)
def test_what_the_model_cannot_do_is_refused_in_one_line(kind, arguments, message, opened):
    with pytest.raises(ValueError) as caught:
        opened(kind)(**arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_another_scheduler_must_have_the_models_sigma_data(exported):
    other = diffusers.SCMScheduler(sigma_data=1.0)
    with pytest.raises(ValueError, match=r"the scheduler's sigma_data is 1\.0, expected the model's, 0\.5"):
        ScmMediaPipeline.from_pretrained(exported("image")[1], scheduler=other)


def test_a_name_of_classes_outside_ascii_survives(tmp_path):
    labels = {"pitch": ["57", "60", "Größe 日本"], "kind": ["a|b`", "noise"], "level": []}
    pipeline = export(write_sounds(tmp_path / "model", labels=labels), tmp_path / "out")
    pipeline([{"pitch": "Größe 日本", "kind": "a|b`"}], 1)
    assert pipeline.sample_labels[0]["pitch"] == "Größe 日本"
    assert "a\\|b\\`" in (tmp_path / "out" / "README.md").read_text()
