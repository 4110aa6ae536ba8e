"""This module is ``scm-media app``: it opens the browser app, on this computer alone unless it is told otherwise."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from scm_media.cli.arguments import parser


def run(arguments: Sequence[str]) -> int:
    """Returns 0 when the server has been ended."""
    parsed = _parser().parse_args(arguments)
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the app needs the package gradio, which is not installed: pip install 'scm-media[app]'")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

    from scm_media.app.settings import BUNDLED, PASSWORD_VARIABLE, ServerSettings

    settings = ServerSettings(
        models=tuple(parsed.models) or BUNDLED,
        host=parsed.host,
        port=parsed.port,
        password=parsed.password or os.environ.get(PASSWORD_VARIABLE) or None,
        max_upload=parsed.max_upload,
        queue=parsed.queue,
        most=parsed.most,
        out=parsed.out,
        runs=parsed.runs,
        device=parsed.device,
        precision=parsed.precision,
    )

    from scm_media.app.server import serve

    serve(settings)
    return 0


def _parser() -> argparse.ArgumentParser:
    commands = parser(
        "app",
        "Opens a page in which models make samples, live and as files, and take settings from files.\n"
        "It is served to this computer alone; --host lets others in, and then asks for a password.",
        usage="scm-media app [MODEL …] [flags]",
    )
    commands.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="bundled names, run folders, exported folders or files; default: all bundled ones",
    )
    commands.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on; default: 127.0.0.1")
    commands.add_argument("--port", type=int, metavar="P", help="default: 7860, or the next one that is free")
    commands.add_argument(
        "--password", metavar="W", help="others on this computer can see it here; better: SCM_MEDIA_PASSWORD"
    )
    commands.add_argument(
        "--max-upload", type=float, default=32.0, metavar="MB", help="size of an uploaded file at most; default: 32"
    )
    commands.add_argument("--queue", type=int, default=32, metavar="N", help="requests that wait at most; default: 32")
    commands.add_argument(
        "--most", type=int, default=16, metavar="N", help="samples of one request at most; default: 16"
    )
    commands.add_argument(
        "--out", type=Path, metavar="DIR", help="where private folders are made, until the app ends; default: temporary"
    )
    commands.add_argument(
        "--runs", type=Path, metavar="DIR", help="show the trainings below this folder, such as runs; default: none"
    )
    commands.add_argument("--device", default="auto", help="auto, cpu, cuda …; default: auto")
    commands.add_argument(
        "--precision", choices=("float32", "bf16"), default="float32", help="of the networks; default: float32"
    )
    return commands
