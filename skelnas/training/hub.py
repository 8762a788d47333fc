"""Models on the Hugging Face Hub, or on a server of your own that speaks like it.

Only ``model.safetensors`` is downloaded, into the Hub's cache. It is read as any other: no code
in it is run.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.runtime.console import note
from skelnas.runtime.files import HUB_PREFIX
from skelnas.training.run_dir import MODEL
from skelnas.training.saved_model import Model, load_model

MAX_BYTES = 1 << 30
"""Of a model to download: hundreds of times the largest in the papers."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def from_pretrained(name: Path | str, revision: str | None = None) -> Model:
    """Load a model from a folder or file, if there is one of this name, or else from the Hub.

    Args:
        name: a path, or as text ``user/name`` on the Hub. ``HF_TOKEN`` opens private repositories,
            ``HF_ENDPOINT`` names another server.
        revision: branch, tag or commit on the Hub; by default the main branch.

    Returns:
        The model, on the CPU and in evaluation mode; its `revision` is the commit that it is of.

    Raises:
        InputError: there is no model of this name, or this version of skelnas cannot read it.
        UsageError: a revision of a local model is asked for.
        SkelnasError: a model of the Hub needs the extra `hub`.
    """
    if isinstance(name, str) and _REPOSITORY.fullmatch(name) and not Path(name).exists():
        file, commit = download(name, revision)
        model = load_model(file)
        model.revision = commit
        return model
    if revision is not None:
        raise UsageError(
            f"{name}: revision {revision!r} is asked for, but this is not a model of the Hub",
            hint="leave it out, or give user/name as the Hub has it",
        )
    return load_model(name)


def fetch(address: str) -> Path:
    """Return the file of a model on the Hub, downloaded if necessary, and print its commit.

    Args:
        address: ``hf://user/name`` or ``hf://user/name@revision``.
    """
    import_client().utils.logging.set_verbosity_error()  # failures are told in one line
    repository, _, revision = address.removeprefix(HUB_PREFIX).partition("@")
    file, commit = download(repository, revision or None)
    note(f"{repository}: commit {commit}")
    return file


def download(repository: str, revision: str | None = None) -> tuple[Path, str]:
    """Download a model, unless it is in the Hub's cache already.

    Args:
        repository: user/name.
        revision: branch, tag or commit.

    Returns:
        The file, and the commit that it is of.

    Raises:
        InputError: there is none, or it is too large.
        SkelnasError: `huggingface_hub` is missing.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"{repository!r}: not a model of the Hub", hint="expected user/name")
    client = import_client()
    hub = client.HfApi()
    try:
        found = hub.hf_hub_download(repository, MODEL, revision=revision, dry_run=True)
        if found.file_size is None or found.file_size > MAX_BYTES:
            size = f"{found.file_size:,} bytes" if found.file_size else "an unknown number of bytes"
            raise InputError(f"{repository}: {MODEL} has {size}, expected at most {MAX_BYTES:,}")
        file = Path(hub.hf_hub_download(repository, MODEL, revision=revision))
    except failures(client) as error:
        raise explain(client, error, repository, revision) from None
    return file, file.parent.name  # the Hub's cache has a folder for each commit


def import_client() -> ModuleType:
    """Import `huggingface_hub`.

    Raises:
        SkelnasError: it is missing.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise SkelnasError(
            f"the Hugging Face Hub needs {error.name}", hint='pip install "skelnas[hub]"'
        ) from None
    return huggingface_hub


def failures(client: ModuleType) -> tuple[type[Exception], ...]:
    """Return what the client raises where a request fails."""
    # The errors of its HTTP library, whose name differs between its versions, are no OSError.
    return (OSError, RuntimeError, client.errors.HFValidationError, client.errors.HTTPError)


def explain(
    client: ModuleType, error: Exception, repository: str, revision: str | None = None
) -> SkelnasError:
    """Return the failure of a request as one line and a hint."""
    errors = client.errors
    where = f"{repository}@{revision}" if revision else repository
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return InputError(
            f"{where}: not in the Hub's cache here, and the Hub cannot be reached",
            hint="check the connection, HF_ENDPOINT and HF_HUB_OFFLINE",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{where}: there is no such revision", hint="leave it out for the newest")
    if isinstance(error, errors.EntryNotFoundError):
        return InputError(
            f"{where}: holds no model of skelnas: there is no {MODEL}",
            hint="`skelnas.push_to_hub` uploads one",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(
            f"{where}: there is no such repository, or it is private",
            hint="`hf auth login` or HF_TOKEN says who you are",
        )
    return InputError(f"{where}: {' '.join(str(error).split())[:300]}")
