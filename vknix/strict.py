"""YAML text and a dataclass in, an instance out; or all mistakes at once, each by its path. Knows no key of its own.

Keys are the fields' names in camel case, or their `key` in the field's metadata; `missing` there says what a missing one is for.
Hints that it knows: dataclasses, tuple[T, ...], Mapping[str, str], Literal of strings, T | None, str, bool, and the `scalars`.
"""

import difflib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, TypeVar

import yaml

from vknix.errors import ConfigError, Mistake

Scalars = Mapping[object, Callable[[object], object]]
T = TypeVar("T")


class Invalid(ValueError):
    """One value is wrong; the message follows its path."""


def read(text: str) -> object:
    """The tree of a YAML text. Raises ConfigError."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError((Mistake("", f"not YAML: {error}"),)) from error


def convert(kind: type[T], tree: object, scalars: Scalars) -> tuple[T | None, tuple[Mistake, ...]]:
    """`tree` as a `kind`: None where there is a mistake."""
    walk = _Walk({str: string, bool: boolean, **scalars})
    made = walk.record(kind, tree, "")
    return (None if made is _BAD else made), tuple(walk.mistakes)


def string(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise Invalid("must not be empty" if value == "" else f"must be a string, not {kind_of(value)}")
    return value


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"must be true or false, not {kind_of(value)}")
    return value


def number(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid(f"must be a number, not {kind_of(value)}")
    if not low <= value <= high:
        raise Invalid(f"must be from {low} to {high}, not {value}")
    return value


def choice(value: object, choices: tuple[str, ...]) -> object:
    if value not in choices:
        raise Invalid(f"must be one of {', '.join(choices)}, not {kind_of(value)}")
    return value


def kind_of(value: object) -> str:
    """What a person would call it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the string {value!r}"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"a {type(value).__name__}"  # YAML has dates


_BAD: Any = object()  # in place of a value that has a mistake already, so that the walk goes on


class _Walk:
    """Walks a YAML tree along dataclass type hints, and collects what does not fit."""

    def __init__(self, scalars: Scalars) -> None:
        self.mistakes: list[Mistake] = []
        self._scalars = scalars

    def _say(self, path: str, message: str) -> None:
        self.mistakes.append(Mistake(path, message))

    def _value(self, hint: Any, value: object, path: str) -> Any:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (types.UnionType, typing.Union):
            return None if value is None else self._value(arguments[0], value, path)
        if is_dataclass(hint):
            return self.record(typing.cast(type[Any], hint), value, path)
        if origin is tuple:
            return self._list(arguments[0], value, path)
        if origin is Mapping:
            return self._strings(value, path)
        try:
            return choice(value, arguments) if origin is Literal else self._scalars[hint](value)
        except Invalid as invalid:
            self._say(path, str(invalid))
            return _BAD

    def record(self, kind: type[T], value: object, path: str) -> T:
        """_BAD where something in it is wrong."""
        if not isinstance(value, dict):
            self._say(path, f"must be a mapping, not {kind_of(value)}")
            return typing.cast(T, _BAD)
        known = {_key(part): part for part in fields(kind)}  # type: ignore[arg-type] # all T here are dataclasses
        for key in value:
            if key not in known:
                self._say(_join(path, str(key)), f"unknown{_did_you_mean(str(key), list(known))}")
        hints = typing.get_type_hints(kind)
        values: dict[str, Any] = {}
        for key, part in known.items():
            if key in value:
                values[part.name] = self._value(hints[part.name], value[key], _join(path, key))
            elif part.default is MISSING and part.default_factory is MISSING:
                self._say(_join(path, key), f"missing{_why(part)}")
                values[part.name] = _BAD
        return kind(**values) if not any(item is _BAD for item in values.values()) else typing.cast(T, _BAD)

    def _list(self, hint: Any, value: object, path: str) -> Any:
        if not isinstance(value, list):
            self._say(path, f"must be a list, not {kind_of(value)}")
            return _BAD
        items = tuple(self._value(hint, item, f"{path}[{index}]") for index, item in enumerate(value))
        return items if not any(item is _BAD for item in items) else _BAD

    def _strings(self, value: object, path: str) -> Any:
        if not isinstance(value, dict):
            self._say(path, f"must be a mapping, not {kind_of(value)}")
            return _BAD
        wrong = [key for key, item in value.items() if not isinstance(key, str) or not isinstance(item, str)]
        for key in wrong:
            self._say(_join(path, str(key)), f"must be a string, not {kind_of(value[key])}; quote it")
        return value if not wrong else _BAD


def _key(part: Field[Any]) -> str:
    first, *rest = part.name.split("_")
    return str(part.metadata.get("key", first + "".join(word.capitalize() for word in rest)))


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _why(part: Field[Any]) -> str:
    why = part.metadata.get("missing")
    return f": {why}" if why else ""


def _did_you_mean(key: str, known: list[str]) -> str:
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(key.lower(), folded, n=1)
    return f"; did you mean {folded[close[0]]}?" if close else f"; known here: {', '.join(sorted(known))}"


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, where YAML libraries take the last one silently."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key, (at, _) in zip(keys, node.value, strict=True):
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", at.start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
