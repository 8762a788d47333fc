"""Options that commands share, and one option per setting.

A setting is described once, in `skelnas.config`. Its value comes from the flag, else from the
environment (``SKELNAS_COMMAND_SETTING``), else from the file of ``--config``, else the default.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterator
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer

from skelnas.cli.config_file import make_settings, read_options
from skelnas.cli.help import HELP_ALL
from skelnas.config import DEVICES, Device, Settings, TrackerName
from skelnas.runtime.files import HUB_PREFIX

Function = TypeVar("Function", bound=Callable[..., Any])

CacheArgument = Annotated[
    Path, typer.Argument(help="Skeleton cache, made by `skelnas prepare`.", show_default=False)
]


def _find_model(text: str) -> Path:
    """Return the path of a model, downloaded if it is on the Hugging Face Hub."""
    if not text.startswith(HUB_PREFIX):
        return Path(text)
    from skelnas.training.hub import fetch

    return fetch(text)


def _model_argument(help: str) -> Any:
    return typer.Argument(help=help, metavar="MODEL", parser=_find_model, show_default=False)


ModelArgument = Annotated[Path, _model_argument("Model folder or file, or hf://user/name.")]
ModelOrExport = Annotated[Path, _model_argument("Model folder or file, .onnx or hf://user/name.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing output.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run in the folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Track = Annotated[
    TrackerName | None,
    typer.Option("--track", help="Log to tensorboard, wandb or mlflow (extras)."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resulting settings as JSON and exit.")
]


def with_settings(
    model: type[Settings], names: Collection[str] = (), command_name: str = ""
) -> Callable[[Function], Function]:
    """Give a command one option per field of `model`, and ``--config``.

    The command receives the validated fields as its keyword argument ``settings``.

    Args:
        model: the settings.
        names: the fields to give options; empty for all.
        command_name: in the environment and in files; empty for that of the function.
    """
    names = names or list(model.model_fields)

    def decorate(function: Function) -> Function:
        def command(context: typer.Context, config: Path | None, **arguments: Any) -> Any:
            arguments.pop("help_all", None)
            values = {name: arguments.pop(name) for name in names}
            explicit = {k: v for k, v in values.items() if _origin(context, k) != "DEFAULT"}
            sources: dict[str, Path | str] = {}
            for setting in explicit:
                if _origin(context, setting) == "ENVIRONMENT":
                    sources[setting] = _variable(name, setting)
                elif config is not None and _origin(context, setting) == "DEFAULT_MAP":
                    sources[setting] = config
            return function(**arguments, settings=make_settings(model, explicit, sources))

        name = command_name or function.__name__
        options = [
            Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context),
            _config_option(model, name),
            *_setting_options(model, names, name),
        ]
        rare = set(names) - model.everyday
        if model.everyday and rare:
            options.insert(2, _help_all_option())
            command.rare_options = rare  # type: ignore[attr-defined]
        return with_signature(command, function, "settings", options)

    return decorate


def with_signature(
    command: Callable[..., Any], function: Function, replaced: str, options: list[Parameter]
) -> Function:
    """Describe `command` to Typer as `function`, with `options` for the parameter `replaced`."""
    parameters = inspect.signature(function, eval_str=True).parameters
    shown = [*(p for name, p in parameters.items() if name != replaced), *options]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return command  # type: ignore[return-value]


def _origin(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return "DEFAULT" if source is None else source.name


def _variable(command: str, name: str) -> str:
    """Return the environment variable of a setting."""
    return f"SKELNAS_{command}_{name}".upper()


def _config_option(model: type[Settings], command: str) -> Parameter:
    """Return ``--config``, which makes the values of a file the defaults of all options."""

    def read(context: typer.Context, path: Path | None) -> None:
        if path is not None and not context.resilient_parsing:
            context.default_map = read_options(path, context, model, command)

    option = typer.Option(
        help="Settings: TOML, config.json, or a dry run's JSON.", callback=read, is_eager=True
    )
    annotation = Annotated[Path | None, option]
    return Parameter("config", Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _help_all_option() -> Parameter:
    """Return ``--help-all``, which also lists the options that ``--help`` leaves out."""

    def show(context: typer.Context, is_given: bool) -> None:
        if is_given and not context.resilient_parsing:
            context.meta[HELP_ALL] = True
            typer.echo(context.get_help())
            raise typer.Exit

    option = typer.Option(HELP_ALL, help="Show all options and exit.", callback=show, is_eager=True)
    return Parameter(
        "help_all", Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option]
    )


def _setting_options(
    model: type[Settings], names: Collection[str], command: str
) -> Iterator[Parameter]:
    """Yield an option per field: those of `model` itself first, then those of its bases."""
    for owner in model.__mro__:
        if not issubclass(owner, Settings):
            continue
        for name in [name for name in inspect.get_annotations(owner) if name in names]:
            field = model.model_fields[name]
            kind, metavar = _option_type(field.annotation)
            if name in owner.as_text:
                kind, metavar = str | None, "N"
            option = typer.Option(
                help=field.description,
                metavar=metavar,
                envvar=_variable(command, name),
                show_envvar=False,
                rich_help_panel=owner.group,
            )
            yield Parameter(
                name,
                Parameter.KEYWORD_ONLY,
                default=model.default(name),
                annotation=Annotated[kind, option],
            )


def _option_type(annotation: Any) -> tuple[Any, str | None]:
    """Return the type of an option, and its metavar if Typer cannot tell.

    Typer knows no unions: a number or a word is text, which the settings check.
    """
    if annotation == Device:
        return annotation, DEVICES
    parts = get_args(annotation)
    words = [get_args(part) for part in parts if get_origin(part) is Literal]
    is_mixed = bool(words) and bool({int, float} & set(parts))
    return (str, "|".join(("number", *words[0]))) if is_mixed else (annotation, None)


def has_ranks() -> bool:
    """Return whether `torchrun` started several processes for this command."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
