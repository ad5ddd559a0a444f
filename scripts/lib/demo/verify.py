"""Judges a downloaded model: three independent readings of its test accuracy must agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy
from raven import read_safetensors

from . import numpy_forward
from .data import Dataset
from .recipes import Recipe

LOADER_S_MAX = 300.0
# The kernels and NumPy sum in different orders, so a sample on the very edge between two classes may fall on
# either side: one in two thousand, and one at least.
_EDGE_SAMPLES = 2000


class Disagreement(Exception):
    """The model is not what the coordinator says it is."""


def test_accuracy(recipe: Recipe, dataset: Dataset, model: Path, loader: Path, job: dict, work: Path) -> float:
    """The accuracy by the independent forward pass, after the others were compared with it.

    Raises `Disagreement` where the coordinator's or the loader's accuracy differs
    or the model is worse than its recipe promises.
    """
    tensors, _ = read_safetensors(model)
    rows = len(dataset.test_y)
    found = numpy_forward.correct(recipe.layers, tensors, dataset.test_x, dataset.test_y, dataset.scale)
    tolerance = max(1, rows // _EDGE_SAMPLES)
    claims = {
        "the coordinator": job["best"]["accuracy"] * rows,
        "load_model.py": _loader_accuracy(model, loader, dataset, work) * rows,
    }
    for who, claim in claims.items():
        if abs(claim - found) > tolerance + 0.5:
            raise Disagreement(f"{who} counts {claim:.1f} of {rows} right, the NumPy forward pass {found}")
    return found / rows


def _loader_accuracy(model: Path, loader: Path, dataset: Dataset, work: Path) -> float:
    """Runs the generated script as a requester would and reads the accuracy that it prints."""
    x, y = work / "test_x.npy", work / "test_y.npy"
    numpy.save(x, dataset.test_x)
    numpy.save(y, dataset.test_y)
    command = [sys.executable, loader, model, "--data", x, y]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LOADER_S_MAX, check=False)
    if done.returncode != 0:
        raise Disagreement(f"load_model.py failed ({done.returncode}): {done.stdout}{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1])["accuracy"])
