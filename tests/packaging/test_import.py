"""The core must be importable where only PyTorch and einops are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
README = REPOSITORY / "README.md"
EXAMPLE = REPOSITORY / "examples" / "scm_in_one_file.py"

BLOCKER = """
import json
import sys

class Blind:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)

BLOCKED = set(json.loads(sys.argv[1]))
sys.meta_path[:] = [Blind(finder) for finder in sys.meta_path]
"""

REPORT = """
print(sorted(name for name in BLOCKED if name in sys.modules))
"""

PARTS = """
import torch
import scm_media
from scm_media import Conditioning, ConsistencyLoss, DiffusionLoss, TrigFlow, sample_consistency, value_and_tangent

flow = TrigFlow(0.5)
backbone = lambda u, t, cond: u * torch.cos(t)[:, None, None]
drawn = sample_consistency(backbone, flow, lambda i: 0.5 * torch.randn(2, 1, 8), (1.5645, 1.1), Conditioning())
assert drawn.shape == (2, 1, 8)
core = sorted(set(scm_media.__all__) - {"Dataset", "Example", "Samples", "Pipeline", "load"})  # these need safetensors
assert all(getattr(scm_media, name) is not None for name in core)
"""

BEFORE_THE_SCRIPT = """
import torch
from torch import nn

class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(17, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.dropout = nn.GroupNorm(4, 16), nn.Dropout(0.1)

    def forward(self, x, c_noise):
        x = torch.cat([x, c_noise[:, None, None, None].expand_as(x[:, :1])], 1)
        return self.last(self.dropout(torch.nn.functional.silu(self.norm(self.first(x)))))

torch.manual_seed(0)
unet = UNet()
latents = [0.5 * torch.randn(2, 16, 32, 32) for _ in range(10)]  # RAdam takes hardly a step before the sixth
"""

AFTER_THE_SCRIPT = """
assert x0.shape == (4, 16, 32, 32) and torch.isfinite(x0).all() and not x0.requires_grad
assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())
for name, parameter in student.named_parameters():
    moved = (parameter - teacher.state_dict()[name]).abs().max().item()
    assert 0 < moved < 1e-3, (name, moved)
    behind = (ema.averaged[name] - parameter).abs().max().item()
    assert 0 < behind < moved, (name, behind)
assert ema.step == 10 and set(terms) >= {"t", "loss", "g_rms", "dF_dt_rms"}
again = scm.sample_consistency(ema.copy_to(copy.deepcopy(student)), shape=(4, 16, 32, 32), steps=2, seed=0)
assert 0 < (again - x0).abs().max() < 0.1
"""


def run_with_torch_and_einops_alone(program: str, distributions_of) -> None:
    """Runs a program that can import nothing but the core, torch, einops and the standard library."""
    allowed = distributions_of(["torch", "einops"]) | {"scm-media"}
    blocked = [
        package
        for package, distributions in metadata.packages_distributions().items()
        if not any(canonicalize_name(name) in allowed for name in distributions) and package != "modalities"
    ]
    ours = {"hydra", "omegaconf", "lightning_fabric", "safetensors", "numpy", "PIL", "tensorboard", "rich"}
    assert ours <= set(blocked), "the test must block every other dependency"
    also_blocked = ["torchvision", "torchaudio", "av", "librosa", "modalities"]  # some may not be installed here
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            BLOCKER + program + REPORT,
            json.dumps(sorted({*blocked, *also_blocked})),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_core_needs_torch_and_einops_alone(distributions_of):
    run_with_torch_and_einops_alone(PARTS, distributions_of)


def test_the_readmes_script_runs_as_written_with_torch_and_einops_alone(distributions_of):
    scripts = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (script,) = (script for script in scripts if "scm.teachers" in script)
    run_with_torch_and_einops_alone(BEFORE_THE_SCRIPT + script + AFTER_THE_SCRIPT, distributions_of)


@pytest.mark.slow
def test_the_example_runs_with_torch_and_einops_alone(distributions_of):
    program = f"""
import contextlib, io, runpy
sys.argv = "scm_in_one_file.py --teacher-steps 3 --student-steps 3 --batch-size 8 --num 50".split()
with contextlib.redirect_stdout(io.StringIO()) as printed:
    runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
assert "student, 2 steps" in printed.getvalue()
"""
    run_with_torch_and_einops_alone(program, distributions_of)
