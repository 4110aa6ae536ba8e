"""The sampler of flow maps: steps from each time to the next, with as much fresh noise between them as is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from scm_media.interfaces import Backbone
from scm_media.nn.embedding import PlainConditioning
from scm_media.sampler_inputs import Noise, Seed, batch_time, choose_times, evaluator, sigma_range
from scm_media.samplers import Callback, check_times, consistency_times
from scm_media.trigflow import TrigFlow


@torch.no_grad()
def sample_flow_map(
    model: Backbone,
    flow: TrigFlow | None = None,
    noise: Noise | Tensor | None = None,
    times: Sequence[float] | None = None,
    cond: PlainConditioning = None,
    *,
    shape: Sequence[int] | None = None,
    steps: int | None = None,
    seed: Seed | None = None,
    gamma: float = 0.0,
    callback: Callback | None = None,
) -> Tensor:
    """Returns x0 ``(B, c, *s)`` by a flow map: from each time to the next one, and from the last one to 0.

    ``scm_media.samplers`` says what the arguments are; two steps at ``consistency_times`` are the default. A step is
    one network call. gamma: a step to t' goes to the time s with tan s = √(1 − gamma²) tan t', and fresh noise z raises
    it to t', x' = (cos t' / cos s) x_s + gamma · sin t' · z. 0 is the ODE, without noise; 1 goes to the data each time
    and is ``sample_consistency``. The callback gets the x at the end of each step in the place of x0. Raises ValueError
    for a gamma outside [0, 1], and as ``sample_consistency``.
    Source: γ-sampling (Kim et al. 2023, arXiv 2310.02279, section 4; Sabour et al. 2025, arXiv 2506.14603) on the path
    of sCM.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must lie in [0, 1], 0 for no noise between the steps, got {gamma}")
    with evaluator(model, flow, noise, cond, shape, seed) as run:
        make = partial(consistency_times, flow=run.flow, sigma_max=sigma_range(model, run.flow)[1])
        times = choose_times(times, steps, 2, make)
        check_times(times)
        x = run.noise(0)
        for i, time in enumerate(times):
            following = times[i + 1] if i + 1 < len(times) else 0.0
            end = following if gamma == 0 else math.atan(math.sqrt(1 - gamma**2) * math.tan(following))
            x = run.flow.move(x, run.field(x, time, end), batch_time(time, x), batch_time(end, x))
            if callback is not None:
                callback(i, time, x)
            if gamma > 0 and following > 0:
                x = math.cos(following) / math.cos(end) * x + gamma * math.sin(following) * run.noise(i + 1)
    return x
