"""Runs the modes of ``evaluate`` beside measuring a model's rows: searches, memorization, and two folders."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scm_media.cli.output import print_json
from scm_media.display import printable, printable_lines
from scm_media.progress import Progress

NUM_SEARCHED, NUM_COMPARED = 2_000, 1_000


def search_times(parsed: Any) -> int:
    """Searches the times of few steps and keeps them in the model's ``model.json``."""
    from scm_media.evaluation import keep_times, search_times, times_report
    from scm_media.pipeline import load

    pipeline = load(parsed.model, parsed.device, parsed.precision)
    found = search_times(pipeline, **_sampling_arguments(parsed, NUM_SEARCHED, seed=parsed.seed + 1))
    print_json(found) if parsed.json else print(printable_lines(times_report(found)))
    if Path(parsed.model).is_dir():
        keep_times(pipeline.folder, found)
        file, steps = printable(pipeline.folder.path / "model.json"), ", ".join(found["times"])
        print(f"kept in {file}: the model now uses them for {steps} steps", file=sys.stderr)
    else:
        print("not kept: a bundled or downloaded model, or a file, is not written to; export a folder", file=sys.stderr)
    return 0


def search_ema(parsed: Any) -> int:
    """Chooses the averaging length of a stage's weights; the best average replaces them."""
    from scm_media.evaluation import ema_report, search_ema, summarize_choice
    from scm_media.pipeline import load
    from scm_media.training.post_hoc_ema import keep_average

    pipeline = load(parsed.model, parsed.device, parsed.precision)
    row = parsed.rows[0] if parsed.rows else None
    sampling = _sampling_arguments(parsed, NUM_SEARCHED, seed=parsed.seed + 1)
    found, state = search_ema(pipeline, parsed.search_ema, features=parsed.features, row=row, **sampling)
    print_json(found) if parsed.json else print(printable_lines(ema_report(found)))
    file = pipeline.folder.file(parsed.search_ema)
    if state is None:
        print(f"{printable(file)} stays unchanged: no other length was better", file=sys.stderr)
        return 0
    before = keep_average(pipeline.folder, parsed.search_ema, state, summarize_choice(found))
    print(
        f"{printable(file)} is now the average of {found['chosen']}; the weights of the training are kept in "
        f"{printable(before)} (copy them back to undo). Earlier figures are of other weights: evaluate again",
        file=sys.stderr,
    )
    return 0


def find_memorized(parsed: Any, out: Path) -> int:
    """Writes a sheet of the samples nearest to training data, and their figures."""
    from scm_media.evaluation import find_memorized
    from scm_media.pipeline import load
    from scm_media.pipeline.card import memorization_report

    pipeline = load(parsed.model, parsed.device, parsed.precision)
    row = parsed.rows[0] if parsed.rows else None
    sampling = _sampling_arguments(parsed, NUM_COMPARED, seed=parsed.seed)
    figures, sheet = find_memorized(pipeline, parsed.memorization, features=parsed.features, row=row, **sampling)
    print_json(figures) if parsed.json else print(printable_lines(memorization_report(figures)))
    _write_memorization(out, figures, sheet)
    rewrite_card(parsed.model, out)
    return 0


def measure_memorization(parsed: Any, pipeline: Any, out: Path, num_samples: int) -> dict[str, Any] | None:
    """Writes the same for a model that is evaluated and returns the figures; None where the data are not there."""
    from scm_media.evaluation import find_memorized
    from scm_media.evaluation.recipe_data import recipe_data

    try:
        recipe_data(pipeline.folder)
    except ValueError as error:
        print(f"memorization was not measured: {printable(error)}", file=sys.stderr)
        return None
    sampling = _sampling_arguments(parsed, num_samples, seed=parsed.seed) | {"num_samples": num_samples}
    figures, sheet = find_memorized(pipeline, **sampling)
    _write_memorization(out, figures, sheet)
    return figures


def _write_memorization(out: Path, figures: dict[str, Any], sheet: Any) -> None:
    from scm_media.evaluation.report import MEMORIZATION_SHEET
    from scm_media.weights import write_whole

    write_json(out / "memorization.json", figures)
    picture = io.BytesIO()
    sheet.save(picture, format="PNG")
    file = out / MEMORIZATION_SHEET
    write_whole(file, picture.getvalue())  # not through a link of this name
    print(f"the samples with the training samples nearest to them: {printable(file)}", file=sys.stderr)


