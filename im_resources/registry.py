"""Registries: what users add to the platform by name, in one file and one line of the profile.

Indicators, selection strategies, measures, trainers, data formats and prompt templates are looked
up the same way: the modules of a folder register the built-in ones, modules that the profile names
as ``plugins`` register the users' own, and a name in the profile puts one to use.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from im_resources.study.reading import did_you_mean

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Entries of one kind by name.

    Args:
        kind: what an entry is called in messages, e.g. "selection strategy".
        package: the dotted name of the package whose modules register the built-in entries.
        error: raised for a name or an option that is not known.
    """

    def __init__(self, kind: str, package: str, error: type[ValueError]) -> None:
        self.kind, self._package, self._error = kind, package, error
        self._entries: dict[str, Entry] = {}
        self._makers: dict[str, str] = {}
        self._complete = False

    def add(self, name: str, entry: Entry, maker: Callable[..., Any]) -> None:
        """Register an entry made by the function or class ``maker``; the same one again is fine.

        Raises the registry's error when another function or class has the name already.
        """
        place = _place(maker)
        other = self._makers.get(name, place)
        if other != place:
            raise self._error(f"two entries are called {name!r} ({self.kind}): {other} and {place}")
        self._entries[name], self._makers[name] = entry, place

    def all(self) -> dict[str, Entry]:
        """All entries by name; imports the modules with the built-in ones."""
        self._import_built_in()
        return dict(sorted(self._entries.items()))

    def get(self, name: str, field: str) -> Entry:
        """The entry ``name``, which the profile asks for in ``field``.

        Raises the registry's error, with the nearest known name, when there is none.
        """
        self._import_built_in()
        if name not in self._entries:
            known = self.all()
            raise self._error(
                f"{field}: unknown {self.kind} {name!r}{did_you_mean(name, list(known))}; "
                f"known: {', '.join(known)} (a plugin's has to be named in `plugins`)"
            )
        return self._entries[name]

    def _import_built_in(self) -> None:
        """Once, also where a plugin was first: two entries of one name never go unnoticed."""
        if self._complete:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._complete = True

    def options(
        self, function: Callable[..., Any], given: Mapping[str, Any], field: str, skip: int
    ) -> dict[str, Any]:
        """The options of ``function``, its parameters after the first ``skip``, checked by type.

        Raises the registry's error for an option that is unknown, missing, or of a wrong type.
        """
        accepted = list(inspect.signature(function).parameters.values())[skip:]
        names = [parameter.name for parameter in accepted]
        makers = {place: name for name, place in self._makers.items()}
        entry = makers.get(_place(function), function.__name__)
        for option in given:
            if option not in names:
                known = f"known: {', '.join(names)}" if names else "it has none"
                raise self._error(
                    f"{field}.{option}: {entry} has no such option"
                    f"{did_you_mean(option, names)}; {known}"
                )
        for parameter in accepted:
            if parameter.default is inspect.Parameter.empty and parameter.name not in given:
                raise self._error(f"{field}.{parameter.name}: {entry} needs this option")
        try:
            kinds = get_type_hints(function, include_extras=True)
        except NameError as error:  # a type that is imported for type checkers only
            raise self._error(
                f"{field}: the types of {_place(function)} cannot be read: {error}"
            ) from error
        checked = {}
        for option, value in given.items():
            try:
                checked[option] = TypeAdapter(kinds.get(option, Any)).validate_python(value)
            except ValidationError as error:
                message = error.errors()[0]["msg"]
                raise self._error(f"{field}.{option}: {message} (found {value!r})") from error
        return checked


def _place(maker: Callable[..., Any]) -> str:
    return f"{maker.__module__}.{maker.__qualname__}"
