"""Whole tasks: maps over micro-batches, scans, rows of shards, random runs."""

import numpy as np

from case import Graph, attach, map_spec, output, scan_spec
from cases_arrays import uniform


def add_to(suite):
    maps(suite)
    scans(suite)
    rows(suite)
    random_runs(suite)
    shared_values(suite)


def tree(values):
    """The sum along the fixed tree, rounded to f32 at every node."""
    if len(values) == 1:
        return values[0]
    half = 1 << (len(values) - 1).bit_length() - 1
    return tree(values[:half]) + tree(values[half:])


def maps(suite):
    for start, count in ((0, 1), (0, 2), (4, 4), (8, 5), (0, 8), (16, 13)):
        graph = Graph()
        x = graph.input("x", "f32", (3,))
        bias = graph.input("bias", "f32", ())
        y = graph.op("binary", x, bias, function="add")
        xs, b = suite.normal(count, 3, scale=1000.0), suite.normal()
        ys = (xs + b).astype(np.float32)
        spec = map_spec(
            [{"from": "per_run", "input": "x", "tensor": "xs"}, attach("bias")],
            [output("sum"), output("all", "concat")], start, count)
        # Bit for bit: the order of additions is part of the contract.
        suite.add(f"map {start}+{count}", "program", graph, [("sum", y), ("all", y)], spec,
                  [("xs", xs), ("bias", b)], [("sum", tree(list(ys))), ("all", ys.reshape(-1))])


def scans(suite):
    for steps in (1, 2, 9):
        graph = Graph()
        state = graph.input("state", "f32", (2, 2))
        x = graph.input("x", "f32", (2,))
        step = graph.op("binary", state, x, function="mul")
        following = graph.op("binary", step, x, function="add")
        total = graph.op("reduce", following, function="max", axes=[0, 1], keep_dims=False)
        xs, first = suite.normal(steps, 2, scale=0.5), suite.normal(2, 2)
        value = first
        for row in xs:
            value = (value * row).astype(np.float32) + row
        spec = scan_spec([attach("state"), {"from": "per_run", "input": "x", "tensor": "xs"}], ["next", "top"], steps,
                         [{"input": "state", "output": "next"}])
        suite.add(f"scan {steps}", "program", graph, [("next", following), ("top", total)], spec,
                  [("state", first), ("xs", xs)], [("next", value), ("top", np.float32(value.max()))])
    # Two states that swap places: what is carried is what was there before the step.
    graph = Graph()
    a, b = graph.input("a", "i32", (2,)), graph.input("b", "i32", (2,))
    total = graph.op("binary", a, b, function="add")
    first, second = np.array([1, 2], np.int32), np.array([3, 5], np.int32)
    p, q = first, second
    for _ in range(6):
        p, q = q, p + q
    spec = scan_spec([attach("a"), attach("b")], ["keep", "sum"], 6,
                     [{"input": "a", "output": "keep"}, {"input": "b", "output": "sum"}])
    suite.add("scan of two states", "program", graph, [("keep", b), ("sum", total)], spec,
              [("a", first), ("b", second)], [("keep", p), ("sum", q)])


def rows(suite):
    pixels = suite.integers(0, 256, 11, 2, 3).astype(np.uint8)
    labels = suite.integers(0, 10, 11)
    cuts = [(0, 4), (4, 1), (6, 5)]  # row 5 is in no shard
    shards = [[("x", pixels[a:a + n]), ("y", labels[a:a + n])] for a, n in cuts]
    numbers = np.array([[0, 10, -1, 4], [3, 6, 9, 0], [-1, -1, -1, -1]], dtype=np.int32)
    graph = Graph()
    x = graph.input("x", "u8", (4, 2, 3))
    y = graph.input("y", "i32", (4,))
    w = graph.input("w", "f32", (4,))
    spec = map_spec(
        [{"from": "rows", "input": "x", "column": "x", "rows": "rows"},
         {"from": "rows", "input": "y", "column": "y", "rows": "rows"},
         {"from": "row_mask", "input": "w", "rows": "rows"}],
        [output("x", "concat"), output("y", "concat"), output("w")], 0, 3,
        [{"blob": f"$shard{i}", "first_row": a, "rows": n, "bytes": 0} for i, (a, n) in enumerate(cuts)])
    flat = numbers.reshape(-1)
    held = flat >= 0
    expected_x = np.where(held[:, None, None], pixels[np.maximum(flat, 0)], 0).astype(np.uint8)
    expected_y = np.where(held, labels[np.maximum(flat, 0)], 0).astype(np.int32)
    mask = held.reshape(3, 4).astype(np.float32)
    suite.add("rows of shards", "program", graph, [("x", x), ("y", y), ("w", w)], spec, [("rows", numbers)],
              [("x", expected_x), ("y", expected_y), ("w", tree(list(mask)))], shards=shards)


def random_runs(suite):
    """Each micro-batch and each step draws its own numbers; a stream is shared within one."""
    seed = 0x0123456789ABCDEF
    graph = Graph()
    first = graph.op("random", distribution="uniform", shape=[6], stream=3)
    again = graph.op("random", distribution="uniform", shape=[6], stream=3)
    gap = graph.op("binary", first, again, function="sub")
    spec = map_spec([], [output("u", "concat"), output("gap")], 12, 3, seed=seed)
    expected = np.concatenate([uniform(seed, run, 3, (6,)) for run in (12, 13, 14)]).astype(np.float32)
    suite.add("random micro-batches", "program", graph, [("u", first), ("gap", gap)], spec, [],
              [("u", expected), ("gap", np.zeros(6, np.float32))])
    graph = Graph()
    draw = graph.op("random", distribution="uniform", shape=[5], stream=0)
    suite.add("random steps", "program", graph, [("u", draw)], scan_spec([], ["u"], steps=4, seed=seed), [],
              [("u", uniform(seed, 3, 0, (5,)).astype(np.float32))])


def shared_values(suite):
    """Values that are read again after an op that may write in place."""
    graph = Graph()
    x = graph.input("x", "f32", (5,))
    ex = graph.op("unary", x, function="relu")
    square = graph.op("binary", ex, ex, function="mul")
    neg = graph.op("unary", ex, function="neg")
    flat = graph.op("reshape", ex, shape=[5, 1])
    flipped = graph.op("unary", flat, function="neg")
    value = np.array([-1.0, 2.0, -3.0, 4.0, 0.5], np.float32)
    r = np.maximum(value, 0)
    names = [("x", x), ("relu", ex), ("square", square), ("neg", neg), ("flat", flat), ("flipped", flipped), ("same", ex)]
    expected = [value, r, r * r, -r, r.reshape(5, 1), -r.reshape(5, 1), r]
    suite.add("values read again", "program", graph, names, scan_spec([attach("x")], [n for n, _ in names]),
              [("x", value)], [(name, e) for (name, _), e in zip(names, expected)])
