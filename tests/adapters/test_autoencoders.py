"""Autoencoders of diffusers: latents as their pipelines make them, shapes, tiles, saved folders, and refusals."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch

from scm_media import weights
from scm_media.adapters.autoencoder_classes import AUTOENCODERS
from scm_media.adapters.autoencoder_loading import read_autoencoder
from scm_media.adapters.autoencoders import DiffusersAutoencoder, UnchangedSamples
from scm_media.networks import restore

diffusers = pytest.importorskip("diffusers")

KL = {
    "block_out_channels": [4, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 2,
    "sample_size": 16,
    "scaling_factor": 0.18,
}
STATISTICS = {"latents_mean": [0.3, -0.2, 0.1, 0.5], "latents_std": [0.4, 1.2, 2.0, 0.7]}
TINY = {
    "encoder_block_out_channels": [4] * 4,
    "decoder_block_out_channels": [4] * 4,
    "num_encoder_blocks": [1] * 4,
    "num_decoder_blocks": [1] * 4,
}
DC = {
    "latent_channels": 4,
    "encoder_block_out_channels": [8] * 3,
    "decoder_block_out_channels": [8] * 3,
    "encoder_layers_per_block": [1] * 3,
    "decoder_layers_per_block": [1] * 3,
    "encoder_qkv_multiscales": [[]] * 3,
    "decoder_qkv_multiscales": [[]] * 3,
    "scaling_factor": 0.41,
}
OOBLECK = {
    "encoder_hidden_size": 8,  # twice the latent channels
    "downsampling_ratios": [2, 4],
    "channel_multiples": [1, 2],
    "decoder_channels": 4,
    "decoder_input_channels": 4,
    "sampling_rate": 101,
}
WAN = {"base_dim": 4, "dim_mult": [1] * 4, "num_res_blocks": 1, "z_dim": 4, **STATISTICS}
LTX = {
    "latent_channels": 4,
    "block_out_channels": [8] * 4,
    "decoder_block_out_channels": [8] * 4,
    "layers_per_block": [1] * 5,
    "decoder_layers_per_block": [1] * 5,
    "scaling_factor": 1.3,
}
COGVIDEOX = {
    "block_out_channels": [8] * 4,
    "norm_num_groups": 2,
    "layers_per_block": 1,
    "latent_channels": 4,
    "scaling_factor": 1.15,
    **STATISTICS,  # which its pipelines do not use
}


def scaled(network, z):
    return z * network.config.scaling_factor, lambda y: y / network.config.scaling_factor


def shifted(network, z):
    config = network.config
    latent = (z - config.shift_factor) * config.scaling_factor
    return latent, lambda y: y / config.scaling_factor + config.shift_factor


def of_channels(network, z):
    axes = (1, -1, *[1] * (z.ndim - 2))
    mean, std = (torch.tensor(network.config[name]).view(axes) for name in STATISTICS)
    factor = network.config.get("scaling_factor", 1.0)
    return (z - mean) * factor / std, lambda y: y * std / factor + mean


def of_buffers(network, z):
    mean, std = (each.view(1, -1, 1, 1, 1) for each in (network.latents_mean, network.latents_std))
    factor = network.config.scaling_factor
    return (z - mean) * factor / std, lambda y: y * std / factor + mean


def unscaled(network, z):
    return z, lambda y: y


KINDS = {
    "Stable Diffusion": ("AutoencoderKL", KL, scaled, (3, 8, 12), (4, 4, 6)),
    "FLUX": ("AutoencoderKL", {**KL, "shift_factor": 0.12}, shifted, (3, 8, 12), (4, 4, 6)),
    "SDXL with statistics": ("AutoencoderKL", {**KL, **STATISTICS}, of_channels, (3, 8, 12), (4, 4, 6)),
    "DC": ("AutoencoderDC", DC, scaled, (3, 8, 12), (4, 2, 3)),
    "tiny": ("AutoencoderTiny", TINY, unscaled, (3, 16, 24), (4, 2, 3)),
    "Oobleck": ("AutoencoderOobleck", OOBLECK, unscaled, (2, 48), (4, 6)),
    "Wan 2.1": ("AutoencoderKLWan", WAN, of_channels, (3, 5, 16, 8), (4, 2, 2, 1)),
    "Wan 2.2": (
        "AutoencoderKLWan",
        {**WAN, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16},
        of_channels,
        (3, 5, 32, 16),
        (4, 2, 2, 1),
    ),
    "LTX": ("AutoencoderKLLTXVideo", LTX, of_buffers, (3, 9, 64, 32), (4, 2, 2, 1)),
    "LTX with a time": (
        "AutoencoderKLLTXVideo",
        {**LTX, "timestep_conditioning": True},
        of_buffers,
        (3, 9, 64, 32),
        (4, 2, 2, 1),
    ),
    "CogVideoX": ("AutoencoderKLCogVideoX", COGVIDEOX, scaled, (3, 9, 16, 8), (4, 3, 2, 1)),
    "CogVideoX 1.5": (
        "AutoencoderKLCogVideoX",
        {**COGVIDEOX, "invert_scale_latents": True},
        scaled,
        (3, 9, 16, 8),
        (4, 3, 2, 1),
    ),
}
"""Class, configuration, the formula of its pipelines, and the shapes of a sample and its latent."""

BY_CLASS = {name: kind for kind, (name, *_) in reversed(KINDS.items())}


def make(kind, **options):
    name, config, *_ = KINDS[kind]
    torch.manual_seed(0)
    made = DiffusersAutoencoder(name, config, **options)
    if name == "AutoencoderKLLTXVideo":  # whose statistics come with the weights
        made.network.latents_mean.copy_(torch.tensor(STATISTICS["latents_mean"]))
        made.network.latents_std.copy_(torch.tensor(STATISTICS["latents_std"]))
    return made


def sample_of(kind, num=2):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(num, *KINDS[kind][3], generator=generator) * 2 - 1


def own_code(network, sample):
    """The mean of the code by the network's own call."""
    found = network.encode(sample)
    for name in ("latent_dist", "latents", "latent"):
        if hasattr(found, name):
            code = getattr(found, name)
            return code.mean if name == "latent_dist" else code
    raise AssertionError(found)


