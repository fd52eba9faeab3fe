"""Models that Gradmill published, for Python programs: ``gradmill.load("houses").predict(df)``.

It needs numpy and onnxruntime (and Pillow for paths of pictures), which are imported when a model is loaded.
"""

from typing import TYPE_CHECKING, Any

from gradmill.errors import DataError, GradmillError, Refused

if TYPE_CHECKING:
    from gradmill.model import Model, load
    from gradmill.training import fit

__all__ = ["DataError", "GradmillError", "Model", "Refused", "fit", "load"]


def __dir__() -> list[str]:
    return __all__  # including those that are not imported yet, for completion in notebooks


def __getattr__(name: str) -> Any:
    if name == "fit":
        from gradmill.training import fit

        return fit
    if name in ("Model", "load"):
        from gradmill import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
