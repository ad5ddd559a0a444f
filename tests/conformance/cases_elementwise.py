"""Element-wise ops: arithmetic, comparison, selection, casts."""

import numpy as np

SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 4, 5), (1, 1, 9)]
NAN, INF = np.float32(np.nan), np.float32(np.inf)
EDGES = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1e-40, -1e-40, 3.4e38, -3.4e38, 88.0, -104.0, 1e-30, 17.0, -20.0,
     2.5, -2.5, 1e7, INF, -INF, NAN],
    dtype=np.float32,
)
PAIRS = [((4, 5), (4, 5)), ((4, 5), (5,)), ((4, 1), (1, 5)), ((), (3, 4)), ((2, 1, 3), (4, 1)),
         ((6, 4, 3, 3), (1, 4, 1, 1)), ((1,), (1,)), ((2, 3), ())]


def relu(x):
    return np.where(x < 0, 0.0, x)


UNARY = {
    "neg": (np.negative, 0.0),
    "abs": (np.abs, 0.0),
    "sign": (lambda x: np.where(np.isnan(x), 0.0, np.sign(x)), 0.0),
    "exp": (np.exp, 2e-7),
    "log": (np.log, 2e-7),
    "sqrt": (np.sqrt, 0.0),
    "recip": (lambda x: 1.0 / x, 0.0),
    "tanh": (np.tanh, 1e-7),
    "sigmoid": (lambda x: 1.0 / (1.0 + np.exp(-x)), 4e-7),
    "relu": (relu, 0.0),
    "floor": (np.floor, 0.0),
}
POSITIVE = {"log", "sqrt"}
BINARY = {
    "add": (np.add, 0.0),
    "sub": (np.subtract, 0.0),
    "mul": (np.multiply, 0.0),
    "div": (np.divide, 0.0),
    "max": (np.maximum, 0.0),
    "min": (np.minimum, 0.0),
    "pow": (np.power, 4e-7),
}
COMPARE = {"eq": np.equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}


def wide(f, *operands):
    """`f` in float64, rounded once."""
    with np.errstate(all="ignore"):
        return np.asarray(f(*(x.astype(np.float64) for x in operands)), dtype=np.float64).astype(np.float32)


def add_to(suite):
    unary(suite)
    binary(suite)
    binary_i32(suite)
    compare(suite)
    select(suite)
    cast(suite)
    constants(suite)


def unary(suite):
    # The least normal number bounds what may be lost where a result is subnormal.
    for name, (f, rel) in UNARY.items():
        for shape in SHAPES:
            x = suite.normal(*shape, scale=3.0)
            x = np.abs(x) if name in POSITIVE else x
            suite.single(f"{name} {shape}", "unary", [x], wide(f, x), function=name, rel=rel, abs=1.2e-38)
        suite.single(f"{name} edges", "unary", [EDGES], wide(f, EDGES), function=name, rel=rel, abs=1.2e-38)


def binary(suite):
    for name, (f, rel) in BINARY.items():
        for a_shape, b_shape in PAIRS:
            a, b = suite.normal(*a_shape, scale=2.0), suite.normal(*b_shape, scale=2.0)
            a = np.abs(a) if name == "pow" else a
            suite.single(f"{name} {a_shape} {b_shape}", "binary", [a, b], wide(f, a, b), function=name, rel=rel,
                         abs=1.2e-38)
        # Every pair of edges. NumPy's pow knows no float32 overflow of the exponent's meaning, so it stays apart.
        if name != "pow":
            a, b = EDGES[:, None], EDGES[None, :]
            suite.single(f"{name} edges", "binary", [a, b], wide(f, a, b), function=name, rel=rel, abs=1.2e-38)
    base = np.array([0.0, 0.0, 1.0, -2.0, -2.0, -8.0, 2.0, 4.0, NAN, INF, 2.0], dtype=np.float32)
    exponent = np.array([0.0, 2.0, NAN, 3.0, 2.0, 0.5, -1.0, 0.5, 0.0, -1.0, -INF], dtype=np.float32)
    suite.single("pow edges", "binary", [base, exponent], wide(np.power, base, exponent), function="pow", rel=4e-7)


