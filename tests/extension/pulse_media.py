"""A modality, a dataset, an autoencoder, a backbone and a feature network of a package that scm-media does not know.

Pulses are 16 numbers ``(1, 16)`` with one bump, in the first half ("early") or in the second ("late").
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from scm_media import Dataset, Example, Modality, part

LENGTH = 16


@part("modality")
class PulseModality(Modality):
    name, suffixes = "pulses", frozenset({".pulse"})

    def shape(self, **sizes):
        return (1, LENGTH)

    def read(self, path):
        return torch.tensor([json.loads(Path(path).read_text())["values"]])

    def transform(self, sample, generator=None):
        return sample[:, :LENGTH]

    def write(self, path, sample, metadata):
        Path(path).write_text(json.dumps({"values": sample[0].tolist(), **metadata}))

    def preview(self, samples, captions=(), columns=None):
        levels = ((samples[:, 0] + 1) * 127.5).clamp(0, 255).to(torch.uint8)
        return Image.fromarray(levels.numpy())


@part("data")
class PulseDataset(Dataset):
    label_names = {"half": ("early", "late")}
    shape = (1, LENGTH)

    def __init__(self, modality, split="train", num=64):
        self.num = num if split == "train" else num // 2
        self.label_counts = {"half": (self.num // 2, self.num // 2)}

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        center = 4 + 8 * (index % 2) + torch.randn((), generator=torch.Generator().manual_seed(index))
        values = 2 * torch.exp(-((torch.arange(LENGTH) - center) ** 2)) - 1
        return Example(values[None], {"half": index % 2}, source=f"pulse {index}")


@part("autoencoder")
class PulseAutoencoder(nn.Module):
    """Pairs of neighbouring numbers become two channels, scaled to the flow's standard deviation."""

    def __init__(self, sigma_data=0.5):
        super().__init__()
        self.sigma_data = sigma_data
        self.register_buffer("mean", torch.zeros(2, 1))
        self.register_buffer("std", torch.ones(2, 1))

    def fit(self, samples):
        pairs = torch.cat([self._pairs(batch) for batch in samples]).transpose(0, 1).flatten(1)
        self.mean.copy_(pairs.mean(1, keepdim=True))
        self.std.copy_(pairs.std(1, keepdim=True))

    def _pairs(self, sample):
        return sample.reshape(len(sample), -1, 2).transpose(1, 2)

    def encode(self, sample, generator=None):
        return (self._pairs(sample) - self.mean) * (self.sigma_data / self.std)

    def decode(self, latent):
        pairs = latent * (self.std / self.sigma_data) + self.mean
        return pairs.transpose(1, 2).reshape(len(latent), 1, -1).clamp(-1, 1)

    def latent_shape(self, sample_shape):
        return (2, sample_shape[-1] // 2)

    def sample_shape(self, latent_shape):
        return (1, 2 * latent_shape[-1])

    def latent_mask(self, mask):
        return mask.reshape(len(mask), 1, -1, 2).amin(-1)


@part("backbone")
class PulseBackbone(nn.Module):
    """A plain perceptron of torch's own layers, which knows nothing of dual tensors."""

    def __init__(self, in_channels=None, labels=None, width=32):
        super().__init__()
        size = in_channels * LENGTH // 2
        self.labels = nn.Embedding(labels["half"] + 1, width)
        self.first, self.last = nn.Linear(size + 2, width), nn.Linear(width, size)

    def forward(self, u, t, cond):
        inputs = torch.cat([u.flatten(1), torch.cos(t)[:, None], torch.sin(t)[:, None]], 1)
        hidden = self.first(inputs) + self.labels(cond.labels["half"] + 1)
        return self.last(torch.tanh(hidden)).reshape(u.shape)


@part("feature_extractor")
class PulseClassifier(nn.Module):
    def __init__(self, labels):
        super().__init__()
        self.trunk, self.head = nn.Sequential(nn.Linear(LENGTH, 4), nn.Tanh()), nn.Linear(4, labels["half"])

    def features(self, sample):
        return self.trunk(sample.flatten(1))

    def logits(self, sample):
        return {"half": self.head(self.features(sample))}

    forward = logits
