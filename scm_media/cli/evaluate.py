"""``scm-media evaluate`` measures a model's distances, precision, recall and seconds, or compares two folders."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scm_media.cli import evaluate_modes
from scm_media.cli.arguments import add_network_flags, parser
from scm_media.cli.output import print_json
from scm_media.display import printable, printable_lines
from scm_media.processes import Share, own_share
from scm_media.progress import Progress

ROWS = ("teacher", "1", "2", "4")
NUM_SAMPLES = 10_000
MIN_KEPT = 2_000
"""Figures of fewer samples, or of some rows alone, are kept as the model's only where ``--out`` asks for it."""

FEW_EXAMPLES = 10_000
"""Models of no more training examples are measured for memorization too, in 1,000 samples."""

CURVE = (
    *("1", "2", "4", "8", "teacher"),
    *(f"teacher:heun:{steps}" for steps in (2, 4, 8, 16)),
    *(f"teacher:dpm_solver:{steps}" for steps in (4, 8, 16, 32)),
)
EXCLUDED = {
    "search_times": ("rows", "guidance", "curve", "features", "out", "memorization", "search_ema", "samples"),
    "search_ema": ("guidance", "curve", "out", "memorization", "samples"),
    "memorization": ("guidance", "curve", "samples"),
    "guidance": ("samples",),
}
"""A flag is refused together with those that stand beside it here."""


def run(arguments: Sequence[str]) -> int:
    """Returns 0 when every row is measured."""
    commands = _parser()
    parsed = commands.parse_args(arguments)
    _check_flags(commands, parsed)
    if parsed.search_times:
        return evaluate_modes.search_times(parsed)
    if parsed.search_ema:
        return evaluate_modes.search_ema(parsed)
    if parsed.memorization:
        return evaluate_modes.find_memorized(parsed, _output_folder(parsed, parsed.model))

    from scm_media.evaluation import report
    from scm_media.evaluation.report import write_report_page

    folders, share = parsed.samples is not None, own_share()
    metrics, out = evaluate_modes.compare_folders(parsed) if folders else _evaluate_model(parsed, share)
    if share.rank > 0:
        return 0
    print_json(metrics) if parsed.json else print(printable_lines(report(metrics)))
    if out is None:
        return 0
    # Figures in other features stand beside the model's own.
    suffix = f"-{parsed.features}" if parsed.features and not folders else ""
    if not folders:
        suffix = _keep_apart(out, metrics, suffix)
    own = {name: value for name, value in metrics.items() if name != "memorization"}  # which has a file of its own
    evaluate_modes.write_json(out / f"metrics{suffix}.json", own)
    page = out / f"report{suffix}.html"
    if parsed.curve and not folders:
        evaluate_modes.write_curve_page(parsed, ["evaluate", *arguments], metrics, page)
    else:
        write_report_page(metrics, page)
    print(f"the same as a page: {printable(page)}", file=sys.stderr)
    if not folders:
        evaluate_modes.rewrite_card(parsed.model, out)
    return 0


def _check_flags(commands: argparse.ArgumentParser, parsed: Any) -> None:
    """Ends the program with exit code 2 for flags that do not go together."""
    if parsed.samples is None and parsed.reference is not None:
        commands.error("--reference goes with --samples DIR")
    if parsed.samples is not None and parsed.reference is None and parsed.model is None:
        commands.error("--samples goes with --reference DIR, or with a MODEL for its training data")
    if parsed.samples is None and parsed.model is None:
        commands.error(
            "give a MODEL (a bundled one, a run folder or an exported folder), or --samples DIR and --reference DIR"
        )
    for flag, excluded in EXCLUDED.items():
        if getattr(parsed, flag) and (given := [name for name in excluded if getattr(parsed, name)]):
            words = [f"--{name.replace('_', '-')}" for name in (flag, *given)]
            commands.error(f"{words[0]} goes with a MODEL, without {', '.join(words[1:])}")
    alone = [name for name in ("search_times", "search_ema", "memorization", "samples") if getattr(parsed, name)]
    if alone and own_share().world > 1:
        commands.error(f"--{alone[0].replace('_', '-')} is the work of one process: start it without torchrun")
    if (parsed.search_ema or parsed.memorization) and parsed.rows and len(parsed.rows) > 1:
        commands.error("--search-ema and --memorization measure one row at a time: --rows ROW, such as --rows 2")


