"""Weight files: round trips, refusals, and what is left when a save fails."""

from __future__ import annotations

import errno
import os

import pytest
import safetensors.torch
import torch
from torch import nn

from scm_media import weights
from scm_media.conditioning import Conditioning
from scm_media.nn.transformer import Transformer
from scm_media.nn.unet import UNet

CONFIG = {"_target_": "scm_media.nn.Something", "width": 3}


def test_round_trip_is_bit_equal_and_keeps_the_config(tmp_path):
    state = {"a": torch.randn(3, 4).T, "steps": torch.tensor(7), "half": torch.randn(2).half()}
    weights.save(tmp_path / "sub" / "w.safetensors", state, CONFIG, {"step": 5})
    component = weights.read(tmp_path / "sub" / "w.safetensors")
    assert component.config == CONFIG
    assert component.info == {"step": 5}
    assert all(torch.equal(component.state[name], tensor) for name, tensor in state.items())
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["w.safetensors"]


def test_tied_tensors_and_a_smaller_type_are_stored(tmp_path):
    tied = torch.randn(5)
    weights.save(tmp_path / "w.safetensors", {"a": tied, "b": tied, "n": torch.tensor(3)}, CONFIG, dtype=torch.float16)
    state = weights.read(tmp_path / "w.safetensors").state
    assert state["a"].dtype == torch.float16
    assert state["n"].dtype == torch.int64
    assert torch.equal(state["b"].float(), tied.half().float())


def test_a_value_too_large_for_the_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"big holds 1e\+06.*float16"):
        weights.save(tmp_path / "w.safetensors", {"big": torch.tensor([1e6])}, CONFIG, dtype=torch.float16)
    assert not (tmp_path / "w.safetensors").exists()


@pytest.mark.parametrize("length", [0, 4, 40, -3])
def test_a_truncated_file_is_refused(tmp_path, length):
    path = tmp_path / "w.safetensors"
    weights.save(path, {"a": torch.randn(30)}, CONFIG)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"w.safetensors is no whole safetensors file"):
        weights.read(path)


def test_foreign_files_are_refused(tmp_path):
    safetensors.torch.save_file({"theirs": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"no configuration in its header.*theirs"):
        weights.read(tmp_path / "w.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match=r"no whole safetensors file"):
        weights.read(tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match=r"there is no such weight file"):
        weights.read(tmp_path / "none.safetensors")


def test_load_into_lists_what_does_not_fit_and_changes_nothing():
    module = nn.Linear(2, 3)
    before = module.weight.clone()
    with pytest.raises(ValueError, match=r"file does not fit Linear \(missing: bias; unexpected: gain; wrong shape"):
        weights.load_into(module, {"weight": torch.zeros(4, 2), "gain": torch.zeros(1)}, source="file")
    assert torch.equal(module.weight, before)


def test_load_into_casts_to_the_module(tmp_path):
    module = nn.Linear(2, 3)
    weights.load_into(module, {"weight": torch.ones(3, 2).half(), "bias": torch.ones(3).half()})
    assert module.weight.dtype == torch.float32
    assert module.weight.sum() == 6


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_no_space_left_keeps_the_old_file(tmp_path, monkeypatch, failing):
    path = tmp_path / "w.safetensors"
    weights.save(path, {"a": torch.ones(3)}, CONFIG)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(weights.os, failing, full)
    with pytest.raises(OSError, match=r"w.safetensors was not written .No space left on device"):
        weights.save(path, {"a": torch.zeros(3)}, CONFIG)
    assert torch.equal(weights.read(path).state["a"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("name", ["transformer", "unet"])
def test_a_network_that_is_widened_gives_what_it_gave(name):
    """Zeros for what it takes besides, in plain layers and in those that keep magnitudes."""
    kinds = {
        "transformer": lambda told: Transformer(2, 2, 2, 16, 1, 2, num_cond_channels=told),
        "unet": lambda told: UNet(2, 2, 8, (1, 2), 1, (1,), 8, num_cond_channels=told),
    }
    narrow, wide = kinds[name](1).eval(), kinds[name](4).eval()
    state = {key: value + 0.1 * torch.randn_like(value) for key, value in narrow.state_dict().items()}
    weights.load_into(narrow, state)
    weights.load_into(wide, weights.widen(narrow.state_dict(), wide.state_dict()))
    u, t, aligned = torch.randn(2, 2, 4, 4), torch.tensor([0.3, 1.2]), torch.randn(2, 4, 4, 4)
    expected = narrow(u, t, Conditioning(concat=aligned[:, :1]))
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(wide(u, t, Conditioning(concat=aligned)), expected, rtol=1e-4, atol=1e-5)


STATE = {
    "weight": torch.arange(64, dtype=torch.float32),
    "half": torch.ones(3).bfloat16(),
    "step": torch.tensor(7),
    "empty": torch.zeros(0, 4),
    "mask": torch.tensor([True, False]),
}


def test_any_flipped_bit_of_the_tensors_is_noticed(tmp_path):
    path = tmp_path / "w.safetensors"
    weights.save(path, STATE, CONFIG, {"step": 5})
    assert weights.read(path).state["weight"].equal(STATE["weight"])
    whole = path.read_bytes()
    first = 8 + int.from_bytes(whole[:8], "little")
    assert len(whole) - first == sum(tensor.nbytes for tensor in STATE.values())
    for place in range(first, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"w\.safetensors is damaged: .* copy it again"):
            weights.read(path)
    assert weights.read_info(path) == {"step": 5}
    assert weights.read(path, check=False).config == CONFIG


@pytest.mark.parametrize(("old", "new"), [(b'step\\": 5', b'step\\": 4'), (b'"weight"', b'"weighs"')])
def test_a_changed_header_is_noticed(tmp_path, old, new):
    path = tmp_path / "w.safetensors"
    weights.save(path, STATE, CONFIG, {"step": 5})
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new))
    with pytest.raises(ValueError, match="is damaged"):
        weights.read(path)


def test_files_without_a_digest_are_read(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"a": torch.ones(2)}, path, {"config": "{}"})
    assert weights.read(path).state["a"].sum() == 2
