"""One small registry: a plug-in is one file that registers one function under the field's name.

What is registered appears everywhere: command line, blueprints, documentation. Plug-ins outside of
vitarium are modules that register with the same decorators: named by an entry point of the group
`vitarium`, or in the environment variable VITARIUM_PLUGINS (with commas between them), where a
module may also be named by its file.
"""

import importlib
import inspect
import os
import pkgutil
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, wraps
from importlib.metadata import entry_points
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic import ConfigDict, ValidationError, validate_call
from pydantic_core import CoreSchema, core_schema

from vitarium.core.config import Config, InvalidConfig, NoConfig, Problem, problems_of
from vitarium.core.errors import MissingPlugin, UnknownName, VitariumError, did_you_mean
from vitarium.core.outside_modules import import_outside
from vitarium.core.plugin_kinds import KINDS as KINDS
from vitarium.core.printable import brief


@dataclass(frozen=True)
class Plugin:
    """A registered function: `function(config, ...)`, what it is called with is its kind's matter.

    `facts` is what else is known about it, e.g. `paper`, or `views=2` of an objective.
    """

    kind: str
    name: str
    function: Callable[..., Any]
    config: type[Config]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first line of its docstring (the function's, else the configuration's)."""
        text = inspect.getdoc(self.function) or inspect.getdoc(self.config) or ""
        return text.partition("\n")[0]


_plugins: dict[str, dict[str, Plugin]] = {kind: {} for kind in KINDS}
F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")


def contract(decorator: Callable[P, R]) -> Callable[P, R]:
    """For the decorator of a kind: facts that are not of the types that it declares, misspelled or
    missing are a TypeError when a plug-in is imported, as they are errors for mypy."""
    types = ConfigDict(strict=True, arbitrary_types_allowed=True)
    checked = validate_call(config=types)(decorator)

    @wraps(decorator)
    def check(*args: P.args, **kwargs: P.kwargs) -> R:
        name: Any = args[0] if args else kwargs.get("name")
        if not isinstance(name, str):
            register(decorator.__name__, name)  # says what is wrong
        try:
            return checked(*args, **kwargs)
        except ValidationError as error:
            problems = "; ".join(map(str, problems_of(error, Config)))
            raise TypeError(f"{decorator.__name__} '{name}': {problems}") from None

    return check


def register(
    kind: str,
    name: str,
    config: type[Config] | None = None,
    *,
    reserved: Collection[str] = (),
    **facts: Any,
) -> Callable[[F], F]:
    """The decorator that registers a function `(config, ...)` as the plug-in of that kind and name.

    config: the class of its settings, which are generating factors; None: that with which its first
    parameter is annotated; none where it is not. reserved: names that no setting may have. Raises
    TypeError where that is no Config, and ValueError where another module has registered that name.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise TypeError(f'{name!r} is no name of a plug-in; write @{kind}("name")')

    def decorate(function: F) -> F:
        source = (function.__module__, function.__qualname__)
        earlier = _plugins[kind].get(name)
        if earlier and source != (earlier.function.__module__, earlier.function.__qualname__):
            raise ValueError(
                f"{kind} '{name}' of {'.'.join(source)} is already registered by "
                f"{earlier.function.__module__}: give one of them another name"
            )
        first = next(iter(inspect.signature(function).parameters), "")
        settings = config or get_type_hints(function).get(first, NoConfig)
        if not (isinstance(settings, type) and issubclass(settings, Config)):
            raise TypeError(f"{kind} '{name}': its first parameter is annotated with no Config")
        if taken := set(reserved) & set(settings.model_fields):
            raise TypeError(f"{kind} '{name}': call the settings {sorted(taken)} otherwise")
        for fact in ("tiny", "identity_on_copies"):
            unknown = {*(facts.get(fact) or ())} - {*settings.model_fields}
            if unknown and settings.model_config.get("extra") != "allow":
                raise TypeError(f"{kind} '{name}': {fact} has {unknown}, which is no setting")
        _plugins[kind][name] = Plugin(kind, name, function, settings, facts)
        return function

    return decorate


def plugins(kind: str) -> dict[str, Plugin]:
    """All plug-ins of a kind by name, sorted. Raises UnknownName for an unknown kind."""
    if kind not in KINDS:
        raise UnknownName("kind of plug-in", kind, KINDS)
    _load(KINDS[kind])
    _load_outside()
    return dict(sorted(_plugins[kind].items()))


def get(kind: str, name: str) -> Plugin:
    """The plug-in of that name, in which hyphens and underscores are alike.

    Raises UnknownName with the nearest name there is.
    """
    registered = plugins(kind)
    if name in registered:
        return registered[name]
    for plugin in registered.values():
        if plugin.name.replace("-", "_") == name.replace("-", "_"):
            return plugin
    raise UnknownName(kind, name, registered, _plugin_hint(kind, name, registered))


