"""The feature network of videos: what it is trained to tell, and that it tells it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from modalities.video import VideoModality
from modalities.video.features import (
    LARGEST_STEP,
    ORDERS,
    FrameNetwork,
    MotionNetwork,
    change_speed,
    estimate_motion,
    reorder_frames,
)
from modalities.video.moving import MovingShapesDataset
from scm_media.conditioning import NO_LABEL
from scm_media.evaluation.features import named_network, project_features
from scm_media.training.stages.feature_extractor import ClassificationLoss

CLIPS = VideoModality(num_frames=8, size=16, channels=1)


def numbered(num: int = 3, length: int = 8) -> torch.Tensor:
    """Samples ``(num, 1, length, 1, 1)`` whose frames carry their numbers."""
    return torch.arange(float(length)).expand(num, length)[:, None, :, None, None].clone()


def test_frames_are_put_in_the_order_that_is_named():
    clips = numbered()
    generator = torch.Generator().manual_seed(0)
    found = {order: reorder_frames(clips, order, generator)[:, 0, :, 0, 0] for order in ORDERS}
    assert torch.equal(found["forward"], clips[:, 0, :, 0, 0])
    assert torch.equal(found["reversed"][1], torch.arange(7.0, -1, -1))
    assert torch.equal(found["shuffled"].sort(1).values, clips[:, 0, :, 0, 0])
    assert not torch.equal(found["shuffled"][0], found["shuffled"][1])
    assert (found["frozen"] == found["frozen"][:, :1]).all()
    with pytest.raises(ValueError, match="order must be one of forward"):
        reorder_frames(clips, "backwards")


def test_slower_clips_show_the_frames_between():
    clips = numbered(3)
    speed, uniform = torch.tensor([1.0, 0.5, 0.25]), torch.tensor([0.7, 0.0, 0.999])
    full, half, quarter = change_speed(clips, speed, uniform)[:, 0, :, 0, 0]
    assert torch.equal(full, torch.arange(8.0))
    assert torch.allclose(half, torch.arange(8) * 0.5)
    assert quarter[-1] == pytest.approx(7, abs=0.01), "as late as it can begin"
    assert torch.allclose(quarter.diff(), torch.full((7,), 0.25))


def test_training_poses_tasks_beside_the_labels():
    network = MotionNetwork(1, {"motion": 4, "speed_of_player": 0}, width=4, num_features=8)
    torch.manual_seed(0)
    sample = torch.rand(200, 1, 4, 16, 16)
    posed, labels = network.pose(sample, {"motion": torch.arange(200) % 4})
    assert posed.shape == sample.shape
    assert labels.keys() == {"motion", "order", "speed"}
    assert torch.bincount(labels["order"], minlength=4).tolist() == [80, 80, 20, 20]
    assert torch.equal(posed[80:160], posed[:80].flip(2)), "each beside its own reverse"
    assert torch.equal(labels["speed"][80:160], labels["speed"][:80])
    in_place = labels["order"] == ORDERS.index("forward")
    assert torch.equal(labels["motion"][in_place], (torch.arange(200) % 4)[in_place])
    assert (labels["motion"][~in_place] == NO_LABEL).all(), "what goes left goes right when it is reversed"
    frozen = labels["order"] == ORDERS.index("frozen")
    assert (labels["speed"][frozen] == NO_LABEL).all()
    assert (labels["speed"][~frozen] >= 0).all()
    still = (posed - posed[:, :, :1]).abs().amax((1, 2, 3, 4)) == 0
    assert torch.equal(still, frozen)


def test_batches_of_a_few_clips_are_posed():
    network = MotionNetwork(1, {}, width=2, num_features=4)
    for num, wanted in ((1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (5, [0, 0, 1, 1, 2])):
        posed, labels = network.pose(torch.rand(num, 1, 4, 16, 16), {})
        assert labels["order"].tolist() == wanted
        assert posed.shape[0] == num


@pytest.mark.parametrize("scale", [1, 2])
def test_movement_is_the_shift_of_a_smooth_picture(scale):
    """A sum of waves that moves by (0.6, -0.3) pixels a frame; its reverse moves the other way, a still not at all."""
    time, y, x = torch.meshgrid(torch.arange(4.0), torch.arange(32.0), torch.arange(32.0), indexing="ij")
    x, y = (x - 0.6 * time) / 5, (y + 0.3 * time) / 5
    clip = (0.4 * torch.sin(x + 0.5 * y) + 0.4 * torch.sin(y - 0.7 * x + 1)).double()[None, None]
    found = estimate_motion(clip, scale, softness=1e-6)
    assert found.shape == (1, 2, 4, 32 // scale, 32 // scale)
    assert (found[:, :, 0] == 0).all(), "nothing is before the first frame"
    inside = (found * scale)[0, :, 1:, 2:-2, 2:-2]
    assert inside[0].mean().item() == pytest.approx(0.6, abs=0.03)
    assert inside[1].mean().item() == pytest.approx(-0.3, abs=0.03)
    assert inside.std((1, 2, 3)).max() < 0.1
    back = estimate_motion(clip.flip(2), scale, softness=1e-6)
    assert torch.allclose(back[:, :, 1:], -found[:, :, 1:].flip(2), atol=1e-9)
    assert (estimate_motion(clip[:, :, :1].expand(-1, -1, 4, -1, -1), scale) == 0).all()


def test_movement_beyond_the_slopes_is_cut_and_flat_pictures_do_not_move():
    flat = torch.stack([torch.full((1, 16, 16), value) for value in (-0.5, 0.5)], 1)[None]
    assert (estimate_motion(flat) == 0).all()
    noise = (
        torch.randn(1, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1, 9, 1])[:, None, None]
    )
    assert estimate_motion(noise, softness=1e-9).abs().max() == LARGEST_STEP


def test_large_clips_are_averaged_down():
    network = MotionNetwork(1, {}, width=2, num_features=4).eval()
    small = torch.rand(1, 1, 3, 64, 96)
    large = small.repeat_interleave(3, 3).repeat_interleave(3, 4)
    assert torch.allclose(network.features(large), network.features(small), atol=1e-6)


def test_what_is_not_given_counts_neither_in_the_loss_nor_in_the_accuracy():
    scores = {"a": torch.tensor([[9.0, 0.0], [9.0, 0.0]]), "b": torch.tensor([[0.0, 9.0], [0.0, 9.0]])}
    network = torch.nn.Identity()
    network.forward = lambda sample: scores
    given = {"a": torch.tensor([0, 1]), "b": torch.tensor([NO_LABEL, 1])}
    loss, terms = ClassificationLoss(network, smoothing=0.0)(torch.zeros(2), given, torch.zeros(()))
    right, wrong = (torch.log1p(torch.exp(torch.tensor(value))).item() for value in (-9.0, 9.0))
    assert terms["loss"].tolist() == pytest.approx([right, (right + wrong) / 2], rel=1e-3)
    assert terms["accuracy"].tolist() == [1.0, 0.5]
    assert loss.item() == pytest.approx(terms["loss"].mean().item())


@pytest.mark.slow
def test_it_learns_which_way_shapes_go_and_shuffled_clips_are_far():
    """Which way a shape goes is in no frame: a network of frames could not do better than one in four."""
    torch.manual_seed(0)
    data = MovingShapesDataset(modality=CLIPS, num=80 * 64)
    network = MotionNetwork(1, {"motion": 4}, width=8, num_features=16)
    loss, optimizer = ClassificationLoss(network), torch.optim.Adam(network.parameters(), 5e-3)
    for step in range(80):
        batch = data.batch(range(step * 64, step * 64 + 64))
        total, _ = loss(batch.sample, batch.labels, torch.tensor(step))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    network.eval()
    held_out = MovingShapesDataset(modality=CLIPS, num=64, split="held_out", held_out=1.0).batch(range(64))
    with torch.no_grad():
        right = network.logits(held_out.sample)["motion"].argmax(1) == held_out.labels["motion"]
        assert right.float().mean() > 0.6
        forward = network.features(held_out.sample)
        halves = (forward[::2].mean(0) - forward[1::2].mean(0)).square().sum()
        for order in ("reversed", "shuffled", "frozen"):
            moved = network.features(reorder_frames(held_out.sample, order)).mean(0)
            distance = (moved - forward.mean(0)).square().sum()
            if order != "reversed":  # what goes left goes right then: the mean may stay
                assert distance > 2 * halves
    assert set(network.logits(held_out.sample)) == {"motion"}
    assert set(network(held_out.sample)) == {"motion", "order", "speed"}


def test_a_network_of_frames_is_blind_to_their_order():
    pictures = SimpleNamespace(features=lambda sample: sample.flatten(1)[:, :5])
    network = FrameNetwork(pictures)
    sample = torch.rand(2, 3, 6, 4, 4)
    assert network.frame_features(sample).shape == (2, 6, 5)
    assert torch.equal(network.frame_features(sample)[1, 4], sample[1, :, 4].flatten()[:5])
    assert torch.allclose(network.features(sample.flip(2)), network.features(sample))
    assert network.logits(sample) == {}


def test_the_distance_of_frames_is_offered_by_name():
    modality = VideoModality(num_frames=3, size=32)
    network = project_features(named_network("frames", modality), (3, 3, 32, 32))
    assert network.describe(128, 7) == {
        "name": "frames",
        "dimension": 128,
        "projected_from": 1280,
        "num_samples": 7,
    }
    sample = torch.rand(2, 3, 3, 32, 32) * 2 - 1
    found = network.features(sample)
    assert found.shape == (2, 128)
    assert torch.allclose(network.features(sample.flip(2)), found, atol=1e-5), "blind to order"
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    with pytest.raises(ValueError, match="no feature network 'motion' of the modality video"):
        named_network("motion", modality)


def test_fits_its_share_of_a_bundled_model():
    network = MotionNetwork(3, {"scenario": 11})
    assert 4 * sum(tensor.numel() for tensor in network.state_dict().values()) < 2_500_000


def test_what_it_cannot_see_is_refused():
    with pytest.raises(ValueError, match="the label speed is one that the network makes itself"):
        MotionNetwork(3, {"speed": 3})
    network = MotionNetwork(1, {}, width=2, num_features=4).eval()
    for shape in ((1, 1, 4, 8, 64), (1, 1, 1, 16, 16), (1, 1, 16, 16)):
        with pytest.raises(ValueError, match="of at least 2 frames and 16 pixels a side"):
            network.features(torch.zeros(shape))
    assert network.features(torch.zeros(2, 1, 2, 16, 16)).shape == (2, 4)
