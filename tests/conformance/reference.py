#!/usr/bin/env python3
"""Writes the conformance cases: graphs, operands and what NumPy says of them.

    python reference.py OUT_DIR

writes OUT_DIR/cases.json and OUT_DIR/cases.bin. Nothing here is shared with
the kernels: expected values come from NumPy in float64, convolutions and
pooling from plain loops over taps and windows, random numbers from a second
Philox. Operands are drawn from a fixed seed.
"""

import json
import sys
from pathlib import Path

import numpy as np

import cases_arrays
import cases_elementwise
import cases_image
import cases_program
from case import Suite


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    suite = Suite(np.random.Generator(np.random.PCG64(20)))
    for family in (cases_elementwise, cases_arrays, cases_image, cases_program):
        family.add_to(suite)
    (out / "cases.json").write_text(json.dumps({"cases": suite.cases}))
    (out / "cases.bin").write_bytes(bytes(suite.blob))
    print(f"{len(suite.cases)} cases, {len(suite.blob)} bytes")


if __name__ == "__main__":
    main()
