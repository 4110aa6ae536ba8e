"""Edits and clips longer than trained, with real networks and with waves whose conditional is known in closed form."""

from __future__ import annotations

import pytest
import torch

import scm_media
from scm_media.conditioning import NO_LABEL, Conditioning
from scm_media.pipeline import EditRequest, SamplingRequest
from scm_media.pipeline.randomness import sample_noise
from scm_media.samplers import edit_times, sample_consistency
from scm_media.trigflow import TrigFlow
from tests.pipeline.waves import WINDOW, GaussianWaves, HalvedWaves, write_wave_model

FLOW = TrigFlow(0.5)
INPUT = torch.sin(torch.arange(40.0) / 4)[None] / 2


@pytest.fixture(autouse=True)
def _allow_the_modality_of_this_test(monkeypatch):
    monkeypatch.setenv("SCM_MEDIA_ALLOW", "tests")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("waves")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCM_MEDIA_ALLOW", "tests")
        return {
            "plain": write_wave_model(root / "plain"),
            "fading": write_wave_model(root / "fading", "FadingWaveModality"),
            "told": write_wave_model(root / "told", mask={"types": ["start"]}, student_label_dropout=0.1),
        }


@pytest.fixture
def pipeline(folders):
    return scm_media.load(folders["plain"], "cpu")


def gaussian(folder, smooth: bool = True):
    """A pipeline whose student is exact for Gaussian waves, and the student."""
    pipeline = scm_media.load(folder, "cpu")
    student = GaussianWaves(smooth)
    pipeline._networks["student"] = student
    return pipeline, student


def jump(samples: torch.Tensor, place: int) -> float:
    """Root mean square of the difference between a place and the one before it."""
    return (samples[..., place] - samples[..., place - 1]).square().mean().sqrt().item()


@pytest.mark.parametrize("batch_size", [2, 5])
def test_what_is_given_comes_back_exactly_and_the_rest_differs_by_clip(pipeline, batch_size):
    clips = pipeline.edit("continue", INPUT, 5, keep=0.5, seed=3, batch_size=batch_size)
    assert clips.samples.shape == (5, 1, WINDOW)
    assert torch.equal(clips.samples[..., :8], INPUT[:, -8:].expand(5, 1, 8))
    assert (clips.samples[1:, :, 8:] - clips.samples[:1, :, 8:]).abs().amax((1, 2)).min() > 1e-2
    assert clips.evaluations == pipeline.edit_steps == 16
    assert clips.seconds_model > 0
    assert clips.seconds_decode > 0


def test_an_edit_depends_on_seed_and_clip_alone(pipeline):
    together = pipeline.edit("continue", INPUT, 5, seed=3, batch_size=5, steps=4, duration=5)
    apart = pipeline.edit("continue", INPUT, 5, seed=3, batch_size=2, steps=4, duration=5)
    assert torch.allclose(together.samples, apart.samples, atol=1e-5)
    assert together.labels == apart.labels
    last = SamplingRequest(seed=3, first=4, steps=4, sizes={"duration": 5})
    last = next(pipeline.edit_batches(EditRequest(task="continue", source=INPUT, sampling=last)))
    assert torch.allclose(last.samples, together.samples[4:], atol=1e-5)
    other = pipeline.edit("continue", INPUT, 5, seed=4, steps=4, duration=5)
    assert (other.samples - together.samples).abs().amax() > 1e-2


@pytest.mark.parametrize(
    ("task", "arguments", "kept"),
    [
        ("prepend", {"keep": 1.0}, [(16, 32, 0)]),
        ("interpolate", {"keep": 0.5}, [(0, 8, 0), (24, 32, 32)]),
        ("inpaint", {"region": [0.5, 1.0]}, [(0, 8, 0), (16, 40, 16)]),
        ("inpaint", {"region": [1.5, 2.5]}, [(0, 24, 0)]),
    ],
)
def test_every_task_keeps_its_part(pipeline, task, arguments, kept):
    samples = pipeline.edit(task, INPUT, 2, steps=2, **arguments).samples
    free = torch.ones(samples.shape[-1], dtype=torch.bool)
    for first, last, source in kept:
        assert torch.equal(samples[..., first:last], INPUT[:, source : source + last - first].expand(2, 1, -1))
        free[first:last] = False
    assert free.any()
    assert (samples[0, 0, free] - samples[1, 0, free]).abs().max() > 1e-3


def test_the_known_part_reaches_the_network_at_every_level_of_noise(folders):
    """The first step knows nothing of what is kept, the later ones see it: same noise, other input, other clip."""
    pipeline, _ = gaussian(folders["plain"])
    for steps, near in ((1, True), (4, False)):
        one = pipeline.edit("continue", INPUT, 1, keep=1.0, steps=steps).samples
        other = pipeline.edit("continue", -INPUT, 1, keep=1.0, steps=steps).samples
        apart = (one - other)[..., 16:].abs().max().item()
        assert (apart < 0.02) == near, apart


