from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import ctypes, sys
from serving.heap import steady_heap

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

library = ctypes.CDLL(None)
if not hasattr(library, "mallinfo2"):
    print("none")
    sys.exit()
library.mallinfo2.restype = Info
if sys.argv[1] == "steady":
    assert steady_heap()
large = bytearray(16 << 20)
del large
before = library.mallinfo2().hblkhd
kept = bytearray(8 << 20)
print(library.mallinfo2().hblkhd - before >= 8 << 20)
"""


@pytest.mark.parametrize(("how", "mapped"), [("steady", "True"), ("as it comes", "False")])
def test_a_large_block_is_mapped_also_after_a_larger_one_was_freed(how: str, mapped: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True
    ).stdout.strip()
    if said == "none":
        pytest.skip("the C library is not glibc of 2.33 or later")
    assert said == mapped
