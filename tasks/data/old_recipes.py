"""Recipes in manifests of before there were any: how they are read, and what versions of that time find in ours."""

from typing import Any

from tasks.data.recipe import Columns, Pixels


def of_old_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a version that was published before there were recipes, by its ``preprocessing``.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """
    old, shape = manifest["preprocessing"], manifest["dataset"]["input_shape"]
    if manifest["dataset"].get("class_names"):
        resize = "bilinear" if dict(old.get("resize") or {}) else None
        return {"kind": "pixels", "shape": shape, "scale": old["scale"], "resize": resize}
    names = old.get("columns") or [f"x{number + 1}" for number in range(shape[0])]  # the oldest versions noted none
    if not isinstance(names, list) or shape != [len(names)]:
        raise ValueError("columns that are not those of the input")
    return {"kind": "columns", "columns": [{"name": name, "kind": "number"} for name in names]}


def for_old_readers(recipe: Pixels | Columns) -> dict[str, Any]:
    """The ``preprocessing`` of a manifest, which versions of Gradmill before there were recipes read."""
    if isinstance(recipe, Columns):
        return {"columns": list(recipe.names)}
    resize = {"resize": {"side": recipe.shape[0], "filter": recipe.resize}} if recipe.resize else {}
    return {"scale": recipe.scale, **resize}
