"""A forward pass in NumPy, written from the layer list's documentation alone.

It shares nothing with the coordinator, its kernels or the generated
`load_model.py`: where the three agree, the model file says what it should.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy
from numpy.lib.stride_tricks import sliding_window_view


def _pair(value: object) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _activate(x: numpy.ndarray, name: str) -> numpy.ndarray:
    if name == "linear":
        return x
    if name == "relu":
        return numpy.maximum(x, 0)
    if name == "tanh":
        return numpy.tanh(x)
    if name == "sigmoid":
        return 1 / (1 + numpy.exp(-x))
    if name == "softmax":
        shifted = numpy.exp(x - x.max(axis=-1, keepdims=True))
        return shifted / shifted.sum(axis=-1, keepdims=True)
    raise ValueError(f"no activation {name!r}")


def _windows(x: numpy.ndarray, kernel: tuple[int, int], stride: tuple[int, int]) -> numpy.ndarray:
    """`[n, c, rows, columns]` to `[n, c, rows', columns', kernel rows, kernel columns]`."""
    return sliding_window_view(x, kernel, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]


def _same(extent: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, so that `ceil(extent / stride)` windows fit; an odd one goes after."""
    missing = max(0, (math.ceil(extent / stride) - 1) * stride + kernel - extent)
    return missing // 2, missing - missing // 2


def _conv2d(layer: Mapping, x: numpy.ndarray, weight: numpy.ndarray) -> numpy.ndarray:
    kernel, stride = _pair(layer["kernel"]), _pair(layer.get("stride", 1))
    if layer.get("padding", "valid") == "same":
        pads = [_same(extent, k, s) for extent, k, s in zip(x.shape[2:], kernel, stride)]
        x = numpy.pad(x, [(0, 0), (0, 0), *pads])
    # weight [filters, channels, kernel rows, kernel columns]
    return numpy.einsum("ncijkl,fckl->nfij", _windows(x, kernel, stride), weight, optimize=True)


def logits(layers: list, tensors: Mapping[str, numpy.ndarray], x: numpy.ndarray, scale: float) -> numpy.ndarray:
    """The last layer's result for samples `x` `[n, ..]` as they are stored (before `scale`)."""
    x = x.astype(numpy.float32) * numpy.float32(scale)
    if layers[0]["type"] in ("conv2d", "max_pool2d", "avg_pool2d") and x.ndim == 3:
        x = x[:, None]
    for index, layer in enumerate(layers):
        kind = layer["type"]
        if kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "dropout":
            continue
        elif kind == "activation":
            x = _activate(x, layer["function"])
        elif kind in ("max_pool2d", "avg_pool2d"):
            size = _pair(layer["size"])
            windows = _windows(x, size, _pair(layer.get("stride", layer["size"])))
            x = windows.max(axis=(4, 5)) if kind == "max_pool2d" else windows.mean(axis=(4, 5))
        elif kind in ("dense", "conv2d"):
            weight = tensors[f"{index}.weight"]
            x = x @ weight if kind == "dense" else _conv2d(layer, x, weight)
            if layer.get("bias", True):
                bias = tensors[f"{index}.bias"]
                x = x + (bias if kind == "dense" else bias[:, None, None])
            x = _activate(x, layer.get("activation", "linear"))
        else:
            raise ValueError(f"layers[{index}].type: no layer {kind!r}")
    return x


def correct(
    layers: list, tensors: Mapping[str, numpy.ndarray], x: numpy.ndarray, y: numpy.ndarray, scale: float, rows: int = 500
) -> int:
    """How many samples the model labels right, `rows` at a time to bound memory."""
    return sum(
        int((logits(layers, tensors, x[at : at + rows], scale).argmax(axis=1) == y[at : at + rows]).sum())
        for at in range(0, len(x), rows)
    )
