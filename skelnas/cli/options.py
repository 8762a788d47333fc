"""Settings as command-line options, so that each is described in one place: `skelnas.config`.

A value comes from the flag, else from the environment (``SKELNAS_VERB_NAME``), else from the
file of ``--config``, else from the default.
"""

from __future__ import annotations

import inspect
import os
import tomllib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from skelnas.config import Settings
from skelnas.errors import InputError, UsageError, shown

Function = TypeVar("Function", bound=Callable[..., Any])
AnySettings = TypeVar("AnySettings", bound=Settings)


def with_settings(model: type[Settings]) -> Callable[[Function], Function]:
    """Give a command every field of `model` as an option.

    The command takes the checked model as its keyword argument ``settings``; Typer sees one
    parameter for each field instead, and ``--config``.
    """

    def decorate(function: Function) -> Function:
        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=model.initial(name),
                annotation=Annotated[
                    field.annotation,
                    typer.Option(
                        help=field.description,
                        envvar=f"SKELNAS_{function.__name__}_{name}".upper(),
                        show_envvar=False,
                        rich_help_panel=owner.group,
                    ),
                ],
            )
            for owner, name, field in _by_group(model)
        ]

        def read_config(context: typer.Context, path: Path | None) -> None:
            """Take defaults from a TOML file."""
            if path is not None and not context.resilient_parsing:
                context.default_map = _read_options(path, context, model)

        config = inspect.Parameter(
            "config",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option(
                    help="TOML file with settings, by their names here; flags win over it",
                    callback=read_config,
                    is_eager=True,
                ),
            ],
        )

        def gather(values: dict[str, Any]) -> Settings:
            return check(model, {name: values[name] for name in _given(model, values["context"])})

        context = inspect.Parameter(
            "context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
        )
        return spread(function, "settings", [context, config, *options], gather)

    return decorate


def _given(model: type[Settings], context: typer.Context) -> list[str]:
    """Name the settings that stand in a flag, the environment or a file."""
    sources = {name: context.get_parameter_source(name) for name in model.model_fields}
    return [name for name, source in sources.items() if source and source.name != "DEFAULT"]


def spread(
    function: Function,
    name: str,
    parameters: list[inspect.Parameter],
    gather: Callable[[dict[str, Any]], Any],
) -> Function:
    """Show Typer `parameters` in place of a function's own parameter `name`.

    When the command is called, `gather` makes the argument `name` of their values.
    """
    own = inspect.signature(function, eval_str=True).parameters.values()
    shown = [*(parameter for parameter in own if parameter.name != name), *parameters]

    def command(**arguments: Any) -> Any:
        values = {parameter.name: arguments.pop(parameter.name) for parameter in parameters}
        return function(**{name: gather(values)}, **arguments)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return command  # type: ignore[return-value]


def _by_group(model: type[Settings]) -> list[tuple[type[Settings], str, FieldInfo]]:
    """List the fields of a model with the class that has each, its own before inherited ones."""
    return [
        (owner, name, model.model_fields[name])
        for owner in model.__mro__
        if issubclass(owner, Settings)
        for name in vars(owner).get("__annotations__", {})
        if name in model.model_fields
    ]


def check(
    model: type[AnySettings], fields: dict[str, Any], path: Path | None = None
) -> AnySettings:
    """Make settings of values.

    Raises:
        UsageError: one of them is not allowed.
        InputError: the same, where they stand in a file.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]).replace("_", "-")
        expected = problem["msg"].removeprefix("Input should be ")
        if path is not None:
            raise InputError(
                f"{path}: {name} = {_toml(problem['input'])}, expected {expected}"
            ) from None
        raise UsageError(f"--{name} {problem['input']}: expected {expected}") from None


def _read_options(path: Path, context: typer.Context, model: type[Settings]) -> dict[str, Any]:
    """Read settings and other options of a command from a TOML file, and check them."""
    options: dict[str, Any] = {option.name or "": option for option in context.command.params}
    values = read_settings(path, context.command.name or "", options)
    check(
        model, {name: value for name, value in values.items() if name in model.model_fields}, path
    )
    for name, value in values.items():
        is_switch = getattr(options[name], "is_flag", False)
        if isinstance(value, bool) != is_switch:
            expected = "true or false" if is_switch else "neither true nor false"
            shown_name = name.replace("_", "-")
            raise InputError(f"{path}: {shown_name} = {_toml(value)}, expected {expected}")
    return values


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else shown(value)


def read_settings(path: Path, verb: str, known: Collection[str]) -> dict[str, Any]:
    """Read settings from a TOML file: its top level, then its table named as the verb.

    Args:
        path: the file.
        verb: whose table it is.
        known: names that may occur, with ``_`` between words.

    Raises:
        InputError: the file cannot be read, or has another name in it.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not TOML: {error}") from None
    values = {name: value for name, value in document.items() if not isinstance(value, dict)}
    own = document.get(verb, {})
    values |= own if isinstance(own, dict) else {}
    for name in values:
        if name.replace("-", "_") not in known:
            raise InputError(
                f"{path}: unknown setting {name!r} for {verb}",
                hint=f"`skelnas {verb} --help` lists the settings",
            )
    return {name.replace("-", "_"): value for name, value in values.items()}


def has_ranks() -> bool:
    """Say whether `torchrun` has started other processes for the same work."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


CacheArgument = Annotated[
    Path, typer.Argument(help="Skeleton cache, made by `skelnas prepare`.", show_default=False)
]
ModelArgument = Annotated[
    Path, typer.Argument(help="Model folder or model.safetensors.", show_default=False)
]
RawArgument = Annotated[
    Path,
    typer.Argument(help="Folder with the raw recordings, or a .zip of it.", show_default=False),
]
OutArgument = Annotated[
    Path, typer.Argument(help="Cache to write, an .h5 file.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
TensorBoard = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="Also write events for TensorBoard, into OUT/tensorboard (extra: tensorboard).",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resulting settings as JSON, and do nothing.")
]
