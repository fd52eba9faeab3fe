"""What most functions take and return: an array, of whatever kind of number it is."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
