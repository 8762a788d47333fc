"""Model folders as the Hugging Face Hub has them: written from a model, and uploaded."""

from __future__ import annotations

from pathlib import Path

from skelnas._version import __version__
from skelnas.errors import UsageError
from skelnas.models.onnx_network import OnnxNetwork
from skelnas.reporting.model_card import PICTURE, README, set_license, write_card
from skelnas.training.hub import explain, failures, import_client
from skelnas.training.run_dir import CONFIG, MODEL
from skelnas.training.saved_model import Model, load_model, save_model


def save_pretrained(model: Model, folder: Path | str, *, license: str | None = None) -> Path:
    """Save a model with its card, such as one that learned in a loop of your own.

    Args:
        model: from `load_model`, `from_pretrained` or `ClipDataset.create_model`.
        folder: is created; an earlier model there is replaced.
        license: as the Hub names it, such as ``cc-by-nc-4.0``; by default ``unknown``.

    Returns:
        The file of the model.

    Raises:
        UsageError: the folder holds a training, the model runs in ONNX Runtime, or this is not
            the name of a licence.
    """
    folder = Path(folder)
    if isinstance(model.network, OnnxNetwork):
        raise UsageError(
            "an export to ONNX cannot be saved as a model: only ONNX Runtime has its weights",
            hint="save the model that was exported",
        )
    if (folder / CONFIG).exists():
        raise UsageError(
            f"{folder}: holds a training, whose model is not replaced", hint="name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = save_model(folder, model.network, model.card)
    write_card(folder, model)
    if license is not None:
        set_license(folder, license)
    return path


def push_to_hub(
    folder: Path | str,
    repository: str,
    *,
    license: str | None = None,
    private: bool | None = None,
) -> str:
    """Upload a model folder to the Hugging Face Hub: weights, card and picture, nothing else.

    Args:
        folder: of a trained model; its card is written if it has none.
        repository: user/name; is created if there is none.
        license: as the Hub names it, for the card; by default it stays as it is.
        private: whether a new repository is private; by default as the account has it.

    Returns:
        The address of the commit.

    Raises:
        InputError: there is no model, or the Hub refuses it.
        UsageError: this is not the name of a licence.
        SkelnasError: `huggingface_hub` is missing.
    """
    client = import_client()
    folder = Path(folder)
    write_card(folder, load_model(folder))
    if license is not None:
        set_license(folder, license)
    try:
        hub = client.HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[MODEL, README, PICTURE],
            commit_message=f"Upload a model of skelnas {__version__}",
        )
    except failures(client) as error:
        raise explain(client, error, repository) from None
    return str(commit.commit_url)
