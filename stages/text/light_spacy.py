"""spaCy without PyTorch.

spaCy's machine learning library imports torch wherever it is installed, which takes several seconds
and hundreds of megabytes in every process that reads text, though a tokenizer has no use for it.
While spaCy is imported here for the first time, torch is not to be found; afterwards it is.
"""

from __future__ import annotations

import sys
from typing import Any, cast

_HIDDEN = "torch" not in sys.modules
if _HIDDEN:
    sys.modules["torch"] = cast(Any, None)  # Python's way to say that an import fails
try:
    from spacy.tokenizer import Tokenizer
finally:
    if _HIDDEN:
        del sys.modules["torch"]

__all__ = ["Tokenizer"]
