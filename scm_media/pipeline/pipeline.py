"""A pipeline: a trained model that generates and edits samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from scm_media.pipeline import sampling
from scm_media.pipeline.actions import SampleActions
from scm_media.pipeline.batch_sampler import BatchSampler, Samples
from scm_media.pipeline.edit_inputs import prepare_input
from scm_media.pipeline.edits import InpaintingInput
from scm_media.pipeline.export import check_target, export, exported_description
from scm_media.pipeline.labels import Label, SampleLabels
from scm_media.pipeline.loaded_model import LoadedModel
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.pipeline.requests import EditRequest, SamplingRequest, Source, check_sizes
from scm_media.pipeline.sampling import SamplingMethod
from scm_media.pipeline.windows import empty_input, plan_windows


class Pipeline(LoadedModel):
    """A model that generates samples, ``pipeline(4, label="Bag", steps=2, seed=0)``, and edits them."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str = "auto",
        precision: str = "float32",
        text_encoder: str | Path | None = None,
    ) -> Pipeline:
        """Returns the model of a bundled name, a run folder, an exported folder or ``hf://org/name``.

        text_encoder: where the text encoder of a model of texts is, if not where the model says.
        """
        return cls(ModelFolder.open(source), device, precision, text_encoder)

    def save_pretrained(
        self,
        folder: str | Path,
        dtype: torch.dtype | None = None,
        teacher: bool = True,
        overwrite: bool = False,
        texts: Sequence[str] | None = None,
    ) -> Path:
        """Writes a self-contained model folder, with a sheet of samples for its card, and returns it.

        dtype: type that weights are stored in; None keeps theirs. teacher: exports the teacher too. overwrite: replaces
        an earlier export in the folder as a whole, which raises ValueError otherwise; other files in it stay. texts:
        those that go along with their embeddings, so that they need no text encoder; None for some of the training
        data's. Raises ValueError for texts that the model does not carry.
        """
        target = Path(folder)
        check_target(self.folder, target, overwrite)
        exported_description(self.folder, texts)
        # Taken before the sheet reads networks: weights that nobody changed are written as they are in their file.
        # A teacher that shares its weights with a LoRA has none of its own: its file's are written.
        states = {name: state for name, network in self._networks.items() if (state := network.state_dict())}
        sheet = self.sheet() if self.folder.has("student") else None
        return export(self.folder, target, states, dtype, teacher, sheet, overwrite, texts)

    def sheet(self, num: int = 16, columns: int = 8, seed: int = 0) -> Any:
        """Returns a picture (PIL) of the first samples of a seed with their labels: the same for the same model."""
        made = self(num, seed=seed, batch_size=num)
        captions = [" ".join(str(value) for value in label.values()) for label in made.labels]
        return self.modality.preview(made.samples, captions if any(captions) else (), columns)

    def __call__(self, num: int = 1, label: Label | Sequence[Label] = None, **arguments: Any) -> Samples:
        """Returns ``num`` samples; arguments are the fields of ``SamplingRequest`` and the modality's size options."""
        return Samples.join(list(self.batches(SamplingRequest.from_arguments(num, label, arguments))))

    def edit(
        self, task: str, source: Source, num: int = 1, label: Label | Sequence[Label] = None, **arguments: Any
    ) -> Samples:
        """Returns ``num`` samples in which a part of the source is kept.

        Arguments are the fields of ``EditRequest`` and ``SamplingRequest`` and the modality's size options.
        """
        request = EditRequest.from_arguments(task, source, num, label, arguments)
        return Samples.join(list(self.edit_batches(request)))

    def batches(self, request: SamplingRequest) -> Iterator[Samples]:
        """Returns the samples of a request, batch by batch; raises ValueError for anything that the model cannot do.

        A sample that is longer than the model makes at once is made in windows, each of which is given the end of the
        one before it.
        """
        check_sizes(self.modality, request.sizes)
        return self._batches(request, empty_input(self.modality, request.sizes), draw_labels=True)

    def edit_batches(self, request: EditRequest) -> Iterator[Samples]:
        """Returns the samples of an edit request, batch by batch; raises ValueError for anything that cannot be done.

        Source: Song et al. 2023 (arXiv 2303.01469), algorithm 4.
        """
        wanted = request.sampling
        check_sizes(self.modality, wanted.sizes)
        given = prepare_input(self.modality, request)
        if wanted.guidance is not None and wanted.label is None and self.labels.names and not self._needs_labels:
            raise ValueError(f"guidance {wanted.guidance} steers towards a label: give one")
        return self._batches(wanted, given, draw_labels=self._needs_labels)

    def method(self, request: SamplingRequest) -> SamplingMethod:
        """Returns the samplers and the guidance of a request; raises ValueError for what the model cannot do."""
        return SamplingMethod.choose(self.folder, self.settings, self.flow, request)

    @property
    def edit_steps(self) -> int:
        """Returns the number of steps of an edit that does not say how many."""
        trained = bool(self.folder.description.mask)
        return len(sampling.choose_edit_sampler(self.settings, self.flow, None, None, trained).keywords["times"])

    def drawn_labels(self, label: Label) -> list[str]:
        """Returns the labels that an edit draws: those that are not given, of a network that needs them."""
        given = self.labels.parse(label)
        return [name for name in self.labels.resolve(label, 0, 0) if name not in given] if self._needs_labels else []

    @property
    def _needs_labels(self) -> bool:
        """Returns true for a student that was trained without label dropout."""
        return not self.folder.description.student_label_dropout

    def _batches(self, request: SamplingRequest, given: InpaintingInput | None, draw_labels: bool) -> Iterator[Samples]:
        """Returns batches that complete an input, or that are made from noise alone; the request is checked first."""
        indices = range(request.first, request.first + request.num)
        labels = SampleLabels(self.labels, request.label, request.seed, indices, draw_labels)
        if request.prompt is not None:
            labels.add_prompts(request.prompt)
        # A size option that is a label as well (the rate of frames) is given as one, unless the label says otherwise.
        labels.add({name: value for name, value in request.sizes.items() if name in self.labels.names})
        windows = plan_windows(given, self.modality, request.overlap, request.sizes)
        if given is not None and request.teacher:
            raise ValueError(
                "the teacher makes a sample at once and cannot go on in windows: leave the teacher (--teacher) out, "
                "or ask for less"
            )
        latent_shape = () if given is not None else self.latent_shape(**request.sizes)
        num_frames = (self.modality.shape(**request.sizes) if given is None else given.sample.shape)[1]
        actions = SampleActions.resolve(self.actions, request.actions, labels, num_frames)
        method = self.method(request)

        def generate() -> Iterator[Samples]:
            for start in range(0, len(labels), request.batch_size):
                part = slice(start, start + request.batch_size)
                rows = None if actions is None else actions[part]
                batch = BatchSampler(self, method, request.seed, indices[part], labels[part], rows, request.walk)
                yield batch.sample(latent_shape) if given is None else batch.complete(given, windows)

        return generate()


def load(
    source: str | Path, device: str = "auto", precision: str = "float32", text_encoder: str | Path | None = None
) -> Pipeline:
    """Returns the pipeline of a bundled name, a run folder, an exported folder or ``hf://org/name``.

    text_encoder: where the text encoder of a model of texts is, if not where the model says.

    Raises ValueError when there is no such model, or a file of it is missing, cut short or foreign.
    """
    return Pipeline.from_pretrained(source, device, precision, text_encoder)
