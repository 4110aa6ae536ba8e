"""The core must be importable where only PyTorch and einops are."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

from packaging.utils import canonicalize_name

PROGRAM = """
import json
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by the test)", name=name)

BLOCKED = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, Refuse())

import torch
import scm_media
from scm_media import Conditioning, ConsistencyLoss, DiffusionLoss, TrigFlow, sample_consistency, value_and_tangent

flow = TrigFlow(0.5)
backbone = lambda u, t, cond: u * torch.cos(t)[:, None, None]
drawn = sample_consistency(backbone, flow, lambda i: 0.5 * torch.randn(2, 1, 8), (1.5645, 1.1), Conditioning())
assert drawn.shape == (2, 1, 8)
print(sorted(name for name in BLOCKED if name in sys.modules))
"""


def test_core_needs_torch_and_einops_alone(distributions_of):
    allowed = distributions_of(["torch", "einops"]) | {"scm-media"}
    blocked = [
        package
        for package, distributions in metadata.packages_distributions().items()
        if not any(canonicalize_name(name) in allowed for name in distributions) and package != "modalities"
    ]
    ours = {"hydra", "omegaconf", "lightning", "safetensors", "numpy", "PIL", "tensorboard", "rich"}
    assert ours <= set(blocked), "the test must block every other dependency"
    also_blocked = ["torchvision", "torchaudio", "av", "librosa", "modalities"]  # some may not be installed here
    program = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(sorted({*blocked, *also_blocked}))],
        capture_output=True,
        text=True,
    )
    assert program.returncode == 0, program.stderr
    assert program.stdout.strip() == "[]"
