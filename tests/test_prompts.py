"""The embeddings of prompts, looked up by a label."""

from __future__ import annotations

import pytest
import torch

from scm_media import weights
from scm_media.conditioning import Conditioning
from scm_media.prompts import PromptBank

TOKENS = torch.arange(3 * 2 * 4.0).reshape(3, 2, 4)
EMBEDDINGS = {"tokens": TOKENS, "pooled": torch.arange(9.0).reshape(3, 3)}


def test_samples_get_the_embeddings_of_their_prompt_and_those_of_the_empty_one_without(tmp_path):
    PromptBank(["a", "b"], EMBEDDINGS).save(tmp_path / "bank.safetensors")
    bank = PromptBank.load(tmp_path / "bank.safetensors")
    assert bank.prompts == ("a", "b")
    cond = Conditioning(labels={"prompt": torch.tensor([1, -1, 0]), "class": torch.tensor([5, 6, 7])})
    found = bank.condition(cond)
    assert torch.equal(found.tokens, TOKENS[[1, 2, 0]])
    assert torch.equal(found.pooled, EMBEDDINGS["pooled"][[1, 2, 0]])
    assert list(found.labels) == ["class"] and found.token_mask is None
    dropped = bank.condition(cond.drop(torch.tensor([True, False, False])))
    assert torch.equal(dropped.tokens, TOKENS[[2, 2, 0]])


def test_conditioning_without_the_label_is_refused():
    with pytest.raises(ValueError, match="needs the label prompt, got class"):
        PromptBank(["a", "b"], EMBEDDINGS).condition(Conditioning(labels={"class": torch.tensor([0])}))


@pytest.mark.parametrize(
    ("prompts", "embeddings", "message"),
    [
        (["a", "b"], {"pooled": torch.zeros(3, 3)}, "got pooled"),
        (["a", "b"], {**EMBEDDINGS, "mask": TOKENS}, "got tokens, pooled, mask"),
        (["a"], EMBEDDINGS, "tokens has 3 rows for 1 prompts"),
        (["a", "a"], EMBEDDINGS, "different texts"),
        (["a", ""], EMBEDDINGS, "none of them empty"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(prompts, embeddings, message):
    with pytest.raises(ValueError, match=message):
        PromptBank(prompts, embeddings)


def test_a_file_says_which_encoder_made_its_embeddings(tmp_path):
    encoder = {"name": "clip", "digest": "ab" * 32, "max_tokens": 77}
    PromptBank(["a", "b"], EMBEDDINGS, encoder).save(tmp_path / "bank.safetensors")
    assert PromptBank.load(tmp_path / "bank.safetensors").encoder == encoder


def test_the_fingerprint_follows_the_encoder_and_is_what_it_was_without_one(tmp_path):
    encoder = {"name": "clip", "digest": "ab" * 32, "max_tokens": 77}
    marks = {
        PromptBank(["a", "b"], EMBEDDINGS, found).fingerprint()
        for found in (None, encoder, {**encoder, "digest": "cd" * 32}, {**encoder, "max_tokens": 64})
    }
    assert len(marks) == 4
    weights.save(tmp_path / "old.safetensors", EMBEDDINGS, {"prompts": ["a", "b"]})
    old = PromptBank.load(tmp_path / "old.safetensors")
    assert old.encoder is None
    assert old.fingerprint() == "c5b0cbecd52064295b6b20c5c44df4c1e26519ed1f9257c59491696bcdfdabfe"


def test_an_encoder_that_is_no_mapping_is_refused(tmp_path):
    weights.save(tmp_path / "x.safetensors", EMBEDDINGS, {"prompts": ["a", "b"], "encoder": "clip"})
    with pytest.raises(ValueError, match="encoder is 'clip', expected a mapping"):
        PromptBank.load(tmp_path / "x.safetensors")


def test_another_file_is_refused(tmp_path):
    weights.save(tmp_path / "x.safetensors", {"tokens": TOKENS}, {"_target_": "a.b"})
    with pytest.raises(ValueError, match="holds no prompts"):
        PromptBank.load(tmp_path / "x.safetensors")
