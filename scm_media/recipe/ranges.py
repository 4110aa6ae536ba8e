"""The ranges of numeric settings, by the names of their keys: what lies outside is refused before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scm_media.bounds import (
    BELOW_ONE,
    COUNT,
    FRACTION,
    LAYERS,
    MANY,
    NOT_NEGATIVE,
    NUMBER_OF_STEPS,
    POSITIVE,
    SAMPLING_STEPS,
    SECOND_TIME,
    SEED,
    SIGMA_MAX,
    Bounds,
)

SETTINGS: Mapping[str, Bounds] = {
    "seed": SEED,
    **dict.fromkeys(("batch_size", "shard_size", "variants", "num", "num_samples"), COUNT),
    **dict.fromkeys(("num_devices", "num_nodes", "accumulate", "num_preview_samples"), Bounds(1, 1 << 20, whole=True)),
    **dict.fromkeys(("log_every", "checkpoint_every", "sample_every", "validate_every", "keep_checkpoints"), COUNT),
    **dict.fromkeys(("max_steps", "warmup_steps", "decay_steps", "snapshot_every"), NUMBER_OF_STEPS),
    **dict.fromkeys(("sample_early", "max_nonfinite_steps"), NUMBER_OF_STEPS),
    "keep_snapshots": COUNT,
    "num_workers": Bounds(0, 1024, whole=True),
    "gradient_clip": POSITIVE,
    "ema_std": Bounds(0, 12**-0.5, open_low=True),
    # optimisers
    "lr": Bounds(0, 1000),
    "betas": BELOW_ONE,
    "momentum": BELOW_ONE,
    "eps": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    # losses and networks
    "label_dropout": FRACTION,
    "probability": FRACTION,
    "dropout": BELOW_ONE,
    "tangent_warmup": Bounds(0, MANY),
    "norm_constant": NOT_NEGATIVE,
    "std": POSITIVE,
    "mean": Bounds(),
    "sigma_data": POSITIVE,
    **dict.fromkeys(("width", "num_heads", "patch", "mlp_ratio", "in_channels"), LAYERS),
    "depth": Bounds(0, LAYERS.high, whole=True),
    # samplers
    "steps": SAMPLING_STEPS,
    "teacher_steps": SAMPLING_STEPS,
    "sigma_max": SIGMA_MAX,
    "second_time": SECOND_TIME,
    "guidance": NOT_NEGATIVE,
    "guidance_max": POSITIVE,
    # data and modalities
    "held_out": Bounds(0, 1, open_low=True, open_high=True),
    "size": Bounds(1, 1 << 16, whole=True),
    "num_frames": Bounds(1, 1 << 20, whole=True),
    "sample_rate": Bounds(1, 10_000_000),
    **dict.fromkeys(("duration", "frame_rate", "folder_rate"), POSITIVE),
}
"""Last part of a dotted key to its range, for numbers alone or in a list; other checks look at words and null."""


def check_bounds(config: Mapping[str, Any], source: str) -> None:
    """Raises ValueError for a number outside its key's range, and for NaN and infinity wherever they stand."""
    for key, name, value in _numbers(config, ""):
        if (expected := SETTINGS.get(name, Bounds()).complaint(value)) is not None:
            raise ValueError(f"{source}: {key} must be {expected}, got {value!r}")


def _numbers(value: Any, key: str, name: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yields the dotted key, its last part and the value of every number."""
    if isinstance(value, Mapping):
        for part, inner in value.items():
            yield from _numbers(inner, f"{key}.{part}" if key else str(part), str(part))
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, key, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, name, value
