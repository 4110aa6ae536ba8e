"""Where text encoders are found, and what is said where there is none."""

from __future__ import annotations

import json
import re
import shutil
import sys

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from scm_media.text import open_encoder
from tests.text.tiny import CLASSES, make_tokenizer, save_model

PACKAGE = "scm_media_tests_text_model"


@pytest.fixture
def package(models, tmp_path, monkeypatch):
    """Returns the folder of a package on the path that ships a model and must not be imported."""
    folder = tmp_path / "site" / PACKAGE
    shutil.copytree(models["bert"][0], folder / "model")
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


@pytest.mark.parametrize("name", [PACKAGE, PACKAGE.replace("_", "-")])
def test_a_package_that_ships_a_model_is_found_and_not_imported(package, models, name):
    encoder = open_encoder(name)
    assert encoder.name == name and encoder.digest == open_encoder(models["bert"][0]).digest
    assert PACKAGE not in sys.modules


def test_a_package_may_be_the_model_s_folder_itself(package):
    for file in (package / "model").iterdir():
        file.rename(package / file.name)
    assert open_encoder(PACKAGE).name == PACKAGE


def test_a_package_with_two_models_or_none_is_refused(package):
    shutil.copytree(package / "model", package / "other")
    with pytest.raises(ValueError, match=rf"{PACKAGE} must ship one model.*got 2 \(model, other\)"):
        open_encoder(PACKAGE)
    shutil.rmtree(package / "other")
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"{PACKAGE} must ship one model.*got none"):
        open_encoder(PACKAGE)


def test_an_encoder_is_named_without_this_machine_s_folders(folder, monkeypatch):
    assert open_encoder(folder).name == "model"
    monkeypatch.chdir(folder)
    assert open_encoder(".").describe()["name"] == "model"


@pytest.mark.parametrize("prefix", ["", "hf://"])
def test_a_model_of_the_hub_is_downloaded_without_pickles(models, monkeypatch, prefix):
    asked = {}

    def download(name, allow_patterns):
        asked[name] = allow_patterns
        return str(models["bert"][0])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert open_encoder(f"{prefix}org/tiny").name == "org/tiny"
    (patterns,) = asked.values()
    kept = huggingface_hub.utils.filter_repo_objects(
        [
            *("model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"),
            *("tokenizer.json", "1_Pooling/config.json", "spiece.model"),
            *(
                "pytorch_model.bin",
                "modeling.py",
                "onnx/model.safetensors",
                "unet/config.json",
                "model.fp16.safetensors",
            ),
        ],
        allow_patterns=patterns,
    )
    assert list(kept) == [
        *("model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"),
        *("tokenizer.json", "1_Pooling/config.json", "spiece.model"),
    ]


def test_a_model_that_the_hub_does_not_give_is_refused():
    with pytest.raises(ValueError, match=r"no text encoder org/none.*no such folder here, and the hub did not give it"):
        open_encoder("org/none")


@pytest.mark.parametrize("name", ["no_such_package_here", "no/such/folder", "", "a\0b", "__main__", "../x/y"])
def test_an_unknown_name_is_refused_with_what_was_looked_at(name):
    with pytest.raises(ValueError, match=r"no folder, no installed package and no org/name of the hub"):
        open_encoder(name)


def test_a_text_encoder_of_a_pipeline_takes_the_tokenizer_beside_it(models, tmp_path):
    expected = open_encoder(models["clip_text"][0])
    for number in ("", "_2"):
        encoder, tokenizer = tmp_path / f"text_encoder{number}", tmp_path / f"tokenizer{number}"
        shutil.copytree(models["clip_text"][0], encoder)
        tokenizer.mkdir()
        for file in encoder.glob("tokenizer*"):
            file.rename(tokenizer / file.name)
        found = open_encoder(encoder)
        assert torch.equal(found.encode(["a dog"]).tokens, expected.encode(["a dog"]).tokens)
        assert found.digest == expected.digest
        shutil.rmtree(tokenizer)


def test_a_missing_package_is_named_with_how_to_get_it(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=re.escape("pip install 'scm-media[text]'")):
        open_encoder(models["bert"][0])


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json: a folder with a text model"):
        open_encoder(tmp_path)


