"""Autoencoders of other packages behind our contract; stand-ins of the same calls where the packages are not there."""

from __future__ import annotations

import importlib.util
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from modalities.audio.pretrained import OobleckAutoencoder, VocosMel
from scm_media.testing import check_autoencoder
from tests.modalities.audio.signals import noise, notes

INSTALLED = {name for name in ("diffusers", "vocos") if importlib.util.find_spec(name) is not None}
VOCOS = {"sample_rate": 22050, "window": 256, "hop": 64, "num_mels": 16, "width": 8, "hidden": 16, "depth": 1}
OOBLECK = {
    "sample_rate": 22050,
    "latent_channels": 3,
    "ratios": [2, 4],
    "multiples": [1, 2],
    "encoder_width": 6,
    "decoder_width": 4,
}


class Oobleck(nn.Module):
    """diffusers' AutoencoderOobleck by its calls: one strided layer each way."""

    def __init__(self, encoder_hidden_size, downsampling_ratios, channel_multiples, **keys):
        super().__init__()
        hop, latents = math.prod(downsampling_ratios), keys["decoder_input_channels"]
        assert encoder_hidden_size == 2 * latents
        self.encoder = nn.Conv1d(keys["audio_channels"], 2 * latents, hop, hop)
        self.decoder = nn.ConvTranspose1d(latents, keys["audio_channels"], hop, hop)

    def encode(self, x):
        mean, scale = self.encoder(x).chunk(2, 1)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=nn.functional.softplus(scale) + 1e-4))

    def decode(self, z):
        return SimpleNamespace(sample=self.decoder(z))


class Features(nn.Module):
    """vocos' MelSpectrogramFeatures by its calls: a frame more than hops where they are centred."""

    def __init__(self, sample_rate, n_fft, hop_length, n_mels, padding):
        super().__init__()
        self.n_fft, self.hop, self.num_mels, self.padding = n_fft, hop_length, n_mels, padding
        self.register_buffer("bands", torch.linspace(0, sample_rate / 2, n_mels))

    def forward(self, audio):
        pad = self.n_fft if self.padding == "center" else self.n_fft - self.hop
        audio = nn.functional.pad(audio[:, None], (pad // 2, pad // 2), mode="reflect")[:, 0]
        spectrum = torch.fft.rfft(audio.unfold(-1, self.n_fft, self.hop)).abs()[..., : self.num_mels]
        return spectrum.clamp(min=1e-7).log().transpose(1, 2)


class Layers(nn.Module):
    """vocos' VocosBackbone by its calls."""

    def __init__(self, input_channels, dim, intermediate_dim, num_layers):
        super().__init__()
        self.layer = nn.Linear(input_channels, dim)

    def forward(self, x):
        return self.layer(x.transpose(1, 2))


class Head(nn.Module):
    """vocos' ISTFTHead by its calls: a hop of samples from each frame but the last, where they are centred."""

    def __init__(self, dim, n_fft, hop_length, padding):
        super().__init__()
        self.out, self.padding = nn.Linear(dim, hop_length), padding

    def forward(self, x):
        x = self.out(x)
        return (x[:, :-1] if self.padding == "center" else x).flatten(1)


class Vocos(nn.Module):
    """vocos' Vocos by its parts."""

    def __init__(self, feature_extractor, backbone, head):
        super().__init__()
        self.feature_extractor, self.backbone, self.head = feature_extractor, backbone, head


@pytest.fixture(autouse=True)
def packages(monkeypatch):
    """The real packages where they are installed."""
    parts = {
        "diffusers": {"AutoencoderOobleck": Oobleck},
        "vocos": {"Vocos": Vocos},
        "vocos.feature_extractors": {"MelSpectrogramFeatures": Features},
        "vocos.models": {"VocosBackbone": Layers},
        "vocos.heads": {"ISTFTHead": Head},
    }
    for name, members in parts.items():
        if name.partition(".")[0] not in INSTALLED:
            module = ModuleType(name)
            vars(module).update(members)
            monkeypatch.setitem(sys.modules, name, module)


def fitted(kind, keys, tmp_path, samples):
    """An adapter of a network of random weights, which are in a file."""
    made = kind(channels=samples.shape[1], **keys)
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    file = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in made.network.state_dict().items()}, file)
    made = kind(weights=str(file), channels=samples.shape[1], **keys)
    made.fit(samples.split(50))
    return made


