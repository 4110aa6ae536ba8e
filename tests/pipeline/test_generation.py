"""Generating from a real, untrained model: determinism, steps, labels, guidance, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import scm_media
from scm_media.pipeline import SamplerSettings, SamplingRequest
from scm_media.pipeline.labels import LabelSet
from scm_media.pipeline.randomness import sample_noise
from tests.pipeline.tiny import CLASSES, write_tiny_model


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    return scm_media.load(tiny_model, device="cpu")


def test_noise_of_a_clip_is_bit_equal_in_any_batch():
    together = sample_noise(7, range(20), 1, (2, 5))
    assert torch.equal(sample_noise(7, [13], 1, (2, 5))[0], together[13])
    assert not torch.equal(sample_noise(7, [13], 0, (2, 5))[0], together[13])
    assert not torch.equal(sample_noise(8, [13], 1, (2, 5))[0], together[13])


def test_noise_is_standard_normal_and_clips_are_independent():
    noise = sample_noise(0, range(2000), 0, (64,)).double()
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    correlation = (noise[:-1] * noise[1:]).mean(1)
    assert abs(correlation.mean()) < 0.01


def test_clips_are_the_same_at_any_batch_size(pipeline):
    one = pipeline(7, seed=3, batch_size=7)
    other = pipeline(7, seed=3, batch_size=2)
    assert one.labels == other.labels
    assert one.indices == list(range(7))
    assert torch.allclose(one.samples, other.samples, atol=1e-5)
    later = next(pipeline.batches(SamplingRequest(num=2, seed=3, first=5)))
    assert torch.allclose(later.samples, one.samples[5:], atol=1e-5)
    assert not torch.allclose(pipeline(1, seed=4).samples, one.samples[:1], atol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "evaluations"),
    [
        ({"steps": 1}, 1),
        ({"steps": 4}, 4),
        ({}, 2),
        ({"times": [1.5, 1.0, 0.5]}, 3),
        ({"teacher": True}, 5),
        ({"teacher": True, "steps": 32}, 63),
        ({"teacher": True, "guidance": 2.0}, 10),
        ({"steps": 2, "guidance": 3.0}, 4),
    ],
)
def test_evaluations_are_counted(pipeline, arguments, evaluations):
    clips = pipeline(2, label="circle", **arguments)
    assert clips.evaluations == evaluations
    assert clips.samples.shape == (2, 1, 16, 16)
    assert clips.samples.abs().max() <= 1
    assert clips.seconds_model > 0


def test_labels_and_guidance_change_what_comes_out(pipeline):
    circle, boot = (pipeline(1, label=label).samples for label in ("circle", "ankle boot"))
    assert not torch.allclose(circle, boot, atol=1e-3)
    assert not torch.allclose(pipeline(1, label="circle", guidance=3.0).samples, circle, atol=1e-3)
    assert torch.equal(pipeline(1, label="circle", guidance=1.0).samples, circle)


def test_one_label_a_clip(pipeline):
    clips = pipeline(3, label=["circle", {"class": "Ankle boot"}, "class=T-shirt/top"])
    assert [label["class"] for label in clips.labels] == CLASSES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "Bag"}, r"knows no label 'Bag'.*circle, Ankle boot, T-shirt/top"),
        ({"label": "class=ankle bot"}, r"did you mean 'Ankle boot'"),
        ({"label": "family=guitar"}, r"has no label 'family'; it knows class"),
        ({"label": ["circle"]}, "got 1 labels for 2 samples"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": -1, "teacher": True}, "steps must be at least 1, got -1"),
        ({"times": [1.0, 1.2]}, "times must descend"),
        ({"times": []}, "times is empty"),
        ({"guidance": 2.0, "guidance_interval": (1.0, 0.5)}, r"guidance interval must be \(low, high\)"),
        ({"guidance": 2.0, "guidance_interval": (1.0,)}, r"guidance_interval must be \(low, high\)"),
        ({"guidance_interval": (0.5, 1.0)}, "give a guidance scale"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"duration": 3}, "duration"),
        ({"first": -1}, r"first, the index of the first sample, must be a whole number from 0 .*got -1"),
        ({"first": 2**48 - 1}, r"first, the index of the first sample, must be a whole number from 0"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 9223372036854775807 .*got -1"),
        ({"seed": 2**64}, r"seed must be a whole number from 0 .*got 18446744073709551616"),
        ({"size": float("nan")}, "size must be a finite number, got nan"),
        ({"size": float("inf")}, "size must be a finite number, got inf"),
        ({"size": 10**9}, r"size 1e\+09: a sample of 1×1000000000×1000000000 has more than 1073741824 numbers"),
    ],
)
def test_what_the_model_cannot_do_is_refused(pipeline, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline(2, **arguments)


def test_no_clips_and_unknown_devices_and_precisions_are_refused(tiny_model, pipeline):
    with pytest.raises(ValueError, match="num must be at least 1"):
        pipeline(0)
    with pytest.raises(ValueError, match="device 'abacus' cannot be used"):
        scm_media.load(tiny_model, device="abacus")
    with pytest.raises(ValueError, match="precision must be one of float32, bf16"):
        scm_media.load(tiny_model, precision="fp8")


def test_bf16_is_near_float32(tiny_model, pipeline):
    clips = scm_media.load(tiny_model, "cpu", "bf16")(4, seed=1)
    exact = pipeline(4, seed=1)
    assert clips.samples.dtype == torch.float32
    assert 0 < (clips.samples - exact.samples).abs().mean() < 0.02


def test_guided_students_take_the_scale_as_an_input(tiny_model):
    pipeline = scm_media.load(tiny_model, "cpu")
    folder = pipeline.folder
    pipeline.folder = replace(folder, description=replace(folder.description, guidance_max=4.0))
    seen = []
    network = pipeline.network("student")
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2].guidance))
    assert pipeline(2, guidance=3.0).evaluations == 2
    assert all(torch.equal(scale, torch.full((2,), 3.0)) for scale in seen)
    with pytest.raises(ValueError, match=r"guidance must lie in \[1, 4.0\].*got 5"):
        pipeline(1, guidance=5)


def test_searched_times_win(tmp_path):
    folder = write_tiny_model(tmp_path / "m", sampler=SamplerSettings(times={"2": [1.5, 0.7]}))
    pipeline = scm_media.load(folder, "cpu")
    assert torch.equal(pipeline(2).samples, pipeline(2, times=[1.5, 0.7]).samples)
    assert not torch.equal(pipeline(2).samples, pipeline(2, times=[1.5, 1.1]).samples)


def test_guidance_keeps_to_the_models_interval_unless_another_is_given(tiny_model, monkeypatch):
    pipeline = scm_media.load(tiny_model, "cpu")
    everywhere = pipeline(2, guidance=3.0, times=[1.5, 0.7])
    monkeypatch.setattr(pipeline, "settings", replace(pipeline.settings, guidance_interval=[1.0, 1.57]))
    early = pipeline(2, guidance=3.0, times=[1.5, 0.7])
    assert (everywhere.evaluations, early.evaluations) == (4, 3)
    assert not torch.allclose(early.samples, everywhere.samples, atol=1e-3)
    both = pipeline(2, guidance=3.0, times=[1.5, 0.7], guidance_interval=(0.5, 1.57))
    assert torch.equal(both.samples, everywhere.samples)
    assert pipeline(2, times=[1.5, 0.7]).evaluations == 2


def test_guidance_is_refused_where_no_label_was_ever_dropped(pipeline, monkeypatch):
    folder = pipeline.folder
    for teacher, key in ((True, "label_dropout"), (False, "student_label_dropout")):
        monkeypatch.setattr(pipeline, "folder", replace(folder, description=replace(folder.description, **{key: 0.0})))
        name = "teacher" if teacher else "student"
        with pytest.raises(ValueError, match=rf"train with {name}\.loss\.label_dropout=0\.1"):
            pipeline(1, guidance=2.0, teacher=teacher)
        assert len(pipeline(1, guidance=2.0, teacher=not teacher)) == 1
        assert len(pipeline(1, guidance=1.0, teacher=teacher)) == 1


def test_the_first_of_very_many_clips_come_at_once(pipeline, monkeypatch):
    drawn = []
    resolve = LabelSet.resolve

    def watched(self, label, seed, index):
        drawn.append(index)
        return resolve(self, label, seed, index)

    monkeypatch.setattr(LabelSet, "resolve", watched)
    batches = pipeline.batches(SamplingRequest(num=200_000, seed=3, batch_size=4))
    first = next(batches)
    assert drawn == [0, 1, 2, 3]
    assert torch.equal(first.samples, pipeline(4, seed=3).samples)
    assert next(batches).indices == [4, 5, 6, 7]


def test_the_last_seed_and_clip_have_noise_of_their_own(pipeline):
    clips = pipeline(1, seed=2**63 - 1, first=2**48 - 1)
    assert clips.indices == [2**48 - 1]
    assert not torch.allclose(clips.samples, pipeline(1, seed=2**63 - 1).samples, atol=1e-2)
