"""Feature extractors of videos: a small 3-D CNN that is trained to see motion, and one that sees frames alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from scm_media.conditioning import NO_LABEL
from scm_media.nn.classifier import LabelClassifier, hidden_layer
from scm_media.parts import part

ORDERS = ("forward", "reversed", "shuffled", "frozen")
"""Orders of a clip's frames that the network learns to classify."""

IN_ORDER = 0.4
"""The fraction of clips that training leaves in order; an equal fraction is the same clips reversed."""

SPEEDS = (0.25, 0.5, 1.0)
"""Factors of a clip's speed; slower ones interpolate, since a clip has no spare frames to be faster."""

SMALLEST_SIDE, FEWEST_FRAMES = 16, 2

LARGEST_SIDE = 64
"""Pixels of the shorter side at most; larger clips are averaged down to it."""

SCALES = (1, 2)
"""Sides, in pixels, of the blocks that are averaged before motion is estimated: coarse ones show larger steps."""

LARGEST_STEP = 3.0
"""The largest motion, in a scale's pixels a frame; estimates are clipped to it, since gradients are local."""


def reorder_frames(sample: Tensor, order: str, generator: torch.Generator | None = None) -> Tensor:
    """Returns samples ``(B, C, T, H, W)`` with their frames in one of ``ORDERS``, drawn for each clip if random.

    shuffled: a permutation; frozen: one of the frames, as often as there are frames.
    """
    num, length = sample.shape[0], sample.shape[2]
    if order == "forward":
        return sample
    if order == "reversed":
        return sample.flip(2)
    drawn = torch.rand(num, length, generator=generator, device=sample.device)
    if order == "shuffled":
        return _take_frames(sample, drawn.argsort(1))
    if order == "frozen":
        return _take_frames(sample, (drawn[:, :1] * length).long().clamp(max=length - 1).expand(-1, length))
    raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")


def change_speed(sample: Tensor, speed: Tensor, uniform: Tensor) -> Tensor:
    """Returns samples ``(B, C, T, H, W)`` played at ``speed`` ``(B,)`` in (0, 1], by linear interpolation.

    uniform: ``(B,)`` in [0, 1), the position of the slower clip's begin within the possible ones.
    """
    length = sample.shape[2]
    steps = torch.arange(length, device=sample.device)
    position = uniform[:, None] * (length - 1) * (1 - speed[:, None]) + speed[:, None] * steps
    before = position.floor().long().clamp(max=length - 1)
    fraction = (position - before)[:, None, :, None, None]
    after = (before + 1).clamp(max=length - 1)
    return torch.lerp(_take_frames(sample, before), _take_frames(sample, after), fraction.to(sample.dtype))


def _take_frames(sample: Tensor, indices: Tensor) -> Tensor:
    """Returns the frames at ``indices`` ``(B, T)`` of clips ``(B, C, T, H, W)``."""
    return sample.gather(2, indices[:, None, :, None, None].expand_as(sample))