def test_every_class_has_a_small_network_here():
    assert AUTOENCODERS.keys() == BY_CLASS.keys()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_latents_are_those_of_the_pipelines_and_decode_to_what_the_network_makes_of_its_code(kind):
    _, _, formula, shape, latent_shape = KINDS[kind]
    made, sample = make(kind), sample_of(kind)
    code = own_code(made.network, sample)
    expected, back = formula(made.network, code)
    latent = made.encode(sample)
    assert latent.shape[1:] == latent_shape == made.latent_shape(shape)
    torch.testing.assert_close(latent, expected, rtol=1e-6, atol=1e-6)

    if KINDS[kind][0] == "AutoencoderKLLTXVideo" and made.network.config.timestep_conditioning:
        expected = made.network.decode(back(latent), torch.zeros(2)).sample
    else:
        expected = made.network.decode(back(latent)).sample
    decoded = made.decode(latent)
    assert decoded.shape[1:] == shape == made.sample_shape(latent_shape)
    torch.testing.assert_close(decoded, expected.clamp(-1, 1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back(latent), code, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", BY_CLASS.values())
@torch.no_grad()
def test_a_generator_draws_from_the_posterior_where_there_is_one(kind):
    made, sample = make(kind), sample_of(kind)
    mean = made.encode(sample)
    drawn, again = (made.encode(sample, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(drawn, again)
    if KINDS[kind][0] in ("AutoencoderDC", "AutoencoderTiny"):
        assert torch.equal(drawn, mean)
        return
    posterior = made.network.encode(sample).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(5))
    expected, _ = KINDS[kind][2](made.network, posterior.mean + posterior.std * noise)
    torch.testing.assert_close(drawn, expected, rtol=1e-5, atol=1e-5)
    assert (drawn - mean).abs().max() > 0.01


@pytest.mark.parametrize("kind", BY_CLASS.values())
def test_a_mask_is_one_where_all_that_a_latent_stands_for_is(kind):
    made, shape = make(kind), KINDS[kind][3]
    mask = torch.ones(2, 1, *shape[1:])
    assert torch.equal(made.latent_mask(mask), torch.ones(2, 1, *KINDS[kind][4][1:]))
    mask[0].flatten()[-1] = 0
    found = made.latent_mask(mask)
    assert found[1].min() == 1 and found[0].flatten()[-1] == 0 and found[0].sum() == found[0].numel() - 1


@torch.no_grad()
def test_frames_of_a_mask_are_those_that_the_encoder_reads():
    made = make("Wan 2.1")
    mask = torch.ones(1, 1, 5, 16, 8)
    mask[:, :, 0] = 0
    assert made.latent_mask(mask)[0, 0, :, 0, 0].tolist() == [0, 1]


def saved(kind, folder, part="vae", dtype=torch.float32, **options):
    """A pipeline's folder with one small autoencoder, as diffusers saves it."""
    made = make(kind)
    copy.deepcopy(made.network).to(dtype).save_pretrained(folder / part, **options)
    write_index(folder, {part: ["diffusers", KINDS[kind][0]]})
    return made


def write_index(folder, parts):
    index = {"_class_name": "SomePipeline", "unet": ["diffusers", "UNet2DModel"], "safety_checker": [None, None]}
    (folder / "model_index.json").write_text(json.dumps({**index, **parts}))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_saved_autoencoder_is_restored_bit_for_bit_from_a_weight_file(kind, tmp_path):
    made, sample = saved(kind, tmp_path), sample_of(kind)
    component = read_autoencoder(tmp_path)
    assert component.state.keys() == {f"network.{name}" for name in made.network.state_dict()}
    file = tmp_path / "autoencoder.safetensors"
    weights.save(file, component.state, component.config, component.info)
    restored = restore(weights.read(file), "autoencoder", file)
    latent = made.encode(sample)
    assert torch.equal(restored.encode(sample), latent)
    assert torch.equal(restored.decode(latent), made.decode(latent))
    assert not restored.network.training and not restored.train().network.training
    assert not any(each.requires_grad for each in restored.parameters())


@torch.no_grad()
def test_weights_in_several_files_are_read(tmp_path):
    made, sample = saved("Stable Diffusion", tmp_path, max_shard_size="8KB"), sample_of("Stable Diffusion")
    assert len(list((tmp_path / "vae").glob("*.safetensors"))) > 1
    restored = restore(read_autoencoder(tmp_path), "autoencoder", tmp_path)
    assert torch.equal(restored.encode(sample), made.encode(sample))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float16_weights_become_float32_and_bfloat16_stays(tmp_path, capsys, dtype):
    saved("FLUX", tmp_path, dtype=dtype)
    component = read_autoencoder(tmp_path)
    narrow = dtype == torch.bfloat16
    assert {each.dtype for each in component.state.values()} == {dtype if narrow else torch.float32}
    assert ("float16 weights are used in float32" in capsys.readouterr().err) is not narrow


@pytest.mark.parametrize("kind", BY_CLASS.values())
@torch.no_grad()
def test_a_network_in_bfloat16_takes_and_gives_float32(kind):
    made, sample = make(kind), sample_of(kind)
    latent = made.encode(sample)
    decoded = made.decode(latent)
    made.to(torch.bfloat16)
    found, back = made.encode(sample), made.decode(latent)
    assert found.dtype == back.dtype == torch.float32
    assert (found - latent).norm() < 0.1 * latent.norm()
    assert (back - decoded).norm() < 0.2 * decoded.norm()


TILES = {  # attributes of the networks that say how large a tile is
    "Stable Diffusion": ({}, (3, 40, 24)),
    "DC": ({"min_height": 16, "min_width": 16, "stride_height": 12, "stride_width": 12}, (3, 40, 24)),
    "tiny": ({"tile_sample_min_size": 128, "tile_latent_min_size": 16}, (3, 136, 128)),
    "Oobleck": ({}, (2, 6000)),
    "Wan 2.1": ({"min_height": 32, "min_width": 32, "stride_height": 24, "stride_width": 24}, (3, 5, 56, 32)),
    "LTX": ({"min_height": 64, "min_width": 64, "stride_height": 32, "stride_width": 32}, (3, 9, 96, 64)),
    "CogVideoX": ({}, (3, 9, 80, 32)),
}


@pytest.mark.parametrize("kind", TILES)
@torch.no_grad()
def test_samples_larger_than_a_tile_are_coded_in_tiles(kind, monkeypatch):
    sizes, shape = TILES[kind]
    if kind == "CogVideoX":
        small = {**COGVIDEOX, "sample_height": 96, "sample_width": 96}
        monkeypatch.setitem(KINDS, kind, ("AutoencoderKLCogVideoX", small, *KINDS[kind][2:]))
    whole, tiled = make(kind), make(kind, tiled=True)
    for name, value in sizes.items():
        name = name if name.startswith("tile_") else f"tile_sample_{name}"
        assert hasattr(tiled.network, name)
        setattr(tiled.network, name, value)
    if kind == "DC":
        tiled.network.tile_latent_min_height = tiled.network.tile_latent_min_width = 4
    sample = torch.rand(1, *shape, generator=torch.Generator().manual_seed(2)) * 2 - 1
    expected, latent = whole.encode(sample), tiled.encode(sample)
    assert latent.shape[1:] == tiled.latent_shape(shape)
    assert not torch.equal(latent, expected)  # it was coded in tiles
    assert (latent - expected).norm() < 0.7 * expected.norm()
    assert tiled.decode(latent).shape[1:] == shape


def test_tiles_of_waveforms_lose_and_shift_nothing():
    made = make("Oobleck", tiled=True)
    network = made.network
    assert network.tile_sample_min_length % 8 == network.tile_sample_overlap % 8 == 0
    assert network.tile_sample_min_length > 2900 and network.tile_sample_overlap > 190
    sample = torch.rand(1, 2, 8800, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        expected, latent = make("Oobleck").encode(sample), made.encode(sample)
    torch.testing.assert_close(latent, expected, rtol=1e-3, atol=1e-3)


def test_tiles_that_a_network_does_not_have_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"autoencoder\.network\.tiled: AutoencoderTiny .* has no tiles for this"):
        DiffusersAutoencoder("AutoencoderTiny", {**TINY, "latent_channels": 16}, tiled=True)
    monkeypatch.delattr(diffusers.AutoencoderDC, "enable_tiling")
    monkeypatch.setattr(diffusers.models.autoencoders.vae.AutoencoderMixin, "enable_tiling", raise_not_implemented)
    with pytest.raises(ValueError, match="AutoencoderDC of the installed diffusers has no tiles"):
        make("DC", tiled=True)


def raise_not_implemented(self):
    raise NotImplementedError("none")


def test_fit_changes_nothing_and_says_where_latents_are_far_from_unit_variance(capsys):
    made = make("Stable Diffusion")
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    made.fit([sample_of("Stable Diffusion")])
    said = capsys.readouterr().err
    with torch.no_grad():
        std = made.encode(sample_of("Stable Diffusion")).std(correction=0).item()
    assert std < 0.5 and f"AutoencoderKL: its latents have a standard deviation of {std:.3g}" in said
    assert "samples fill [-1, 1]" in said and said.count("\n") == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
    factor = KL["scaling_factor"] / std
    DiffusersAutoencoder.fit(_scaled_by(made, factor), [sample_of("Stable Diffusion")])
    DiffusersAutoencoder.fit(made, [])
    assert capsys.readouterr().err == ""


def _scaled_by(made, factor):
    """The same network with another scaling factor."""
    config = {**KL, "scaling_factor": factor}
    again = DiffusersAutoencoder("AutoencoderKL", config)
    again.load_state_dict(made.state_dict())
    return again


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("Stable Diffusion", (3, 9, 12), r"pictures of 9×12 .* multiples of 2; set modality\.size"),
        (
            "Stable Diffusion",
            (1, 8, 8),
            r"takes samples \(batch, 3, height, width\), .* \(1, 1, 8, 8\): .*modality\.channels",
        ),
        ("Oobleck", (2, 20), r"waveforms of 20 samples .* multiple of its hop, 8; set modality\.multiple=8"),
        ("Wan 2.1", (3, 8, 16, 16), r"clips of 8 frames of 16×16 .* 1 \+ 4 × k frames \(5, 9\) .*modality\.num_frames"),
        ("CogVideoX", (3, 5, 16, 16), r"1 \+ 8 × k frames \(1, 9\)"),
        ("LTX", (3, 9, 33, 32), r"sides in multiples of 32; set modality\.num_frames and modality\.size"),
        ("LTX", (3, 32, 32), r"takes samples \(batch, 3, frames, height, width\)"),
    ],
)
def test_samples_that_cannot_be_encoded_are_refused_by_the_modalitys_keys(kind, shape, message):
    with pytest.raises(ValueError, match=message):
        make(kind).encode(torch.zeros(1, *shape))


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("Stable Diffusion", (8, 4, 4), r"takes latents \(batch, 4, height, width\), got .*: they are of another"),
        ("CogVideoX", (4, 2, 1, 1), r"latents of 2 frames cannot be decoded.* 1 \+ 2 × k .*num_frames to 1 \+ 8 × k"),
    ],
)
def test_latents_that_cannot_be_decoded_are_refused(kind, shape, message):
    with pytest.raises(ValueError, match=message):
        make(kind).decode(torch.zeros(1, *shape))