def binary_i32(suite):
    edges = np.array([0, 1, -1, 7, 2**31 - 1, -(2**31), 65537, -65537], dtype=np.int32)
    for name in ("add", "sub", "mul", "max", "min"):
        f = BINARY[name][0]
        a, b = edges[:, None], edges[None, :]
        # int64 holds every result; the cast wraps around.
        expected = f(a.astype(np.int64), b.astype(np.int64)).astype(np.uint64).astype(np.uint32).view(np.int32)
        suite.single(f"{name} i32", "binary", [a, b], expected, function=name)


def compare(suite):
    for name, f in COMPARE.items():
        for a_shape, b_shape in PAIRS:
            a = np.round(suite.normal(*a_shape)).astype(np.float32)
            b = np.round(suite.normal(*b_shape)).astype(np.float32)
            suite.single(f"{name} {a_shape} {b_shape}", "compare", [a, b], np.asarray(f(a, b)), function=name)
        suite.single(f"{name} edges", "compare", [EDGES[:, None], EDGES[None, :]],
                     f(EDGES[:, None], EDGES[None, :]), function=name)
        a, b = suite.integers(-3, 4, 5, 6), suite.integers(-3, 4, 6)
        suite.single(f"{name} i32", "compare", [a, b], f(a, b), function=name)


def select(suite):
    def operands(dtype, *shapes):
        arrays = [suite.integers(0, 2 if dtype is np.bool_ else 100, *shape).astype(dtype) for shape in shapes]
        return arrays
    for dtype in (np.float32, np.int32, np.uint8, np.bool_):
        for shapes in [((4, 3), (4, 3), (4, 3)), ((4, 3), (), (1, 3)), ((4, 1), (3,), ()), ((), (2, 2), (2, 1)),
                       ((2, 1, 3), (4, 1), (2, 4, 3))]:
            condition = suite.integers(0, 2, *shapes[0]).astype(np.bool_)
            a, b = operands(dtype, *shapes[1:])
            suite.single(f"select {np.dtype(dtype).name} {shapes}", "select", [condition, a, b],
                         np.where(condition, a, b).astype(dtype))


def saturate(x, low, high):
    x = np.where(np.isnan(x), 0.0, x.astype(np.float64))
    return np.clip(np.trunc(x), low, high)


def cast(suite):
    floats = np.concatenate([EDGES, np.array([255.9, 256.0, -0.9, 2147483648.0, -2147483904.0], np.float32)])
    ints = np.array([0, 1, -1, 254, 255, 256, 2**31 - 1, -(2**31), 16777217], dtype=np.int32)
    bytes_ = np.arange(256).astype(np.uint8)
    bools = np.array([True, False])
    expected = {
        ("f32", "i32"): saturate(floats, -(2**31), 2**31 - 1).astype(np.int64).astype(np.int32),
        ("f32", "u8"): saturate(floats, 0, 255).astype(np.uint8),
        ("f32", "bool"): floats != 0,
        ("i32", "f32"): ints.astype(np.float32),
        ("i32", "u8"): np.clip(ints, 0, 255).astype(np.uint8),
        ("i32", "bool"): ints != 0,
        ("u8", "f32"): bytes_.astype(np.float32),
        ("u8", "i32"): bytes_.astype(np.int32),
        ("u8", "bool"): bytes_ != 0,
        ("bool", "f32"): bools.astype(np.float32),
        ("bool", "i32"): bools.astype(np.int32),
        ("bool", "u8"): bools.astype(np.uint8),
    }
    operands = {"f32": floats, "i32": ints, "u8": bytes_, "bool": bools}
    for source, x in operands.items():
        suite.single(f"cast {source} {source}", "cast", [x], x, dtype=source)
    for (source, target), y in expected.items():
        suite.single(f"cast {source} {target}", "cast", [operands[source]], y, dtype=target)


def constants(suite):
    for dtype, value in (("f32", -2.5), ("i32", -7), ("u8", 255), ("bool", 1)):
        from case import DTYPES
        expected = np.full((2, 3), value).astype(DTYPES[dtype])
        suite.single(f"constant {dtype}", "constant", [], expected, dtype=dtype, shape=[2, 3], value=value)
