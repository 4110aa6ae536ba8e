"""Labels and prompts without samples."""

from __future__ import annotations

import re

import pytest
import torch

from modalities.image import ImageModality
from scm_media.data.without_samples import WithoutSamples
from scm_media.prompts import PromptBank

MODALITY = ImageModality(size=4, channels=1)


def test_combinations_of_classes_take_turns_and_samples_are_zeros():
    data = WithoutSamples(MODALITY, num=12, classes={"class": 3, "colour": ["red", "blue"]})
    batch = data.batch(range(12))
    assert data.label_names == {"class": ("0", "1", "2"), "colour": ("red", "blue")}
    pairs = set(zip(batch.labels["class"].tolist(), batch.labels["colour"].tolist(), strict=True))
    assert len(pairs) == 6 and data.label_counts == {"class": (4, 4, 4), "colour": (6, 6)}
    assert batch.sample.shape == (12, 1, 4, 4) and not batch.sample.any() and not data.has_samples


def test_without_classes_there_are_no_labels():
    assert WithoutSamples(MODALITY, num=2).batch([0, 1]).labels == {}


def test_prompts_are_classes(tmp_path):
    texts = ["a red cube", "x" * 300]
    PromptBank(texts, {"tokens": torch.zeros(3, 2, 4)}).save(tmp_path / "prompts.safetensors")
    data = WithoutSamples(MODALITY, num=4, prompts=str(tmp_path / "prompts.safetensors"))
    first, second = data.label_names["prompt"]
    assert first == texts[0] and re.fullmatch(r"x{190}… [0-9a-f]{6}", second)
    assert data.prompt_bank.prompts == tuple(texts)
    assert data.batch(range(4)).labels["prompt"].tolist() == [0, 1, 0, 1]


def test_other_classes_and_other_embeddings_are_noticed(tmp_path):
    def digest(classes, value):
        file = tmp_path / "prompts.safetensors"
        PromptBank(["a", "b"], {"tokens": torch.full((3, 2, 4), value)}).save(file)
        return WithoutSamples(MODALITY, num=4, classes=classes, prompts=str(file)).fingerprint()

    found = [digest({"class": 3}, 0.0), digest({"class": 4}, 0.0), digest({"class": 3}, 1.0), digest({"kind": 3}, 0.0)]
    assert len(set(found)) == 4 and digest({"class": 3}, 0.0) == found[0]


def test_a_label_needs_classes():
    with pytest.raises(ValueError, match=r"data\.classes\.class must have at least one class"):
        WithoutSamples(MODALITY, classes={"class": []})