@pytest.fixture(params=["center", "same", "oobleck"])
def kind_and_keys(request):
    if request.param == "oobleck":
        return OobleckAutoencoder, OOBLECK
    return VocosMel, {**VOCOS, "padding": request.param}


def test_the_contract_is_kept(kind_and_keys, tmp_path):
    samples = notes(num=200, length=512)
    made = fitted(*kind_and_keys, tmp_path, samples)
    assert not any(parameter.requires_grad for parameter in made.parameters())
    if kind_and_keys[0] is OobleckAutoencoder:
        # Random weights draw from a posterior as wide as they please.
        latent = made.encode(samples)
        assert torch.allclose(latent.transpose(0, 1).flatten(1).std(1), torch.full((3,), 0.5), rtol=1e-3)
        assert made.sample_shape(made.latent_shape((1, 512))) == (1, 512)
        assert latent.shape[1:] == made.latent_shape((1, 512)) == (3, 1, 64)
    else:
        check_autoencoder(made, samples, tolerance=2.0)
        assert made.latent_shape((1, 512)) == (1, 16, 8)


def test_stereo_masks_and_a_clip_in_a_batch(kind_and_keys, tmp_path):
    samples = torch.cat([noise(length=512), notes(length=512)], 1)
    made = fitted(*kind_and_keys, tmp_path, samples)
    latent = made.encode(samples)
    assert tuple(latent.shape[1:]) == made.latent_shape((2, 512))
    assert torch.allclose(made.encode(samples[3:4]), latent[3:4], atol=1e-5)
    assert made.decode(latent).shape == samples.shape
    mask = torch.zeros(1, 1, 512)
    mask[..., :130] = 1
    assert made.latent_mask(mask)[0, 0, -1].sum() == 130 // made.hop
    with pytest.raises(ValueError, match=rf"modality.multiple={made.hop}"):
        made.encode(samples[..., :-1])


def test_once_fitted_the_weights_file_is_not_needed(kind_and_keys, tmp_path):
    samples = notes(num=50, length=512)
    made = fitted(*kind_and_keys, tmp_path, samples)
    (tmp_path / "weights.safetensors").unlink()
    kind, keys = kind_and_keys
    again = kind(weights="elsewhere.safetensors", **{"channels": 1, **keys})
    with pytest.raises(ValueError, match="never fitted"):
        again.encode(samples)
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.train().encode(samples), made.encode(samples))


def test_a_draw_from_oobleck_follows_its_generator(tmp_path):
    samples = notes(num=50, length=512)
    made = fitted(OobleckAutoencoder, OOBLECK, tmp_path, samples)
    one, other = (made.encode(samples, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.allclose(one, made.encode(samples))


def test_weights_that_cannot_be_read_are_named(tmp_path):
    samples = notes(num=8, length=512)
    fitted(OobleckAutoencoder, OOBLECK, tmp_path, samples)
    (tmp_path / "model.bin").write_bytes(b"\x80")
    (tmp_path / "broken.safetensors").write_bytes(b"no such thing")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    cases = {
        None: "weights must name the safetensors file",
        "missing.safetensors": "is not a file",
        "model.bin": "pickles are not read",
        "broken.safetensors": "does not fit",
        "other.safetensors": r"tensors are missing .* 1 are unexpected \(other\)",
    }
    for name, expected in cases.items():
        made = OobleckAutoencoder(weights=None if name is None else str(tmp_path / name), channels=1, **OOBLECK)
        with pytest.raises(ValueError, match=expected):
            made.fit([samples])
    wider = OobleckAutoencoder(str(tmp_path / "weights.safetensors"), channels=2, **OOBLECK)
    with pytest.raises(ValueError, match="does not fit the network that the other keys describe"):
        wider.fit([samples])


def test_a_vocoder_of_another_rate_is_refused(tmp_path):
    samples = notes(num=8, length=512)
    fitted(VocosMel, VOCOS, tmp_path, samples)
    other = VocosMel(str(tmp_path / "weights.safetensors"), **{**VOCOS, "sample_rate": 16000})
    with pytest.raises(
        ValueError, match=r"another than sample_rate, window and num_mels give; set modality.sample_rate"
    ):
        other.fit([samples])


@pytest.mark.parametrize(
    ("kind", "package", "line"),
    [
        (VocosMel, "vocos", "pip install vocos"),
        (OobleckAutoencoder, "diffusers", r"pip install 'scm-media\[diffusers\]'"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(kind, package, line, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"{kind.__name__} needs the package {package} .*{line}"):
        kind()
