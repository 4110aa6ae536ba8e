"""LoRA students: one copy of the weights, tangents, training, files that load again and in diffusers, and refusals."""

from __future__ import annotations

import json
import sys
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from scm_media import weights
from scm_media.adapters import LoRA, LoRAStudent, change_of_variables, load_lora, merge, save_lora
from scm_media.distribution_matching import DistributionMatchingLoss
from scm_media.ema import PowerEMA
from scm_media.losses import ConsistencyLoss, RegressionLoss
from scm_media.tangent import value_and_tangent
from scm_media.trajectories import Trajectory
from tests.adapters.small import KINDS, conditioning, needs, network

diffusers = pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")
FOUR = ("UNet2DModel", "SD3Transformer2DModel", "StableAudioDiTModel", "WanTransformer3DModel")
IN_DIFFUSERS = ("UNet2DConditionModel", "SD3Transformer2DModel", "WanTransformer3DModel")
SD3 = "SD3Transformer2DModel"
TIMES = torch.tensor([0.5, 1.1])


def base(name=SD3, dtype=None):
    return change_of_variables(network(name).to(dtype or torch.float32), KINDS[name][1])


def student_of(name=SD3, dtype=None, trained=True, **settings):
    """A student, with changes as large as training makes them unless it is fresh."""
    torch.manual_seed(1)
    student = LoRAStudent(base(name, dtype), LoRA(**{"rank": 2, **settings}))
    if trained:
        for parameter in student.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return student


def inputs(name=SD3):
    u = torch.randn(2, *KINDS[name][2], generator=torch.Generator().manual_seed(3))
    return u, TIMES, conditioning(needs(name))


def bytes_of(*roots):
    """The sizes by address of the memory of all tensors that objects reach by attributes, containers and modules."""
    found, seen, waiting = {}, set(), list(roots)
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, torch.Tensor):
            found[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
        elif isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, (list, tuple, set, frozenset)):
            waiting.extend(each)
        elif hasattr(each, "__dict__") and not isinstance(each, type) and not callable(getattr(each, "__get__", None)):
            waiting.extend(vars(each).values())
    return sum(found.values())


@pytest.mark.parametrize("name", KINDS)
def test_a_new_student_is_the_teacher_and_all_that_it_trains_gets_gradients(name):
    student = student_of(name, trained=False)
    u, t, cond = inputs(name)
    expected = base(name)(u, t, cond)
    assert torch.equal(student(u, t, cond), expected) and torch.equal(student.teacher(u, t, cond), expected)
    for parameter in student.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    assert not torch.allclose(student(u, t, cond), expected, rtol=1e-3)
    assert torch.equal(student.teacher(u, t, cond), expected)
    student(u, t, cond).square().mean().backward()
    own = dict(student.named_parameters())
    assert all(each.grad is not None for each in own.values())
    without = {key.rsplit(".", 2)[0] for key, each in own.items() if not each.grad.abs().max() > 0}
    assert without == ({"low_rank.transformer_blocks.1.attn.add_q_proj"} if name == SD3 else set())  # not used by SD3
    others = [each for each in student.base.parameters() if id(each) not in set(map(id, own.values()))]
    assert others and not any(each.requires_grad or each.grad is not None for each in others)
    layers = [key.removeprefix("low_rank.").removesuffix(".lora_A.weight") for key in own if "lora_A" in key]
    assert not any(part.startswith(("norm", "time")) for layer in layers for part in layer.split("."))
    assert len(layers) * 2 == len(own) and set(layers) == set(student.lora.targets)


@pytest.mark.parametrize("name", FOUR)
def test_one_pass_agrees_with_two_in_student_and_teacher(name):
    student = student_of(name, full=("attn1",) if name == "WanTransformer3DModel" else ())
    u, t, cond = inputs(name)
    du, dt = torch.randn(u.shape, generator=torch.Generator().manual_seed(5)), torch.ones(2)
    tangents = []
    for backbone in (student, student.teacher):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a function without a rule warns
            pair = value_and_tangent(backbone, u, t, cond, du, dt)
        other = value_and_tangent(backbone, u, t, cond, du, dt, "forward")
        assert torch.equal(pair.value, other.value) and torch.equal(pair.value, backbone(u, t, cond))
        error = (pair.tangent - other.tangent).norm() / other.tangent.norm()
        assert error < (2e-6 if name == "UNet2DModel" else 1e-6)
        tangents.append(pair.tangent)
    assert not torch.allclose(*tangents, rtol=1e-2)


