"""Trains a small teacher on Fashion-MNIST with diffusers alone, to be distilled afterwards.

    python examples/train_with_diffusers.py unet teachers/unet --minutes 40    # UNet2DModel that predicts noise
    python examples/train_with_diffusers.py dit teachers/dit --minutes 40      # DiT of classes, a rectified flow
    python examples/train_with_diffusers.py unet teachers/longer --from teachers/unet --minutes 60   # trains it further
    scm-media train image/distil teacher_from=teachers/unet data=fashion data.labels=none
    scm-media train image/distil teacher_from=teachers/dit data=fashion sampler.guidance=1.5

The loop is that of diffusers' own training examples: noise of a scheduler, mean squared error, AdamW, EMA. Nothing of
scm_media is used but the reader of the idx files.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn.functional import mse_loss

from scm_media.data.idx import DEBIAN_FOLDER, read_idx

BATCH_SIZE, WARMUP_SHARE, LOG_SECONDS = 64, 0.03, 30


def make_unet() -> tuple[Any, Any]:
    """Returns an unconditional U-Net of 28 × 28 pixels and the scheduler of its noise."""
    network = diffusers.UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=(24, 48, 96),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=16,
        norm_num_groups=8,
    )
    return network, diffusers.DDPMScheduler(num_train_timesteps=1000, clip_sample=False)


def make_dit() -> tuple[Any, Any]:
    """Returns a diffusion transformer of ten classes on patches of 4 × 4 pixels and the scheduler of its flow."""
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=1,
        out_channels=1,
        num_layers=5,
        sample_size=28,
        patch_size=4,
        num_embeds_ada_norm=10,
    )
    return network, diffusers.FlowMatchEulerDiscreteScheduler()


def noise_loss(network: Any, scheduler: Any, x0: Tensor, label: Tensor) -> Tensor:
    """Returns the squared error of the predicted noise at uniform timesteps."""
    noise = torch.randn_like(x0)
    timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(x0),))
    return mse_loss(network(scheduler.add_noise(x0, noise, timesteps), timesteps).sample.float(), noise)


def flow_loss(network: Any, scheduler: Any, x0: Tensor, label: Tensor) -> Tensor:
    """Returns the squared error of the predicted velocity, noise − data, at logit-normal noise levels."""
    noise, level = torch.randn_like(x0), torch.sigmoid(torch.randn(len(x0)))
    wide = level[:, None, None, None]
    timesteps = scheduler.config.num_train_timesteps * level
    predicted = network((1 - wide) * x0 + wide * noise, timestep=timesteps, class_labels=label).sample
    return mse_loss(predicted.float(), noise - x0)


KINDS = {"unet": (make_unet, noise_loss), "dit": (make_dit, flow_loss)}
PARTS = {"unet": "unet", "dit": "transformer"}
"""The part of a folder that has the network."""


def train(given: argparse.Namespace) -> tuple[Any, Any, int]:
    """Returns the network with its averaged weights, the scheduler, and the number of steps that fit into the time."""
    torch.manual_seed(given.seed)
    make, loss_of = KINDS[given.kind]
    minutes, lr, root = given.minutes, given.lr, given.root
    pictures = read_idx(root / "train-images-idx3-ubyte.gz")[:, None]
    labels = read_idx(root / "train-labels-idx1-ubyte.gz").long()
    network, scheduler = make()
    if given.start:
        network = type(network).from_pretrained(given.start / PARTS[given.kind])
    network.to(memory_format=torch.channels_last).train()  # a tenth faster on processors
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
    ema = EMAModel(network.parameters(), decay=0.9995, use_ema_warmup=True, power=0.75)
    print(f"{given.kind}: {sum(each.numel() for each in network.parameters()) / 1e6:.2f} M parameters", flush=True)
    begun = told = time.monotonic()
    step = 0
    while (done := (time.monotonic() - begun) / (60 * minutes)) < 1:
        warm = min(1.0, done / WARMUP_SHARE, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = lr * warm * 0.5 * (1 + math.cos(math.pi * done))
        chosen = torch.randint(0, len(pictures), (BATCH_SIZE,))
        with torch.autocast("cpu", torch.bfloat16, enabled=given.bf16):
            loss = loss_of(network, scheduler, pictures[chosen].float() / 127.5 - 1, labels[chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(network.parameters())
        step += 1
        if time.monotonic() - told > LOG_SECONDS:
            told = time.monotonic()
            print(f"{given.kind} step {step}: loss {loss.item():.4f}, {100 * done:.0f} % of the time", flush=True)
    ema.copy_to(network.parameters())
    return network.eval(), scheduler, step


def save(network: Any, scheduler: Any, folder: Path) -> None:
    """Writes the folder that a pipeline of this network is saved to."""
    if isinstance(network, diffusers.UNet2DModel):
        diffusers.DDPMPipeline(network, scheduler).save_pretrained(folder)
        return
    network.save_pretrained(folder / PARTS["dit"])  # DiTPipeline wants an autoencoder, which pixels have none of
    scheduler.save_pretrained(folder / "scheduler")
    parts = {"transformer": type(network).__name__, "scheduler": type(scheduler).__name__}
    index = {"_class_name": "DiTPipeline", **{name: ["diffusers", kind] for name, kind in parts.items()}}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))


def main() -> None:
    """Trains and saves the teacher that the command line names."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("kind", choices=KINDS)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--from", dest="start", type=Path, help="a folder that this script wrote, to train on")
    arguments.add_argument("--minutes", type=float, default=40.0)
    arguments.add_argument("--lr", type=float, default=1e-3)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--root", type=Path, default=DEBIAN_FOLDER)
    arguments.add_argument("--bf16", action="store_true", help="faster on processors with bfloat16, slower on others")
    given = arguments.parse_args()
    network, scheduler, steps = train(given)
    save(network, scheduler, given.folder)
    print(f"{given.folder}: {steps} steps of {BATCH_SIZE}")


if __name__ == "__main__":
    main()
