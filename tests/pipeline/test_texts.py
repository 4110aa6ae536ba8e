"""Texts of models: those that go along with an export, the encoder for others, and what is said of strange ones."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scm_media import recipe, training, weights
from scm_media.cli.export import run as run_export
from scm_media.conditioning import Conditioning
from scm_media.diffusers.export import export_pipeline
from scm_media.pipeline import exported_texts, load
from scm_media.pipeline.card import _example_prompt
from scm_media.pipeline.description import ModelDescription, SamplerSettings
from scm_media.pipeline.labels import LabelSet, SampleLabels
from scm_media.pipeline.model_file import export_file
from scm_media.pipeline.texts import Texts, TextWarning
from scm_media.prompts import PromptBank, text_names
from scm_media.text import make_bank, open_encoder
from tests.text.tiny import save_model
from tests.training.captioned import TEXTS, make_encoder, make_folder, words
from tests.training.small import SMALL, flip_last_bits

KNOWN = ("a dog barks", "bells ring far away", "the rain")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    return make_encoder(tmp_path_factory.mktemp("encoder") / "tiny-bert")


@pytest.fixture
def texts(encoder):
    bank = make_bank(open_encoder(encoder, max_tokens=8), KNOWN)
    return Texts(bank, {"encoder": str(encoder), "max_tokens": 8, "labels": []}, Path("model"))


def test_known_and_new_texts_have_the_encoders_embeddings(texts, encoder):
    asked = ["the rain", None, "a dog rings the bells", "", "a dog barks"]
    cond = texts.condition(Conditioning(), asked)
    expected = open_encoder(encoder, max_tokens=8).encode([text or "" for text in asked])
    given = torch.tensor([True, False, True, False, True])
    assert torch.equal(cond.token_mask.any(1), given)
    assert torch.equal(cond.token_mask[given], expected.token_mask[given])
    length = expected.tokens.shape[1]
    shown = cond.token_mask[given][..., None]
    assert torch.allclose(cond.tokens[given][:, :length] * shown, expected.tokens[given].float() * shown, atol=2e-3)
    assert torch.allclose(cond.pooled[given], expected.pooled[given], atol=1e-5)


def test_another_encoder_or_none_is_refused(texts, tmp_path):
    torch.manual_seed(1)
    save_model("bert", tmp_path / "other")
    own = texts.settings["encoder"]
    texts.settings = {**texts.settings, "encoder": str(tmp_path / "other")}
    texts.condition(Conditioning(), ["the rain"])
    with pytest.raises(ValueError, match="is not the one that the model was trained with"):
        texts.condition(Conditioning(), ["a new text"])
    texts.settings = {**texts.settings, "encoder": str(tmp_path / "none")}
    with pytest.raises(ValueError, match=r"not among the 3 that model carries.*--text-encoder FOLDER"):
        texts.condition(Conditioning(), ["a new text"])
    texts.place = own
    assert texts.condition(Conditioning(), ["a new text"]).token_mask.any()


def test_long_and_strange_texts_are_warned_of(texts):
    with pytest.warns(TextWarning, match=r"has \d tokens more than the model takes \(8\)"):
        cut = texts.condition(Conditioning(), ["a dog barks in the rain while bells ring"])
    assert cut.token_mask.sum() == 8, "the rest of the text is cut"
    bank = PromptBank(["one", "two", "three"], {"tokens": torch.zeros(4, 1, 2), "pooled": torch.eye(4, 2)})
    bank.embeddings["pooled"] = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.0, 0.0]])
    strange = Texts(bank, {"encoder": "none", "max_tokens": 8, "labels": []}, Path("model"))
    told = {}
    for text, pooled in (("far", [[0.0, 1.0]]), ("near", [[1.0, 0.05]])):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            strange._warn_if_unfamiliar(text, torch.tensor(pooled))
        told[text] = [(each.category, str(each.message)) for each in caught]
    assert told["near"] == []
    ((category, said),) = told["far"]
    assert category is TextWarning
    assert re.search(r"unlike all texts .*\(similarity 0\.10 to the nearest; 99% .* at 1\.00 or more", said)


def train(folder, encoder, texts):
    """Trains pictures, one for each text, and returns the run."""
    root = make_folder(folder / "pictures", num=len(texts))
    for path, text in zip(sorted(root.glob("*.txt")), texts, strict=True):
        path.write_text(text)
    smaller = [word for word in SMALL if not word.startswith(("data.", "modality."))]
    training.run(recipe.compose("image/tiny", [*smaller, f"run_dir={folder / 'run'}", *words(root, encoder)]))
    return folder / "run"


def test_an_export_carries_some_texts_and_draws_from_them(tmp_path, encoder, monkeypatch):
    run = train(tmp_path, encoder, [f"{text} {number}" for number in range(20) for text in TEXTS.values()])
    whole = load(run)
    monkeypatch.setattr(exported_texts, "MAX_BYTES", 1)
    whole.save_pretrained(tmp_path / "model")
    model = load(tmp_path / "model")
    kept = model.folder.description.labels["prompt"]
    assert 10 <= len(kept) < 20 and set(kept) <= set(whole.folder.description.labels["prompt"])
    assert sum(model.folder.description.label_counts["prompt"]) == len(kept)
    assert model.prompts.prompts == tuple(kept)
    drawn = {label["prompt"] for label in model(32).labels}
    assert drawn <= set(kept) and len(drawn) > 8
    text = kept[5]
    assert torch.allclose(model(2, prompt=text).samples, whole(2, prompt=text).samples, atol=1e-5)
    description = weights.read(tmp_path / "model" / "prompts.safetensors").config
    assert description["encoder"]["name"] == "tiny-bert"
    with pytest.raises(ValueError, match="takes texts, "):
        export_pipeline(model.folder, tmp_path / "elsewhere")
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"- Takes texts (`--prompt`, `prompt=`), embedded by `tiny-bert`. Of these {len(kept)} the" in card
    assert all(f'"{text}"' in card for text in kept) and f'(4, prompt="{kept[0]}", steps=2' in card
    assert "pipeline_tag: text-to-image" in card and "Label `prompt`" not in card
    new = sorted(set(whole.folder.description.labels["prompt"]) - set(kept))[0]
    with pytest.raises(ValueError, match="its text encoder tiny-bert cannot be used"):
        model(1, prompt=new)  # the path of this machine did not go along
    found = load(tmp_path / "model", text_encoder=encoder)
    assert torch.allclose(found(2, prompt=new).samples, whole(2, prompt=new).samples, atol=1e-2)


def test_padding_is_left_out_behind_the_last_token_of_any_text():
    mask = torch.tensor([[0, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]).bool()
    tokens = torch.arange(40.0).view(4, 5, 2)
    bank = weights.Component({"tokens": tokens, "token_mask": mask}, {"prompts": ["a", "b", "c"]}, {})
    for names, length in ((["a", "b"], 5), (["c"], 5)):
        assert exported_texts.select_texts(bank, names).state["tokens"].shape[1] == length
    bank.state["token_mask"] = mask[[0, 1, 2, 2]]
    found = exported_texts.select_texts(bank, ["b"]).state
    assert torch.equal(found["tokens"], tokens[[1, 3], :4]) and torch.equal(found["token_mask"], mask[[1, 2], :4])


def test_a_card_asks_for_a_text_that_is_listed_whole():
    long, short = "a very " * 40 + "long text", 'a "short" one'

    def described(texts):
        labels = {"prompt": list(text_names(texts))}
        return SimpleNamespace(text={"encoder": "e"}, labels=labels)

    assert _example_prompt(described([long, short])) == 'prompt="a \\"short\\" one", '
    assert _example_prompt(described([long])) == ""


@pytest.mark.slow
def test_chosen_texts_go_along_with_an_export(tmp_path, encoder, monkeypatch):
    texts = [f"{text} {number}" for number in range(10) for text in TEXTS.values()]
    run = train(tmp_path, encoder, texts)
    whole, chosen = load(run), [texts[7], texts[2], f" {texts[11]} "]
    description = whole.folder.description
    listed = exported_texts.describe_texts(description, [description.labels["prompt"].index(texts[2])])
    listed.write(run)  # as a model of many texts, which lists some of them
    (tmp_path / "chosen.txt").write_text("\n".join(chosen) + "\n")
    words = ["export", str(run), str(tmp_path / "model"), "--texts", str(tmp_path / "chosen.txt")]
    assert run_export(words[1:]) == 0
    model = load(tmp_path / "model")
    expected = [texts[2], texts[7], texts[11]]
    assert sorted(model.prompts.prompts) == sorted(model.folder.description.labels["prompt"]) == sorted(expected)
    made = model(3, prompt=expected).samples
    assert torch.allclose(made, whole(3, prompt=expected).samples, atol=1e-5)
    assert {label["prompt"] for label in model(24).labels} == set(expected)
    longest = max(len(text.split()) for text in texts) + 2
    assert model.prompts.embeddings["tokens"].shape[1] == longest < 8, "padding stays behind"
    one = export_file(load(run).folder, tmp_path / "one.safetensors", torch.float32, texts=[texts[7]])
    found = load(one).prompts
    assert found.prompts == (texts[7],) and found.embeddings["tokens"].dtype == torch.float32
    for wrong, problem in (
        (["unheard of"], "1 of 1 texts to go along are not among the 20"),
        ([], "no line with a text"),
    ):
        (tmp_path / "chosen.txt").write_text("\n".join(wrong))
        with pytest.raises(ValueError, match=problem):
            run_export([*words[1:2], str(tmp_path / "other"), *words[3:]])
    assert not (tmp_path / "other").exists()


def test_long_texts_are_drawn_whole_also_after_an_export(tmp_path, encoder, monkeypatch):
    run = train(tmp_path, encoder, [f"{'a dog barks in the rain ' * 12}{number}" for number in range(30)])
    monkeypatch.setattr(exported_texts, "MAX_BYTES", 1)
    load(run).save_pretrained(tmp_path / "model")
    made = load(tmp_path / "model")(20)
    texts = {label["prompt"] for label in made.labels}
    assert len(texts) > 5 and all(len(text) > 280 and "…" not in text for text in texts)


def test_many_texts_are_listed_in_part(monkeypatch):
    names = [f"text {number}" for number in range(50)]
    description = ModelDescription(
        name="many",
        modality={},
        flow={},
        sampler=SamplerSettings(),
        text={"encoder": "tiny", "max_tokens": 8, "labels": []},
        labels={"class": ["a", "b"], "prompt": names},
        label_counts={"class": [30, 20], "prompt": [1] * 50},
        label_combinations=[f"{number % 2} {number} 1" for number in range(50)],
        sample_shape=[1, 4],
        latent_shape=[1, 4],
    )
    monkeypatch.setattr(exported_texts, "MAX_LISTED", 10)
    limited = exported_texts.limit_texts(description)
    assert limited.labels["prompt"] == names[::5] and limited.label_counts["prompt"] == [1] * 10
    assert limited.label_combinations == sorted(
        f"{number % 2} {place} 1" for place, number in enumerate(range(0, 50, 5))
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ({}, r"text\.encoder"),
        ({"encoder": 5, "max_tokens": 8, "labels": []}, r"text\.encoder"),
        ({"encoder": "tiny", "max_tokens": "a", "labels": []}, r"text\.max_tokens"),
        ({"encoder": "tiny", "max_tokens": 1 << 40, "labels": []}, r"lie in \[1, 4096\]"),
        ({"encoder": "x" * 2000, "max_tokens": 8, "labels": []}, "1 to 1000 characters"),
        ({"encoder": "tiny", "max_tokens": 8, "labels": ["size"]}, "the label size|the label 'size'"),
    ],
)
def test_a_strange_description_of_texts_is_refused(text, problem):
    with pytest.raises(ValueError, match=problem):
        ModelDescription(
            name="strange",
            modality={},
            flow={},
            sampler=SamplerSettings(),
            text=text,
            labels={"prompt": ["a"]},
            label_counts={},
            sample_shape=[1, 4],
            latent_shape=[1, 4],
        )


def test_what_is_no_text_says_so(texts):
    labels = LabelSet({"prompt": list(KNOWN)}, {}, takes_text=True)
    for wrong in (5, [5], []):
        with pytest.raises(ValueError, match="prompt must be a text or a list of texts"):
            SampleLabels(labels, None, 0, range(2), True).add_prompts(wrong)
    assert labels.parse({"prompt": None}) == {"prompt": ""}


def test_a_text_brings_the_labels_that_the_data_have_with_it():
    long = ("a dog barks in the rain " * 12).strip()
    names = {"kind": ["loud", "soft"], "prompt": list(text_names(["bells", long, "a held-out text"]))}
    labels = LabelSet(names, {}, {(0, 0): 3, (1, 1): 2}, takes_text=True)
    for text, kind in (("bells", "loud"), (long, "soft")):
        assert {labels.resolve({"prompt": text}, 0, k)["kind"] for k in range(8)} == {kind}
    for text in ("something else", "a held-out text"):
        assert labels.resolve({"prompt": text}, 0, 0) == {"prompt": text}


def test_no_labels_are_made_up_for_a_text():
    names = {"kind": ["loud", "soft"], "level": [], "prompt": ["bells", "rain"]}
    quantiles = {"level": (0.0, 1.0)}
    unknown = LabelSet(names, {}, quantiles=quantiles, takes_text=True)
    assert unknown.resolve({"prompt": "bells"}, 0, 0) == {"prompt": "bells"}
    known = LabelSet(names, {}, {(0, 0): 3, (1, 1): 2}, quantiles, takes_text=True, beside_text=[])
    assert known.resolve({"prompt": "bells"}, 0, 0) == {"kind": "loud", "prompt": "bells"}
    assert known.resolve({"prompt": "bells", "level": 0.5}, 0, 0) == {"kind": "loud", "level": 0.5, "prompt": "bells"}
    for beside in (None, ["level"]):
        given = LabelSet(names, {}, {(0, 0): 3, (1, 1): 2}, quantiles, takes_text=True, beside_text=beside)
        assert set(given.resolve({"prompt": "rain"}, 0, 0)) == {"kind", "level", "prompt"}


def test_changed_embeddings_are_not_exported(tmp_path, encoder):
    run = train(tmp_path, encoder, [f"a dog {number}" for number in range(20)])
    flip_last_bits(run / "prompts.safetensors")
    with pytest.raises(ValueError, match="prompts"):
        load(run).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