def test_weights_other_than_safetensors_are_refused(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    with pytest.raises(ValueError, match=r"weights there: model\.fp16\.safetensors, pytorch_model\.bin\).*safetensors"):
        open_encoder(folder)


def test_a_folder_without_a_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer, expected one of tokenizer\.json, .*vocab\.json with merges"):
        open_encoder(folder)


@pytest.mark.parametrize("model_type", ["gpt2", None, ["bert"]])
def test_a_model_of_another_kind_is_refused(folder, model_type):
    edit(folder / "config.json", model_type=model_type)
    with pytest.raises(ValueError, match=r"is no supported text model; supported are clip, clip_text_model, t5, umt5"):
        open_encoder(folder)


def test_a_configuration_that_is_no_mapping_is_refused(folder):
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="model_type None"):
        open_encoder(folder)


@pytest.mark.parametrize("changes", [{"hidden_size": 9}, {"num_attention_heads": "two"}, {"intermediate_size": 17}])
def test_a_configuration_that_does_not_fit_the_weights_is_refused(folder, changes):
    edit(folder / "config.json", **changes)
    with pytest.raises(ValueError, match=r"(holds no whole|describes no) BertModel"):
        open_encoder(folder)


def test_missing_and_damaged_weights_are_refused(folder):
    file = folder / "model.safetensors"
    state = load_file(file)
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 tensors of BertModel are missing.*layer\.1\.output\.dense\.weight"):
        open_encoder(folder)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match="holds no whole BertModel"):
        open_encoder(folder)


def test_a_damaged_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ValueError, match="holds no whole tokenizer"):
        open_encoder(folder)


def test_a_tokenizer_of_another_model_is_refused(folder):
    edit(folder / "config.json", vocab_size=14)
    with pytest.raises(ValueError, match=r"tokens up to 14, the model 14 embeddings: it belongs to another model"):
        open_encoder(folder)


def test_a_tokenizer_without_special_tokens_is_refused(folder):
    make_tokenizer("bert", special=False).save_pretrained(folder)
    with pytest.raises(ValueError, match="no token of an empty text"):
        open_encoder(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode_lasttoken": True}, "pooling is pooling_mode_lasttoken, expected one"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, "cls and max"),
        ("1_Pooling/config.json", {}, "pooling is not said, expected one of mean, cls, max"),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "pooling is weightedmean"),
        (
            "modules.json",
            [{"type": "sentence_transformers.models.Dense"}],
            "Dense is not supported, expected",
        ),
    ],
)
def test_a_pooling_that_is_not_known_is_refused(folder, file, content, message):
    (folder / "1_Pooling").mkdir()
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        open_encoder(folder)


def test_code_of_a_model_never_runs(folder):
    mark = folder / "ran"
    for name in ("modeling", "tokenization"):
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n")
    edit(folder / "config.json", auto_map={"AutoModel": "modeling.Own", "AutoConfig": "modeling.Own"})
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization.Own", "tokenization.Own"]})
    open_encoder(folder).encode(["a dog"])
    assert not mark.exists()


def test_an_attention_of_the_hub_that_a_configuration_names_is_not_taken(folder):
    expected = open_encoder(folder).encode(["a dog"])
    edit(folder / "config.json", attn_implementation="org/kernel", _attn_implementation="org/kernel")
    assert torch.equal(open_encoder(folder).encode(["a dog"]).tokens, expected.tokens)


@pytest.mark.parametrize("dtype", ["float16", "int8", ""])
def test_another_type_is_refused(folder, dtype):
    with pytest.raises(ValueError, match=f"dtype must be float32 or bfloat16, got '{dtype}'"):
        open_encoder(folder, dtype=dtype)


def test_a_whole_t5_gives_its_encoder(tmp_path):
    arguments = CLASSES["t5"][2]
    save_model("t5", tmp_path)
    whole = transformers.T5ForConditionalGeneration(transformers.T5Config(**arguments)).eval()
    whole.save_pretrained(tmp_path)
    found = open_encoder(tmp_path).encode(["a dog"])
    ids = make_tokenizer("t5")(["a dog"], return_tensors="pt")["input_ids"]
    torch.testing.assert_close(found.tokens, whole.encoder(ids).last_hidden_state.detach(), atol=1e-5, rtol=0)


def edit(file, **changes):
    """Changes entries of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