def conditional_errors(waves: GaussianWaves, steps: int) -> tuple[float, float]:
    """Relative error of the mean and of the deviation that edits have, the first half of a window being known.

    The steps are affine in known part and noise: without noise they give the mean exactly; the deviation is drawn.
    """
    covariance, half = waves.covariance(WINDOW), WINDOW // 2
    generator = torch.Generator().manual_seed(0)
    num = 1000
    white = torch.randn(num, WINDOW, generator=generator, dtype=torch.float64)
    known = (white @ torch.linalg.cholesky(covariance).T)[:, None]
    gain = covariance[half:, :half] @ torch.linalg.inv(covariance[:half, :half])
    mean, exact = known[:, 0, :half] @ gain.T, covariance[half:, half:] - gain @ covariance[:half, half:]
    latent, mask = HalvedWaves().encode(known), (torch.arange(half) < half // 2).double()

    def draw(noise) -> torch.Tensor:
        times, start = edit_times(steps, FLOW), latent * mask
        keep = lambda x0, i: torch.where(mask > 0, latent, x0)  # noqa: E731
        made = sample_consistency(waves, FLOW, noise, times, Conditioning(), start=start, constrain=keep)
        return HalvedWaves().decode(made)[:, 0, half:]

    found = draw(lambda i: torch.zeros_like(latent))
    noisy = draw(lambda i: torch.randn(latent.shape, generator=generator, dtype=torch.float64) * FLOW.sigma_data)
    deviation = (noisy - found).std(0) / exact.diagonal().sqrt()
    return ((found - mean).norm() / mean.norm()).item(), (deviation - 1).abs().max().item()


def test_with_many_steps_edits_come_to_the_conditional_distribution():
    errors = [conditional_errors(GaussianWaves(smooth=False), steps) for steps in (1, 4, 16, 64)]
    means, deviations = zip(*errors, strict=True)
    assert means[0] > 0.99, "one step knows nothing of what is kept"
    assert list(means) == sorted(means, reverse=True)
    assert list(deviations) == sorted(deviations, reverse=True)
    assert means[2] < 0.5
    assert means[3] < 0.3
    assert deviations[3] < 0.2


def test_seams_of_a_smooth_process_are_near_to_its_own_steps(folders):
    pipeline, _ = gaussian(folders["plain"])
    samples = pipeline(200, duration=5.0, batch_size=200).samples
    natural = sum(jump(samples, place) for place in range(1, WINDOW)) / (WINDOW - 1)
    seams = [jump(samples, place) for place in (WINDOW, WINDOW + 24)]
    assert max(seams) < 2.0 * natural, "within twice what neighbours differ by"
    without = scm_media.load(folders["plain"], "cpu")
    without._networks["student"] = GaussianWaves()
    unaware = without(200, duration=5.0, batch_size=200, steps=1).samples
    assert jump(unaware, WINDOW) > 5 * natural, "one step knows nothing of the window before"


def test_a_modality_may_fade_what_it_joins(folders):
    plain, fading = (gaussian(folders[name])[0](50, duration=3.0).samples for name in ("plain", "fading"))
    assert torch.equal(plain[..., : WINDOW - 2], fading[..., : WINDOW - 2]), "faded within two places of the border"
    assert jump(fading, WINDOW) < jump(plain, WINDOW)
    given = gaussian(folders["fading"])[0].edit("continue", INPUT, 2, keep=1.0).samples
    assert torch.equal(given[..., :14], INPUT[:, -16:-2].expand(2, 1, 14))


def test_a_long_clip_starts_as_the_clip_of_one_window_and_costs_no_wider_network(folders):
    pipeline, student = gaussian(folders["plain"])
    short, long = pipeline(3, seed=5), pipeline(3, seed=5, duration=20.0, batch_size=2)
    assert long.samples.shape == (3, 1, 320)
    assert torch.allclose(long.samples[..., :WINDOW], short.samples, atol=1e-6)
    assert {shape[1:] for shape in student.seen} == {(2, WINDOW // 2)}, "the network sees windows alone"
    assert long.evaluations == 2 + 12 * 16, "the first window in two steps, twelve that know a quarter in sixteen"
    wider = pipeline(1, duration=20.0, overlap=1.0)
    assert wider.evaluations == 2 + 18 * 16


def test_windows_have_noise_of_their_own():
    first, second = (sample_noise(0, [3], 1, (4,), window) for window in (0, 1))
    assert torch.equal(first, sample_noise(0, [3], 1, (4,)))
    assert not torch.equal(first, second)
    far = sample_noise(0, [3], 1, (4,), 10**9)
    assert not torch.equal(far, second)


def test_long_clips_are_the_same_at_any_batch_size(pipeline):
    together, apart = (pipeline(4, duration=6.0, batch_size=size, seed=1).samples for size in (4, 3))
    assert torch.allclose(together, apart, atol=1e-5)


def test_a_network_that_was_trained_for_it_is_told_what_is_known_and_needs_no_more_steps(folders):
    pipeline, student = gaussian(folders["told"])
    clips = pipeline.edit("continue", INPUT, 2, keep=1.0)
    assert clips.evaluations == pipeline.edit_steps == 2
    for aligned in student.told:
        assert aligned is not None
        assert aligned[:, 2].tolist() == [[1.0] * 8 + [0.0] * 8] * 2
        expected = HalvedWaves().encode(INPUT[None, :, -16:]) / FLOW.sigma_data
        assert torch.allclose(aligned[:, :2, :8], expected.expand(2, 2, 8))
        assert aligned[:, :2, 8:].abs().max() == 0
    student.told.clear()
    pipeline(1)
    assert student.told == [None, None]
    real = scm_media.load(folders["told"], "cpu").edit("continue", INPUT, 2, keep=1.0, guidance=2.0, label="calm")
    assert real.evaluations == 4


def test_a_label_that_is_not_given_is_not_told_where_the_network_did_without(folders, pipeline):
    seen = []
    told = scm_media.load(folders["told"], "cpu")
    for each in (told, pipeline):
        each.network("student").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2].labels["class"]))
    assert told.drawn_labels(None) == []
    assert told.edit("continue", INPUT, 1).labels == [{}]
    assert seen[0].tolist() == [NO_LABEL]
    assert pipeline.drawn_labels(None) == ["class"]
    assert pipeline.drawn_labels("calm") == []
    drawn = pipeline.edit("continue", INPUT, 3, seed=2).labels
    assert drawn == pipeline(3, seed=2).labels
    assert pipeline.edit("continue", INPUT, 1, label="rough").labels == [{"class": "rough"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": 1 / 16}, "less than one position of the model's latents"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"times": [0.5, 0.7]}, "times must descend"),
        ({"num": 0}, "num must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"label": "loud"}, "knows no label 'loud'"),
        ({"duration": 5, "overlap": 3}, "overlap must be above 0 and at most 1 s"),
        ({"guidance": 9.0, "guidance_interval": (1.0, 0.5)}, "guidance interval must be"),
    ],
)
def test_what_an_edit_cannot_do_is_refused(pipeline, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline.edit("continue", INPUT, **arguments)


def test_guidance_without_a_label_has_nothing_to_steer_towards(folders):
    with pytest.raises(ValueError, match=r"guidance 2.0 steers towards a label: give one"):
        scm_media.load(folders["told"], "cpu").edit("continue", INPUT, guidance=2.0)


def test_the_teacher_and_a_needless_overlap_are_refused_for_long_clips(pipeline):
    with pytest.raises(ValueError, match="the teacher makes a sample at once"):
        pipeline(1, duration=5.0, teacher=True)
    with pytest.raises(ValueError, match=r"overlap 0\.5 joins nothing"):
        pipeline(1, overlap=0.5)


def test_pictures_are_filled_where_a_window_or_a_mask_says(tiny_model):
    pipeline = scm_media.load(tiny_model, "cpu")
    picture = torch.linspace(-1, 1, 256).reshape(1, 16, 16)
    lower = pipeline.edit("inpaint", picture, 2, region=[8, 16, 0, 16], label="circle")
    assert torch.equal(lower.samples[..., :8, :], picture[:, :8].expand(2, 1, 8, 16))
    assert (lower.samples[0] - lower.samples[1])[:, 8:].abs().max() > 1e-2
    mask = torch.full((1, 16, 16), -1.0)
    mask[:, 8:] = 1
    assert torch.equal(pipeline.edit("inpaint", picture, 2, mask=mask, label="circle").samples, lower.samples)
    for task, arguments, message in (
        ("continue", {}, "have no duration to go on along; use --task inpaint"),
        ("inpaint", {"region": [0, 8]}, r"region must be first and last index along each axis \(4 numbers for 16×16"),
        ("inpaint", {"region": [0, 8.5, 0, 8]}, "whole numbers, got 0 8.5 0 8"),
        ("inpaint", {"region": [0, 8, 0, 17]}, r"axis 2 must be FIRST LAST with 0 ≤ FIRST < LAST ≤ 16"),
        ("inpaint", {"region": [0, 8, 0, 8], "size": 24}, "has the size of the input; leave size out"),
        ("inpaint", {"region": [0, 8, 0, 8], "keep": 3}, "keep 3 has no unit here"),
        ("inpaint", {"region": [0, 8, 0, 8], "overlap": 3}, "overlap 3 joins nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            pipeline.edit(task, picture, **arguments)