def write_curve_page(parsed: Any, words: Sequence[str], metrics: dict[str, Any], page: Path) -> None:
    """Writes the page of ``--curve``, with samples of few steps and of the teacher; words: the command's, for it."""
    from scm_media.evaluation.curve_page import write_curve_page
    from scm_media.evaluation.side_by_side import ROWS, make_sample_rows
    from scm_media.pipeline import load
    from scm_media.pipeline.export import base_name
    from scm_media.processes import own_share

    pipeline = load(parsed.model, own_share().device(parsed.device), parsed.precision)
    rows = [row for row in ROWS if parsed.rows is None or row in parsed.rows]
    guidance = parsed.guidance[0] if parsed.guidance else None
    samples = make_sample_rows(pipeline, rows, seed=parsed.seed, guidance=guidance)
    command = shlex.join(["scm-media", *map(base_name, words)])  # without paths of this machine
    write_curve_page(metrics, page, samples, command)


def compare_folders(parsed: Any) -> tuple[dict[str, Any], Path | None]:
    """Returns the figures of a folder's files against another's or the training data's, and where to keep them."""
    from scm_media.evaluation import evaluate_folder, evaluate_folders, named_network, own_network, project_features
    from scm_media.evaluation.recipe_data import load_reference
    from scm_media.pipeline import load
    from scm_media.pipeline.loaded_model import choose_device

    if parsed.features is not None and parsed.model is None:
        modality, device = _fitting_modality(parsed.reference), choose_device(parsed.device)
    else:
        pipeline = load(parsed.model or _bundled_reader(parsed.samples), parsed.device, parsed.precision)
        modality, device = pipeline.modality, pipeline.device
    if parsed.reference is None:
        network, reference = load_reference(pipeline, parsed.features, parsed.out)
        found = evaluate_folder(parsed.samples, modality, network, reference, parsed.batch_size, device, Progress())
        return found, parsed.out
    if parsed.features is None:
        network = own_network(pipeline)
    else:
        network = project_features(named_network(parsed.features, modality, device), modality.shape(), device)
    metrics = evaluate_folders(
        parsed.samples, parsed.reference, modality, network, parsed.batch_size, device, Progress()
    )  # fmt: skip
    return metrics, parsed.out


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file aside and renames it."""
    import json

    from scm_media.weights import write_whole

    write_whole(path, f"{json.dumps(value, indent=2, ensure_ascii=False)}\n".encode())


def rewrite_card(source: str, out: Path) -> None:
    """Rewrites the card of a model folder where figures were written into that folder."""
    from scm_media.pipeline import ModelFolder
    from scm_media.pipeline.card import format_card
    from scm_media.weights import write_whole

    folder = ModelFolder.open(source)
    if not folder.is_run and folder.path.resolve() == out.resolve():
        write_whole(out / "README.md", format_card(folder).encode())


def _sampling_arguments(parsed: Any, default_num: int, seed: int) -> dict[str, Any]:
    """Returns the arguments that searches and the memorization report share."""
    num = default_num if parsed.num_samples is None else parsed.num_samples
    return {"num_samples": num, "batch_size": parsed.batch_size, "seed": seed, "progress": Progress()}


def _fitting_modality(folder: Path) -> Any:
    """Returns the modality that reads a folder's files, with keys that fit them."""
    from scm_media.cli.proposals import fitting_keys
    from scm_media.cli.recipe_choice import choose_recipe

    if not folder.is_dir():
        raise ValueError(f"--reference {folder}: no such folder")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    modality = choose_recipe(files, folder).modality
    keys, _ = fitting_keys(modality, [path for path in files if path.suffix.lower() in modality.suffixes])
    return type(modality)(**keys)


def _bundled_reader(folder: Path) -> str:
    """Returns the name of the first bundled model that reads files of a folder; raises ValueError where none does."""
    from scm_media.build import build
    from scm_media.pipeline import ModelFolder, bundled_names

    suffixes = {path.suffix.lower() for path in folder.rglob("*") if path.is_file()}
    for name in bundled_names():
        model = ModelFolder.open(name)
        if model.has("feature_extractor") and suffixes & build(model.description.modality, "modality").suffixes:
            return name
    raise ValueError(
        f"{folder}: no bundled model reads files of this folder ({', '.join(sorted(suffixes)) or 'it has none'}); "
        "name a MODEL whose features are to be used, or a network with --features"
    )
