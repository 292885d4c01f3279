"""Makes `inference_fakes.py` importable by the tests of this folder in any import mode."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
