"""The embeddings of each kind of text model, compared with transformers called directly."""

from __future__ import annotations

import logging
import shutil

import pytest
import torch
from torch.nn.functional import normalize

from scm_media.text import make_bank, open_encoder, sources
from scm_media.text import transformers_encoder as module
from tests.text.tiny import CLASSES, NUM_POSITIONS, make_tokenizer, save_model

KINDS = sorted(CLASSES)
TEXTS = ["a dog barks", "bells ring far away in the rain while a dog barks", "", "rain"]
LENGTHS = {True: [4, 12, 1, 2], False: [5, 13, 2, 3]}
"""The tokens of the texts with an end token, as T5 has it, and with a start token too."""


def expected_of(kind, model, text):
    """Returns the embeddings of one text without padding, as transformers gives them."""
    inputs = make_tokenizer(kind)([text], return_tensors="pt")
    ids = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    with torch.no_grad():
        if kind == "clip":
            return model.text_model(**ids).last_hidden_state[0], model.get_text_features(**ids).pooler_output[0]
        found = model(**ids)
    tokens = found.last_hidden_state[0]
    if kind == "clip_text":
        return tokens, found.pooler_output[0]
    if kind == "clip_projected":
        return tokens, found.text_embeds[0]
    return tokens, tokens.mean(0) if "t5" in kind else normalize(tokens.mean(0), dim=0)


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_those_of_transformers_in_the_order_of_the_texts(models, kind):
    folder, model = models[kind]
    encoder = open_encoder(folder)
    found = encoder.encode(TEXTS)
    lengths = LENGTHS["t5" in kind]
    assert found.token_mask.sum(1).tolist() == lengths and found.token_mask.dtype == torch.bool
    assert found.tokens.shape == (4, max(lengths), encoder.token_width) and found.tokens.dtype == torch.float32
    assert found.pooled.shape == (4, encoder.pooled_width) and found.pooled.dtype == torch.float32
    for row, (text, length) in enumerate(zip(TEXTS, lengths, strict=True)):
        tokens, pooled = expected_of(kind, model, text)
        torch.testing.assert_close(found.tokens[row, :length], tokens, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.pooled[row], pooled, atol=1e-5, rtol=0)
        assert found.token_mask[row, :length].all() and not found.tokens[row, length:].any()
    assert (found.pooled[0] - found.pooled[1]).abs().max() > 1e-2  # the models do tell the texts apart


