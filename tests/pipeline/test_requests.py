"""Requests: keyword arguments and dataclasses ask for the same, and what no model can do is refused at once."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace

import pytest
import torch

import scm_media
from scm_media.pipeline import EditRequest, SamplingRequest
from tests.pipeline.waves import GaussianWaves, write_wave_model

WAVE = torch.sin(torch.arange(40.0) / 4)[None] / 2


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    monkeypatch.setenv("SCM_MEDIA_ALLOW", "tests")
    return scm_media.load(write_wave_model(tmp_path / "waves", student_label_dropout=0.1), "cpu")


def test_a_request_makes_the_samples_of_the_call_with_its_fields(pipeline):
    called = pipeline(3, "calm", seed=4, steps=1, duration=1.0, guidance=2.0)
    request = SamplingRequest(num=3, label="calm", seed=4, steps=1, sizes={"duration": 1.0}, guidance=2.0)
    (made,) = pipeline.batches(request)
    assert torch.equal(made.samples, called.samples)
    assert made.samples.shape == (3, 1, 16)
    (last,) = pipeline.batches(replace(request, num=1, first=2))
    torch.testing.assert_close(last.samples[0], made.samples[2], rtol=0, atol=1e-5)


def test_an_edit_request_makes_the_samples_of_the_call_with_its_fields(pipeline):
    called = pipeline.edit("continue", WAVE, 2, "calm", keep=1.0, seed=4, steps=2, duration=3.0)
    sampling = SamplingRequest(num=2, label="calm", seed=4, steps=2, sizes={"duration": 3.0})
    (made,) = pipeline.edit_batches(EditRequest(task="continue", source=WAVE, keep=1.0, sampling=sampling))
    assert torch.equal(made.samples, called.samples)
    assert made.samples.shape == (2, 1, 48)


def test_sizes_are_the_arguments_that_are_no_field():
    request = SamplingRequest.from_arguments(2, None, {"steps": 3, "duration": 2.0, "sizes": {"rate": 8.0}})
    assert (request.num, request.steps, request.sizes) == (2, 3, {"rate": 8.0, "duration": 2.0})
    edit = EditRequest.from_arguments("inpaint", "a.png", 1, None, {"region": [1, 2], "first": 5, "size": 3})
    assert (edit.region, edit.sampling.first, edit.sampling.sizes) == ([1, 2], 5, {"size": 3})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 0}, "num must be at least 1, got 0"),
        ({"num": 2.5}, "num must be a whole number at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"first": 2**48}, "first, the index of the first sample, must be a whole number from 0"),
        ({"sizes": {"duration": float("nan")}}, "duration must be a finite number, got nan"),
    ],
)
def test_a_request_is_checked_when_it_is_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        SamplingRequest(**arguments)


def test_a_request_is_refused_before_the_first_batch_is_asked_for(pipeline):
    for arguments, message in (
        ({"steps": 0}, "steps must be at least 1"),
        ({"label": "loud"}, "knows no label 'loud'"),
        ({"sizes": {"size": 3}}, "waves have no size"),
        ({"overlap": 0.5}, "overlap 0.5 joins nothing: this sample is made at once"),
        ({"actions": "left*3"}, "trained without actions"),
    ):
        with pytest.raises(ValueError, match=message):
            pipeline.batches(SamplingRequest(**arguments))


def test_the_teacher_edits_nothing(pipeline):
    with pytest.raises(ValueError, match=r"an edit is made by the student; leave teacher \(--teacher\) out"):
        pipeline.edit("continue", WAVE, teacher=True)


def test_the_number_of_steps_of_a_request_is_known_before_it_is_sampled(pipeline):
    for arguments, steps in (
        ({}, 2),
        ({"steps": 5}, 5),
        ({"times": [1.5, 1.0, 0.5]}, 3),
        ({"teacher": True}, 3),
        ({"teacher": True, "times": [1.5, 1.0, 0.0]}, 2),
    ):
        assert pipeline.method(SamplingRequest(**arguments)).num_steps == steps


def test_each_field_is_documented():
    for request in (SamplingRequest, EditRequest):
        source = inspect.getsource(request)
        for field in fields(request):
            declaration = source.index(f"    {field.name}: ")
            assert source[source.index("\n", declaration) :].lstrip().startswith('"""'), field.name


def test_a_size_option_that_is_a_label_too_is_given_as_one_unless_the_label_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("SCM_MEDIA_ALLOW", "tests")
    labels = {"labels": {"class": ["calm", "rough", "still"], "duration": []}, "label_counts": {}}
    pipeline = scm_media.load(write_wave_model(tmp_path / "waves", **labels), "cpu")
    pipeline._networks["student"] = GaussianWaves()
    assert pipeline(1, "calm", duration=1.0).labels == [{"class": "calm", "duration": 1.0}]
    assert pipeline(1, "class=calm duration=1.5", duration=1.0).labels == [{"class": "calm", "duration": 1.5}]
    assert pipeline(1, "calm").labels == [{"class": "calm"}]
