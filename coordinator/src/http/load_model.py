"""Runs a model that was trained with Raven. Needs Python 3.9 and NumPy, nothing else.

    python load_model.py model.safetensors --idx images-idx3-ubyte.gz labels-idx1-ubyte.gz
    python load_model.py model.safetensors --data x.npy y.npy
    python load_model.py model.safetensors --csv rows.csv

prints the number of samples, the mean loss and, for classes, the accuracy. In a
program: `predict = load("model.safetensors"); logits = predict(x)`. Rows of a csv, with the
columns of the one that was trained on, go through `predict.encode(rows)` first, which
fills in, scales and one-hot encodes them as the training rows were.
"""
import argparse
import csv
import gzip
import hashlib
import json
import struct

import numpy as np

SHA256 = "{{sha256}}"  # of the file that belongs to this script


def read_safetensors(path):
    """Tensors by name, and the file's notes."""
    with open(path, "rb") as file:
        data = file.read()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        print(f"note: {path} is another model than this script was made for ({found})")
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    notes = header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        raw = data[8 + length + start : 8 + length + end]
        tensors[name] = np.frombuffer(raw, "<f4").reshape(entry["shape"])
    return tensors, notes


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def windows(x, size, stride):
    """[n, c, rows, columns, size_rows, size_columns]"""
    view = np.lib.stride_tricks.sliding_window_view(x, size, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1]]


def same_padding(extent, size, stride):
    missing = max((-(-extent // stride) - 1) * stride + size - extent, 0)
    return missing // 2, missing - missing // 2


def conv2d(x, layer, weight):
    size, stride = pair(layer["kernel"]), pair(layer.get("stride", 1))
    if layer.get("padding", "valid") == "same":
        around = [same_padding(x.shape[2 + i], size[i], stride[i]) for i in (0, 1)]
        x = np.pad(x, [(0, 0), (0, 0), *around])
    patches = windows(x, size, stride)
    n, _, rows, columns = patches.shape[:4]
    flat = patches.transpose(0, 2, 3, 1, 4, 5).reshape(n * rows * columns, -1)
    y = flat @ weight.reshape(len(weight), -1).T
    return y.reshape(n, rows, columns, -1).transpose(0, 3, 1, 2)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softmax": softmax,
}


def forward(x, layers, tensors):
    for index, layer in enumerate(layers):
        kind = layer["type"]
        if kind in ("dense", "conv2d"):
            weight, bias = tensors[f"{index}.weight"], tensors.get(f"{index}.bias")
            x = x @ weight if kind == "dense" else conv2d(x, layer, weight)
            if bias is not None:
                x = x + (bias if kind == "dense" else bias[:, None, None])
            x = ACTIVATIONS[layer.get("activation", "linear")](x)
        elif kind in ("max_pool2d", "avg_pool2d"):
            size = pair(layer["size"])
            view = windows(x, size, pair(layer.get("stride") or size))
            x = view.max((-2, -1)) if kind == "max_pool2d" else view.mean((-2, -1))
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "activation":
            x = ACTIVATIONS[layer["function"]](x)
        elif kind != "dropout":  # which does nothing outside of training
            raise ValueError(f"unknown layer {kind}")
    return x


def load(path):
    """A function from samples [n, ...], as they were uploaded, to the last layer's results."""
    tensors, notes = read_safetensors(path)
    model, data = json.loads(notes["raven.model"]), json.loads(notes["raven.data"])
    shape = model.get("input_shape") or data["features"]["shape"]
    if len(shape) == 2 and model["layers"][0]["type"] in ("conv2d", "max_pool2d", "avg_pool2d"):
        shape = [1, *shape]
    scale = np.float32(data["scale"])

    def predict(x, batch=500):
        parts = []
        for start in range(0, len(x), batch):
            part = np.asarray(x[start : start + batch], np.float32) * scale
            parts.append(forward(part.reshape(-1, *shape), model["layers"], tensors))
        return np.concatenate(parts)

    predict.loss = model["loss"]
    predict.encode = lambda rows: encode(rows, data["table"])
    predict.header = "table" in data and data["table"]["header"]
    return predict


MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


def encode(rows, table):
    """Features and targets of rows of text. A target that is missing or unknown is NaN."""
    x, y = [], []
    for row in rows:
        features = []
        if len(row) != len(table["columns"]):
            raise ValueError(f"{len(row)} columns instead of {len(table['columns'])}: {row}")
        for text, column in zip(row, table["columns"]):
            text, kind = text.strip(), column["kind"]
            there = text.lower() not in MISSING
            if kind in ("number", "category") and not there and "imputed" not in column:
                raise ValueError(f"no value in {row}, and none was missing in training")
            if kind == "number":
                value = float(text) if there else column["imputed"]
                standard = column.get("standard", {"mean": 0.0, "deviation": 1.0})
                features.append((value - standard["mean"]) / standard["deviation"])
            elif kind == "category":
                value = text if there else column["imputed"]
                features += [float(value == category) for category in column["categories"]]
            elif kind == "target" and "labels" in column:
                y.append(column["labels"].index(text) if text in column["labels"] else np.nan)
            elif kind == "target":
                y.append(float(text) if there else np.nan)
        x.append(features)
    return np.array(x, np.float32), np.array(y)


def read_csv(path, header):
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file, skipinitialspace=True) if row]
    return rows[1:] if header else rows


def read_idx(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        data = file.read()
    types = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    return np.frombuffer(data, types[data[2]], offset=4 + 4 * data[3]).reshape(shape)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--idx", nargs=2, metavar=("IMAGES", "LABELS"))
    group.add_argument("--data", nargs=2, metavar=("X.npy", "Y.npy"))
    group.add_argument("--csv", metavar="ROWS.csv")
    arguments = parser.parse_args()
    predict = load(arguments.model)
    if arguments.idx:
        x, y = map(read_idx, arguments.idx)
    elif arguments.data:
        x, y = (np.load(path, allow_pickle=False) for path in arguments.data)
    else:
        x, y = predict.encode(read_csv(arguments.csv, predict.header))
        x, y = x[~np.isnan(y)], y[~np.isnan(y)]
    result = predict(x)
    answer = {"samples": len(x)}
    if predict.loss == "cross_entropy":
        y = y.reshape(-1).astype(np.int64)
        top = result.max(1, keepdims=True)
        log_sum = top[:, 0] + np.log(np.exp(result - top).sum(1))
        answer["loss"] = float((log_sum - result[np.arange(len(y)), y]).mean())
        answer["accuracy"] = float((result.argmax(1) == y).mean())
    else:
        answer["loss"] = float(((result - y.reshape(result.shape)) ** 2).mean())
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