@pytest.mark.parametrize("kind", KINDS)
def test_other_texts_do_not_change_a_text_s_embeddings(models, kind):
    encoder = open_encoder(models[kind][0])
    alone, together = encoder.encode(TEXTS[:1]), encoder.encode(TEXTS)
    length = alone.tokens.shape[1]
    torch.testing.assert_close(together.tokens[0, :length], alone.tokens[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(together.pooled[0], alone.pooled[0], atol=1e-5, rtol=0)


def test_texts_of_many_batches_keep_their_order(models, monkeypatch):
    encoder = open_encoder(models["bert"][0])
    whole = encoder.encode(TEXTS * 3)
    monkeypatch.setattr(module, "TOKENS_PER_BATCH", 14)
    seen, sizes = [], []
    forward = encoder._forward
    monkeypatch.setattr(encoder, "_forward", lambda ids: sizes.append([len(each) for each in ids]) or forward(ids))
    found = encoder.encode(TEXTS * 3, lambda *counted: seen.append(counted))
    assert sizes == [[13], [13], [13], [5, 5], [5, 3], [3, 3, 2, 2], [2]]
    assert seen == [("texts", num, 12) for num in (1, 2, 3, 5, 7, 11, 12)]
    torch.testing.assert_close(found.tokens, whole.tokens, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.pooled, whole.pooled, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["clip_text", "t5", "bert"])
def test_a_long_text_is_cut_at_its_end_and_its_cut_tokens_are_counted(models, kind):
    encoder = open_encoder(models[kind][0], max_tokens=6)
    found = encoder.encode(TEXTS)
    lengths = LENGTHS[kind == "t5"]
    assert found.num_cut.tolist() == [0, lengths[1] - 6, 0, 0] and found.num_cut.dtype == torch.int64
    assert encoder.count_tokens(TEXTS) == lengths
    words = TEXTS[1].split()[: 6 - encoder.count_tokens([""])[0]]
    same = encoder.encode([" ".join(words)])
    torch.testing.assert_close(found.tokens[1], same.tokens[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.pooled[1], same.pooled[0], atol=1e-5, rtol=0)


def test_texts_are_cleaned_first(models):
    encoder = open_encoder(models["bert"][0])
    found = encoder.encode([" a\x00dog\n\nbarks ", "a dog barks", "\t", ""])
    assert torch.equal(found.pooled[0], found.pooled[1]) and torch.equal(found.pooled[2], found.pooled[3])
    assert encoder.count_tokens(["a\tdog "]) == [4]
    for call in (encoder.encode, encoder.count_tokens):
        with pytest.raises(ValueError, match="must be a string, got int"):
            call(["a dog", 3])


def test_no_texts_give_no_rows(models):
    encoder = open_encoder(models["t5"][0])
    found = encoder.encode([])
    assert found.tokens.shape == (0, 0, 8) and found.pooled.shape == (0, 8) and found.num_cut.shape == (0,)
    assert encoder.count_tokens([]) == []


def test_embeddings_can_be_trained_on_and_the_encoder_cannot(models):
    encoder = open_encoder(models["roberta"][0])
    found = encoder.encode(TEXTS)
    weight = torch.ones(8, requires_grad=True)
    (found.tokens * weight).sum().backward()
    (found.pooled * weight).sum().backward()
    assert weight.grad is not None and not found.tokens.requires_grad
    seen = []
    encoder.model.register_forward_pre_hook(lambda *_: seen.append(torch.is_inference_mode_enabled()))
    encoder.encode(TEXTS)
    assert seen == [True]
    assert not encoder.model.training and not any(each.requires_grad for each in encoder.model.parameters())


@pytest.mark.parametrize("kind", ["clip_projected", "t5", "mpnet"])
def test_bfloat16_gives_float16_embeddings_near_those_of_float32(models, kind):
    exact, encoder = open_encoder(models[kind][0]), open_encoder(models[kind][0], dtype="bfloat16")
    assert encoder.model.dtype == torch.bfloat16
    expected, found = exact.encode(TEXTS), encoder.encode(TEXTS)
    assert found.tokens.dtype == torch.float16 and found.pooled.dtype == torch.float32
    for rough, fine in ((found.tokens.float(), expected.tokens), (found.pooled, expected.pooled)):
        assert 0 < (rough - fine).norm() / fine.norm() < 0.1


def test_embeddings_beyond_float16_are_refused(folder):
    encoder = open_encoder(folder, dtype="bfloat16")
    encoder.model.encoder.layer[-1].output.LayerNorm.weight.mul_(1e6)
    with pytest.raises(ValueError, match=r"not finite in torch\.float16; open it with float32"):
        encoder.encode(TEXTS)


def test_an_encoder_goes_to_a_device_and_back(models):
    encoder = open_encoder(models["clip"][0], device="cpu")
    assert encoder.to("meta") is encoder and encoder.model.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["clip", "t5", "bert"])
def test_a_gpu_gives_the_embeddings_of_the_cpu(models, kind):
    expected = open_encoder(models[kind][0]).encode(TEXTS)
    encoder = open_encoder(models[kind][0], device="cuda")
    found = encoder.encode(TEXTS)
    assert found.tokens.device.type == found.pooled.device.type == "cpu"
    torch.testing.assert_close(found.tokens, expected.tokens, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.pooled, expected.pooled, atol=1e-3, rtol=0)
    again = encoder.to("cpu").encode(TEXTS)
    torch.testing.assert_close(again.tokens, expected.tokens, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "reduced"),
    [
        ('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}', lambda tokens: tokens[0]),
        ('{"pooling_mode_cls_token": false, "pooling_mode_max_tokens": true}', lambda tokens: tokens.amax(0)),
        ('{"pooling_mode": "mean"}', lambda tokens: tokens.mean(0)),
    ],
)
def test_sentence_encoders_pool_as_their_file_says(folder, config, reduced):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(config)
    found = open_encoder(folder).encode(TEXTS)
    for row, length in enumerate(LENGTHS[False]):
        expected = normalize(reduced(found.tokens[row, :length]), dim=0)
        torch.testing.assert_close(found.pooled[row], expected, atol=1e-6, rtol=0)


def test_without_max_tokens_the_smallest_limit_of_the_files_counts(folder, models):
    assert open_encoder(folder).max_tokens == NUM_POSITIONS
    assert open_encoder(models["t5"][0]).max_tokens == 512
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 9}')
    assert open_encoder(folder).max_tokens == 9
    assert open_encoder(folder, max_tokens=12).max_tokens == 12


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_as_long_as_the_model_s_positions_is_encoded(models, kind):
    limits = {"t5": None, "umt5": None, "mpnet": 14, "roberta": 14, "xlm-roberta": 14}
    limit = limits.get(kind, NUM_POSITIONS)
    encoder = open_encoder(models[kind][0], max_tokens=limit)
    found = encoder.encode(["rain " * 600])
    assert found.tokens.shape[1] == (limit or 512) and found.tokens.isfinite().all()
    if limit is not None:
        with pytest.raises(ValueError, match=rf"max_tokens must be from 2 to {limit} for {kind}, got {limit + 1}"):
            open_encoder(models[kind][0], max_tokens=limit + 1)


