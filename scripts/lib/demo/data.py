"""The two data sets of the demonstration, as uploads and as arrays to check the model on."""

from __future__ import annotations

import csv
import gzip
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy
from raven import read_idx, write_idx

#: Which lines of the digits test the model; data/digits/README.md says why.
DIGITS_TEST_EVERY, DIGITS_TEST_AT = 5, 4


@dataclass(frozen=True)
class Dataset:
    """`spec` and `files` are what `Client.upload_dataset` takes; `test_x` (u8) and `test_y` check the model."""

    name: str
    spec: dict
    files: dict = field(repr=False)
    test_x: numpy.ndarray = field(repr=False)
    test_y: numpy.ndarray = field(repr=False)

    @property
    def scale(self) -> float:
        return self.spec["scale"]


def digits(root: Path) -> Dataset:
    """The handwritten digits that the repository ships."""
    with gzip.open(root / "data/digits/digits.csv.gz", "rt", encoding="ascii") as file:
        rows = numpy.array([[int(cell) for cell in row] for row in csv.reader(file)], dtype=numpy.uint8)
    is_test = numpy.arange(len(rows)) % DIGITS_TEST_EVERY == DIGITS_TEST_AT
    files = {}
    for part, chosen in (("train", rows[~is_test]), ("test", rows[is_test])):
        files[f"{part}_x"] = write_idx((len(chosen), 8, 8), chosen[:, :64].tobytes())
        files[f"{part}_y"] = write_idx((len(chosen),), chosen[:, 64].tobytes())
    spec = {
        "name": "digits", "format": "idx", "target": "classes", "classes": 10, "scale": 1 / 16,
        "license": "CC BY 4.0", "source": "https://doi.org/10.24432/C50P49",
    }
    test = rows[is_test]
    return Dataset("digits", spec, files, test[:, :64].reshape(-1, 8, 8), test[:, 64].astype(numpy.int64))


def fashion_mnist(folder: Path) -> Dataset:
    """Fashion-MNIST, 60,000 + 10,000 images of clothes, from the folder with its four IDX files."""
    names = {
        "train_x": "train-images-idx3-ubyte.gz", "train_y": "train-labels-idx1-ubyte.gz",
        "test_x": "t10k-images-idx3-ubyte.gz", "test_y": "t10k-labels-idx1-ubyte.gz",
    }
    files = {part: folder / name for part, name in names.items()}
    spec = {
        "name": "fashion-mnist", "format": "idx", "target": "classes", "classes": 10, "scale": 1 / 255,
        "license": "MIT", "source": "https://github.com/zalandoresearch/fashion-mnist",
    }
    shape, pixels = read_idx(files["test_x"])
    _, labels = read_idx(files["test_y"])
    test_x = numpy.frombuffer(pixels, numpy.uint8).reshape(shape)
    test_y = numpy.frombuffer(labels, numpy.uint8).astype(numpy.int64)
    return Dataset("fashion-mnist", spec, files, test_x, test_y)


def load(name: str, root: Path) -> Dataset:
    """The data set of that name. `FASHION_MNIST` is the folder that the set-up found."""
    if name == "digits":
        return digits(root)
    return fashion_mnist(Path(os.environ["FASHION_MNIST"]))
