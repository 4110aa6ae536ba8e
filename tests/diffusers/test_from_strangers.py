"""Exported pipelines that are damaged, or made to do harm."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from scm_media import weights

diffusers = pytest.importorskip("diffusers")
from scm_media.diffusers import ScmMediaAutoencoder, ScmMediaBackbone, ScmMediaPipeline  # noqa: E402

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(exported, tmp_path):
    """A copy of an exported pipeline of pictures."""
    return shutil.copytree(exported("image")[1], tmp_path / "pipeline")


def reconfigure(folder, part, change):
    """Writes another configuration into both files of a component."""
    file = folder / part / WEIGHTS
    component = weights.read(file)
    config = change(component.config)
    weights.save(file, component.state, config)
    described = json.loads((folder / part / "config.json").read_text())
    (folder / part / "config.json").write_text(json.dumps({**described, "network": config}))


def redescribe(folder, **keys):
    """Writes other values into the description of the index."""
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "description": {**index["description"], **keys}}))


@pytest.mark.parametrize("part", ["backbone", "autoencoder"])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"_target_": "os.system", "command": "touch harm"}, "os.system"),
        ({"_target_": "scm_media.weights.write_whole", "path": "harm", "content": "x"}, "write_whole"),
        ({"_target_": "torch.optim.Adam", "params": []}, "torch.optim.Adam"),
    ],
)
def test_a_component_that_is_no_part_is_refused_by_name(folder, part, target, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reconfigure(folder, part, lambda _: target)
    with pytest.raises(ValueError, match=message):
        diffusers.DiffusionPipeline.from_pretrained(folder)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("part", ["backbone", "autoencoder"])
def test_a_part_of_another_class_is_refused(folder, part):
    index = json.loads((folder / "model_index.json").read_text())
    shutil.rmtree(folder / part)
    levels = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "layers_per_block": 1}
    diffusers.UNet2DModel(sample_size=8, block_out_channels=(32,), **levels).save_pretrained(folder / part)
    (folder / "model_index.json").write_text(json.dumps({**index, part: ["diffusers", "UNet2DModel"]}))
    with pytest.raises(ValueError, match=f"names UNet2DModel where ScmMedia{part.capitalize()} is expected"):
        diffusers.DiffusionPipeline.from_pretrained(folder)


def test_a_component_in_the_folder_that_one_stands_in_is_read(folder, monkeypatch):
    monkeypatch.chdir(folder / "backbone")
    assert isinstance(ScmMediaBackbone.from_pretrained("."), ScmMediaBackbone)


def test_a_configuration_beside_other_weights_is_refused(folder):
    file = folder / "backbone" / "config.json"
    described = json.loads(file.read_text())
    file.write_text(json.dumps({**described, "network": {"_target_": "os.system", "command": "touch harm"}}))
    with pytest.raises(ValueError, match=r"config\.json describes another network than the header of"):
        diffusers.DiffusionPipeline.from_pretrained(folder)
    file.unlink()
    with pytest.raises(OSError, match=r"config\.json"):
        diffusers.DiffusionPipeline.from_pretrained(folder)


def test_a_network_larger_than_its_file_is_refused_before_it_takes_memory(folder):
    reconfigure(folder, "backbone", lambda config: {**config, "width": 65536})
    with pytest.raises(ValueError, match="its configuration describes larger layers than"):
        diffusers.DiffusionPipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"modality": {"_target_": "lightning_fabric.loggers.CSVLogger", "root_dir": "x"}}, "CSVLogger"),
        ({"flow": {"_target_": "scm_media.build.build"}}, "build"),
        ({"labels": {"class": "circle"}}, "labels"),
        ({"label_order": ["class", "other"]}, "label_order must name each label once"),
        ({"label_order": 3}, "label_order"),
        ({"sampler": {"steps": "two"}}, r"sampler\.steps"),
        ({"latent_shape": [1, 8, 8]}, "its autoencoder makes latents of shape"),
        ({"sample_shape": [1, 2, 2]}, "its modality makes samples of shape"),
    ],
)
def test_a_description_is_checked_as_that_of_a_model_folder(folder, keys, message):
    redescribe(folder, **keys)
    with pytest.raises(ValueError, match=message):
        diffusers.DiffusionPipeline.from_pretrained(folder)()


def test_an_index_without_a_description_is_refused(folder):
    index = json.loads((folder / "model_index.json").read_text())
    del index["description"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"model_index\.json lacks an object with the keys name, modality"):
        diffusers.DiffusionPipeline.from_pretrained(folder)


@pytest.mark.parametrize("linked", [WEIGHTS, "config.json", "."])
def test_a_link_out_of_the_folder_is_refused(folder, linked, tmp_path):
    inside, outside = folder / "backbone" / linked, tmp_path / "outside"
    shutil.move(inside, outside)
    inside.parent.mkdir(exist_ok=True)
    (folder / "backbone").joinpath(linked).symlink_to(outside) if linked != "." else inside.symlink_to(outside)
    with pytest.raises(ValueError, match="is a link out of the model's folder"):
        diffusers.DiffusionPipeline.from_pretrained(folder)


def test_the_links_of_the_hubs_cache_are_followed(folder, tmp_path):
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    blobs = tmp_path / "models--org--name" / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(each for each in folder.rglob("*") if each.is_file())):
        place = snapshot / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, blobs / str(number))
        place.symlink_to(blobs / str(number))
    made = [
        diffusers.DiffusionPipeline.from_pretrained(each)(
            "circle", 1, generator=torch.Generator().manual_seed(0), output_type="pt"
        ).images
        for each in (snapshot, folder)
    ]
    assert torch.equal(*made)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, None])
def test_damaged_weights_are_named(folder, content):
    file = folder / "backbone" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-4] + b"\x01\x02\x03\x04" if content is None else content)
    with pytest.raises(ValueError, match=r"backbone/diffusion_pytorch_model\.safetensors (is damaged|is no whole)"):
        diffusers.DiffusionPipeline.from_pretrained(folder)


def test_weights_of_another_part_are_named(folder):
    shutil.copyfile(folder / "autoencoder" / WEIGHTS, folder / "backbone" / WEIGHTS)
    shutil.copyfile(folder / "autoencoder" / "config.json", folder / "backbone" / "config.json")
    with pytest.raises(ValueError, match="PixelAutoencoder"):
        diffusers.DiffusionPipeline.from_pretrained(folder)


def test_pickles_are_neither_read_nor_written(folder, tmp_path):
    (folder / "backbone" / WEIGHTS).rename(folder / "backbone" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="there is no such weight file"):
        diffusers.DiffusionPipeline.from_pretrained(folder)
    with pytest.raises(ValueError, match="is read from safetensors alone"):
        ScmMediaBackbone.from_pretrained(folder, subfolder="backbone", use_safetensors=False)
    autoencoder = ScmMediaAutoencoder.from_pretrained(folder, subfolder="autoencoder")
    with pytest.raises(ValueError, match="is saved as safetensors alone"):
        autoencoder.save_pretrained(tmp_path / "x", safe_serialization=False)
    assert not (tmp_path / "x").exists()


def test_a_wrong_folder_is_named(tmp_path, exported):
    with pytest.raises(ValueError, match="there is no such weight file"):
        ScmMediaBackbone.from_pretrained(tmp_path)
    with pytest.raises(OSError, match=r"model_index\.json"):
        ScmMediaPipeline.from_pretrained(exported("image")[0])  # a model folder of ours


def test_a_variant_lies_beside_the_weights(folder, tmp_path):
    pipeline = ScmMediaPipeline.from_pretrained(folder)
    pipeline.save_pretrained(tmp_path / "out", variant="mine")
    assert (tmp_path / "out" / "backbone" / "diffusion_pytorch_model.mine.safetensors").is_file()
    again = ScmMediaPipeline.from_pretrained(tmp_path / "out", variant="mine", device_map="cpu")
    noise = {"latents": torch.randn(1, 1, 16, 16), "output_type": "pt"}
    assert torch.equal(again("circle", 1, **noise).images, pipeline("circle", 1, **noise).images)
    with pytest.raises(ValueError, match="does not support quantization_config"):
        ScmMediaBackbone.from_pretrained(folder, subfolder="backbone", quantization_config=object())