@pytest.mark.parametrize(("kind", "max_tokens", "lowest"), [("t5", 0, 1), ("bert", 1, 2), ("bert", -3, 2)])
def test_max_tokens_takes_the_special_tokens_in(models, kind, max_tokens, lowest):
    with pytest.raises(ValueError, match=rf"max_tokens must be (at least|from) {lowest}.*got {max_tokens}"):
        open_encoder(models[kind][0], max_tokens=max_tokens)


def test_the_digest_is_the_same_for_a_copy_and_another_for_other_files(models, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CHUNK", 64)
    first = open_encoder(models["bert"][0])
    copy = shutil.copytree(models["bert"][0], tmp_path / "copy")
    assert open_encoder(copy).digest == first.digest == open_encoder(copy, max_tokens=5, dtype="bfloat16").digest
    assert len(first.digest) == 64
    (copy / "README.md").write_text("other words")
    assert open_encoder(copy).digest == first.digest
    digests = {first.digest}
    for file, before, after in (
        ("tokenizer.json", '"dog": 5', '"hound": 5'),
        ("tokenizer_config.json", "{", '{"clean_up_tokenization_spaces": true,'),
        ("config.json", '"hidden_act": "gelu"', '"hidden_act": "relu"'),
    ):
        text = (copy / file).read_text()
        assert before in text
        (copy / file).write_text(text.replace(before, after, 1))
        digests.add(open_encoder(copy).digest)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    digests.add(open_encoder(copy).digest)
    assert len(digests) == 5


def test_weights_in_several_files_are_read_and_make_the_digest(tmp_path):
    model = save_model("t5", tmp_path)
    expected = open_encoder(tmp_path).encode(TEXTS)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="1KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    encoder = open_encoder(tmp_path)
    assert len(shards) > 1 and torch.equal(encoder.encode(TEXTS).tokens, expected.tokens)
    content = bytearray(shards[-1].read_bytes())
    content[-1] ^= 1
    shards[-1].write_bytes(content)
    assert open_encoder(tmp_path).digest != encoder.digest


def test_loading_says_nothing_of_what_a_text_model_leaves_out(models, capfd):
    open_encoder(models["clip"][0])
    assert capfd.readouterr() == ("", "")


def test_a_bank_has_the_embeddings_of_prompts_and_of_the_empty_one(models, tmp_path, capsys):
    encoder = open_encoder(models["clip"][0], max_tokens=8)
    bank = make_bank(encoder, [" a dog\nbarks", TEXTS[1]])
    assert bank.prompts == ("a dog barks", TEXTS[1])
    expected = encoder.encode([*TEXTS[:2], ""])
    for name, tensor in bank.embeddings.items():
        assert torch.equal(tensor, getattr(expected, name))
    assert set(bank.embeddings) == {"tokens", "token_mask", "pooled"}
    assert "1 of 2 prompts have more than the 8 tokens of clip" in capsys.readouterr().err
    bank.save(tmp_path / "bank.safetensors")
    loaded = type(bank).load(tmp_path / "bank.safetensors")
    assert loaded.encoder == {"name": "clip", "digest": encoder.digest, "max_tokens": 8}
    assert loaded.fingerprint() == bank.fingerprint()


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["rain", "\n"], "prompt 1 is empty"),
        (["a dog", "rain", " a  dog"], "'a dog' is there twice"),
        ([None], "must be a string"),
    ],
)
def test_prompts_that_make_no_bank_are_refused(models, prompts, message):
    with pytest.raises(ValueError, match=message):
        make_bank(open_encoder(models["clip"][0]), prompts)


def test_warnings_of_how_packages_register_types_are_kept_off_the_terminal():
    trees = logging.getLogger(module.TREES)
    before = trees.level
    with module._quiet(module._import()):
        assert not trees.isEnabledFor(logging.WARNING) and trees.isEnabledFor(logging.ERROR)
    assert trees.level == before