def _parser() -> argparse.ArgumentParser:
    commands = parser(
        "evaluate",
        "Measures a model in the features that it carries: Fréchet distance, precision, recall, accuracy of labels\n"
        "and seconds per sample, of students and teacher from the same noise. An interrupted evaluation goes on.\n"
        "Processes of torchrun share the samples of the rows.",
        usage="scm-media evaluate MODEL [flags]\n"
        "       scm-media evaluate [MODEL] --samples DIR [--reference DIR] [flags]",
    )
    commands.add_argument("model", nargs="?", metavar="MODEL", help="a bundled name, a run or model folder, hf://…")
    commands.add_argument("--samples", type=Path, metavar="DIR", help="compare these files, in the features of MODEL …")
    commands.add_argument(
        "--reference", type=Path, metavar="DIR", help="… with these, in the features of MODEL; default: MODEL's data"
    )
    commands.add_argument(
        "-n",
        "--num-samples",
        type=int,
        metavar="N",
        help="number of samples; default: 10000, for a search 2000, for --memorization 1000",
    )
    commands.add_argument(
        "--features",
        metavar="F",
        help="a feature network of the modality's, for pictures efficientnet-lite0; default: the model's own",
    )
    commands.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        help=f"steps, teacher, teacher:STEPS or teacher:SOLVER:STEPS (heun, dpm_solver); default: {' '.join(ROWS)}",
    )
    commands.add_argument(
        "--guidance",
        type=float,
        nargs="+",
        metavar="S",
        help="scales that every row is measured at, student and teacher alike; default: the model's own",
    )
    commands.add_argument(
        "--curve",
        action="store_true",
        help="quality against compute: students of 1 to 8 steps and the teacher by two solvers, with intervals of all "
        "figures, operations, a second feature network, statistics of samples and held-out data beside them",
    )
    commands.add_argument(
        "--memorization",
        type=_count,
        metavar="N",
        help="does it copy? draws the N samples nearest to training data with these; needs the recipe's data",
    )
    commands.add_argument(
        "--search-times",
        action="store_true",
        help="search the times of 1, 2 and 4 steps instead, on samples of another seed; kept in MODEL's model.json",
    )
    commands.add_argument(
        "--search-ema",
        choices=("teacher", "student"),
        metavar="STAGE",
        help="choose the averaging length of a run's teacher or student weights from its snapshots, on samples of "
        "another seed; the best average replaces the stage's weights, which are kept beside it",
    )
    commands.add_argument("--seed", type=int, default=0, metavar="I", help="seed of the noise; default: 0")
    commands.add_argument("--out", type=Path, metavar="DIR", help="write metrics.json and report.html there")
    commands.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    add_network_flags(commands, batch_size=64)
    return commands


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of samples, at least 1, got {text!r}")
    return int(text)


def _output_folder(parsed: Any, name: str) -> Path:
    """Returns the folder for figures: the model's own, or one here for a bundled or downloaded model."""
    from scm_media.pipeline.hub import folder_name

    own = Path(parsed.model)
    out: Path = parsed.out or (own if own.is_dir() else Path("evaluation") / folder_name(name))
    for path in (out / "evaluation", *(out / "evaluation").glob("*")) if parsed.out is None else ():
        if not path.resolve().is_relative_to(out.resolve()):
            raise ValueError(f"{path} is a link out of the model's folder; remove it, or pass --out DIR")
    return out


def _keep_apart(out: Path, metrics: dict[str, Any], suffix: str) -> str:
    """Returns the suffix of the files for new figures of a model, so that a curve and ordinary figures are both kept.

    A curve stands beside ordinary figures, and one that came first makes way for them. Figures of another model, or of
    other weights of its student, are not kept beside new ones. suffix: that of the features.
    """
    from scm_media.pipeline.model_folder import CURVE_SUFFIX

    file, beside = (out / f"metrics{each}.json" for each in (suffix, suffix + CURVE_SUFFIX))
    pages = [out / f"report{each}.html" for each in (suffix, suffix + CURVE_SUFFIX)]
    before, curve = (_figures_of_the_same(each, metrics) for each in (file, beside))
    if metrics.get("curve") and before is not None and not before.get("curve"):
        return suffix + CURVE_SUFFIX
    if not metrics.get("curve") and before is not None and before.get("curve"):
        file.replace(beside)
        if pages[0].is_file():
            pages[0].replace(pages[1])
    elif curve is None or metrics.get("curve"):
        beside.unlink(missing_ok=True)
        pages[1].unlink(missing_ok=True)
    return suffix


def _figures_of_the_same(file: Path, metrics: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the figures in a file if they are of the same model and student, as far as they say; None otherwise."""
    from scm_media.reading import read_json

    try:
        figures = read_json(file)
    except (OSError, ValueError):
        return None
    if not isinstance(figures, dict) or figures.get("model") != metrics["model"]:
        return None
    return figures if figures.get("student") in (None, metrics.get("student")) else None


def _evaluate_model(parsed: Any, share: Share) -> tuple[dict[str, Any], Path | None]:
    """Returns a model's figures and the folder to keep them in; None where they cannot stand as the model's own.

    Of several processes the first one alone gets figures.
    """
    from scm_media.evaluation import EvaluationRequest, evaluate
    from scm_media.pipeline import load

    pipeline = load(parsed.model, share.device(parsed.device), parsed.precision)
    out = _output_folder(parsed, pipeline.name)
    request = EvaluationRequest(
        num_samples=NUM_SAMPLES if parsed.num_samples is None else parsed.num_samples,
        rows=parsed.rows or (CURVE if parsed.curve else ROWS),
        guidance=parsed.guidance or (),
        features=parsed.features,
        batch_size=parsed.batch_size,
        seed=parsed.seed,
        curve=parsed.curve,
    )
    metrics = evaluate(pipeline, request, work=out / "evaluation", progress=Progress(), share=share)
    if share.rank > 0:
        return metrics, None
    file = out / (f"metrics-{parsed.features}.json" if parsed.features else "metrics.json")
    # A model without its teacher may carry figures that were measured with it.
    with_teacher = pipeline.folder.has("teacher") or not file.exists()
    whole = set(ROWS) <= set(request.rows) and not parsed.guidance and with_teacher
    if parsed.out is None and (not whole or request.num_samples < MIN_KEPT):
        print(
            f"not kept: {printable(file)} is for the rows {', '.join(ROWS)} of at least {MIN_KEPT} samples at the "
            "model's own guidance; --out DIR writes these",
            file=sys.stderr,
        )
        return metrics, None
    if parsed.features is None and metrics["num_reference"] <= FEW_EXAMPLES:
        num = min(request.num_samples, evaluate_modes.NUM_COMPARED)
        if (found := evaluate_modes.measure_memorization(parsed, pipeline, out, num)) is not None:
            metrics["memorization"] = found
    return metrics, out