def estimate_motion(sample: Tensor, scale: int = 1, softness: float = 1e-3) -> Tensor:
    """Returns the motion since the previous frame, ``(B, 2, T, H, W)``, to the right and down, in pixels.

    sample: clips ``(B, C, T, H, W)`` in [-1, 1], whose pixels are first averaged ``scale`` by ``scale``; H, W and the
    unit of the result are those of the averages. It is the shift that explains the change of 3 × 3 pixels best by their
    gradients, shrunk towards 0 by ``softness``; 0 in the first frame. A reversed clip has the opposite motion. Source:
    Lucas & Kanade 1981 (An iterative image registration technique, IJCAI), one iteration.
    """
    frames = nnf.avg_pool3d(sample, (1, scale, scale))
    before, after = frames[:, :, :-1], frames[:, :, 1:]
    middle, change = (before + after) / 2, after - before
    wide = nnf.pad(middle.flatten(0, 1), (1, 1, 1, 1), mode="replicate").unflatten(0, middle.shape[:2])
    right, down = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2, (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2

    def around(product: Tensor) -> Tensor:
        return nnf.avg_pool2d(product.sum(1), 3, 1, 1, count_include_pad=False)

    across, along, both = around(right * right) + softness, around(down * down) + softness, around(right * down)
    with_right, with_down = around(right * change), around(down * change)
    determinant = across * along - both * both  # at least softness squared
    x = (both * with_down - along * with_right) / determinant
    y = (both * with_right - across * with_down) / determinant
    found = torch.stack([x, y], 1).clamp(-LARGEST_STEP, LARGEST_STEP)
    return nnf.pad(found, (0, 0, 0, 0, 1, 0))


def _block(
    in_channels: int, out_channels: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, kernel, stride, padding=tuple(side // 2 for side in kernel), bias=False),
        nn.BatchNorm3d(out_channels),
        nn.ReLU(),
    )


@part("feature_extractor")
class MotionNetwork(LabelClassifier):
    """Classifies clips, the order of their frames and their speed; returns the features that it does so by.

    It learns the labels, and ``ORDERS`` and ``SPEEDS``, which training makes of the clips (``pose``). So shuffled clips
    have other features than the same clips in order, unlike those of a network of frames. In clips of a moving camera
    the direction of time shows in how things move, given how they look; so the network gets the motion between
    consecutive frames (``estimate_motion``) beside the frames, and each clip and its reverse in one batch. Sources:
    Misra et al. 2016 (arXiv 1603.08561, order); Wei et al. 2018 (Learning and using the arrow of time, CVPR); Benaim et
    al. 2020 (arXiv 2004.06130, speed).

    channels: those of the clips, whose sides are at least 16 pixels; clips with a shorter side of more than 64 are
    averaged down to it. labels: name to number of classes; scalar labels (0) get no scores. width: channels of the
    first layer; the next have twice and four times as many. num_features: the dimension of the features. Raises
    ValueError for a label called order or speed, and for clips that are too small or too short.
    """

    def __init__(self, channels: int, labels: Mapping[str, int], width: int = 24, num_features: int = 64) -> None:
        tasks = {"order": len(ORDERS), "speed": len(SPEEDS)}
        if taken := sorted(tasks.keys() & labels.keys()):
            raise ValueError(f"the label {', '.join(taken)} is one that the network makes itself: call it otherwise")
        classes = {name: num for name, num in labels.items() if num > 0}
        # A quarter of the resolution at once: three of four operations are saved, and motion is left.
        frames = nn.Sequential(nn.BatchNorm3d(channels), _block(channels, width, (1, 5, 5), (1, 4, 4)))
        trunk = nn.Sequential(
            _block(width + 2 * len(SCALES), 2 * width, (3, 3, 3), (1, 2, 2)),
            _block(2 * width, 4 * width, (3, 3, 3), (2, 1, 1)),
            _block(4 * width, 4 * width, (3, 3, 3), (2, 2, 2)),
            nn.AdaptiveAvgPool3d(2),
            *hidden_layer(4 * width * 8, num_features),
        )
        super().__init__(trunk, classes | tasks, num_features)
        self.labels, self.frames = list(classes), frames

    def pose(self, sample: Tensor, labels: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns samples ``(B, C, T, H, W)`` in drawn orders and at drawn speeds, and their labels with both.

        Of a batch, the first two fifths stay in order; the next are the same, at the same speed, reversed, so that the
        content of a clip says nothing of its order; the rest are shuffled and frozen in turn. Speeds are drawn from the
        global random state. Clips out of order have no labels (``NO_LABEL``), since reversal may change what a
        label says; frozen ones have no speed.
        """
        num = len(sample)
        pairs = min(round(IN_ORDER * num) or 1, max(num - 1, 1))
        uniform = torch.rand(2, num, device=sample.device)
        speed = (uniform[0] * len(SPEEDS)).long().clamp(max=len(SPEEDS) - 1)
        order = ORDERS.index("shuffled") + torch.arange(num, device=sample.device) % 2
        order[:pairs], order[pairs : 2 * pairs] = ORDERS.index("forward"), ORDERS.index("reversed")
        again = torch.arange(num, device=sample.device)
        again[pairs : 2 * pairs] = again[: len(again[pairs : 2 * pairs])]
        speed, begin = speed[again], uniform[1][again]
        posed = change_speed(sample[again], torch.tensor(SPEEDS, device=sample.device)[speed], begin)
        for number, name in enumerate(ORDERS):
            own = (order == number).nonzero().flatten()
            posed = posed.index_copy(0, own, reorder_frames(posed[own], name))
        targets = {name: torch.where(order == 0, labels[name], NO_LABEL) for name in self.labels}
        speed = torch.where(order == ORDERS.index("frozen"), NO_LABEL, speed)
        return posed, {**targets, "order": order, "speed": speed}

    def features(self, sample: Tensor) -> Tensor:
        """Returns features ``(B, num_features)`` of clips ``(B, C, T, H, W)`` in [-1, 1]."""
        if sample.ndim != 5 or min(sample.shape[3:]) < SMALLEST_SIDE or sample.shape[2] < FEWEST_FRAMES:
            raise ValueError(
                f"motion needs clips (B, C, T, H, W) of at least {FEWEST_FRAMES} frames and "
                f"{SMALLEST_SIDE} pixels a side, got {tuple(sample.shape)}; set feature_extractor: null"
            )
        if (shorter := min(sample.shape[3:])) > LARGEST_SIDE:
            sides = [max(LARGEST_SIDE, side * LARGEST_SIDE // shorter) for side in sample.shape[3:]]
            sample = nnf.adaptive_avg_pool3d(sample, (sample.shape[2], *sides))
        maps = self.frames(sample)
        moves = [nnf.adaptive_avg_pool3d(estimate_motion(sample, scale), maps.shape[2:]) for scale in SCALES]
        return self.trunk(torch.cat([maps, *moves], 1))

    def logits(self, sample: Tensor) -> dict[str, Tensor]:
        """Returns class scores ``(B, num_classes)`` of the labels, without order and speed."""
        scores = self(sample)
        return {name: scores[name] for name in self.labels}


@part("feature_extractor", network="feature_extractor")
class FrameNetwork(nn.Module):
    """Extracts features of a clip's frames by a network of pictures; the order of frames does not matter.

    network: an ``FeatureExtractor`` of pictures ``(B, C, H, W)``, for example
    modalities.image.imagenet.EfficientNetLite0.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def frame_features(self, sample: Tensor) -> Tensor:
        """Returns features ``(B, T, d)`` of each frame of clips ``(B, C, T, H, W)`` in [-1, 1]."""
        frames = sample.transpose(1, 2)
        return self.network.features(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def features(self, sample: Tensor) -> Tensor:
        """Returns features ``(B, d)`` of clips, the mean over their frames."""
        return self.frame_features(sample).mean(1)

    def logits(self, sample: Tensor) -> dict[str, Tensor]:
        """Returns no scores: the network knows no labels."""
        return {}
