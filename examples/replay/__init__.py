"""Real routing data through the live loop: the router decides, only the chosen model's outcome is revealed.

`python -m examples.replay --help` runs it; `dataset` says which files can be read.
"""

import os

# Before numpy is imported: the matrices are tiny, threads of the linear algebra library would only fight over the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