@pytest.mark.parametrize("name", [FOUR[0], *(pytest.param(name, marks=pytest.mark.slow) for name in FOUR[1:])])
def test_twenty_steps_of_distillation_move_the_student_alone(name):
    student = student_of(name, trained=False)
    u, t, cond = inputs(name)
    before, weights_before = student.teacher(u, t, cond), {k: v.clone() for k, v in student.base_state().items()}
    loss = ConsistencyLoss(student, teacher=student.teacher, tangent_warmup=10)
    loss.train()
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    assert sum(each.numel() for group in optimizer.param_groups for each in group["params"]) == sum(
        each.numel() for each in student.parameters()
    )
    for step in range(20):
        optimizer.zero_grad()
        loss(0.5 * u, cond, step=step)[0].backward()
        optimizer.step()
    change = (student(u, t, cond) - before).norm() / before.norm()
    assert torch.isfinite(change) and change > 1e-2
    assert torch.equal(student.teacher(u, t, cond), before)
    after = student.base_state()
    assert after.keys() == weights_before.keys() and all(torch.equal(after[k], v) for k, v in weights_before.items())


@pytest.mark.parametrize("full", [(), ("time_text_embed",)])
def test_a_student_learns_a_target_that_the_teacher_misses(full):
    student = student_of(trained=False, full=full)
    u, t, cond = inputs()
    other = student_of()
    other.strength = 8.0
    target = other(u, t, cond).detach()
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    errors = []
    for _ in range(20):
        error = (student(u, t, cond) - target).square().mean()
        errors.append(error.item())
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert errors[-1] < 0.6 * errors[0]


@pytest.mark.parametrize("full", [(), ("time_text_embed",)])
def test_student_and_teacher_share_one_copy_of_the_base(full):
    made = base()
    alone = bytes_of(made)
    student = LoRAStudent(made, LoRA(rank=2, full=full))
    trained = sum(each.nbytes for each in student.parameters())
    assert bytes_of(student, student.teacher) == alone + trained
    assert student.teacher is student.teacher and not list(student.teacher.parameters())
    assert student.teacher.eval().requires_grad_(False) and all(each.requires_grad for each in student.parameters())


def test_the_teachers_features_are_those_of_the_shared_network():
    student = student_of("UNet2DModel")
    loss = RegressionLoss(student, teacher=student.teacher, feature_weight=1.0)
    u, t, cond = inputs("UNet2DModel")
    value, terms = loss(Trajectory(u, t, 0.3 * u), cond)
    value.backward()
    assert terms["features"].min() > 0
    assert all(each.grad is not None for each in student.low_rank.parameters())
    assert all(each.grad is None for each in student.network.parameters() if not each.requires_grad)


def test_the_teacher_switches_back_after_an_error():
    student = student_of(full=("time_text_embed",))
    u, t, cond = inputs()
    expected = student(u, t, cond)
    with pytest.raises(ValueError, match="needs tokens"):
        student.teacher(u, t)
    assert torch.equal(student(u, t, cond), expected)


def test_what_moves_and_averages_the_student_sees_what_is_trained_and_takes_the_base_along():
    student = student_of(full=("norm_out.linear",))
    assert student.state_dict().keys() == dict(student.named_parameters()).keys()
    ema = PowerEMA(student)
    u, t, cond = inputs()
    before = student(u, t, cond)
    saved = {name: value.clone() for name, value in student.state_dict().items()}
    for parameter in student.parameters():
        parameter.data.zero_()
    with ema.in_place():
        assert torch.equal(student(u, t, cond), before)
    student.load_state_dict(saved)
    assert torch.equal(student(u, t, cond), before)
    student.double()
    assert {each.dtype for each in student.base.parameters()} == {torch.float64}
    wide = student(u.double(), t.double(), cond._map(lambda each: each.double()))
    torch.testing.assert_close(wide.float(), before, rtol=1e-4, atol=1e-5)
    ConsistencyLoss(student, teacher=student.teacher).float()
    torch.testing.assert_close(student(u, t, cond), before)


