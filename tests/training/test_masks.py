"""Masked padding: no network learns it, from files or from cached latents."""

from __future__ import annotations

import shutil

import pytest
import torch

from modalities.audio import AudioModality
from scm_media import recipe, training
from scm_media.cli import main
from scm_media.data import FolderDataset, batches
from scm_media.training import encoding, stages
from scm_media.training.context import prepare
from tests.modalities.audio.files import sixteen, tone, wav
from tests.training.small import same, state

RECIPE = """
defaults:
  - /base
  - /modality: audio
  - /data: folder
  - /autoencoder: complex_spectrogram
  - /backbone: transformer
  - _self_
recipe: masked
device: cpu
logger: null
modality: {sample_rate: 2000, duration: 0.256, multiple: 32, crop: start, padding: masked}
data: {labels: none, held_out: 0.2}
autoencoder: {network: {window: 64, hop: 32}, num_samples: 16}
backbone: {patch: 4, width: 16, depth: 2, num_heads: 2}
teacher: {batch_size: 4, max_steps: 2, warmup_steps: 1}
student: {max_steps: 0}
latents: {dtype: float32, shard_size: 4}
trainer: {sample_early: [], sample_every: 1000, validate_every: 2, num_preview_samples: 1}
sampler: {teacher_steps: 2}
"""
VALID, REACH = 256, 64
"""Samples of a file: two patches of four hops; and how far the last frame's window looks beyond."""


class NoisyPadding(AudioModality):
    """Noise where padding is, further from the sound than a valid frame looks."""

    def read_transformed(self, file, generator=None):
        sample, valid = super().read_transformed(file, generator)
        noise = torch.rand(1, self.num_samples, generator=torch.Generator().manual_seed(len(str(file)))) - 0.5
        noise[:, : VALID + REACH] = 0
        return sample + noise, valid


def compose(folder, name, *overrides):
    own = [f"data.root={folder / 'data'}", f"run_dir={folder / name}", *overrides]
    return recipe.compose(str(folder / "masked.yaml"), own)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A recipe, its data, and a run of two steps of its teacher."""
    folder = tmp_path_factory.mktemp("masked")
    (folder / "masked.yaml").write_text(RECIPE)
    (folder / "data").mkdir()
    for number in range(10):
        content = sixteen(tone(2000, VALID / 2000, 100 + 60 * number))
        (folder / "data" / f"{number}.wav").write_bytes(wav(content, 2000))
    training.run(compose(folder, "run"))
    return folder


def modality(kind=AudioModality, padding="masked"):
    return kind(sample_rate=2000, duration=0.256, multiple=32, crop="start", padding=padding)


def batch_of(folder, *options):
    dataset = FolderDataset(modality(*options), folder / "data", labels="none", held_out=0.2)
    return next(batches(dataset, 4, 0, 1, seed=0))


@pytest.fixture(scope="module")
def tasks(place):
    """Teacher and student, whose backbones are shaken a little, so that they are no zeros."""
    context = prepare(compose(place, "run"))
    tasks = [stages.teacher_task(context), stages.student_task(context)]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for task in tasks:
            for parameter in task.model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return tasks


def gradients(task, batch):
    torch.manual_seed(5)
    task.loss.zero_grad()
    loss, _ = task.loss(*task.inputs(batch), torch.tensor(9.0))
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in task.model.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize("stage", [0, 1], ids=["teacher", "student"])
def test_what_lies_in_padding_changes_no_gradient(place, tasks, stage):
    task = tasks[stage]
    zeros, noise = gradients(task, batch_of(place)), gradients(task, batch_of(place, NoisyPadding))
    assert all(torch.equal(one, other) for one, other in zip(zeros, noise, strict=True))
    assert max(each.abs().max() for each in zeros[1:]) > 1e-3
    # Where padding is silence it is learned, and so it does.
    zeros, noise = (gradients(task, batch_of(place, kind, "silence")) for kind in (AudioModality, NoisyPadding))
    assert not torch.equal(zeros[0], noise[0])


def test_kept_latents_keep_their_masks(place):
    shutil.copytree(place / "run" / "autoencoder", place / "kept" / "autoencoder")
    assert encoding.encode(compose(place, "kept"))["examples"] == 10
    training.run(compose(place, "kept"))
    assert same(state(place / "kept", "teacher"), state(place / "run", "teacher"))


def test_batches_carry_masks_to_the_conditioning(place):
    dataset = FolderDataset(modality(), place / "data", labels="none", held_out=0.2)
    batch = next(batches(dataset, 4, 0, 1, seed=0, num_workers=1)).to("cpu")
    assert batch.padding_mask.shape == (4, 1, 512)
    assert (batch.padding_mask.sum(-1) == VALID).all()
    halved = batch.conditioning(lambda mask: mask[..., ::2])
    assert halved.padding_mask.shape == (4, 1, 256)
    assert batch.conditioning().padding_mask is None


def test_check_says_how_much_is_padding(place, capsys):
    assert main(["check", str(place / "masked.yaml"), f"data.root={place / 'data'}", f"run_dir={place / 'look'}"]) == 0
    assert "warning: 50% of the 8 examples that were looked at is padding, and left out" in capsys.readouterr().out
