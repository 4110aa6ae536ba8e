"""A tiny model with an feature extractor and statistics of made-up data."""

from __future__ import annotations

import pytest
import torch

import scm_media
from scm_media.data.examples import Batch
from scm_media.evaluation import make_reference
from tests.pipeline.tiny import write_tiny_model


def random_batches(num: int, seed: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.rand(num, 1, 16, 16, generator=generator) * 2 - 1
    labels = torch.randint(3, (num,), generator=generator)
    return [Batch(sample, {"class": label}) for sample, label in zip(samples.split(64), labels.split(64), strict=True)]


@pytest.fixture(scope="session")
def evaluated_model(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    feature_extractor = scm_media.load(folder, "cpu").network("feature_extractor")
    reference = make_reference(feature_extractor, random_batches(600, 0), random_batches(200, 1), num_neighbours=150)
    reference.save(folder / "reference.safetensors")
    return folder


@pytest.fixture
def tiny_model_without_reference(tmp_path):
    return write_tiny_model(tmp_path / "tiny")
