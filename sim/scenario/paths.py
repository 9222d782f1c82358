"""Dotted paths: how `vary`, `--set` and messages name one setting inside a scenario."""

import re
from types import UnionType
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from sim.scenario.fleet import Fleet, Pool, long_fleet
from sim.scenario.models import Scenario
from sim.scenario.workload import long_trace
from sim.words import did_you_mean

Keys = tuple[str | int, ...]


def long_form(tree: Any) -> Any:
    """Return *tree*, a scenario's plain values, with every short form spelt out."""
    for keys, spell_out in ((("fleet",), long_fleet), (("workload", "trace"), long_trace)):
        if (short := get(tree, keys)) is not None:
            tree = put(tree, keys, spell_out(short))
    return tree


def get(tree: Any, keys: Keys) -> Any:
    """Return what stands at *keys*, or None."""
    for key in keys:
        if isinstance(tree, list):
            tree = tree[key] if isinstance(key, int) and key < len(tree) else None
        else:
            tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def put(tree: Any, keys: Keys, value: Any) -> Any:
    """Return a copy of *tree* with *value* at *keys*; what is not on the way there is shared."""
    if not keys:
        return value
    if isinstance(tree, list) and isinstance(keys[0], int):
        return [put(one, keys[1:], value) if i == keys[0] else one for i, one in enumerate(tree)]
    around = tree if isinstance(tree, dict) else {}
    return {**around, keys[0]: put(around.get(keys[0]), keys[1:], value)}


def resolve(path: str, tree: Any) -> Keys:
    """Return the keys that the dotted *path* means in *tree*, a scenario in its long form.

    ``fleet.replicas`` means the only pool's, ``pools.chat.replicas`` that of the pool chat; ``faults.0`` an entry of a
    list; behind mappings of free names the rest of the path is one key (``vary.workload.rate_per_s``).

    Raises:
        ValueError: there is no such setting.
    """
    keys: Keys = ()
    here: Any = Scenario
    rest = re.sub(r"\[(\d+)\]", r".\1", path).split(".")
    rest = ["fleet", *rest] if rest[0] == "pools" else rest
    while rest:
        inside = container(_chosen(here, get(tree, keys)))
        if inside is Fleet and rest[0] in Pool.model_fields and rest[0] not in Fleet.model_fields:
            rest = ["pools", _only_pool(get(tree, ("fleet", "pools"))), *rest]
        below = children(inside, get(tree, keys))
        if below is None:
            return (*keys, ".".join(rest))
        if rest[0] not in below:
            near = did_you_mean(rest[0], [*below, *(Pool.model_fields if inside is Fleet else ())])
            offer = (
                f", expected one of {', '.join(below)}" if below else f", {'.'.join(map(str, keys))} has none below it"
            )
            raise ValueError(f"no such setting{near or offer}")
        here = below[rest[0]]
        keys = (*keys, int(rest.pop(0)) if get_origin(inside) is list else rest.pop(0))
    return keys


def children(inside: Any, tree: Any) -> dict[str, Any] | None:
    """Return the names a `container` allows with the kind of each, or None where any name of a plain value goes.

    Free names of mappings (pools, cohorts) and places in lists are those that *tree*, what stands there, already has.
    """
    if is_model(inside):
        if inside.model_config.get("extra") == "allow":
            return None
        return {name: field.annotation for name, field in fields(inside).items()}
    if get_origin(inside) is dict:
        value = get_args(inside)[1]
        return dict.fromkeys(tree or {}, value) if is_model(container(value)) else None
    if get_origin(inside) is list and is_model(container(get_args(inside)[0])):
        return dict.fromkeys(map(str, range(len(tree or []))), get_args(inside)[0])
    return {}


def container(annotation: Any) -> Any:
    """Return the model, ``dict[...]`` or ``list[...]`` among the alternatives of *annotation*, or None."""
    origin = get_origin(annotation)
    if origin in (dict, list) or is_model(annotation):
        return annotation
    alternatives = get_args(annotation) if origin in (Annotated, Union, UnionType) else ()
    return next((found for one in alternatives if (found := container(one))), None)


def field(keys: Keys) -> tuple[Any, FieldInfo | None]:
    """Return the container that the last of *keys* stands in, and what a model says of it.

    Tags among *keys* choose between the alternatives of a union; without one the first is meant.
    """
    inside: Any = None
    said: FieldInfo | None = None
    here: Any = Scenario
    for key in keys:
        if is_tag(key):
            here = _tagged(here, str(key)) or here
            continue
        inside, said = container(here), None
        if is_model(inside):
            said = fields(inside).get(str(key))
            here = said.annotation if said else None
        else:
            here = get_args(inside)[-1] if inside else None
    return inside, said


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of *model* by the keys that a file has for them."""
    return {said.alias or name: said for name, said in model.model_fields.items()}


def is_tag(key: str | int) -> bool:
    """Return whether *key* is no key but says which alternative of a union was meant."""
    return str(key).startswith("<") and str(key).endswith(">")


def _chosen(annotation: Any, tree: Any) -> Any:
    """Return the alternative of *annotation* whose tag is a key of *tree*, what stands there; else all of them."""
    tags = [f"<{key}>" for key in tree] if isinstance(tree, dict) else []
    return next((found for tag in tags if (found := _tagged(annotation, tag))), annotation)


def _tagged(annotation: Any, tag: str) -> Any:
    """Return the alternative of *annotation* that is marked with *tag*, or None."""
    if get_origin(annotation) is Annotated and any(isinstance(x, Tag) and x.tag == tag for x in get_args(annotation)):
        return annotation
    alternatives = get_args(annotation) if get_origin(annotation) in (Annotated, Union, UnionType) else ()
    return next((found for one in alternatives if (found := _tagged(one, tag))), None)


def is_model(inside: Any) -> TypeGuard[type[BaseModel]]:
    """Return whether a `container` is a mapping of known keys."""
    return isinstance(inside, type) and issubclass(inside, BaseModel)


def _only_pool(pools: Any) -> str:
    if isinstance(pools, dict) and len(pools) == 1:
        return next(iter(pools))
    names = ", ".join(pools) if isinstance(pools, dict) else "none"
    raise ValueError(f"no such setting: with several pools say which, as in fleet.pools.NAME; there are {names}")