def test_a_base_in_16_bits_trains_matrices_in_32():
    student = student_of(dtype=torch.bfloat16, full=("time_text_embed",))
    assert {each.dtype for each in student.parameters()} == {torch.float32}
    assert {each.dtype for each in student.base_state().values()} == {torch.bfloat16}
    u, t, cond = inputs()
    fresh = student_of(dtype=torch.bfloat16, full=("time_text_embed",), trained=False)
    narrow = cond._map(lambda each: each.bfloat16())
    assert torch.equal(fresh(u, t, narrow), base(dtype=torch.bfloat16)(u, t, narrow))
    value, _ = ConsistencyLoss(student, teacher=student.teacher, tangent_warmup=0)(u, narrow)
    value.backward()
    assert student(u, t, narrow).dtype == torch.float32
    assert {each.grad.dtype for each in student.parameters()} == {torch.float32}
    near = student_of(full=("time_text_embed",))(u, t, cond)
    assert ((student(u, t, narrow) - near).norm() / near.norm()) < 0.05
    with pytest.raises(ValueError, match="finite differences of LoRAStudent need weights in float32"):
        value_and_tangent(student, u, t, narrow, u, torch.ones(2), "finite_difference")


@pytest.mark.parametrize("name", FOUR)
def test_a_saved_student_is_read_again_bit_for_bit(name, tmp_path, capsys):
    student = student_of(name, alpha=3.0)
    save_lora(tmp_path / "lora.safetensors", student, {"steps": 20})
    read = load_lora(tmp_path / "lora.safetensors", base(name))
    assert read.lora == student.lora and read.lora.rank == 2 and read.lora.alpha == 3.0
    assert all(torch.equal(read.state_dict()[key], value) for key, value in student.state_dict().items())
    u, t, cond = inputs(name)
    assert torch.equal(read(u, t, cond), student(u, t, cond))
    assert capsys.readouterr().err == "" and weights.read_info(tmp_path / "lora.safetensors") == {"steps": 20}


@pytest.mark.parametrize("full", [(), ("time_text_embed", "norm_out.linear")])
def test_strength_leads_from_the_teacher_to_the_student(full, tmp_path):
    student = student_of(full=full)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        save_lora(tmp_path / "lora.safetensors", student)
    assert [str(each.message) for each in said if "were trained whole" in str(each.message)] if full else not said
    u, t, cond = inputs()
    results = [load_lora(tmp_path / "lora.safetensors", base(), each)(u, t, cond) for each in (0, 0.5, 1)]
    teacher, trained = student.teacher(u, t, cond), student(u, t, cond)
    assert torch.equal(results[0], teacher) and torch.equal(results[2], trained)
    gap = (trained - teacher).norm()
    assert (results[1] - teacher).norm() > 0.2 * gap and (results[1] - trained).norm() > 0.2 * gap
    half = load_lora(tmp_path / "lora.safetensors", base(), 0.5)
    name = "time_text_embed.timestep_embedder.linear_1.bias"
    ends = student.base_state()[name], merge(student)[name]
    torch.testing.assert_close(merge(half)[name], (ends[0] + ends[1]) / 2)


@pytest.mark.parametrize("name", KINDS)
def test_merged_weights_are_the_students_and_leave_it_as_it_was(name, tmp_path):
    student = student_of(name, alpha=5.0)
    u, t, cond = inputs(name)
    expected = student(u, t, cond)
    made = base(name)
    state = merge(student)
    assert list(state) == list(made.network.state_dict())
    made.network.load_state_dict(state)
    torch.testing.assert_close(made(u, t, cond), expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())
    assert torch.equal(student(u, t, cond), expected)


