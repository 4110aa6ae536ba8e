"""Measures quality against compute for ``evaluate --curve``: more figures than an evaluation has, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scm_media.evaluation.compute import count_network_operations
from scm_media.evaluation.features import OWN_NETWORK, FeatureNetwork
from scm_media.evaluation.figures import FIGURES, Comparison, compare_statistics, kendall_tau, mean_of
from scm_media.evaluation.frechet import too_few
from scm_media.evaluation.measured import Instruments, Measured
from scm_media.evaluation.real import measure_held_out
from scm_media.evaluation.recipe_data import load_reference, recipe_data
from scm_media.evaluation.reference import Reference
from scm_media.evaluation.rows import Progress, Row
from scm_media.pipeline import Pipeline


@dataclass
class Curve:
    """The instruments of a curve and what its rows are compared with.

    second: the statistics of the training data in the features of a second network; None without one. remarks: what
    could not be measured, and why, in words.
    """

    pipeline: Pipeline
    reference: Reference
    instruments: Instruments
    second: Reference | None
    remarks: list[str] = field(default_factory=list)

    @classmethod
    def prepare(
        cls,
        pipeline: Pipeline,
        network: FeatureNetwork,
        reference: Reference,
        num_samples: int,
        work: Path | None,
        progress: Progress | None = None,
    ) -> Curve:
        """Returns the curve of a model that is measured by a network, with the second one that its modality offers.

        That is the first other one that is installed and that the model has statistics of, or the recipe's data. Of
        large data it sees a part that grows with the number of samples (``_second_examples``), since it only ranks the
        rows, which are all compared with the same part.
        """
        remarks: list[str] = []
        num = _second_examples(num_samples)
        second, second_reference = _find_second(pipeline, network, work, remarks, progress, num)
        statistics = sorted(pipeline.modality.statistic_units)
        return cls(pipeline, reference, Instruments(network, second, statistics), second_reference, remarks)

    def report(
        self,
        rows: Sequence[Row],
        measured: Sequence[Measured],
        num_samples: int,
        batch_size: int,
        progress: Progress | None = None,
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Returns the figures of each row, and the keys that a curve adds to an evaluation's result."""
        real, rebuilt = self._measure_real(num_samples, batch_size, progress)
        statistics = None if real is None else real.statistics
        own, second = Comparison(self.reference), None if self.second is None else Comparison(self.second)
        operations = count_network_operations(self.pipeline)

        def figures(each: Measured) -> dict[str, Any]:
            other = None
            if second is not None and each.second is not None:
                distance, interval = second.frechet(each.second)
                other = {"frechet": distance, "interval": interval}
            return {
                **own.figures(each),
                "second": other,
                "statistics": compare_statistics(each.statistics, statistics),
            }

        table: list[dict[str, Any]] = []
        for number, (row, each) in enumerate(zip(rows, measured, strict=True), 1):
            table.append({**figures(each), "operations_per_sample": operations.of_row(row, each.evaluations)})
            if progress is not None:
                progress("rows compared", number, len(rows))
        seconds = [row["second"]["frechet"] for row in table if row["second"] is not None]
        units = self.pipeline.modality.statistic_units
        return table, {
            "curve": True,
            "floor": self._known_floor(num_samples) if real is None else {**figures(real), **_halves(real)},
            "ceiling": None if rebuilt is None else {**figures(rebuilt), "num": len(rebuilt.features)},
            "second_features": self._describe_second(num_samples),
            "ranking_agreement": kendall_tau([row["frechet"] for row in table], seconds) if seconds else None,
            "statistics": {
                name: {"unit": units[name], "mean": None if statistics is None else mean_of(statistics[name])}
                for name in self.instruments.statistics
            },
            "operations": operations.as_json(),
            "remarks": self.remarks,
        }

    def _measure_real(
        self, num_samples: int, batch_size: int, progress: Progress | None
    ) -> tuple[Measured | None, Measured | None]:
        try:
            held_out = recipe_data(self.pipeline.folder)[1]
            if 0 < len(held_out) < 2:
                raise ValueError("one sample is held out, and a covariance needs two: raise data.held_out")
            real, rebuilt = measure_held_out(
                self.pipeline, self.instruments, held_out, num_samples, batch_size, progress
            )
        except ValueError as error:
            self.remarks.append(
                "held-out data were not measured: the floor is their Fréchet distance as the model carries it, if it "
                f"does, and reconstructions and distances of statistics are missing ({error})"
            )
            return None, None
        if rebuilt is None:
            self.remarks.append("the autoencoder loses nothing, so there is no ceiling of reconstructions")
        return real, rebuilt

    def _known_floor(self, num_samples: int) -> dict[str, Any] | None:
        """Returns the Fréchet distance of held-out data that the statistics carry, None where they carry none."""
        distance = self.reference.held_out_distance(num_samples)
        if distance is None:
            return None
        other = None if self.second is None else self.second.held_out_distance(num_samples)
        return {
            **dict.fromkeys(FIGURES),
            "frechet": distance,
            "intervals": dict.fromkeys(FIGURES),
            "second": None if other is None else {"frechet": other, "interval": None},
            "statistics": {},
            "num": self.reference.nearest_held_out(num_samples),
        }

    def _describe_second(self, num_samples: int) -> dict[str, Any] | None:
        network, reference = self.instruments.second, self.second
        if network is None or reference is None:
            return None
        dimension = reference.mean.numel()
        return {
            "name": network.name,
            "dimension": dimension,
            "too_few": too_few(dimension, num_samples, reference.num_train),
        }


def _halves(real: Measured) -> dict[str, Any]:
    """Returns the number of held-out samples and their statistics, whose distance is that of one half to the other."""
    first = {name: values[::2] for name, values in real.statistics.items()}
    distances = compare_statistics(first, {name: values[1::2] for name, values in real.statistics.items()})
    statistics = {
        name: {"mean": mean_of(values), "distance": distances[name]["distance"]}
        for name, values in real.statistics.items()
    }
    return {"num": len(real.features), "statistics": statistics}


def _second_examples(num_samples: int) -> int:
    """Returns how many examples the second network sees for so many samples: 10 for each, 2,000 to 10,000 in all."""
    return min(max(10 * num_samples, 2_000), 10_000)


def _find_second(
    pipeline: Pipeline,
    first: FeatureNetwork,
    work: Path | None,
    remarks: list[str],
    progress: Progress | None,
    num: int,
) -> tuple[FeatureNetwork | None, Reference | None]:
    """Returns another network than the first with the statistics of its features; says in remarks why there is none."""
    names: list[str | None] = [name for name in pipeline.modality.feature_networks if name != first.name]
    if first.name != OWN_NETWORK and pipeline.folder.has("feature_extractor"):
        names.insert(0, None)
    reasons = []
    for name in names:
        try:
            return load_reference(pipeline, name, work, progress, num)
        except (ValueError, RuntimeError) as error:  # a network may take no samples of this size
            reasons.append(f"{name or OWN_NETWORK}: {error}")
    why = "; ".join(reasons) or f"the modality {pipeline.modality.name} offers none"
    remarks.append(f"no second feature network was used ({why})")
    return None, None
