"""Reductions, products, layout, indexing, soft-max, losses, random numbers."""

import numpy as np

NAN, INF = np.float32(np.nan), np.float32(np.inf)


def add_to(suite):
    reduce(suite)
    arg_max(suite)
    matmul(suite)
    layout(suite)
    indexing(suite)
    softmax(suite)
    losses(suite)
    random(suite)


REDUCE = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}


def reduce(suite):
    shapes = [((7,), (0,)), ((3, 5), (0,)), ((3, 5), (1,)), ((3, 5), (0, 1)), ((4, 3, 6, 6), (0, 2, 3)),
              ((4, 3, 6, 6), (1,)), ((2, 3, 4), (0, 2)), ((2, 3), ()), ((), ()), ((2, 1, 5), (1,)), ((5000,), (0,)),
              ((70, 1000), (1,)), ((1000, 70), (0,))]
    for name, f in REDUCE.items():
        for shape, axes in shapes:
            for keep in (False, True):
                x = suite.normal(*shape)
                y = f(x.astype(np.float64), axis=axes, keepdims=keep) if axes else x
                # Pairwise or short sums of unit normals: errors grow with the logarithm of the length.
                suite.single(f"{name} {shape} over {axes} keep={keep}", "reduce", [x],
                             np.asarray(y).astype(np.float32), function=name, axes=list(axes), keep_dims=keep,
                             abs=2e-5 if name in ("sum", "mean") else 0.0, rel=1e-6)
        odd = np.array([[1, NAN, 2], [INF, 1, 2], [-INF, 3, INF], [1, 2, 3]], dtype=np.float32)
        with np.errstate(all="ignore"):
            y = f(odd.astype(np.float64), axis=1).astype(np.float32)
        suite.single(f"{name} of NaN and infinities", "reduce", [odd], y, function=name, axes=[1],
                     keep_dims=False, rel=1e-6)
    # A hundred thousand equal terms: a running f32 sum would be 0.4 % off.
    x = np.full((100_000,), 0.1, dtype=np.float32)
    suite.single("sum of many", "reduce", [x], np.float32(x.astype(np.float64).sum()), function="sum", axes=[0],
                 keep_dims=False, rel=2e-6)


def arg_max(suite):
    for shape, axis in (((9,), 0), ((4, 6), 0), ((4, 6), 1), ((2, 3, 4), 1)):
        x = np.round(suite.normal(*shape) * 2).astype(np.float32)  # ties are frequent
        suite.single(f"arg_max {shape} {axis}", "arg_max", [x], np.argmax(x, axis=axis).astype(np.int32), axis=axis)
    odd = np.array([[1, NAN, 3, NAN], [-INF, -INF, -INF, -INF], [0.0, -0.0, 0.0, -1.0], [INF, NAN, INF, 1]], np.float32)
    suite.single("arg_max of NaN and ties", "arg_max", [odd], np.argmax(odd, axis=1).astype(np.int32), axis=1)


def matmul(suite):
    plain = [(1, 1, 1), (1, 5, 1), (2, 3, 4), (7, 8, 9), (64, 33, 10), (33, 1, 65), (65, 130, 33), (16, 300, 40),
             (100, 600, 20)]
    for m, k, n in plain:
        for ta in (False, True):
            for tb in (False, True):
                a = suite.normal(*((k, m) if ta else (m, k)))
                b = suite.normal(*((n, k) if tb else (k, n)))
                product(suite, a, b, ta, tb)
    for a_lead, b_lead in (((3,), (3,)), ((3,), ()), ((), (3,)), ((2, 1), (1, 3)), ((2, 3), (3,)), ((1,), (4,))):
        for ta in (False, True):
            a = suite.normal(*a_lead, *((5, 4) if ta else (4, 5)))
            b = suite.normal(*b_lead, 5, 6)
            product(suite, a, b, ta, False)
    a = np.array([[1, INF], [NAN, 0]], dtype=np.float32)
    product(suite, a, np.array([[1, 2], [1, 0]], dtype=np.float32), False, False, "odd values ")


def product(suite, a, b, ta, tb, label=""):
    left = np.swapaxes(a, -1, -2) if ta else a
    right = np.swapaxes(b, -1, -2) if tb else b
    with np.errstate(all="ignore"):
        y = np.matmul(left.astype(np.float64), right.astype(np.float64)).astype(np.float32)
    k = left.shape[-1]
    suite.single(f"matmul {label}{a.shape} {b.shape} transpose={ta},{tb}", "matmul", [a, b], y, transpose_lhs=ta,
                 transpose_rhs=tb, abs=3e-7 * k, rel=1e-6)


