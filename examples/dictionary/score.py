"""Compresses held-out lines with the dictionary that was left, and checks that they come back. Frozen."""

import os
import zlib
from pathlib import Path

lines = (Path(os.environ["AUTORESEARCH_DATA"]) / "log.txt").read_bytes().split(b"\n")
dictionary = (Path(os.environ["AUTORESEARCH_OUT"]) / "dictionary.bin").read_bytes()
if len(dictionary) > 2048:
    raise SystemExit("the dictionary is larger than 2,048 bytes")
total = 0
for line in lines:
    packer, unpacker = zlib.compressobj(9, zdict=dictionary), zlib.decompressobj(zdict=dictionary)
    packed = packer.compress(line) + packer.flush()
    if unpacker.decompress(packed) != line:
        raise SystemExit("a line does not come back")
    total += len(packed)
print(f"METRIC bytes_per_line={total / len(lines):.6f}")