def _plugin_hint(kind: str, name: str, registered: Mapping[str, Plugin]) -> str:
    """What may be meant where no name of the kind is near: a title, or another kind's plug-in."""
    words = " ".join(re.findall(r"[^\W_]+", str(name).lower()))
    titled = {n: str(plugin.facts.get("title") or "").lower() for n, plugin in registered.items()}
    for match, title in titled.items():
        if words and words in title:
            return f"; did you mean '{match}' ({title})?"
    others = [other for other in KINDS if other != kind and name in plugins(other)]
    elsewhere = "".join(f"; there is a {n.replace('_', ' ')} of that name" for n in others)
    near = did_you_mean(name, registered)
    if near.endswith("?"):
        return near + elsewhere
    return f"{near}{elsewhere}; VITARIUM_PLUGINS names modules with plug-ins of your own"


@cache
def _load(package: str) -> None:
    """Import a module, or every module of plug-ins in a package, which registers them."""
    path = getattr(importlib.import_module(package), "__path__", ())
    for module in pkgutil.iter_modules(path, f"{package}."):
        name = module.name.rpartition(".")[2]
        if name != "base" and not name.startswith("_"):
            _load(module.name)


@cache
def _load_outside() -> None:
    for entry in entry_points(group="vitarium"):
        entry.load()
    for module in filter(None, os.environ.get("VITARIUM_PLUGINS", "").split(",")):
        try:
            import_outside(module.strip())
        except Exception as error:  # whatever is wrong with it
            is_missing = isinstance(error, ModuleNotFoundError)
            hint = "; name its file, or put its folder on PYTHONPATH" if is_missing else ""
            what = f"VITARIUM_PLUGINS: cannot import {module}: {error!r}{hint}"
            raise VitariumError(what) from error


class MissingSettings(Config, extra="allow"):
    """Settings of a plug-in that is not here, as they were written."""

    _plugin: tuple[str, str] = ("", "")

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)  # type: ignore[misc]
        except AttributeError:
            raise MissingPlugin(*self._plugin) from None


_missing: ContextVar[list[str] | None] = ContextVar("missing plug-ins", default=None)


@contextmanager
def missing_allowed() -> Iterator[list[str]]:
    """Inside, sections of plug-ins that are not here are read, too; gives the names of those."""
    names: list[str] = []
    token = _missing.set(names)
    try:
        yield names
    finally:
        _missing.reset(token)


@dataclass(frozen=True)
class Section:
    """A plug-in chosen by name with its settings; calling it calls the plug-in with them.

    In a blueprint: `optimizer: {name: sgd, lr: 0.1}`, or `optimizer: sgd` where defaults do.
    """

    kind: str
    name: str
    config: Any
    """A Config, of the class that the plug-in was registered with."""

    @property
    def plugin(self) -> Plugin:
        """Raises MissingPlugin for one of a zoo's model that is not here."""
        if self.is_missing:
            raise MissingPlugin(self.kind, self.name)
        return get(self.kind, self.name)

    @property
    def facts(self) -> Mapping[str, Any]:
        """Of its plug-in; none of one that is not here."""
        return {} if self.is_missing else self.plugin.facts

    @property
    def is_missing(self) -> bool:
        return isinstance(self.config, MissingSettings)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.plugin.function(self.config, *args, **kwargs)

    def factors(self, *, defaults: bool = True) -> dict[str, Any]:
        """`{"name": ..., **settings}` as plain JSON values; see `Config.factors`."""
        return {"name": self.name, **self.config.factors(defaults=defaults)}


def choose(kind: str, name: str, /, **settings: Any) -> Section:
    """A plug-in with its settings. Raises UnknownName and InvalidConfig."""
    plugin = get(kind, name)
    try:
        return Section(kind, plugin.name, plugin.config.read(settings))
    except InvalidConfig as error:
        owner = f"{kind} '{plugin.name}'"
        raise InvalidConfig([problem.of_setting(owner) for problem in error.problems]) from None


def section(kind: str, value: Any) -> Section:
    """Read a section from a name or a mapping with a `name`. Raises InvalidConfig."""
    if isinstance(value, Section):
        return value
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        fault = f"{brief(value)} is neither a name nor a mapping with a name"
        raise InvalidConfig([Problem((), fault)])
    if not isinstance(value.get("name"), str):
        fault = f"missing; the name of a known {kind}: {', '.join(plugins(kind))}"
        raise InvalidConfig([Problem(("name",), fault)])
    settings = {key: setting for key, setting in value.items() if key != "name"}
    try:
        plugin = get(kind, value["name"])
        return Section(kind, plugin.name, plugin.config.read(settings))
    except UnknownName as error:
        if (missing := _missing.get()) is None:
            raise InvalidConfig([Problem(("name",), str(error))]) from None
    missing.append(value["name"])
    config = MissingSettings.read(settings)
    config._plugin = (kind, value["name"])
    return Section(kind, value["name"], config)


class SectionOf:
    """Makes a pydantic field a section: `head: Annotated[Section, SectionOf("head")]`.

    With a default, settings without a name are the default's: `optimizer: {lr: 0.1}`.
    """

    def __init__(self, kind: str, default: str | None = None) -> None:
        self.kind, self.default = kind, default

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        def read(value: Any) -> Section:
            if self.default and isinstance(value, Mapping) and "name" not in value:
                value = {"name": self.default, **value}
            return section(self.kind, value)

        return core_schema.no_info_plain_validator_function(
            read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value, info: value.factors(defaults=not info.exclude_defaults), info_arg=True
            ),
        )