def test_shapes_of_another_number_of_axes_are_refused():
    with pytest.raises(
        ValueError, match="samples of size 8×8 cannot be encoded: AutoencoderKLWan needs frames, height"
    ):
        make("Wan 2.1").latent_shape((3, 8, 8))


def test_classes_and_configurations_that_are_not_known_are_refused():
    with pytest.raises(ValueError, match=r"one of AutoencoderDC, AutoencoderKL, .*AutoencoderTiny, got 'VQModel'"):
        DiffusersAutoencoder("VQModel", {})
    with pytest.raises(ValueError, match=r"autoencoder\.network\.config: AutoencoderKL of diffusers does not take it"):
        DiffusersAutoencoder("AutoencoderKL", {**KL, "down_block_types": ["NoBlock"] * 2})
    with pytest.raises(ValueError, match=r"latents_mean and latents_std must have 8 numbers, .* got 4"):
        DiffusersAutoencoder("AutoencoderKLWan", {**WAN, "z_dim": 8})


def test_a_configuration_that_asks_for_more_than_its_weights_is_not_built(tmp_path):
    saved("Stable Diffusion", tmp_path)
    component = read_autoencoder(tmp_path)
    large = {**component.config["config"], "block_out_channels": [4096, 8192]}
    with pytest.raises(ValueError, match=r"than its tensors can fill|more than any of its own tensors"):
        restore(replace(component, config={**component.config, "config": large}), "autoencoder", tmp_path)


