"""Motion, stillness and flicker of clips whose motion is known, and of students that are broken on purpose."""

from __future__ import annotations

import math

import pytest
import torch

from modalities.video import VideoModality
from modalities.video.flow import optical_flow
from modalities.video.moving import DIRECTIONS, MovingShapesDataset
from modalities.video.statistics import PAIRS
from scm_media.data.shapes import SHAPE_CLASSES

SIZE, FRAMES = 64, 16
MODALITY = VideoModality(num_frames=FRAMES, size=SIZE)


def clips(num: int, motion: tuple[float, float], frames: int = FRAMES, detail: float = 1.5) -> torch.Tensor:
    """Coloured clips ``(num, 3, frames, 64, 64)`` of a smooth random texture that moves by x and y pixels a frame.

    The texture is twice as large as the frame, so that new parts of it come in; detail: its correlation in pixels.
    """
    noise = torch.fft.rfft2(torch.randn(num, 3, 2 * SIZE, 2 * SIZE, generator=torch.Generator().manual_seed(0)))
    down, across = torch.fft.fftfreq(2 * SIZE)[:, None], torch.fft.rfftfreq(2 * SIZE)
    smooth = noise * torch.exp(-2 * (math.pi * detail) ** 2 * (down.square() + across.square()))
    steps = torch.arange(frames)[:, None, None]
    turned = torch.exp(-2j * math.pi * steps * (across * motion[0] + down * motion[1]))
    moved = torch.fft.irfft2(smooth[:, :, None] * turned)[..., SIZE // 2 : -SIZE // 2, SIZE // 2 : -SIZE // 2]
    return (0.3 * moved / moved.std()).clamp(-1, 1)


@pytest.mark.parametrize("motion", [(0.5, 0.0), (-0.6, 0.8), (0.0, 2.0), (3.2, -2.4), (-6.0, 0.0)])
@pytest.mark.parametrize("detail", [1.0, 3.0])
def test_motion_is_the_pixels_that_a_texture_moves_a_frame(motion, detail):
    figures = MODALITY.statistics(clips(3, motion, frames=4, detail=detail))
    assert figures["motion"].tolist() == pytest.approx([math.hypot(*motion)] * 3, rel=0.1)
    assert figures["still"].tolist() == [0, 0, 0]


def test_motion_of_an_eighth_of_the_frame_is_found_from_coarse_to_fine():
    figures = MODALITY.statistics(clips(3, (6.4, 4.8), frames=4, detail=1.5))
    assert figures["motion"].tolist() == pytest.approx([8] * 3, rel=0.08)


def test_flow_has_the_direction_of_the_motion_and_says_where_it_cannot_be_told():
    clip = clips(1, (-2.0, 1.0), frames=2).mean(1)[0]
    clip[:, :, 40:] = 0.2
    flow, certainty = optical_flow(clip[:1], clip[1:])
    known = certainty[0, :, :32] > 0.6
    assert flow[0, :, :, :32][:, known].mean(1).tolist() == pytest.approx([-2, 1], abs=0.1)
    assert known[4:-4, 4:].float().mean() > 0.9
    assert certainty[0, :, 52:].max() < 0.01, "flat"
    assert certainty[0, :, 0].max() == certainty[0, -1].max() == 0, "it leaves the frame"
    stripes = torch.sin(torch.arange(SIZE) / 3).expand(1, SIZE, SIZE)
    assert optical_flow(stripes, stripes.roll(1, 2))[1].max() < 0.01, "motion along stripes is not seen"


def test_a_still_clip_does_not_move_and_a_flat_one_with_noise_counts_as_still():
    still = clips(2, (0.0, 0.0))
    noise = 0.01 * torch.randn(still.shape, generator=torch.Generator().manual_seed(1))
    figures = MODALITY.statistics(torch.cat([still, still + noise, noise - 0.9]))
    assert figures["motion"][:2].tolist() == pytest.approx([0, 0], abs=1e-3)
    assert figures["motion"][2:].max() < 0.1
    assert figures["still"].tolist() == [1] * 6
    assert figures["flicker"][:2].tolist() == pytest.approx([0, 0], abs=1e-3)


def test_a_student_that_shows_each_frame_twice_halves_the_motion():
    clip = clips(4, (1.2, 0.9))
    moving = MODALITY.statistics(clip)
    frozen = MODALITY.statistics(clip[:, :, torch.arange(FRAMES) // 2])
    assert (frozen["motion"] / moving["motion"]).tolist() == pytest.approx([7 / 15] * 4, rel=0.03)
    assert frozen["still"].tolist() == pytest.approx([8 / 15] * 4)


def test_slowed_motion_shows_in_the_figure_in_proportion_and_blur_does_not():
    clip = clips(4, (1.2, 0.9))
    slow = MODALITY.statistics(clips(4, (0.6, 0.45)))["motion"]
    motion = MODALITY.statistics(clip)["motion"]
    assert (slow / motion).mean().item() == pytest.approx(0.5, abs=0.03)
    blurred = torch.nn.functional.avg_pool2d(clip.flatten(1, 2), 3, 1, 1).view_as(clip)
    assert MODALITY.statistics(blurred)["motion"].tolist() == pytest.approx(motion.tolist(), rel=0.05)


def test_brightness_that_changes_is_flicker_and_no_motion():
    still, size = clips(2, (0.0, 0.0)), 0.05
    flickering = still + size * (torch.arange(FRAMES) % 2 * 2 - 1)[:, None, None]
    figures = MODALITY.statistics(flickering)
    # Levels go up and down by 2 · 0.05: second differences of 4 · 0.05, of a range of 2.
    assert figures["flicker"].tolist() == pytest.approx([4 * size * 127.5] * 2, rel=1e-3)
    assert figures["motion"].max() < 0.01
    fading = still + torch.linspace(-0.2, 0.2, FRAMES)[:, None, None]
    assert MODALITY.statistics(fading)["flicker"].max() < 1e-3, "an even change is no flicker"


def test_shapes_that_cross_a_black_picture_move_by_their_distance():
    data = MovingShapesDataset(modality=MODALITY, num=len(SHAPE_CLASSES) * len(DIRECTIONS))
    samples = data.batch(range(12)).sample
    bright = samples.mean(1) + 1
    place = torch.arange(SIZE, dtype=torch.float32)
    centres = torch.stack([(bright.sum(axis) * place).sum(-1) / bright.sum((2, 3)) for axis in (2, 3)], -1)
    travelled = centres.diff(dim=1).norm(dim=-1).mean(1)
    found = MODALITY.statistics(samples)["motion"]
    assert found.mean().item() == pytest.approx(travelled.mean().item(), rel=0.2)
    assert torch.corrcoef(torch.stack([found, travelled]))[0, 1] > 0.9


def test_figures_do_not_depend_on_the_batch():
    clip = clips(PAIRS // 15 + 2, (1.0, 0.0))
    whole = MODALITY.statistics(clip)
    for name, figures in MODALITY.statistics(clip[-1:]).items():
        assert figures.shape == (1,) and figures.dtype == torch.float32
        assert figures[0].item() == pytest.approx(whole[name][-1].item(), abs=1e-4)


@pytest.mark.parametrize(("frames", "missing"), [(1, ["motion", "still", "flicker"]), (2, ["flicker"]), (3, [])])
def test_clips_of_few_frames_lack_what_is_measured_between_frames(frames, missing):
    figures = VideoModality(channels=1).statistics(clips(2, (1.0, 0.0), frames).mean(1, keepdim=True))
    assert [name for name, each in figures.items() if each.isnan().all()] == missing
    assert set(figures) == set(MODALITY.statistic_units)
