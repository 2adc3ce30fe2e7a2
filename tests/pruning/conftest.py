"""Makes ``tests/pruner_matrix.py``, which sits one folder up, importable from these tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
