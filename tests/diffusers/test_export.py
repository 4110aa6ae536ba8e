"""What ``export --format diffusers`` writes of a student of ours samples in diffusers as in our own sampler."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scm_media import sample_consistency, weights
from scm_media.cli import main
from scm_media.pipeline import Pipeline
from scm_media.pipeline.sampling import choose_student_sampler
from tests.pipeline.tiny import write_tiny_model

diffusers = pytest.importorskip("diffusers")
import scm_media.diffusers  # noqa: E402

LABELS = {
    "image": [{"class": "circle"}, {"class": "T-shirt/top"}],
    "audio": [{"pitch": "57", "kind": "noise", "level": 40}, "pitch=64 kind=tone level=20"],
    "video": [{"shape": "square", "motion": "up"}, {"motion": "left", "shape": "circle"}],
}
WEIGHTS = "diffusion_pytorch_model.safetensors"
PAGE = Path(__file__).parents[2] / "docs" / "teachers.md"


def ours(model, labels, steps, seed, **given):
    """Samples of our own sampler, with the noise of a generator, and the times."""
    pipeline = Pipeline.from_pretrained(model, device="cpu")
    resolved = [pipeline.labels.resolve(label, 0, 0) for label in labels]
    shape = (len(labels), *pipeline.latent_shape())
    cond = pipeline.layout.assemble(pipeline.conditioning(resolved), shape[2:])
    times = choose_student_sampler(pipeline.settings, pipeline.flow, steps).keywords["times"]
    generator = torch.Generator().manual_seed(seed)
    network = pipeline.network("student")
    latents = sample_consistency(network, pipeline.flow, times=times, cond=cond, shape=shape, seed=generator)
    return latents, pipeline.decode(latents), times


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("kind", LABELS)
def test_samples_are_those_of_our_sampler(kind, steps, exported):
    model, target = exported(kind)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(target)
    pipeline.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": steps, "output_type": "latent", "return_dict": False}
    (latents,) = pipeline(LABELS[kind], generator=torch.Generator().manual_seed(7), **call)
    expected, decoded, times = ours(model, LABELS[kind], steps, 7)
    assert pipeline.scheduler.timesteps.tolist() == pytest.approx([*times, 0.0], abs=1e-7)
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=0)
    (swapped,) = pipeline(LABELS[kind][::-1], generator=torch.Generator().manual_seed(7), **call)
    assert (swapped - latents).abs().max() > 1e-2  # the labels are heard
    made = pipeline(LABELS[kind], steps, torch.Generator().manual_seed(7), "pt")
    sample = next(iter(made.values()))
    if kind != "audio":
        decoded = (decoded / 2 + 0.5).clamp(0, 1)
    if kind == "video":
        decoded = decoded.transpose(1, 2)
    torch.testing.assert_close(sample, decoded, atol=1e-4, rtol=0)


def snippet(folder):
    """The example of the page for the tiny model in a folder."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (found,) = (each for each in blocks if "ScmMedia" in each)
    assert '"bags/"' in found and '{"class": "Bag"}' in found
    return found.replace('"bags/"', repr(str(folder))).replace("Bag", "circle")


def check_snippet(model, made):
    """Compares the example's pictures ``(B, H · W)`` in 0 … 255 with those of our sampler."""
    _, decoded, _ = ours(model, [{"class": "circle"}] * 4, 2, 0)
    expected = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().flatten(1)
    assert (made - expected).abs().max() <= 1


def test_the_snippet_of_the_page_makes_our_pictures(exported):
    model, target = exported("image")
    names = {}
    exec(snippet(target), names)
    check_snippet(model, torch.tensor([list(each.tobytes()) for each in names["images"]]))


@pytest.mark.slow
def test_a_process_of_its_own_makes_our_pictures(exported, tmp_path):
    model, target = exported("image")
    code = f"{snippet(target)}\nfor each in images:\n    print(list(each.tobytes()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_snippet(model, torch.tensor([json.loads(line) for line in done.stdout.splitlines()]))


