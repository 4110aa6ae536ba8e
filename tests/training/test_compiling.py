"""A compiled backbone is believed only when its value and tangent are those of the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

from scm_media.conditioning import Conditioning
from scm_media.nn.dual import DualTensor
from scm_media.nn.transformer import Transformer
from scm_media.tangent import value_and_tangent
from scm_media.training import compiling
from scm_media.training.compiling import compile_backbone

LATENT, LABELS = (1, 8, 8), {"class": 3, "pitch": 0}


@pytest.fixture
def backbone() -> Transformer:
    return Transformer(1, rank=2, patch=4, width=16, depth=1, num_heads=2, labels=LABELS)


@pytest.fixture
def compiled(monkeypatch) -> list[nn.Module]:
    """The modules that were compiled; nothing is."""
    modules: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, *args, **kwargs: modules.append(self))
    return modules


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("method", ["one_pass", "forward"])
def test_a_right_network_is_compiled_in_place_and_unchanged(backbone, compiled, precision, method):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    compile_backbone(backbone, LATENT, LABELS, precision, method)
    assert compiled[-1] is backbone
    assert compiled[0] is not backbone
    assert backbone.training
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("method", ["one_pass", None])
def test_a_network_with_concatenated_conditioning_is_checked_with_it(compiled, method):
    backbone = Transformer(1, rank=2, patch=4, width=16, depth=1, num_heads=2, labels=LABELS, num_cond_channels=2)
    seen = []
    original = Transformer.forward

    def watching(self, u, t, cond):
        seen.append(cond.concat)
        return original(self, u, t, cond)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transformer, "forward", watching)
        compile_backbone(backbone, LATENT, LABELS, "32-true", method, num_cond_channels=2)
    assert len(seen) >= 2
    assert all(aligned.shape == (4, 2, 8, 8) and aligned.abs().max() > 0 for aligned in seen)


@pytest.mark.parametrize("what", ["value", "tangent"])
def test_a_network_that_compiles_wrongly_is_refused(backbone, compiled, monkeypatch, what):
    def wrong(net, *args, **kwargs):
        pair = value_and_tangent(net, *args, **kwargs)
        if next(net.parameters()).dtype == torch.float64:
            return pair
        changed = {"value": pair.value, "tangent": pair.tangent}
        changed[what] = 1.01 * changed[what]
        return DualTensor(**changed)

    monkeypatch.setattr(compiling, "value_and_tangent", wrong)
    with pytest.raises(ValueError, match=rf"compiled {what} differs .* by 0\.01 .*set trainer\.compile=false"):
        compile_backbone(backbone, LATENT, LABELS, "32-true")
    assert all(module is not backbone for module in compiled)


def test_a_lost_tangent_is_refused(backbone, compiled, monkeypatch):
    def lost(net, *args, **kwargs):
        pair = value_and_tangent(net, *args, **kwargs)
        wide = next(net.parameters()).dtype == torch.float64
        return pair if wide else DualTensor(pair.value, torch.zeros_like(pair.tangent))

    monkeypatch.setattr(compiling, "value_and_tangent", lost)
    with pytest.raises(ValueError, match="compiled tangent differs"):
        compile_backbone(backbone, LATENT, LABELS, "bf16-mixed")


def test_of_a_frozen_network_the_value_alone_is_checked(backbone, compiled, monkeypatch):
    monkeypatch.setattr(compiling, "value_and_tangent", None)
    compile_backbone(backbone, LATENT, LABELS, "bf16-mixed", None)
    assert compiled[-1] is backbone

    def wrongly(self, *args, **kwargs):
        self.register_forward_hook(lambda module, inputs, output: 1.01 * output)

    monkeypatch.setattr(nn.Module, "compile", wrongly)
    with pytest.raises(ValueError, match=r"compiled value differs .* by 0\.01 .*set trainer\.compile=false"):
        compile_backbone(backbone, LATENT, LABELS, "32-true", None)


@pytest.mark.parametrize("error", [InvalidCxxCompiler(), CppCompileError(["g++"], "a page"), BackendCompilerFailed])
def test_without_a_working_compiler_the_switch_is_named(backbone, compiled, monkeypatch, error):
    if error is BackendCompilerFailed:
        error = BackendCompilerFailed(lambda: None, InvalidCxxCompiler(), None)

    def fails(net, *args, **kwargs):
        raise error

    monkeypatch.setattr(compiling, "value_and_tangent", fails)
    with pytest.raises(
        ValueError, match=r"cannot be compiled here \(.*\): set trainer\.compile=false, or install"
    ) as said:
        compile_backbone(backbone, LATENT, LABELS, "32-true")
    assert "\n" not in str(said.value)


@pytest.mark.slow
def test_a_missing_compiler_is_one_line(backbone):
    from torch._inductor import config

    torch._dynamo.reset()
    with (
        config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}),
        pytest.raises(ValueError, match=r"cannot be compiled here \(.*\): set trainer\.compile=false"),
    ):
        compile_backbone(backbone, LATENT, LABELS, "32-true", None)


@pytest.mark.slow
def test_a_compiled_backbone_gives_the_same_value_and_tangent(backbone):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    u, du = torch.randn(2, 4, *LATENT, generator=generator)
    t, dt = torch.linspace(0.2, 1.4, 4), torch.ones(4)
    cond = Conditioning(labels={"class": torch.tensor([0, 1, 2, -1]), "pitch": torch.rand(4, generator=generator)})
    expected = value_and_tangent(backbone, u, t, cond, du, dt)
    compile_backbone(backbone, LATENT, LABELS, "32-true")
    assert backbone._compiled_call_impl is not None
    got = value_and_tangent(backbone, u, t, cond, du, dt)
    torch.testing.assert_close(got.value, expected.value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.tangent, expected.tangent, rtol=1e-4, atol=1e-5)
