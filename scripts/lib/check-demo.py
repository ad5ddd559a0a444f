"""Checks the JSON that scripts/demo wrote: every field there, sane, and as good and quick as promised.

Usage: check-demo.py FILE DATASET MODEL
"""

import json
import re
import sys

# Least accuracy on the test set, and most seconds of training on two cores.
PROMISES = {("digits", "mlp"): (0.96, 60.0), ("fashion-mnist", "cnn"): (0.90, 900.0)}

file_name, dataset, model = sys.argv[1:]
accuracy_min, train_s_max = PROMISES[dataset, model]
with open(file_name, encoding="utf-8") as file:
    result = json.load(file)

checks = {
    "dataset": lambda value: value == dataset,
    "model": lambda value: value == model,
    "epochs": lambda value: isinstance(value, int) and value >= 1,
    "test_accuracy": lambda value: accuracy_min <= value <= 1,
    "images_per_s": lambda value: value > 0,
    "contributors": lambda value: value == 3,
    "rounds": lambda value: isinstance(value, int) and value >= result["epochs"],
    "tasks": lambda value: isinstance(value, int) and value >= result["rounds"],
    "wall_s": lambda value: value >= result["train_s"],
    "train_s": lambda value: 0 < value <= train_s_max,
    "model_sha256": lambda value: re.fullmatch(r"[0-9a-f]{64}", value) is not None,
}
wrong = 0
for field, holds in checks.items():
    good = field in result and holds(result[field])
    wrong += not good
    print(f"{'ok  ' if good else 'BAD '} {field}: {result.get(field)}")
sys.exit(1 if wrong else 0)
