"""What ``evaluate`` does beside measuring a model's rows: searches, copies, two folders."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from scm_media.cli.output import print_json
from scm_media.cli.progress import Progress
from scm_media.display import printable, printable_lines

NUM_SEARCHED, NUM_COMPARED = 2_000, 1_000


def search_times(parsed: Any) -> int:
    """Searches the times of few steps and keeps them in the model's ``model.json``."""
    from scm_media.evaluation import keep_times, search_times, times_report
    from scm_media.pipeline import load

    pipeline = load(parsed.model, parsed.device, parsed.precision)
    found = search_times(
        pipeline,
        num_samples=_num(parsed, NUM_SEARCHED),
        batch_size=parsed.batch_size,
        seed=parsed.seed + 1,
        progress=Progress(),
    )
    print_json(found) if parsed.json else print(printable_lines(times_report(found)))
    if Path(parsed.model).is_dir():
        keep_times(pipeline.folder, found)
        print(
            f"kept in {printable(pipeline.folder.path / 'model.json')}, so that {', '.join(found['times'])} steps "
            f"use them",
            file=sys.stderr,
        )
    else:
        print("not kept: a bundled or downloaded model is not yours to write to; export it", file=sys.stderr)
    return 0


def search_ema(parsed: Any) -> int:
    """Chooses the averaging length of a stage's weights; the best take their place."""
    from scm_media.evaluation import averages_report, choice_of, search_ema
    from scm_media.pipeline import load
    from scm_media.training.ema_selection import keep_average

    pipeline = load(parsed.model, parsed.device, parsed.precision)
    found, state = search_ema(
        pipeline,
        parsed.search_ema,
        num_samples=_num(parsed, NUM_SEARCHED),
        features=parsed.features,
        row=parsed.rows[0] if parsed.rows else None,
        batch_size=parsed.batch_size,
        seed=parsed.seed + 1,
        progress=Progress(),
    )
    print_json(found) if parsed.json else print(printable_lines(averages_report(found)))
    file = pipeline.folder.file(parsed.search_ema)
    if state is None:
        print(f"{printable(file)} stays as it is: no other length was better", file=sys.stderr)
        return 0
    before = keep_average(pipeline.folder, parsed.search_ema, state, choice_of(found))
    print(
        f"{printable(file)} is now the average of {found['chosen']}; the weights of the training are kept in "
        f"{printable(before)} (copy them "
        "back to undo). Figures of before are of other weights: evaluate again",
        file=sys.stderr,
    )
    return 0


def find_memorized(parsed: Any, out: Path) -> int:
    """Writes the sheet of the samples nearest to training data, and their figures."""
    from scm_media.evaluation import find_memorized
    from scm_media.evaluation.report import NEAREST_SHEET
    from scm_media.pipeline import load
    from scm_media.pipeline.card import nearest_report
    from scm_media.weights import write_whole

    pipeline = load(parsed.model, parsed.device, parsed.precision)
    figures, sheet = find_memorized(
        pipeline,
        num_shown=parsed.nearest,
        num_samples=_num(parsed, NUM_COMPARED),
        features=parsed.features,
        row=parsed.rows[0] if parsed.rows else None,
        batch_size=parsed.batch_size,
        seed=parsed.seed,
        progress=Progress(),
    )
    print_json(figures) if parsed.json else print(printable_lines(nearest_report(figures)))
    write_whole(out / "nearest.json", f"{json.dumps(figures, indent=2, ensure_ascii=False)}\n".encode())
    picture = io.BytesIO()
    sheet.save(picture, format="PNG")
    write_whole(out / NEAREST_SHEET, picture.getvalue())  # not through a link of this name
    print(f"the samples beside the training samples nearest to them: {printable(out / NEAREST_SHEET)}", file=sys.stderr)
    rewrite_card(parsed.model, out)
    return 0


def compare_folders(parsed: Any) -> tuple[dict[str, Any], Path | None]:
    """The figures of one folder's files against another's, and where to keep them."""
    from scm_media.evaluation import evaluate_folders, named_network, own_network, projected
    from scm_media.pipeline import load
    from scm_media.pipeline.generation import choose_device

    if parsed.features is not None and parsed.model is None:
        modality, device = _fitting_modality(parsed.reference), choose_device(parsed.device)
        network = projected(named_network(parsed.features, modality, device), modality.shape(), device)
    else:
        pipeline = load(parsed.model or _reader(parsed.samples), parsed.device, parsed.precision)
        modality, device = pipeline.modality, pipeline.device
        network = (
            own_network(pipeline)
            if parsed.features is None
            else projected(named_network(parsed.features, modality, device), modality.shape(), device)
        )
    metrics = evaluate_folders(
        parsed.samples,
        parsed.reference,
        modality,
        network,
        batch_size=parsed.batch_size,
        device=device,
        progress=Progress(),
    )
    return metrics, parsed.out


def rewrite_card(source: str, out: Path) -> None:
    """The card of a model folder follows the figures that were written into it."""
    from scm_media.pipeline import ModelFolder
    from scm_media.pipeline.card import card_of
    from scm_media.weights import write_whole

    folder = ModelFolder.open(source)
    if not folder.is_run and folder.path.resolve() == out.resolve():
        write_whole(out / "README.md", card_of(folder).encode())


def _num(parsed: Any, otherwise: int) -> int:
    return otherwise if parsed.num_samples is None else parsed.num_samples


def _fitting_modality(folder: Path) -> Any:
    """The modality that reads a folder's files, with keys that fit them."""
    from scm_media.cli.recipes import fitting_keys, recipe_for

    if not folder.is_dir():
        raise ValueError(f"--reference {folder}: no such folder")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    _, modality = recipe_for(files, folder)
    keys, _ = fitting_keys(modality, [path for path in files if path.suffix.lower() in modality.suffixes])
    return type(modality)(**keys)


def _reader(folder: Path) -> str:
    """The first bundled model that reads files of a folder. Raises ValueError when none does."""
    from scm_media.build import build
    from scm_media.pipeline import ModelFolder, bundled_names

    there = {path.suffix.lower() for path in folder.rglob("*") if path.is_file()}
    for name in bundled_names():
        model = ModelFolder.open(name)
        if model.has("feature_extractor") and there & build(model.description["modality"], "modality").suffixes:
            return name
    raise ValueError(
        f"{folder}: no bundled model reads files of this folder ({', '.join(sorted(there)) or 'it has none'}); "
        "name a MODEL whose features are to be used, or a network with --features"
    )
