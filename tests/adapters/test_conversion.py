"""Networks of diffusers as teachers: samples of their own schedulers and ours, tangents, folders, and refusals."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

from scm_media.adapters import ADAPTERS, change_of_variables, load_teacher
from scm_media.adapters.checking import ConversionCheck, check_conversion
from scm_media.tangent import value_and_tangent
from scm_media.teachers import EDM, EpsPrediction, RectifiedFlow, VPrediction
from tests.adapters.small import KINDS, conditioning, needs, network

diffusers = pytest.importorskip("diffusers")
EXPECTED = {
    "UNet2DModel": EpsPrediction,
    "UNet2DConditionModel": VPrediction,
    "DiTTransformer2DModel": EpsPrediction,
    "PixArtTransformer2DModel": EpsPrediction,
    "StableAudioDiTModel": VPrediction,
    "CogVideoXTransformer3DModel": VPrediction,
}


def test_every_adapter_has_a_small_network_here():
    assert ADAPTERS.keys() == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_samples_are_those_of_the_networks_own_scheduler_and_tangents_are_right(name):
    _, scheduler, shape = KINDS[name]
    teacher = change_of_variables(network(name), scheduler)
    assert type(teacher) is EXPECTED.get(name, RectifiedFlow)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = check_conversion(teacher, scheduler, shape, conditioning(needs(name)), steps=5)
    assert found.max_error < 1e-5 and found.tangent_error < 2e-2
    assert found.verdict() == [] or "dF/dt grows" in found.verdict()[0]


@pytest.mark.parametrize("name", KINDS)
def test_one_pass_agrees_with_two_to_six_digits_in_float32(name):
    _, scheduler, shape = KINDS[name]
    teacher, cond = change_of_variables(network(name), scheduler), conditioning(needs(name))
    generator = torch.Generator().manual_seed(3)
    u, du = torch.randn(2, 2, *shape, generator=generator)
    t, dt = torch.tensor([0.5, 1.1]), torch.ones(2)
    pair = value_and_tangent(teacher, u, t, cond, du, dt)
    other = value_and_tangent(teacher, u, t, cond, du, dt, "forward")
    assert torch.equal(pair.value, other.value)
    assert ((pair.tangent - other.tangent).norm() / other.tangent.norm()) < 1e-5


def saved(name, folder, scheduler=None, **changes):
    """A pipeline's folder with a small network, as diffusers saves it."""
    made, (_, own, _) = network(name), KINDS[name]
    component = "unet" if name.startswith("UNet") else "transformer"
    made.to(changes.pop("dtype", torch.float32)).save_pretrained(folder / component)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler or own))
    index = {"_class_name": "SomePipeline", component: ["diffusers", name], "vae": ["diffusers", "AutoencoderKL"]}
    (folder / "model_index.json").write_text(json.dumps({**index, **changes}))
    return made


def test_a_saved_pipeline_is_read_frozen(tmp_path):
    made = saved("SD3Transformer2DModel", tmp_path)
    teacher = load_teacher(tmp_path)
    cond, t = conditioning(("tokens", "pooled")), torch.tensor([0.4, 1.0])
    u = torch.randn(2, 4, 8, 8)
    expected = change_of_variables(made, KINDS["SD3Transformer2DModel"][1])(u, t, cond)
    torch.testing.assert_close(teacher(u, t, cond), expected)
    assert not any(each.requires_grad for each in teacher.parameters()) and not teacher.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_weights_keep_their_type_but_for_float16(tmp_path, capsys, dtype):
    saved("UNet2DModel", tmp_path, dtype=dtype)
    teacher = load_teacher(tmp_path)
    narrow = dtype == torch.bfloat16
    assert next(teacher.parameters()).dtype == (torch.bfloat16 if narrow else torch.float32)
    assert ("float16 weights are used in float32" in capsys.readouterr().err) is not narrow


@pytest.mark.parametrize(
    ("scheduler", "kind"),
    [
        ({"_class_name": "EDMEulerScheduler", "sigma_data": 0.7}, EDM),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction"}, EDM),
    ],
)
def test_schedulers_of_edm_are_the_raw_network(scheduler, kind):
    teacher = change_of_variables(network("UNet2DModel"), scheduler)
    found = check_conversion(teacher, scheduler, (3, 8, 8), steps=4)
    assert type(teacher) is kind and found.max_error < 1e-5
    assert teacher.sigma_data == scheduler.get("sigma_data", 0.5)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"_class_name": "KarrasVeScheduler"}, "the noise levels of the scheduler KarrasVeScheduler are not known"),
        (
            {"_class_name": "DDPMScheduler", "prediction_type": "x1"},
            "has the prediction_type 'x1'; expected one of epsilon",
        ),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, "expected one of epsilon, v_prediction"),
        ({"_class_name": "CosineDPMSolverMultistepScheduler"}, "expected one of v_prediction"),
    ],
)
def test_schedulers_that_are_not_known_are_refused(scheduler, message):
    with pytest.raises(ValueError, match=message):
        change_of_variables(network("UNet2DModel"), scheduler)


def test_folders_without_a_known_network_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no model_index\.json"):
        load_teacher(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet1DModel"]}))
    with pytest.raises(ValueError, match="none of UNet1DModel is a network that can be converted; there are CogVideoX"):
        load_teacher(tmp_path)
    two = {name: ["diffusers", "WanTransformer3DModel"] for name in ("transformer", "transformer_2")}
    (tmp_path / "model_index.json").write_text(json.dumps(two))
    with pytest.raises(ValueError, match="transformer and transformer_2 share the noise levels"):
        load_teacher(tmp_path)


def test_weights_of_pickle_are_refused(tmp_path):
    saved("UNet2DModel", tmp_path)
    for file in (tmp_path / "unet").glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"has no \.safetensors file"):
        load_teacher(tmp_path)


def test_conditioning_that_a_network_needs_is_asked_for():
    teacher = change_of_variables(network("SD3Transformer2DModel"), KINDS["SD3Transformer2DModel"][1])
    with pytest.raises(ValueError, match=r"needs tokens and pooled in its conditioning: .*tokens=…, pooled=…"):
        teacher(torch.randn(2, 4, 8, 8), torch.tensor([0.4, 1.0]))


def test_the_verdict_says_what_is_wrong_and_what_to_do():
    good = ConversionCheck(4, 1e-8, 1e-7, 1e-6, dict.fromkeys((0.02, 0.8, 1.55), 1.0))
    assert good.verdict() == []
    bad = ConversionCheck(4, 0.1, 0.3, 0.5, {0.02: 1.0, 0.8: 1.0, 1.55: 400.0})
    said = " ".join(bad.verdict())
    assert "samples differ from those of its own scheduler by 3.0e-01" in said
    assert "dF/dt differs from finite differences by 5.0e-01" in said
    assert "grows towards an end (400 times at t = 1.55 what it is at t = 0.8)" in said
