"""``scm-media evaluate``: a model's distances, precision, recall and seconds; or one folder against another."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scm_media.cli.arguments import add_network_flags, parser
from scm_media.cli.progress import Progress

ROWS = ("teacher", "1", "2", "4")
NUM_SAMPLES, NUM_SEARCHED = 10_000, 2_000
NUM_KEPT = 2_000
"""Figures of fewer samples, or of some rows alone, are not kept as the model's unless ``--out`` asks for it."""

CURVE = ("teacher:2", "teacher:4", "teacher:8", "teacher:16", "teacher", "1", "2", "3", "4", "8")


def run(arguments: Sequence[str]) -> int:
    """0 when every row is measured."""
    commands = parser(
        "evaluate",
        "Measures a model in the features that it carries: Fréchet distance, precision, recall, agreement with labels\n"
        "and seconds a clip, of students and teacher from the same noise. An interrupted evaluation goes on.",
        usage="scm-media evaluate MODEL [flags]\n"
        "       scm-media evaluate [MODEL] --samples DIR --reference DIR [flags]",
    )
    commands.add_argument("model", nargs="?", metavar="MODEL", help="a bundled name, a run or model folder, hf://…")
    commands.add_argument("--samples", type=Path, metavar="DIR", help="compare the files of this folder …")
    commands.add_argument("--reference", type=Path, metavar="DIR", help="… with these, in the features of MODEL")
    commands.add_argument("-n", "--num-samples", type=int, metavar="N", help="default: 10000; 2000 for a search")
    commands.add_argument("--features", metavar="F", help="another feature network; default: the model's own")
    commands.add_argument(
        "--rows", nargs="+", metavar="ROW", help=f"steps, teacher or teacher:STEPS; default: {' '.join(ROWS)}"
    )
    commands.add_argument(
        "--curve", action="store_true", help="more rows: distance over evaluations, also as a picture"
    )
    commands.add_argument(
        "--search-times",
        action="store_true",
        help="search the times of two and four steps instead, on clips of another seed; kept in MODEL's model.json",
    )
    commands.add_argument("--seed", type=int, default=0, metavar="I", help="default: 0")
    commands.add_argument("--out", type=Path, metavar="DIR", help="write metrics.json and report.html there")
    commands.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    add_network_flags(commands, batch_size=64)
    parsed = commands.parse_args(arguments)
    folders = parsed.samples is not None or parsed.reference is not None
    if folders and (parsed.samples is None or parsed.reference is None):
        commands.error("--samples and --reference go together")
    if not folders and parsed.model is None:
        commands.error("give a MODEL, or --samples DIR and --reference DIR")
    if parsed.search_times:
        if folders or parsed.rows or parsed.curve or parsed.features or parsed.out:
            commands.error("--search-times goes with a MODEL alone: no folders, rows, curve, features or --out")
        return _search_times(parsed)

    from scm_media.evaluation import report
    from scm_media.evaluation.report import write_report_page
    from scm_media.weights import write_whole

    metrics, out = _compare_folders(parsed) if folders else _evaluate_model(parsed)
    print(json.dumps(metrics, ensure_ascii=False) if parsed.json else report(metrics))
    if out is None:
        return 0
    write_whole(out / "metrics.json", f"{json.dumps(metrics, indent=2, ensure_ascii=False)}\n".encode())
    write_report_page(metrics, out / "report.html")
    print(f"the same as a page: {out / 'report.html'}", file=sys.stderr)
    if not folders:
        _rewrite_card(parsed.model, out, metrics)
    return 0


def _evaluate_model(parsed: Any) -> tuple[dict[str, Any], Path | None]:
    """The figures of a model, and where to keep them; None where they are not fit to stand as the model's own."""
    from scm_media.evaluation import evaluate
    from scm_media.pipeline import load

    pipeline = load(parsed.model, parsed.device, parsed.precision)
    own = Path(parsed.model)
    # Figures belong beside the weights; a bundled model's folder is not the user's to write to.
    out = parsed.out or (own if own.is_dir() else Path("evaluation") / pipeline.name)
    num_samples = NUM_SAMPLES if parsed.num_samples is None else parsed.num_samples
    rows = parsed.rows or (CURVE if parsed.curve else ROWS)
    metrics = evaluate(
        pipeline,
        num_samples=num_samples,
        features=parsed.features,
        rows=rows,
        batch_size=parsed.batch_size,
        seed=parsed.seed,
        work=out / "evaluation",
        progress=Progress(),
    )
    # A model without its teacher may carry figures that were measured with it.
    whole = set(ROWS) <= set(rows) and (pipeline.folder.has("teacher") or not (out / "metrics.json").exists())
    if parsed.out is None and (not whole or num_samples < NUM_KEPT):
        print(
            f"not kept: {out / 'metrics.json'} is for the rows {', '.join(ROWS)} of at least {NUM_KEPT} samples; "
            "--out DIR writes these",
            file=sys.stderr,
        )
        return metrics, None
    return metrics, out


def _rewrite_card(source: str, out: Path, metrics: Mapping[str, Any]) -> None:
    """The card of a model folder follows its figures."""
    from scm_media.pipeline import ModelFolder
    from scm_media.pipeline.card import model_card
    from scm_media.weights import write_whole

    folder = ModelFolder.open(source)
    if not folder.is_run and folder.path.resolve() == out.resolve():
        write_whole(out / "README.md", model_card(folder.description, metrics).encode())


def _search_times(parsed: Any) -> int:
    from scm_media.evaluation import keep_times, search_times, times_report
    from scm_media.pipeline import load

    pipeline = load(parsed.model, parsed.device, parsed.precision)
    found = search_times(
        pipeline,
        num_samples=NUM_SEARCHED if parsed.num_samples is None else parsed.num_samples,
        batch_size=parsed.batch_size,
        seed=parsed.seed + 1,
        progress=Progress(),
    )
    print(json.dumps(found, ensure_ascii=False) if parsed.json else times_report(found))
    if Path(parsed.model).is_dir():
        keep_times(pipeline.folder, found)
        print(f"kept in {pipeline.folder.path / 'model.json'}, so that 2 and 4 steps use them", file=sys.stderr)
    else:
        print("not kept: a bundled or downloaded model is not yours to write to; export it", file=sys.stderr)
    return 0


def _compare_folders(parsed: Any) -> tuple[dict[str, Any], Path | None]:
    from scm_media.evaluation import evaluate_folders
    from scm_media.pipeline import load

    pipeline = load(parsed.model or _reader(parsed.samples), parsed.device, parsed.precision)
    metrics = evaluate_folders(
        parsed.samples,
        parsed.reference,
        pipeline.modality,
        pipeline.network("embedder"),
        batch_size=parsed.batch_size,
        device=pipeline.device,
        progress=Progress(),
    )
    return metrics, parsed.out


def _reader(folder: Path) -> str:
    """The first bundled model that reads files of a folder. Raises ValueError when none does."""
    from scm_media.build import build
    from scm_media.pipeline import ModelFolder, bundled_names

    there = {path.suffix.lower() for path in folder.rglob("*") if path.is_file()}
    for name in bundled_names():
        model = ModelFolder.open(name)
        if model.has("embedder") and there & build(model.description["modality"]).suffixes:
            return name
    raise ValueError(
        f"{folder}: no bundled model reads files of this folder ({', '.join(sorted(there)) or 'it has none'}); "
        "name a MODEL whose features are to be used"
    )
