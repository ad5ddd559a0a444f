"""How a case is written down."""

import numpy as np

DTYPES = {"f32": np.float32, "i32": np.int32, "u8": np.uint8, "bool": np.bool_}


def dtype_name(array: np.ndarray) -> str:
    for name, dtype in DTYPES.items():
        if array.dtype == dtype:
            return name
    raise TypeError(f"no graph holds {array.dtype}")


class Graph:
    """A graph under construction; every method returns a node's index."""

    def __init__(self):
        self.nodes = []

    def op(self, kind, /, *inputs, **attributes):
        node = {"op": kind, **attributes}
        if inputs:
            node["inputs"] = list(inputs)
        self.nodes.append(node)
        return len(self.nodes) - 1

    def input(self, name, dtype, shape):
        return self.op("input", name=name, dtype=dtype, shape=list(shape))


class Suite:
    """All cases, and the bytes of their tensors."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.cases = []
        self.blob = bytearray()

    def normal(self, *shape, scale=1.0):
        return np.asarray(self.rng.standard_normal(shape) * scale, dtype=np.float32)

    def integers(self, low, high, *shape):
        return np.asarray(self.rng.integers(low, high, size=shape), dtype=np.int32)

    def operand(self, name, array):
        """A tensor that goes in: its NaNs have other bits than those that may come out."""
        array = np.asarray(array)
        if array.dtype == np.float32 and np.isnan(array).any():
            bits = array.copy().view(np.uint32)
            bits[np.isnan(array)] = 0xFFC12345
            array = bits.view(np.float32)
        return self.tensor(name, array)

    def tensor(self, name, array):
        array = np.asarray(array)
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        offset = len(self.blob)
        self.blob += data
        return {
            "name": name,
            "dtype": dtype_name(array),
            "shape": list(array.shape),
            "offset": offset,
            "bytes": len(data),
        }

    def add(self, name, family, graph, outputs, spec, attached, expected, shards=(), abs=0.0, rel=0.0):
        """One task and its answer. `spec` names the graph `$graph` and shard i `$shard<i>`."""
        self.cases.append({
            "name": name,
            "family": family,
            "abs": abs,
            "rel": rel,
            "graph": {
                "version": 1,
                "nodes": graph.nodes,
                "outputs": [{"name": key, "node": node} for key, node in outputs],
            },
            "spec": spec,
            "attached": [self.operand(key, value) for key, value in attached],
            "shards": [[self.operand(key, value) for key, value in shard] for shard in shards],
            "expected": [self.tensor(key, value) for key, value in expected],
        })

    def single(self, title, op, operands, expected, abs=0.0, rel=0.0, **attributes):
        """A graph of one op over attached operands, as a scan of one step."""
        graph = Graph()
        names = [f"x{i}" for i in range(len(operands))]
        nodes = [graph.input(key, dtype_name(x), x.shape) for key, x in zip(names, operands)]
        node = graph.op(op, *nodes, **attributes)
        self.add(
            name=title,
            family=op,
            graph=graph,
            outputs=[("y", node)],
            spec=scan_spec([attach(key) for key in names], ["y"]),
            attached=list(zip(names, operands)),
            expected=[("y", expected)],
            abs=abs,
            rel=rel,
        )


def attach(name):
    return {"from": "attached", "input": name, "tensor": name}


def output(name, reduce="sum"):
    return {"name": name, "encoding": "raw", "reduce": reduce}


def scan_spec(bindings, outputs, steps=1, carry=(), seed=7):
    return {
        "program": {"kind": "scan", "graph": "$graph", "steps": steps, "carry": list(carry)},
        "seed": f"0x{seed:016x}",
        "bindings": bindings,
        "outputs": [output(name) for name in outputs],
        "numerics": "strict",
    }


def map_spec(bindings, outputs, start, count, shards=(), seed=7):
    return {
        "program": {"kind": "map", "graph": "$graph", "start": start, "count": count},
        "seed": f"0x{seed:016x}",
        "bindings": bindings,
        "shards": list(shards),
        "outputs": outputs,
        "numerics": "strict",
    }