def test_folders_whose_autoencoder_is_unknown_twofold_or_damaged_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no model_index\.json"):
        read_autoencoder(tmp_path)
    write_index(tmp_path, {"vqvae": ["diffusers", "VQModel"]})
    with pytest.raises(
        ValueError, match=r"vqvae is VQModel, an autoencoder that is not known; there are AutoencoderDC"
    ):
        read_autoencoder(tmp_path)
    write_index(tmp_path, {name: ["diffusers", "AutoencoderKL"] for name in ("vae", "audio_vae")})
    with pytest.raises(ValueError, match="vae and audio_vae are autoencoders, expected one"):
        read_autoencoder(tmp_path)
    saved("Stable Diffusion", tmp_path)
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = weights.safetensors.torch.load_file(file)
    del tensors["encoder.conv_in.weight"]
    weights.safetensors.torch.save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 tensors of AutoencoderKL are missing .*encoder\.conv_in\.weight"):
        read_autoencoder(tmp_path)
    (tmp_path / "vae" / "config.json").unlink()
    with pytest.raises(ValueError, match="holds no whole AutoencoderKL"):
        read_autoencoder(tmp_path)
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"has no \.safetensors file"):
        read_autoencoder(tmp_path)


def test_a_pipeline_without_an_autoencoder_works_on_samples_themselves(tmp_path):
    write_index(tmp_path, {"vae": [None, None]})
    component = read_autoencoder(tmp_path)
    file = tmp_path / "autoencoder.safetensors"
    weights.save(file, component.state, component.config, component.info)
    made = restore(weights.read(file), "autoencoder", file)
    assert type(made) is UnchangedSamples and made.state_dict() == {}
    made.fit(pytest.fail("samples were read") for _ in range(1))
    sample = torch.rand(2, 3, 4, 4) * 2 - 1
    assert torch.equal(made.encode(sample), sample) and torch.equal(made.decode(2 * sample), (2 * sample).clamp(-1, 1))
    assert made.latent_shape((3, 4, 4)) == made.sample_shape((3, 4, 4)) == (3, 4, 4)
    assert torch.equal(made.latent_mask(sample[:, :1]), sample[:, :1])