@pytest.mark.parametrize("name", IN_DIFFUSERS)
@pytest.mark.parametrize("dictionary", [False, True])
def test_diffusers_alone_reads_the_file(name, dictionary, tmp_path):
    student = student_of(name, alpha=None if dictionary else 3.0)
    save_lora(tmp_path / "lora.safetensors", student)
    prefix = "unet" if name.startswith("UNet") else "transformer"
    alone = base(name)
    source = load_file(tmp_path / "lora.safetensors") if dictionary else tmp_path
    alone.network.load_lora_adapter(
        source, prefix=prefix, **({} if dictionary else {"weight_name": "lora.safetensors", "use_safetensors": True})
    )
    u, t, cond = inputs(name)
    torch.testing.assert_close(alone(u, t, cond), student(u, t, cond), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("full", [(), ("time_text_embed",)])
def test_pipelines_of_diffusers_read_the_file(full, tmp_path):
    student = student_of(alpha=3.0, full=full)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_lora(tmp_path / "lora.safetensors", student)
    pipeline, alone = diffusers.StableDiffusion3Pipeline, base()
    state, metadata = pipeline.lora_state_dict(
        tmp_path, weight_name="lora.safetensors", use_safetensors=True, return_lora_metadata=True
    )
    pipeline.load_lora_into_transformer(state, transformer=alone.network, metadata=metadata)
    for trained in student.whole.values():
        trained.strength = 0.0  # diffusers leaves these out
    u, t, cond = inputs()
    torch.testing.assert_close(alone(u, t, cond), student(u, t, cond), rtol=1e-6, atol=1e-6)


def test_the_averages_are_saved_in_place_of_the_weights(tmp_path):
    student = student_of()
    averages = {name: 0.5 * value for name, value in student.state_dict().items()}
    save_lora(tmp_path / "lora.safetensors", student, state=averages)
    read = load_lora(tmp_path / "lora.safetensors", base())
    assert all(torch.equal(read.state_dict()[name], value) for name, value in averages.items())
    with pytest.raises(ValueError, match=r"does not fit the LoRA student \(missing: low_rank"):
        save_lora(tmp_path / "lora.safetensors", student, state={})


def test_another_checkpoint_of_the_class_is_remarked_and_another_dtype_is_not(tmp_path, capsys):
    path = tmp_path / "lora.safetensors"
    save_lora(path, student_of())
    load_lora(path, base(dtype=torch.bfloat16))
    assert capsys.readouterr().err == ""
    other = base()
    other.network.proj_out.bias.data += 1
    student = load_lora(path, other)
    assert capsys.readouterr().err == f"{path}: the base's values differ from what it was trained on\n"
    u, t, cond = inputs()
    assert not torch.equal(student(u, t, cond), student_of()(u, t, cond))


def test_a_lora_that_does_not_fit_is_refused_by_name_and_leaves_the_base_alone(tmp_path):
    path = tmp_path / "lora.safetensors"
    student = student_of(targets=("to_q",))
    save_lora(path, student)
    with pytest.raises(ValueError, match="is a LoRA of SD3Transformer2DModel, and the base is WanTransformer3DModel"):
        load_lora(path, base("WanTransformer3DModel"))
    content = weights.read(path)
    first = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"

    def refused(match, state=None, lora=None):
        settings = {**content.config, "lora": {**content.config["lora"], **(lora or {})}}
        weights.save(path, content.state if state is None else state, settings)
        made = base()
        with pytest.raises(ValueError, match=match):
            load_lora(path, made)
        assert made.network.state_dict().keys() == network(SD3).state_dict().keys()

    refused(
        r"wrong shape: transformer\.transformer_blocks\.0\.attn\.to_q\.lora_A\.weight \(2, 32\), .*", lora={"rank": 4}
    )
    refused(
        r"does not fit this SD3Transformer2DModel \(unexpected: transformer\.nowhere\.lora_A\.weight\)",
        {**content.state, "transformer.nowhere.lora_A.weight": torch.ones(2, 2)},
    )
    fewer = {name: value for name, value in content.state.items() if name != first}
    refused(rf"\(missing: {first}\)".replace(".", r"\."), fewer)
    refused("lora.rank must be at least 1, got 0", lora={"rank": 0})
    refused("unknown key 'lora.dropout'", lora={"dropout": 0.1})
    weights.save(path, content.state, {"some": "network"})
    with pytest.raises(ValueError, match="holds no LoRA"):
        load_lora(path, base())


def test_names_that_fit_no_module_are_refused():
    with pytest.raises(
        ValueError, match=r"lora\.targets: SD3Transformer2DModel has no linear layer.* 'to_z'; there are"
    ):
        student_of(targets=("to_q", "to_z"))
    with pytest.raises(ValueError, match=r"lora\.full: SD3Transformer2DModel has no module with weights 'time_embed'"):
        student_of(full=("time_embed",))
    with pytest.raises(ValueError, match=r"lora\.targets choose no layer"):
        student_of(targets=())
    with pytest.raises(ValueError, match=r"lora\.rank must be at least 1, got 0"):
        LoRA(rank=0)
    with pytest.raises(ValueError, match="strength must be a finite number"):
        student_of().strength = float("nan")
    student = student_of()
    with pytest.raises(ValueError, match="this SD3Transformer2DModel has a LoRA already"):
        LoRAStudent(student.base)


def test_a_name_is_that_of_one_module_or_the_end_of_several():
    assert student_of(targets=("proj_out",)).lora.targets == ("proj_out",)
    several = student_of(targets=("linear_1", "attn.to_q"), full=("text_embedder",)).lora
    assert several.targets == (
        "time_text_embed.timestep_embedder.linear_1",
        "transformer_blocks.0.attn.to_q",
        "transformer_blocks.1.attn.to_q",
    )
    assert several.full == ("time_text_embed.text_embedder",)


def test_a_missing_peft_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"need peft: pip install 'scm-media\[lora\]'"):
        LoRAStudent(base())


