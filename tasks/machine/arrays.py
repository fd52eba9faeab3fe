"""What most functions take and return: a numpy array whose element type is left open."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
