"""The product by NumPy's BLAS on one core, whatever vector units it has.

Reads lines `prepare M K N LAYOUT` and `run MS`, answers each with one line of JSON: `null`, or the
milliseconds of one product.
"""

import json
import os
import sys
import time

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import numpy as np  # noqa: E402


def prepare(m, k, n, layout):
    random = np.random.default_rng(7)
    a = random.random((m, k), np.float32) - np.float32(0.5)
    b = random.random((k, n), np.float32) - np.float32(0.5)
    # A turned operand is one that lies the other way round; its view is multiplied.
    if layout == "atb":
        a = np.ascontiguousarray(a.T).T
    if layout == "abt":
        b = np.ascontiguousarray(b.T).T
    return a, b, np.empty((m, n), np.float32)


def run(case, ms):
    a, b, out = case
    start, count = time.perf_counter(), 0
    while True:
        np.matmul(a, b, out=out)
        count += 1
        elapsed = (time.perf_counter() - start) * 1000
        if elapsed >= ms:
            return elapsed / count


case = None
for line in sys.stdin:
    verb, *words = line.split()
    if verb == "prepare":
        case = prepare(*map(int, words[:3]), words[3])
        answer = None
    else:
        answer = run(case, float(words[0]))
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
