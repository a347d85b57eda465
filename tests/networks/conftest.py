"""What the tests import: helpers, and the user's architecture by its import path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
