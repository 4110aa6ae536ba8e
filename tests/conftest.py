"""Sets up every test: one thread, fixed seeds, no state of Hydra's left behind, a wide terminal."""

from __future__ import annotations

import functools
import gc
import logging
import math
import os
import sys
from pathlib import Path

import pytest
import torch

from scm_media.data import known_files
from scm_media.fabric import Fabric

# Before any subprocess is started: tests run side by side, and what they start inherits this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["COLUMNS"] = "200"
os.environ["HF_HUB_OFFLINE"] = "1"
# A worker that loads librosa's functions as another process compiled them has crashed: each compiles its own, which
# takes half a minute, and keeps them for the next time.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
# Less time to compile; sounds of tests are short.
os.environ |= {
    "NUMBA_OPT": "0",
    "NUMBA_LOOP_VECTORIZE": "0",
    "NUMBA_SLP_VECTORIZE": "0",
    "NUMBA_DISABLE_INTEL_SVML": "1",
}
os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "numba" / _WORKER)
torch.set_num_threads(1)
known_files.SECONDS = math.inf  # nothing of a test is kept in the user's cache


def _fail(handler: logging.Handler, record: logging.LogRecord) -> None:
    """A message that does not fit its arguments is an error, which logging would only print; a closed stream is not."""
    if isinstance(sys.exception(), TypeError | KeyError):
        raise


logging.Handler.handleError = _fail  # type: ignore[method-assign]

# Each Fabric looks through all installed packages for callbacks, 20 ms.
_made_of = sys.modules[Fabric.__module__]
_made_of._load_external_callbacks = functools.cache(_made_of._load_external_callbacks)


def pytest_configure(config: pytest.Config) -> None:
    """Modules and tests that are collected stay until the end, so that the garbage collector need not look for them."""
    if not getattr(config.option, "numprocesses", None):  # else the workers collect, and not this process
        gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Each test draws the same numbers, in whatever order and company it runs."""
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(0)
    torch.default_generator.manual_seed(0)  # torch.manual_seed formats a stack trace for each kind of device


@pytest.fixture(autouse=True)
def _no_hydra_left_behind():
    """Hydra keeps one global instance; a test that failed half-way must not fail the next one."""
    yield
    if "hydra" in sys.modules:
        from hydra.core.global_hydra import GlobalHydra

        GlobalHydra.instance().clear()


@pytest.fixture
def generator() -> torch.Generator:
    """A CPU generator of its own, for tests that draw."""
    return torch.Generator().manual_seed(0)


class Logged(logging.Handler):
    """This keeps what is logged; pytest's own plugin, which does so for every test, takes a millisecond of each."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a message with its traceback."""
        self.lines.append(self.format(record))


@pytest.fixture
def logged():
    """Returns the lines that are logged, as they come."""
    handler = Logged()
    logging.getLogger().addHandler(handler)
    yield handler.lines
    logging.getLogger().removeHandler(handler)


@pytest.fixture(scope="module")
def allowed():
    """Configurations may name what stands under tests/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCM_MEDIA_ALLOW", "tests")
        yield


@pytest.fixture
def told(pipeline):
    """Returns the conditioning that the student of a module's ``pipeline`` gets, call by call."""
    seen = []
    handle = pipeline.network("student").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2].concat))
    yield seen
    handle.remove()
