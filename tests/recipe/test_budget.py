"""Plans for a number of hours at made-up speeds: they fit, grow with the hours, and become recipes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from scm_media import recipe
from scm_media.evaluation.machine import Machine
from scm_media.recipe.budget import ENOUGH, LEAST, MARGIN, PASSES, Facts, Network, hours_for, make_plan
from scm_media.recipe.budget_text import count_variants, expectation, networks, overrides, sections
from scm_media.training.fingerprint import stage_settings

FACTS = Facts(num_files=2000, num_held_out=40, has_classes=True, trains_autoencoder=False, most_student=25_600)
HOURS = (0.1, 0.3, 1.0, 2.0, 5.0, 24.0)


def machine(num_processes: int = 2, scale: float = 1.0, **other: float) -> Machine:
    """Returns a machine whose four networks, and the coarser four, take 3, 8, 12, 35 ms, and a quarter of that."""
    steps = [scale * each * factor for factor in (1.0, 0.25) for each in (0.003, 0.008, 0.012, 0.035)]
    seconds = {"diffusion": steps[0], "evaluation": steps[0] / 3, "regression": steps[0], "student": 3.6 * steps[0]}
    seconds |= {"encode": 1e-5, "decode": 1e-5, "load": 1e-3, "feature_step": 0.003, "feature": 0.001}
    pairs = [(each, each / 3) for each in steps]
    return Machine("cpu", num_processes, "bf16-mixed", seconds | other, pairs, (steps[0] / 2, steps[0] / 6))


def families(config: dict) -> list[list[Network]]:
    listed = networks(config, (3, 32, 32))
    million = (1, 2.2, 3.1, 8.7)
    return [
        [Network(keys, int(1e6 * each), int(1e8 * each)) for keys, each in zip(family, million, strict=True)]
        for family in listed
    ]


def parent(*more: str) -> dict:
    """Returns image/folder with patches of several positions, which have coarser ones beside them."""
    return recipe.compose(
        "image/folder", ["++data.root=.", "data=folder", "backbone.patch=4", *overrides("cpu"), *more]
    )


@pytest.mark.parametrize("facts", [FACTS, replace(FACTS, has_classes=False), replace(FACTS, can_compile=True)])
@pytest.mark.parametrize("num_processes", [1, 2])
def test_everything_fits_the_hours_with_the_margin(facts, num_processes):
    sizes = families(parent())
    for hours in HOURS:
        plan = make_plan(hours, facts, machine(num_processes), sizes)
        assert plan.seconds <= 3600 * hours * (1 - MARGIN) + 1
        assert plan.seconds >= 3600 * hours * (1 - MARGIN) * 0.97
        assert all(plan.stages[name].num >= LEAST[name] for name in plan.stages if name in LEAST)
        assert plan.stages["warm_start"].num <= PASSES * plan.stages["trajectories"].num


def test_the_guidance_is_the_parents():
    plan, sizes = make_plan(2.0, FACTS, machine(), families(parent())), families(parent())
    config = recipe.compose("audio/folder", ["++data.root=.", "data=folder", *overrides("cpu", 1.5)])
    text = "\n".join(sections(plan, FACTS, machine(), sizes[0][0], config))
    assert "sampler: {guidance: 1.5, teacher: dpm_solver" in text


def test_kept_latents_are_encoded_once_and_not_at_every_step():
    slow, sizes = machine(encode=0.02), families(parent())
    without, kept = (make_plan(2.0, replace(FACTS, num_variants=num), slow, sizes) for num in (0, 4))
    assert kept.network >= without.network
    assert kept.stages["teacher"].num > 1.4 * without.stages["teacher"].num
    assert kept.seconds <= 7200 * (1 - MARGIN) + 1
    cost = (2000 + 40) * 4 * (0.02 + 1e-3)
    fewer = make_plan(2.0, replace(FACTS, num_variants=1), slow, sizes).stages["teacher"]
    assert fewer.num > kept.stages["teacher"].num and cost > 100, "the four variants cost their encoding"


def test_latents_are_kept_where_they_do_not_fill_the_disk():
    assert count_variants(200, (16, 8, 8), augments=True) == 8
    assert count_variants(6000, (16, 8, 8), augments=True) == 2
    assert count_variants(200, (16, 8, 8), augments=False) == 1
    assert count_variants(1_000_000, (16, 8, 8), augments=True) == 2
    assert count_variants(1_000_000, (3, 64, 64), augments=True) == 0


def test_more_hours_are_more_steps_or_a_larger_network():
    sizes = families(parent())
    costs = [1, 2.2, 3.1, 8.7, 0.25, 0.55, 0.8, 2.2]
    found = [make_plan(hours, FACTS, machine(), sizes) for hours in (0.05, 0.1, 0.2, 0.3, 0.5, 1, 1.5, 2, 3, 5, 9)]
    for less, more in pairwise(found):
        assert costs[more.network] >= costs[less.network]
        if more.network == less.network:
            assert all(more.stages[name].num >= stage.num for name, stage in less.stages.items())
            assert more.stages["teacher"].num > less.stages["teacher"].num
    assert len({plan.network for plan in found}) > 3


def test_the_largest_network_is_taken_whose_teacher_sees_enough():
    sizes = families(parent())
    for hours in (1.0, 2.0, 5.0):
        plan = make_plan(hours, FACTS, machine(), sizes)
        assert plan.stages["teacher"].num >= ENOUGH
        if plan.network != 3:
            step = machine().networks[plan.network + 1][0]
            assert plan.stages["teacher"].seconds / (step / 2) < 1.1 * ENOUGH, "the next one would see too few"
    assert make_plan(0.4, FACTS, machine(), sizes).network >= 4, "coarser patches, where time is short"


def test_half_of_the_time_is_the_teachers_and_stages_stop_where_they_gain_nothing():
    plan = make_plan(3.0, FACTS, machine(), families(parent()))
    shares = {name: stage.seconds / plan.seconds for name, stage in plan.stages.items()}
    assert 0.4 < shares["teacher"] < 0.7
    assert shares["warm_start"] < 0.22
    assert make_plan(50.0, FACTS, machine(), families(parent())).stages["student"].steps(64) == 400
    assert plan.stages["guide"].num <= plan.stages["teacher"].num / 8 + 1


def test_without_classes_nothing_is_classified_or_evaluated():
    facts = replace(FACTS, has_classes=False)
    plan, config = make_plan(1.0, facts, machine(), families(parent())), parent("feature_extractor=null")
    assert not {"feature_extractor", "evaluation"} & plan.stages.keys()
    text = "\n".join(sections(plan, facts, machine(), families(parent())[0][plan.network], config))
    assert "feature_extractor" not in text


def test_too_few_hours_name_the_least_that_then_suffices():
    sizes = families(parent())
    with pytest.raises(ValueError, match=r"--hours 0\.001 is too few: .* the least .* is about 0\.0\d, and") as caught:
        make_plan(0.001, FACTS, machine(), sizes)
    least = float(str(caught.value).partition("is about ")[2].partition(",")[0])
    assert make_plan(least, FACTS, machine(), sizes).stages["teacher"].num >= LEAST["teacher"]
    with pytest.raises(ValueError, match="too few"):
        make_plan(0.6 * least, FACTS, machine(), sizes)
    needed = hours_for(100_000, FACTS, machine(), sizes)
    assert make_plan(1.02 * needed, FACTS, machine(), sizes).stages["teacher"].num >= 100_000


def test_compiling_is_for_long_runs():
    facts, sizes = replace(FACTS, can_compile=True), families(parent())
    assert not make_plan(0.5, facts, machine(), sizes).compiled
    assert make_plan(24.0, facts, machine(), sizes).compiled
    assert not make_plan(24.0, FACTS, machine(), sizes).compiled


@pytest.mark.parametrize("name", ["image/folder", "audio/folder", "video/folder"])
@pytest.mark.parametrize("hours", [0.1, 3.0, 60.0])
def test_a_plan_becomes_a_recipe(tmp_path, name, hours):
    config = recipe.compose(name, ["++data.root=.", "data=folder", *overrides("cpu")])
    trained = "max_steps" in config["autoencoder"]
    facts = replace(FACTS, trains_autoencoder=trained, can_compile=True)
    sizes = [[Network(keys, 10**6, 10**8) for keys in family] for family in networks(config, (2, 64, 64))]
    found = machine(2, **({"autoencoder_step": 0.05} if trained else {}))
    plan = make_plan(hours, facts, found, sizes)
    network = [network for family in sizes for network in family][plan.network]
    lines = sections(plan, facts, found, network, config)
    head = [
        "defaults:",
        f"  - {name}",
        "  - override /data: folder",
        "  - _self_",
    ]
    (tmp_path / "mine.yaml").write_text("\n".join([*head, "data: {root: .}", *lines]))
    composed = recipe.compose(str(tmp_path / "mine.yaml"))
    assert {key: composed["backbone"][key] for key in network.keys} == network.keys
    assert (composed["num_devices"], composed["strategy"], composed["device"]) == (2, "ddp", "cpu")
    for stage in ("feature_extractor", "teacher", "guide", "warm_start", "student"):
        assert composed[stage]["max_steps"] == plan.stages[stage].num // 64
        assert {"_target_", "lr"} <= stage_settings(composed, stage)["optimizer"].keys()
    if trained:
        assert (
            composed["autoencoder"]["max_steps"]
            == plan.stages["autoencoder"].num // composed["autoencoder"]["batch_size"]
        )
    shards = composed["trajectories"]["num"] / composed["trajectories"]["shard_size"]
    assert shards % 2 == 0, "each process has as many shards"
    assert 0.85 * plan.stages["trajectories"].num <= composed["trajectories"]["num"]
    assert composed["trajectories"]["num"] <= plan.stages["trajectories"].num
    assert composed["student"]["loss"] == config["student"]["loss"]
    assert composed["student"]["optimizer"]["betas"] == config["student"]["optimizer"]["betas"]
    assert composed["trainer"]["compile"] is plan.compiled


def test_what_to_expect_is_said_with_its_warnings():
    plan = make_plan(0.3, FACTS, machine(), families(parent()))
    said = "\n".join(expectation(plan, replace(FACTS, num_files=100), 0.7, "bf16-mixed", "drums"))
    seen = plan.stages["teacher"].num
    assert f"the teacher sees {seen:,} samples, {seen / 100:,.0f} passes over 100 files" in said
    assert "learn examples by heart" in said
    assert f"scm-media evaluate runs/drums/main -n {plan.stages['evaluation'].num} --precision bf16" in said
    assert ("a teacher shows little before 100,000, which take about 0.7 hours here" in said) == (seen < 100_000)
    assert "by heart" not in "\n".join(expectation(plan, replace(FACTS, num_files=10**6), 0.7, "bf16-mixed", "drums"))


@pytest.mark.parametrize(
    ("name", "loss"), [("image/folder", "DistributionMatchingLoss"), ("audio/folder", "ConsistencyLoss")]
)
def test_the_student_has_the_loss_of_its_parent_and_no_more_samples(name, loss):
    config = recipe.compose(name, ["++data.root=.", "data=folder", *overrides("cpu")])
    assert config["student"]["loss"]["_target_"].rpartition(".")[2] == loss
    sizes = [[Network(keys, 10**6, 10**8) for keys in family] for family in networks(config, (2, 64, 64))]
    plans = {most: make_plan(60.0, replace(FACTS, most_student=most), machine(), sizes) for most in (6_400, 38_400)}
    assert {most: plan.stages["student"].num for most, plan in plans.items()} == {most: most for most in plans}
    text = "\n".join(sections(plans[38_400], FACTS, machine(), sizes[0][0], config))
    assert f"{loss}, for no more samples than in the parent" in text
