"""This module is ``scm-media app``: it opens the browser app, on this computer alone unless it is told otherwise."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from scm_media.app.settings import BUNDLED, PASSWORD_VARIABLE, SHORTEST_PASSWORD, ServerSettings
from scm_media.cli.arguments import add_device_flags, parser


def run(arguments: Sequence[str]) -> int:
    """Returns 0 when the server has been ended."""
    parsed = _parser().parse_args(arguments)
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the app needs the package gradio, which is not installed: pip install 'scm-media[app]'")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

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
        help=f"bundled names, run folders, exported folders or files; default: {', '.join(BUNDLED)}",
    )
    commands.add_argument(
        "--host", default=ServerSettings.host, metavar="H", help="address to listen on; default: %(default)s"
    )
    commands.add_argument("--port", type=int, metavar="P", help="default: 7860, or the next one that is free")
    commands.add_argument(
        "--password",
        metavar="W",
        help=f"at least {SHORTEST_PASSWORD} characters; others on this computer can see it here, and cannot where the "
        f"environment variable {PASSWORD_VARIABLE} has it",
    )
    commands.add_argument(
        "--max-upload",
        type=float,
        default=ServerSettings.max_upload,
        metavar="MB",
        help="size of an uploaded file at most, in megabytes; default: %(default)g",
    )
    commands.add_argument(
        "--queue",
        type=int,
        default=ServerSettings.queue,
        metavar="N",
        help="requests that wait at most, further ones are refused; default: %(default)s",
    )
    commands.add_argument(
        "--most",
        type=int,
        default=ServerSettings.most,
        metavar="N",
        help="samples of one request at most; default: %(default)s",
    )
    commands.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where private folders are made, until the app ends; default: the system's folder for temporary files",
    )
    commands.add_argument(
        "--runs", type=Path, metavar="DIR", help="show the trainings below this folder, such as runs; default: none"
    )
    add_device_flags(commands)
    return commands
