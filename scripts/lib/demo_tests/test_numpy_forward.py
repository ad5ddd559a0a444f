"""The demo's own judge, against sums written out one element at a time."""

from __future__ import annotations

import unittest
from pathlib import Path

import numpy

from demo import data, numpy_forward, progress, recipes

ROOT = Path(__file__).resolve().parents[3]


def naive_conv(x, weight, bias, stride, pads):
    (top, bottom), (left, right) = pads
    x = numpy.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)])
    filters, _, rows, columns = weight.shape
    height = (x.shape[2] - rows) // stride + 1
    width = (x.shape[3] - columns) // stride + 1
    y = numpy.zeros((len(x), filters, height, width))
    for n, f, i, j in numpy.ndindex(y.shape):
        window = x[n, :, i * stride : i * stride + rows, j * stride : j * stride + columns]
        y[n, f, i, j] = (window * weight[f]).sum() + bias[f]
    return y


class Layers(unittest.TestCase):
    def setUp(self):
        self.random = numpy.random.default_rng(1)

    def tensor(self, *shape):
        return self.random.standard_normal(shape).astype(numpy.float32)

    def run_layer(self, layer, tensors, x, scale=1.0):
        return numpy_forward.logits([layer], tensors, x, scale)

    def test_conv2d_same_and_valid_with_strides(self):
        cases = [
            ("same", 1, 5, ((2, 2), (2, 2))), ("same", 1, 4, ((1, 2), (1, 2))), ("same", 2, 3, ((1, 1), (0, 1))),
            ("valid", 1, 3, ((0, 0), (0, 0))), ("valid", 2, 3, ((0, 0), (0, 0))),
        ]
        for padding, stride, kernel, pads in cases:
            with self.subTest(padding=padding, stride=stride, kernel=kernel):
                x, weight, bias = self.tensor(2, 3, 7, 6), self.tensor(4, 3, kernel, kernel), self.tensor(4)
                layer = {"type": "conv2d", "filters": 4, "kernel": kernel, "stride": stride, "padding": padding}
                found = self.run_layer(layer, {"0.weight": weight, "0.bias": bias}, x)
                numpy.testing.assert_allclose(found, naive_conv(x, weight, bias, stride, pads), atol=1e-4)

    def test_pooling(self):
        x = numpy.arange(16, dtype=numpy.float32).reshape(1, 1, 4, 4)
        largest = self.run_layer({"type": "max_pool2d", "size": 2}, {}, x)
        numpy.testing.assert_array_equal(largest[0, 0], [[5, 7], [13, 15]])
        mean = self.run_layer({"type": "avg_pool2d", "size": 2, "stride": 1}, {}, x)
        self.assertEqual(mean.shape, (1, 1, 3, 3))
        self.assertEqual(mean[0, 0, 0, 0], 2.5)

    def test_dense_scales_and_activates(self):
        x = numpy.array([[2, 4]], dtype=numpy.uint8)
        tensors = {"0.weight": numpy.array([[1, -1], [1, 0]], "f4"), "0.bias": numpy.array([0.5, 0.25], "f4")}
        layer = {"type": "dense", "units": 2, "activation": "relu"}
        numpy.testing.assert_array_equal(self.run_layer(layer, tensors, x, 0.5), [[3.5, 0]])

    def test_dropout_does_nothing(self):
        x = self.tensor(3, 4)
        numpy.testing.assert_array_equal(self.run_layer({"type": "dropout", "rate": 0.5}, {}, x), x)

    def test_an_unknown_layer_is_named(self):
        with self.assertRaisesRegex(ValueError, r"layers\[0\].type"):
            self.run_layer({"type": "attention"}, {}, self.tensor(1, 2))


class Digits(unittest.TestCase):
    def test_the_split_is_the_documented_one(self):
        dataset = data.digits(ROOT)
        self.assertEqual(dataset.test_x.shape, (359, 8, 8))
        self.assertEqual(dataset.files["train_y"][:8], bytes([0, 0, 8, 1, 0, 0, 1438 >> 8, 1438 & 255]))
        self.assertLessEqual(int(dataset.test_x.max()), 16)

    def test_correct_counts_over_batches(self):
        dataset = data.digits(ROOT)
        recipe = recipes.RECIPES["digits", "mlp"]
        shapes = [(64, 128), (128, 64), (64, 10)]
        tensors = {}
        for index, shape in enumerate(shapes, start=1):
            tensors[f"{index}.weight"] = numpy.zeros(shape, "f4")
            tensors[f"{index}.bias"] = numpy.zeros(shape[1], "f4")
        tensors["3.bias"][4] = 1  # A model that always says four.
        fours = int((dataset.test_y == 4).sum())
        for rows in (7, 500):
            counted = numpy_forward.correct(recipe.layers, tensors, dataset.test_x, dataset.test_y, 1 / 16, rows)
            self.assertEqual(counted, fours)


class Line(unittest.TestCase):
    def test_progress_of_a_running_job(self):
        job = {
            "state": "running", "epoch": 2, "epochs": 5, "round": 40, "rounds": 100, "contributors": 3,
            "images_per_s": 812.4, "train": {"loss": 0.3123, "accuracy": 0.9},
            "evaluation": {"epoch": 2, "loss": 0.33, "accuracy": 0.881},
        }
        text = progress.line(job)
        for piece in (" 40%", "epoch 2/5", "loss 0.312", "test accuracy 88.10%", "3 contributors", "812 images/s"):
            self.assertIn(piece, text)

    def test_a_job_that_has_not_begun(self):
        job = {"state": "queued", "epoch": 0, "epochs": 5, "round": 0, "rounds": 0, "train": None, "evaluation": None}
        self.assertIn("queued", progress.line(job))


if __name__ == "__main__":
    unittest.main()
