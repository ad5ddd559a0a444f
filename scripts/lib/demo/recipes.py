"""What is trained: networks and training settings that suit the two data sets and two cores."""

from __future__ import annotations

from dataclasses import dataclass

from .data import Dataset


@dataclass(frozen=True)
class Recipe:
    """`accuracy_min` is what the trained model must reach on the test set."""

    layers: list
    epochs: int
    batch: int
    micro_batch: int
    learning_rate: float
    accuracy_min: float


def _dense(units: int, activation: str | None = None) -> dict:
    layer = {"type": "dense", "units": units}
    return layer if activation is None else {**layer, "activation": activation}


def _mlp(*hidden: int) -> list:
    return [{"type": "flatten"}, *(_dense(units, "relu") for units in hidden), _dense(10)]


def _cnn(kernel: int, filters: tuple[int, int], hidden: int) -> list:
    layers = []
    for count in filters:
        layers.append(
            {"type": "conv2d", "filters": count, "kernel": kernel, "padding": "same", "activation": "relu"}
        )
        layers.append({"type": "max_pool2d", "size": 2})
    return [*layers, {"type": "flatten"}, _dense(hidden, "relu"), _dense(10)]


RECIPES = {
    ("fashion-mnist", "cnn"): Recipe(_cnn(5, (16, 32), 128), 5, 256, 32, 0.002, 0.90),
    ("fashion-mnist", "mlp"): Recipe(_mlp(256, 128), 6, 256, 64, 0.002, 0.87),
    ("digits", "cnn"): Recipe(_cnn(3, (16, 32), 64), 20, 64, 16, 0.002, 0.96),
    ("digits", "mlp"): Recipe(_mlp(128, 64), 20, 64, 16, 0.003, 0.96),
}


def job(recipe: Recipe, dataset: Dataset, dataset_id: str, *, placement: str, seed: int, epochs: int) -> dict:
    """The body of `POST /v1/jobs`."""
    return {
        "name": f"{dataset.name} demo", "dataset": dataset_id, "listed": True, "seed": seed,
        "numerics": "strict", "placement": placement,
        "model": {"layers": recipe.layers, "loss": "cross_entropy"},
        "optimizer": {"kind": "adam", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        "training": {
            "epochs": epochs, "batch": recipe.batch, "micro_batch": recipe.micro_batch,
            "schedule": {"kind": "cosine", "learning_rate": recipe.learning_rate},
        },
    }
