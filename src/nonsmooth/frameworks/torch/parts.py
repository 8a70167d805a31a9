"""The modules and the parameters of a model, by the names that its user knows."""

from __future__ import annotations

from collections.abc import Iterator

import torch

__all__ = ["named_modules", "named_parameters"]


def named_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Name the modules inside; a Keras model holds its layers in lists, which torch does not look into."""
    yield from _named_layers(model, "") if _is_keras(model) else model.named_modules()


def named_parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Name the parameters; those of a Keras model are its variables, by their paths."""
    if not _is_keras(model):
        yield from model.named_parameters()
        return
    paths: dict[str, int] = {}
    for variable in model.trainable_variables:  # type: ignore[union-attr]
        count = paths[variable.path] = paths.get(variable.path, 0) + 1
        yield variable.path if count == 1 else f"{variable.path} ({count})", variable.value


def _is_keras(module: torch.nn.Module) -> bool:
    """Tell a layer or a model of Keras on its torch backend."""
    return hasattr(module, "_flatten_layers") and hasattr(module, "trainable_variables")


def _named_layers(layer: torch.nn.Module, name: str) -> Iterator[tuple[str, torch.nn.Module]]:
    """Name a layer of Keras, the layers inside of it, and the modules of torch in those."""
    yield name, layer
    before = f"{name}." if name else ""
    for inner in layer._flatten_layers(include_self=False, recursive=False):  # type: ignore[operator]
        yield from _named_layers(inner, before + inner.name)
    for attribute, child in layer.named_children():
        if not _is_keras(child) and not isinstance(child, torch.nn.ParameterDict):
            yield from child.named_modules(prefix=before + attribute)