def test_a_pipeline_is_saved_again_with_its_labels_in_their_order(exported, tmp_path):
    _, target = exported("audio")
    first = diffusers.DiffusionPipeline.from_pretrained(target)
    first.save_pretrained(tmp_path / "again")
    again = scm_media.diffusers.ScmMediaPipeline.from_pretrained(tmp_path / "again")
    for part in ("backbone", "autoencoder"):
        one, other = (weights.read(folder / part / WEIGHTS) for folder in (target, tmp_path / "again"))
        assert one.config == other.config and one.state.keys() == other.state.keys()
        assert all(torch.equal(one.state[name], other.state[name]) for name in one.state)
    assert list(again.model.labels.names) == ["pitch", "kind", "level"]
    drawn = []
    for pipeline in (first, again):
        made = pipeline(batch_size=6, num_inference_steps=1, generator=torch.Generator().manual_seed(3)).audios
        drawn.append((made.tobytes(), pipeline.sample_labels))
    assert drawn[0] == drawn[1]
    pairs = {(label["pitch"], label["kind"]) for label in again.sample_labels}
    assert pairs <= {("57", "tone"), ("60", "tone"), ("64", "noise")} and len(pairs) > 1


def test_an_export_holds_no_code_no_pickle_and_no_path(exported):
    _, target = exported("video")
    files = sorted(str(file.relative_to(target)) for file in target.rglob("*") if file.is_file())
    parts = [f"{part}/{name}" for part in ("autoencoder", "backbone") for name in ("config.json", WEIGHTS)]
    assert files == sorted(["README.md", "model_index.json", "scheduler/scheduler_config.json", *parts])
    assert str(target.parent) not in "".join((target / name).read_text() for name in files if name[-5:] == ".json")
    card = (target / "README.md").read_text()
    assert "| 2 | 1.5645, 1.2000 |" in card and "- `motion`: left, right, up" in card


def test_a_run_folder_is_exported(tmp_path, capsys):
    run = write_tiny_model(tmp_path / "run", run_folder=True)
    assert main(["export", str(run), str(tmp_path / "out"), "--format", "diffusers"]) == 0
    assert f"{tmp_path / 'out'}: use it with diffusers" in capsys.readouterr().out
    assert diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out").model.name == "test/tiny"


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_what_exists_is_not_overwritten(what, tmp_path, capsys):
    model, target = write_tiny_model(tmp_path / "model"), tmp_path / "out"
    {"folder": target.mkdir, "file": target.touch, "link": lambda: target.symlink_to("nowhere")}[what]()
    assert main(["export", str(model), str(target), "--format", "diffusers"]) == 1
    assert "exists: export to a folder that does not" in capsys.readouterr().err
    assert not list(tmp_path.glob(".out*")) and not (target / "model_index.json").exists()


@pytest.mark.parametrize(
    ("missing", "more", "message"),
    [
        ("student", (), "holds no student"),
        ("autoencoder", (), "holds no autoencoder"),
        (None, ("--pipeline", "x"), "its student comes from no pipeline of diffusers, so leave --pipeline out"),
    ],
)
def test_a_model_that_cannot_be_exported_leaves_nothing(missing, more, message, tmp_path, capsys):
    model = write_tiny_model(tmp_path / "model")
    if missing:
        (model / f"{missing}.safetensors").unlink()
    assert main(["export", str(model), str(tmp_path / "out"), "--format", "diffusers", *more]) == 1
    assert message in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model"]


def test_without_diffusers_the_extra_is_named(tmp_path, capsys, monkeypatch):
    model = write_tiny_model(tmp_path / "model")
    for name in [name for name in sys.modules if name.startswith("scm_media.diffusers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert main(["export", str(model), str(tmp_path / "out"), "--format", "diffusers"]) == 1
    assert "needs the package diffusers" in (said := capsys.readouterr().err) and "scm-media[diffusers]" in said
    assert not (tmp_path / "out").exists()


def test_weights_in_sixteen_bits_are_exported_as_they_are(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    assert main(["export", str(model), str(tmp_path / "small"), "--precision", "bfloat16"]) == 0
    assert main(["export", str(tmp_path / "small"), str(tmp_path / "out"), "--format", "diffusers"]) == 0
    stored = weights.read(tmp_path / "small" / "student.safetensors").state
    written = weights.read(tmp_path / "out" / "backbone" / WEIGHTS).state
    assert all(torch.equal(stored[name].float(), written[name]) for name in stored)


def test_the_index_names_classes_of_ours_and_of_diffusers(exported):
    _, target = exported("image")
    index = json.loads((target / "model_index.json").read_text())
    found = {name: index[name] for name in ("_class_name", "backbone", "autoencoder", "scheduler")}
    place = "scm_media.diffusers.components"
    assert found == {
        "_class_name": "ScmMediaPipeline",
        "backbone": [place, "ScmMediaBackbone"],
        "autoencoder": [place, "ScmMediaAutoencoder"],
        "scheduler": ["diffusers", "SCMScheduler"],
    }
