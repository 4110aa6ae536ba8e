"""Training with texts: embedded once, given to the networks, dropped for guidance, and checked when it goes on."""

from __future__ import annotations

import pytest
import torch

from scm_media import recipe, training
from scm_media.data import batches
from scm_media.pipeline import load
from scm_media.prompts import PromptBank
from scm_media.training.context import prepare
from scm_media.training.stages.backbones import LatentInputs
from scm_media.training.texts import has_texts, read_texts, write_texts
from tests.training.captioned import LEVELS, TEXTS, make_encoder, make_folder, words
from tests.training.small import SMALL, state

SMALLER = [word for word in SMALL if not word.startswith(("data.", "modality."))]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    return make_encoder(tmp_path_factory.mktemp("encoder") / "tiny-bert")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("pictures"))


def compose(folder, root, encoder, *more):
    return recipe.compose("image/tiny", [*SMALLER, f"run_dir={folder}", *words(root, encoder, *more)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, root, encoder):
    """A run whose teacher has seen enough to tell dark from bright by the text."""
    folder = tmp_path_factory.mktemp("run")
    steps = ("teacher.max_steps=250", "student.max_steps=4", "backbone.dropout=0", "teacher.optimizer.lr=1e-2")
    training.run(compose(folder, root, encoder, *steps, "trainer.log_every=50", "trainer.checkpoint_every=100"))
    return folder


def test_texts_are_embedded_once_and_given_to_the_network(tmp_path, root, encoder, capsys):
    training.run(compose(tmp_path, root, encoder, "stage=autoencoder"))
    context = prepare(compose(tmp_path, root, encoder))
    capsys.readouterr()
    with pytest.raises(ValueError, match="not embedded: run scm-media encode"):
        _ = context.text
    assert not has_texts(context)
    write_texts(context)
    assert has_texts(context)
    assert "2 texts embedded by tiny-bert" in capsys.readouterr().err
    write_texts(context)
    assert capsys.readouterr().err == "", "they are there"
    read_texts(context)
    bank = PromptBank.load(tmp_path / "prompts.safetensors")
    assert bank.prompts == tuple(sorted(TEXTS.values()))
    batch = next(batches(context.data, 8, 0, 1, seed=0))
    latents, cond = LatentInputs(context, context.load_trained("autoencoder"))(batch)
    assert dict(cond.labels) == {}
    for place, level in enumerate(latents.flatten(1).mean(1).tolist()):
        row = bank.prompts.index(TEXTS["dark" if level < 0 else "bright"])
        num = int(cond.token_mask[place].sum())
        assert num == len(bank.prompts[row].split()) + 2
        assert torch.equal(cond.tokens[place], bank.embeddings["tokens"][row].float())
        assert torch.equal(cond.pooled[place], bank.embeddings["pooled"][row].float())


def test_what_is_asked_for_is_made(trained):
    pipeline = load(trained)
    for kind, text in TEXTS.items():
        made = pipeline(6, prompt=text, teacher=True, steps=12, guidance=2.0)
        assert [label["prompt"] for label in made.labels] == [text] * 6
        levels = (made.samples.flatten(1).mean(1) + 1) * 127.5
        assert float((levels - LEVELS[kind]).abs().mean()) < 60, kind
    both = pipeline(4, prompt=list(TEXTS.values()), teacher=True, steps=12, guidance=2.0).samples.flatten(1).mean(1)
    assert (both > 0).tolist() == [False, True, False, True], "texts take turns"


def test_a_negative_text_steers_away_from_it(trained):
    pipeline = load(trained)
    dark, bright = TEXTS.values()
    plain = pipeline(4, prompt=bright, teacher=True, steps=6, guidance=3.0).samples
    away = pipeline(4, prompt=bright, negative=dark, teacher=True, steps=6, guidance=3.0).samples
    same = pipeline(4, prompt=bright, negative="", teacher=True, steps=6, guidance=3.0).samples
    assert torch.equal(plain, same), "no text is what is steered away from without one"
    assert not torch.allclose(plain, away, atol=1e-2)
    for wrong, problem in (
        ({"negative": dark}, "the student has learned to do without"),
        ({"negative": dark, "teacher": True, "guidance": 1.0}, "guidance 1 is none"),
    ):
        with pytest.raises(ValueError, match=problem):
            pipeline(1, **wrong)


def test_texts_of_the_data_are_drawn_where_none_is_given(trained):
    pipeline = load(trained)
    drawn = [label["prompt"] for label in pipeline(12).labels]
    assert set(drawn) == set(TEXTS.values()) and 3 < drawn.count(TEXTS["dark"]) < 9
    assert pipeline(2, prompt="").labels == [{"prompt": ""}] * 2


def test_a_run_refuses_other_texts_and_lengths(trained, root, encoder, tmp_path):
    steps = ("teacher.max_steps=250", "student.max_steps=4", "backbone.dropout=0", "teacher.optimizer.lr=1e-2")
    with pytest.raises(ValueError, match=r"teacher, student learned from other .*text\.max_tokens 8 → 6"):
        training.run(compose(trained, root, encoder, *steps, "text.max_tokens=6", "stage=student"))
    torch.manual_seed(1)
    another = make_encoder(tmp_path / "another")
    with pytest.raises(ValueError, match=r"text\.encoder tiny-bert → .*another"):
        training.run(compose(trained, root, another, *steps, "stage=student"))
    with pytest.raises(ValueError, match=r"was trained with the text encoder tiny-bert, this recipe has another"):
        training.run(compose(tmp_path / "new", root, another, *steps, f"init_from={trained}"))
    other = make_folder(tmp_path / "other")
    (other / "001.txt").write_text("the rain")
    with pytest.raises(ValueError, match=r"labels|data"):
        training.run(compose(trained, other, encoder, *steps, "stage=student"))


def test_training_with_texts_starts_from_a_model_without(tmp_path, root, encoder, capsys):
    plain = recipe.compose("image/tiny", [*SMALL, f"run_dir={tmp_path / 'plain'}"])
    for stage in ("autoencoder", "teacher"):
        training.run({**plain, "stage": stage})
    told = compose(tmp_path / "told", root, encoder, f"init_from={tmp_path / 'plain'}", "teacher.max_steps=0")
    training.run({**told, "stage": "autoencoder"})
    capsys.readouterr()
    training.run({**told, "stage": "teacher"})
    assert "teacher: texts take the place of the labels class of" in capsys.readouterr().err
    before, after = state(tmp_path / "plain", "teacher"), state(tmp_path / "told", "teacher")
    assert torch.equal(after["patch_in.weight"], before["patch_in.weight"])
    assert any(name.startswith("text.") for name in after) and "labels.tables.class.weight" not in after


def test_embeddings_are_made_anew_before_a_network_was_trained_on_them(tmp_path, root, encoder, capsys):
    write_texts(prepare(compose(tmp_path, root, encoder)))
    for more, dtype, length in (("text.dtype=float32", torch.float32, 8), ("text.max_tokens=4", torch.float16, 4)):
        write_texts(prepare(compose(tmp_path, root, encoder, more)))
        bank = PromptBank.load(tmp_path / "prompts.safetensors")
        assert bank.embeddings["tokens"].dtype == dtype and bank.encoder["max_tokens"] == length
    other = make_folder(tmp_path / "other")
    (other / "001.txt").write_text("the rain")
    write_texts(prepare(compose(tmp_path, other, encoder, "text.max_tokens=4")))
    assert "the rain" in PromptBank.load(tmp_path / "prompts.safetensors").prompts
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines() if "embedded" in line] == [
        "2",
        "2",
        "2",
        "3",
    ]