def layout(suite):
    for shape, target in (((3,), (2, 3)), ((2, 1), (2, 4)), ((), (2, 2)), ((1, 3, 1), (4, 2, 3, 5)), ((2, 3), (2, 3))):
        for dtype in (np.float32, np.int32, np.uint8, np.bool_):
            x = suite.integers(0, 2, *shape).astype(dtype)
            suite.single(f"broadcast {shape} {target} {np.dtype(dtype).name}", "broadcast", [x],
                         np.broadcast_to(x, target), shape=list(target))
    for shape, target in (((6,), (2, 3)), ((2, 3, 4), (4, 6)), ((1, 1), ()), ((), (1, 1, 1)), ((4, 4), (16,))):
        x = suite.normal(*shape)
        suite.single(f"reshape {shape} {target}", "reshape", [x], x.reshape(target), shape=list(target))
    for shape, axes in (((3, 4), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((2, 3, 4, 5), (0, 2, 3, 1)), ((5,), (0,)), ((), ()),
                        ((1, 2, 1, 3, 2, 2, 1, 2), (7, 5, 3, 1, 6, 4, 2, 0))):
        for dtype in (np.float32, np.int32, np.uint8, np.bool_):
            x = suite.integers(0, 200, *shape).astype(dtype)
            suite.single(f"permute {shape} {axes} {np.dtype(dtype).name}", "permute", [x], np.transpose(x, axes),
                         axes=list(axes))
    for shape, starts, ends in (((7,), (2,), (5,)), ((4, 5), (1, 0), (3, 5)), ((2, 3, 4), (0, 1, 2), (2, 2, 4)),
                                ((3, 3), (0, 0), (3, 3))):
        for dtype in (np.float32, np.int32, np.uint8, np.bool_):
            x = suite.integers(0, 200, *shape).astype(dtype)
            y = x[tuple(slice(a, b) for a, b in zip(starts, ends))]
            suite.single(f"slice {shape} {starts} {ends} {np.dtype(dtype).name}", "slice", [x], y, starts=list(starts),
                         ends=list(ends))
    for shape, low, high in (((4,), (2,), (1,)), ((2, 3), (1, 0), (0, 2)), ((1, 2, 2, 2), (0, 1, 2, 3), (1, 0, 0, 1)),
                             ((), (), ()), ((2, 2), (0, 0), (0, 0))):
        x = suite.normal(*shape)
        y = np.pad(x, list(zip(low, high)), constant_values=-1.5) if shape else x
        suite.single(f"pad {shape} {low} {high}", "pad", [x], y, low=list(low), high=list(high), value=-1.5)
    for shapes, axis in ((((3,), (2,)), 0), (((2, 3), (2, 1), (2, 4)), 1), (((1, 3), (4, 3)), 0), (((2, 2, 2),), 1)):
        for dtype in (np.float32, np.int32, np.uint8, np.bool_):
            parts = [suite.integers(0, 200, *shape).astype(dtype) for shape in shapes]
            suite.single(f"concat {shapes} {axis} {np.dtype(dtype).name}", "concat", parts,
                         np.concatenate(parts, axis=axis), axis=axis)


def taken(x, index, axis):
    """`np.take` with zeros where an index is out of range."""
    size = x.shape[axis]
    y = np.take(x, np.clip(index, 0, size - 1), axis=axis)
    bad = (index < 0) | (index >= size)
    bad = bad.reshape((1,) * axis + index.shape + (1,) * (x.ndim - axis - 1))
    return np.where(bad, np.zeros((), x.dtype), y)


def indexing(suite):
    for shape, axis, index_shape in (((5,), 0, (3,)), ((4, 3), 0, (2, 2)), ((4, 3), 1, (5,)), ((2, 5, 3), 1, (4,)),
                                     ((6, 2), 0, ())):
        index = suite.integers(-2, shape[axis] + 2, *index_shape)
        for dtype in (np.float32, np.int32, np.uint8, np.bool_):
            x = suite.integers(1, 100, *shape).astype(dtype)
            suite.single(f"gather {shape} {axis} {index_shape} {np.dtype(dtype).name}", "gather", [x, index],
                         taken(x, index, axis), axis=axis)
        updates = suite.normal(*shape[:axis], *index_shape, *shape[axis + 1:])
        y = np.zeros(shape, np.float64)
        moved, flat = np.moveaxis(y, axis, 0), index.reshape(-1)
        rows = updates.reshape(*shape[:axis], flat.size, *shape[axis + 1:])
        for at, row in zip(flat, np.moveaxis(rows, axis, 0)):
            if 0 <= at < shape[axis]:
                moved[at] += row
        suite.single(f"scatter_add {shape} {axis} {index_shape}", "scatter_add", [updates, index],
                     y.astype(np.float32), axis=axis, size=shape[axis], abs=1e-6)
    edges = np.array([0, 4, 5, -1, 2**31 - 1, -(2**31)], dtype=np.int32)
    x = suite.normal(5, 2)
    suite.single("gather far out of range", "gather", [x, edges], taken(x, edges, 0), axis=0)
    for shape in ((), (4,), (2, 3)):
        index = suite.integers(-1, 6, *shape)
        suite.single(f"one_hot {shape}", "one_hot", [index], (index[..., None] == np.arange(5)).astype(np.float32),
                     depth=5)
    suite.single("one_hot far out of range", "one_hot", [edges],
                 (edges[..., None] == np.arange(5)).astype(np.float32), depth=5)


def log_softmax(x, axis):
    x = x.astype(np.float64)
    with np.errstate(all="ignore"):
        shifted = x - np.max(x, axis=axis, keepdims=True)
        return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def softmax(suite):
    for shape, axis in (((6,), 0), ((4, 7), 1), ((4, 7), 0), ((2, 3, 5), 1), ((3, 1), 1)):
        x = suite.normal(*shape, scale=4.0)
        y = log_softmax(x, axis)
        suite.single(f"softmax {shape} {axis}", "softmax", [x], np.exp(y).astype(np.float32), axis=axis, rel=2e-6)
        suite.single(f"log_softmax {shape} {axis}", "log_softmax", [x], y.astype(np.float32), axis=axis, abs=2e-6,
                     rel=1e-6)
    odd = np.array([[1e30, 0, -1e30], [200, 199, 0], [-INF, 0, 1], [NAN, 0, 1], [INF, 0, 0]], dtype=np.float32)
    y = log_softmax(odd, 1)
    suite.single("softmax of extremes", "softmax", [odd], np.exp(y).astype(np.float32), axis=1, rel=2e-6, abs=1e-37)
    suite.single("log_softmax of extremes", "log_softmax", [odd], y.astype(np.float32), axis=1, rel=1e-6)


def losses(suite):
    for rows, classes in ((1, 2), (5, 10), (64, 10), (3, 1)):
        x = suite.normal(rows, classes, scale=3.0)
        labels = suite.integers(-1, classes + 1, rows)
        if rows > 2:
            labels[:2] = (-(2**31), 2**31 - 1)
        dloss = suite.normal(rows)
        y = log_softmax(x, 1)
        valid = (labels >= 0) & (labels < classes)
        safe = np.where(valid, labels, 0)
        loss = np.where(valid, -y[np.arange(rows), safe], 0.0)
        grad = (np.exp(y) - (safe[:, None] == np.arange(classes))) * dloss[:, None].astype(np.float64)
        grad = np.where(valid[:, None], grad, 0.0)
        suite.single(f"cross_entropy {rows} {classes}", "cross_entropy", [x, labels], loss.astype(np.float32),
                     abs=2e-6, rel=1e-6)
        suite.single(f"cross_entropy_grad {rows} {classes}", "cross_entropy_grad", [x, labels, dloss],
                     grad.astype(np.float32), abs=1e-6, rel=2e-6)


def philox(seed, run, stream, count):
    """Words of Philox 4x32-10, in Python's integers."""
    mask = 0xFFFFFFFF
    words = []
    for block in range((count + 3) // 4):
        c = [block & mask, stream, run, block >> 32]
        k = [seed & mask, seed >> 32]
        for _ in range(10):
            first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(second >> 32) ^ c[1] ^ k[0], second & mask, (first >> 32) ^ c[3] ^ k[1], first & mask]
            k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
        words += c
    return np.array(words, dtype=np.uint64)


def uniform(seed, run, stream, shape):
    count = int(np.prod(shape, dtype=np.int64))
    return ((philox(seed, run, stream, count) >> np.uint64(8)) / 2.0**24)[:count].reshape(shape)


def random(suite):
    for shape, stream in (((1,), 0), ((7,), 3), ((4, 33), 2**32 - 1), ((), 5)):
        count = int(np.prod(shape, dtype=np.int64))
        u = (philox(7, 0, stream, count + 3) >> np.uint64(8)) / 2.0**24
        suite.single(f"random uniform {shape}", "random", [], u[:count].reshape(shape).astype(np.float32),
                     distribution="uniform", shape=list(shape), stream=stream)
        pairs = u[: len(u) // 2 * 2].reshape(-1, 2)
        radius = np.sqrt(-2.0 * np.log(pairs[:, 0] + 2.0**-25))
        angle = 2.0 * np.pi * pairs[:, 1]
        normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
        suite.single(f"random normal {shape}", "random", [], normal[:count].reshape(shape).astype(np.float32),
                     distribution="normal", shape=list(shape), stream=stream, abs=1e-6, rel=1e-6)