def test_the_header_is_what_diffusers_writes(tmp_path):
    student = student_of(alpha=3.0)
    save_lora(tmp_path / "lora.safetensors", student)
    with safe_open(tmp_path / "lora.safetensors", "pt") as file:
        header = json.loads(file.metadata()["lora_adapter_metadata"])
        assert all(key.startswith("transformer.transformer_blocks.") for key in file.keys())  # noqa: SIM118
    config = peft.LoraConfig(**{key.removeprefix("transformer."): value for key, value in header.items()})
    assert (config.r, config.lora_alpha) == (2, 3.0) and config.target_modules == set(student.lora.targets)


@pytest.mark.parametrize("full", [[], ["time_text_embed"]])
def test_a_twin_is_trained_beside_the_student_over_the_same_base(full):
    student = student_of(full=full)
    u, t, cond = inputs()
    expected, of_teacher = student(u, t, cond), student.teacher(u, t, cond)
    alone = bytes_of(student, student.teacher)
    twin = student.twin()
    assert torch.equal(twin(u, t, cond), of_teacher) and torch.equal(student(u, t, cond), expected)
    own = sum(each.numel() * each.element_size() for each in twin.parameters())
    assert bytes_of(student, student.teacher, twin) == alone + own
    assert twin.state_dict().keys() == student.state_dict().keys()
    shared = {id(each) for each in student.parameters()} & {id(each) for each in twin.parameters()}
    assert not shared and all(each.requires_grad for each in (*student.parameters(), *twin.parameters()))
    (twin(u, t, cond).square().mean() + 0 * student(u, t, cond).mean()).backward()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter -= parameter.grad + 0.01
    assert not torch.allclose(twin(u, t, cond), of_teacher)
    assert torch.equal(student(u, t, cond), expected) and torch.equal(student.teacher(u, t, cond), of_teacher)
    torch.testing.assert_close(merge(student)["proj_out.weight"], student.base_state()["proj_out.weight"])
    with pytest.raises(ValueError, match="two LoRAs already"):
        student.twin()


def test_distribution_matching_trains_a_twin_and_not_a_copy_of_the_base():
    student = student_of()
    before = bytes_of(student, student.teacher)
    loss = DistributionMatchingLoss(student, teacher=student.teacher)
    trained = sum(each.numel() * each.element_size() for each in student.parameters())
    assert bytes_of(loss, student, student.teacher) < before + 1.1 * trained
    names = {name.partition(".")[0] for name in loss.state_dict()}
    assert names == {"backbone", "auxiliary"}