def test_ways_and_labels_follow_the_recipe(tmp_path, root, encoder):
    more = ("text.inputs=[pooled]", "stage=teacher", "teacher.max_steps=2")
    training.run(compose(tmp_path / "pooled", root, encoder, "stage=autoencoder"))
    training.run(compose(tmp_path / "pooled", root, encoder, *more))
    names = state(tmp_path / "pooled", "teacher").keys()
    assert any("text.pooled" in name for name in names) and not any("text.tokens" in name for name in names)
    with pytest.raises(ValueError, match=r"text\.labels: the data have no size"):
        training.run(compose(tmp_path / "labels", root, encoder, "text.labels=[size]"))


def test_a_backbone_without_text_is_refused(tmp_path, root, encoder, monkeypatch):
    from scm_media.nn.transformer import Transformer
    from scm_media.parts import part

    class Plain(Transformer):
        def __init__(self, in_channels: int, rank: int, labels: dict[str, int] | None = None) -> None:
            super().__init__(in_channels, rank, 4, 16, 1, 2, labels)

    monkeypatch.setattr("scm_media.nn.transformer.Plain", part("backbone")(Plain), raising=False)
    config = compose(tmp_path, root, encoder, "stage=autoencoder")
    training.run(config)
    config |= {"backbone": {"_target_": "scm_media.nn.transformer.Plain", "in_channels": None, "rank": 2}}
    with pytest.raises(ValueError, match="takes no text: set text=none"):
        training.run({**config, "stage": "teacher"})
