"""IDX and safetensors."""

from __future__ import annotations

import gzip
import json
import struct
import tempfile
import unittest
from pathlib import Path

from raven import read_idx, read_safetensors, write_idx

try:
    import numpy
except ImportError:
    numpy = None


class InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "file"


class Idx(InFolder):
    def test_round_trip_plain_and_compressed(self):
        data = bytes(range(2 * 3 * 4))
        content = write_idx((2, 3, 4), data)
        self.assertEqual(content[:16], bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]))
        for written in (content, gzip.compress(content)):
            self.path.write_bytes(written)
            self.assertEqual(read_idx(self.path), ((2, 3, 4), data))

    def test_malformed_files_are_refused(self):
        good = write_idx((2, 2), b"abcd")
        for bad in (b"", b"\0\0\x08", b"\0\0\x0d" + good[3:], good[:-1], good + b"x", good[:6]):
            with self.subTest(bad=bad):
                self.path.write_bytes(bad)
                with self.assertRaises(ValueError):
                    read_idx(self.path)

    def test_shape_must_fit(self):
        with self.assertRaises(ValueError):
            write_idx((3,), b"ab")


@unittest.skipIf(numpy is None, "NumPy is not installed")
class Safetensors(InFolder):
    def write(self, header: dict, data: bytes):
        text = json.dumps(header).encode()
        self.path.write_bytes(struct.pack("<Q", len(text)) + text + data)

    def test_reads_tensors_and_metadata(self):
        data = struct.pack("<6f", *range(6)) + struct.pack("<2i", -1, 5)
        self.write({
            "__metadata__": {"format": "raven"},
            "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
            "n": {"dtype": "I32", "shape": [2], "data_offsets": [24, 32]},
        }, data)
        tensors, metadata = read_safetensors(self.path)
        self.assertEqual(metadata, {"format": "raven"})
        numpy.testing.assert_array_equal(tensors["w"], numpy.arange(6, dtype="f4").reshape(2, 3))
        numpy.testing.assert_array_equal(tensors["n"], [-1, 5])

    def test_malformed_files_are_refused(self):
        entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        cases = [
            ({"w": {**entry, "data_offsets": [0, 4]}}, b"\0" * 8),
            ({"w": {**entry, "data_offsets": [-8, 0]}}, b"\0" * 8),
            ({"w": entry}, b"\0" * 4),
            ({"w": {**entry, "dtype": "F4"}}, b"\0" * 8),
        ]
        for header, data in cases:
            with self.subTest(header=header):
                self.write(header, data)
                with self.assertRaises(ValueError):
                    read_safetensors(self.path)
        for content in (b"", struct.pack("<Q", 1 << 40), struct.pack("<Q", 2) + b"[]"):
            self.path.write_bytes(content)
            with self.assertRaises(ValueError):
                read_safetensors(self.path)


if __name__ == "__main__":
    unittest.main()
