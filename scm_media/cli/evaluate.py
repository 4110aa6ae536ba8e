"""``scm-media evaluate``: a model's distances, precision, recall and seconds; or one folder against another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scm_media.cli.arguments import add_network_flags, parser
from scm_media.cli.progress import Progress

ROWS = ("teacher", "1", "2", "4")
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
    commands.add_argument("-n", "--num-samples", type=int, default=10_000, metavar="N", help="default: 10000")
    commands.add_argument("--features", metavar="F", help="another feature network; default: the model's own")
    commands.add_argument(
        "--rows", nargs="+", metavar="ROW", help=f"steps, teacher or teacher:STEPS; default: {' '.join(ROWS)}"
    )
    commands.add_argument(
        "--curve", action="store_true", help="more rows: distance over evaluations, also as a picture"
    )
    commands.add_argument("--seed", type=int, default=0, metavar="I", help="default: 0")
    commands.add_argument("--out", type=Path, metavar="DIR", help="for metrics.json and report.html")
    commands.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    add_network_flags(commands, batch_size=64)
    parsed = commands.parse_args(arguments)
    folders = parsed.samples is not None or parsed.reference is not None
    if folders and (parsed.samples is None or parsed.reference is None):
        commands.error("--samples and --reference go together")
    if not folders and parsed.model is None:
        commands.error("give a MODEL, or --samples DIR and --reference DIR")

    from scm_media.evaluation import report
    from scm_media.evaluation.report import write_report_page
    from scm_media.weights import write_whole

    metrics, out = _compare_folders(parsed) if folders else _evaluate_model(parsed)
    text = json.dumps(metrics, ensure_ascii=False)
    print(text if parsed.json else report(metrics))
    if out is not None:
        write_whole(out / "metrics.json", f"{json.dumps(metrics, indent=2, ensure_ascii=False)}\n".encode())
        write_report_page(metrics, out / "report.html")
        if not parsed.json:
            print(f"\nThe same as a page: {out / 'report.html'}")
    return 0


def _evaluate_model(parsed: Any) -> tuple[dict[str, Any], Path]:
    from scm_media.evaluation import evaluate
    from scm_media.pipeline import load

    pipeline = load(parsed.model, parsed.device, parsed.precision)
    own = Path(parsed.model)
    # Figures belong beside the weights; a bundled model's folder is not the user's to write to.
    out = parsed.out or (own if own.is_dir() else Path("evaluation") / pipeline.name)
    metrics = evaluate(
        pipeline,
        num_samples=parsed.num_samples,
        features=parsed.features,
        rows=parsed.rows or (CURVE if parsed.curve else ROWS),
        batch_size=parsed.batch_size,
        seed=parsed.seed,
        work=out / "evaluation",
        progress=Progress(),
    )
    return metrics, out


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
