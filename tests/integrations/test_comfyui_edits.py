"""The nodes of ComfyUI that edit keep what they are told to keep, and take pictures, sounds and clips as they come."""

from __future__ import annotations

import sys

import torch

import modalities.video
from tests.integrations.comfyui_stub import execute
from tests.integrations.graphs import READ, edited, sampled
from tests.pipeline.tiny import write_tiny_model


def test_the_mask_decides_what_of_a_picture_is_kept(comfy):
    pictures = torch.randint(0, 256, (2, 16, 16, 3), generator=torch.Generator().manual_seed(0)) / 255
    mask = torch.zeros(1, 16, 16)
    mask[:, :, 8:] = 1
    given = {"pictures": [("IMAGE", pictures)], "mask": [("MASK", mask)]}
    graph = edited("image", images=["pictures", 0], mask=["mask", 0], batch_size=2)
    made, recorded = execute(comfy, graph, given)["edit"]
    assert made.shape == (4, 16, 16, 3)
    assert [record["index"] for record in recorded.records] == [0, 1, 2, 3]
    assert torch.allclose(made[:, :, :8], pictures.repeat_interleave(2, 0)[:, :, :8], atol=1e-6, rtol=0)
    for picture, source in zip(made, pictures.repeat_interleave(2, 0), strict=True):
        assert float((picture[:, 8:] - source[:, 8:]).abs().mean()) > 0.05
    assert float((made[0] - made[1])[:, 8:].abs().mean()) > 0.01  # other noise
    assert READ["image"](comfy.output / "mine" / "made_00003_.png")["task"] == "inpaint"


def test_pictures_and_masks_of_another_size_are_brought_to_the_models(comfy):
    mask = torch.zeros(1, 64, 64)
    mask[:, 32:] = 1
    given = {"pictures": [("IMAGE", torch.full((1, 64, 64, 3), 0.25))], "mask": [("MASK", mask)]}
    made = execute(comfy, edited("image", images=["pictures", 0], mask=["mask", 0]), given)["edit"][0]
    assert made.shape == (1, 16, 16, 3)
    assert torch.allclose(made[:, :7], torch.tensor(0.25), atol=1e-5)
    assert float((made[:, 9:] - 0.25).abs().mean()) > 0.05


def test_grey_models_show_their_grey_three_times_and_take_colour_by_its_brightness(comfy):
    write_tiny_model(comfy.models / "grey")
    colour = torch.tensor([0.2, 0.6, 0.9]).expand(1, 16, 16, 3)
    mask = torch.zeros(1, 16, 16)
    mask[:, 8:] = 1
    given = {"pictures": [("IMAGE", colour)], "mask": [("MASK", mask)]}
    graph = edited("image", images=["pictures", 0], mask=["mask", 0])
    graph["load"]["inputs"]["model"] = "grey"
    made = execute(comfy, graph, given)["edit"][0]
    assert torch.equal(made[..., 0], made[..., 1]) and torch.equal(made[..., 0], made[..., 2])
    brightness = 0.299 * 0.2 + 0.587 * 0.6 + 0.114 * 0.9
    assert torch.allclose(made[:, :8], torch.tensor(brightness), atol=1e-6)
    media = sys.modules[f"{comfy.nodes.__name__}.media"]
    clip = media.from_frames(colour.expand(3, -1, -1, -1), modalities.video.VideoModality(channels=1, size=16))
    assert clip.shape == (1, 3, 16, 16)
    assert torch.allclose(clip, torch.tensor(2 * brightness - 1), atol=1e-6)


def test_a_stretch_of_a_sound_is_made_anew_and_a_sound_goes_on(comfy):
    tone = 0.5 * torch.sin(torch.arange(2048) / 10)[None, None]
    given = {"tone": [("AUDIO", {"waveform": tone, "sample_rate": 8000})]}
    graph = edited("audio", audio=["tone", 0], task="inpaint", start=0.1, end=0.15)
    made = execute(comfy, graph, given)["edit"][0]["waveform"]
    assert torch.equal(made[..., :700], tone[..., :700])  # the last 10 ms before the stretch fade into it
    assert torch.equal(made[..., 1300:], tone[..., 1300:])
    assert float((made - tone)[..., 800:1200].abs().mean()) > 0.01
    graph = edited("audio", audio=["tone", 0], task="continue", keep=0.1, duration=0.416)
    going_on = execute(comfy, graph, given)["edit"][0]["waveform"]
    assert going_on.shape == (1, 1, 3328)
    assert torch.equal(going_on[..., :700], tone[..., -800:-100])


def test_sounds_of_another_rate_and_of_two_channels_are_read_as_a_file_of_them_would_be(comfy):
    tone = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(8192) / 32000)
    given = {"tone": [("AUDIO", {"waveform": torch.stack([tone, tone])[None], "sample_rate": 32000})]}
    graph = edited("audio", audio=["tone", 0], task="continue", keep=0.1)
    made = execute(comfy, graph, given)["edit"][0]
    assert made["sample_rate"] == 8000
    resampled = tone[::4][-800:]
    assert float((made["waveform"][0, 0, 50:700] - resampled[50:700]).abs().max()) < 0.02


def test_a_clip_goes_on_from_frames_and_keeps_what_a_mask_leaves(comfy):
    frames = torch.randint(0, 256, (5, 16, 24, 3), generator=torch.Generator().manual_seed(0)) / 255
    given = {"frames": [("IMAGE", frames)], "mask": [("MASK", torch.ones(1, 16, 24))]}
    graph = edited("video", images=["frames", 0], task="continue", keep=2, frames=9)
    made = execute(comfy, graph, given)["edit"][0][0]
    assert made.shape == (9, 16, 24, 3)
    assert torch.allclose(made[:2], frames[-2:], atol=1e-6, rtol=0)
    mask = torch.zeros(5, 16, 24)
    mask[2:] = 1
    given["mask"] = [("MASK", mask)]
    graph = edited("video", images=["frames", 0], task="inpaint", mask=["mask", 0])
    made = execute(comfy, graph, given)["edit"][0][0]
    assert torch.allclose(made[:2], frames[:2], atol=1e-6, rtol=0)
    assert float((made[2:] - frames[2:]).abs().mean()) > 0.05


def test_each_clip_of_a_batch_goes_on_its_own(comfy):
    graph = sampled("video")
    graph["edit"] = {
        "class_type": "ScmMediaEditVideo",
        "inputs": {
            **{"model": ["load", 0], "images": ["sample", 0], "task": "continue", "label": "", "seed": 4},
            **{"batch_size": 1, "steps": 1, "keep": 3},
        },
    }
    results = execute(comfy, graph)
    for clip, source in zip(results["edit"][0], results["sample"][0], strict=True):
        assert torch.allclose(clip[:3], source[-3:], atol=1e-6, rtol=0)
