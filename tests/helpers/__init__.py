"""What several test files need."""

from pathlib import Path

SAMPLES = Path(__file__).parents[2] / "samples"  # the repository's clips, and their questions
