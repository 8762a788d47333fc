"""Run folders, atomic writes, seeds and signals."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from skelnas.config import SearchSettings, Settings, TrainSettings
from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.nas.search import search
from skelnas.runtime import files, seed, signals
from skelnas.training import run_dir
from skelnas.training.train import train

CONFIG = {"verb": "search", "settings": {"epochs": 3, "lr": 0.1}}


def test_a_new_folder_holds_config_and_versions(tmp_path: Path) -> None:
    run_dir.start(tmp_path / "a" / "b", CONFIG, resume=False, force=False).close()
    config = run_dir.read_config(tmp_path / "a" / "b")
    assert config["settings"] == CONFIG["settings"]
    assert set(config["versions"]) == {"skelnas", "torch", "numpy", "python"}


def test_a_folder_that_is_not_empty_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="is not empty") as caught:
        run_dir.start(tmp_path, CONFIG, resume=False, force=False)
    assert "--resume" in (caught.value.hint or "")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_force_deletes_the_run_and_nothing_else(tmp_path: Path) -> None:
    with run_dir.start(tmp_path, CONFIG, resume=False, force=False) as run:
        run.log({"epoch": 1})
    (tmp_path / "notes.txt").write_text("mine")
    run_dir.start(tmp_path, CONFIG, resume=False, force=True).close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "config.json", "notes.txt"]


def test_resume_needs_the_same_settings(tmp_path: Path) -> None:
    with run_dir.start(tmp_path, CONFIG, resume=False, force=False) as run:
        run.log({"epoch": 1})
    run_dir.start(tmp_path, CONFIG, resume=True, force=False).close()
    assert (tmp_path / run_dir.METRICS).exists()
    changed = {"verb": "search", "settings": {"epochs": 3, "lr": 0.2}}
    with pytest.raises(UsageError, match=r"started with lr = 0\.1, now it is 0\.2"):
        run_dir.start(tmp_path, changed, resume=True, force=False)


class Extended(Settings):
    """Settings that got a field after 0.1.0."""

    added = frozenset({"later"})
    epochs: int = 3
    later: int = 0


def test_settings_newer_than_0_1_0_are_recorded_where_they_are_used(tmp_path: Path) -> None:
    unused, used = ({"settings": Extended(later=later).fixed()} for later in (0, 1))
    assert (unused["settings"], used["settings"]) == ({"epochs": 3}, {"epochs": 3, "later": 1})
    for name, started, resumed in (("unused", unused, used), ("used", used, unused)):
        run_dir.start(tmp_path / name, started, resume=False, force=False).close()
        run_dir.start(tmp_path / name, started, resume=True, force=False).close()
        with pytest.raises(UsageError, match="started with later = "):
            run_dir.start(tmp_path / name, resumed, resume=True, force=False)


def test_resume_by_another_version_names_the_original_one(tmp_path: Path) -> None:
    run_dir.start(tmp_path, CONFIG, resume=False, force=False).close()
    config = run_dir.read_config(tmp_path)
    config["versions"]["skelnas"] = "0.0.9"
    (tmp_path / run_dir.CONFIG).write_text(json.dumps(config))
    run_dir.start(tmp_path, CONFIG, resume=True, force=False).close()
    newer = {"verb": "search", "settings": {"epochs": 3, "lr": 0.1, "branches": False}}
    with pytest.raises(UsageError, match="started with branches = None") as caught:
        run_dir.start(tmp_path, newer, resume=True, force=False)
    assert "skelnas 0.0.9, which started it" in (caught.value.hint or "")


def test_resume_in_a_new_folder_starts_a_run(tmp_path: Path) -> None:
    run_dir.start(tmp_path / "new", CONFIG, resume=True, force=False).close()
    assert (tmp_path / "new" / run_dir.CONFIG).exists()


def test_resume_refuses_a_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("precious")
    with pytest.raises(UsageError, match=r"holds no run to resume: .* no config\.json") as caught:
        run_dir.start(tmp_path, CONFIG, resume=True, force=False)
    assert caught.value.hint == "--out names the folder that the run was started in"
    assert (tmp_path / "data.jsonl").read_text() == "precious"


def test_two_runs_cannot_use_one_folder(tmp_path: Path) -> None:
    with run_dir.start(tmp_path, CONFIG, resume=False, force=False) as run:
        run.log({"epoch": 1})
        for resume, force in ((True, False), (False, True)):
            with pytest.raises(UsageError, match="another run is using it"):
                run_dir.start(tmp_path, CONFIG, resume=resume, force=force)
        assert (tmp_path / run_dir.METRICS).exists()
    run_dir.start(tmp_path, CONFIG, resume=True, force=False).close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs fcntl")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_is_used_with_a_note(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    run_dir.start(tmp_path, CONFIG, resume=False, force=False).close()  # leaves the lock's file
    reason = os.strerror(number)

    def fail(file: object, operation: int) -> None:
        raise OSError(number, reason)

    monkeypatch.setattr("fcntl.flock", fail)
    for _ in range(2):
        run_dir.start(tmp_path, CONFIG, resume=True, force=False).close()
    notes = capsys.readouterr().err.replace("\n", "")
    assert notes.count(f"cannot be locked ({reason}); do not start a second run") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs fcntl")
@pytest.mark.parametrize("number", [errno.EACCES, errno.EAGAIN])
def test_errors_that_mean_that_a_folder_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(UsageError, match="another run is using it"):
        run_dir.start(tmp_path, CONFIG, resume=False, force=False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not rename open files")
def test_a_lock_on_a_file_that_was_just_renamed_or_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache.h5.tmp"

    def rename(file: object, operation: int) -> None:
        path.rename(tmp_path / "cache.h5")

    def remove(file: object, operation: int) -> None:
        path.unlink()

    for act in (rename, remove):
        monkeypatch.setattr("fcntl.flock", act)
        assert files.lock(path) is None


def test_a_check_changes_nothing(tmp_path: Path) -> None:
    run_dir.check(tmp_path / "new", resume=True, force=False)
    assert not (tmp_path / "new").exists()
    run_dir.start(tmp_path / "run", CONFIG, resume=False, force=False).close()
    before = (tmp_path / "run" / run_dir.CONFIG).read_bytes()
    run_dir.check(tmp_path / "run", resume=False, force=True)
    assert (tmp_path / "run" / run_dir.CONFIG).read_bytes() == before


@pytest.mark.parametrize("verb", ["search", "train"])
@pytest.mark.parametrize("reason", ["is not empty", "another run is using it"])
def test_a_folder_is_refused_before_anything_is_loaded_or_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, reason: str
) -> None:
    cache, out = tmp_path / "missing.h5", tmp_path / "run"
    with run_dir.start(out, CONFIG, resume=False, force=False) as run:
        if reason == "is not empty":
            run.close()
        start = {
            "search": partial(search, cache, out, SearchSettings()),
            "train": partial(train, cache, "hcn", out, TrainSettings()),
        }[verb]
        with pytest.raises(UsageError, match=reason):
            start(resume=reason != "is not empty")
    assert capsys.readouterr().err == ""


def test_resume_of_another_command_is_refused(tmp_path: Path) -> None:
    run_dir.start(tmp_path, CONFIG, resume=False, force=False).close()
    with pytest.raises(UsageError, match="started with verb = 'search', now it is 'train'"):
        run_dir.start(tmp_path, {"cache": "x", "verb": "train"}, resume=True, force=False)


def test_out_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("precious")
    with pytest.raises(UsageError, match="is a file"):
        run_dir.start(path, CONFIG, resume=False, force=True)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_broken_config(tmp_path: Path, text: str) -> None:
    (tmp_path / run_dir.CONFIG).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"config\.json"):
        run_dir.read_config(tmp_path)


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        run_dir.read_config(tmp_path)


def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    with run_dir.start(tmp_path, CONFIG, resume=False, force=False) as run:
        for epoch in (1, 2, 3):
            run.log({"epoch": epoch})
        run.drop_epochs_after(2)
    assert [line["epoch"] for line in run_dir.read_lines(tmp_path / run_dir.METRICS)] == [1, 2]


def test_a_last_line_cut_off_by_a_kill_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n{"epo')
    assert run_dir.read_lines(path) == [{"epoch": 1}]
    path.write_text('{"epo\n{"epoch": 1}\n')
    with pytest.raises(InputError, match="line 1"):
        run_dir.read_lines(path)


@pytest.mark.parametrize("line", ["[1]", "5", "{}", '{"epoch": "1"}', '{"epoch": true}'])
def test_a_line_must_be_an_object_with_an_epoch(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"epoch": 1}}\n{line}\n')
    with pytest.raises(InputError, match="line 2: expected an object with an epoch"):
        run_dir.read_lines(path)


def test_a_line_nested_too_deeply(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("[" * 100_000 + '\n{"epoch": 1}\n')
    with pytest.raises(InputError, match="line 1: is not JSON"):
        run_dir.read_lines(path)


@pytest.mark.parametrize("cache", [3, None, "a\0b", "\ud800"])
def test_the_cache_of_a_config_must_be_a_path(tmp_path: Path, cache: object) -> None:
    (tmp_path / run_dir.CONFIG).write_text(json.dumps({"cache": cache}))
    with pytest.raises(InputError, match=r"config\.json: expected the path of a cache, found"):
        run_dir.read_config(tmp_path)


def test_epochs_must_be_in_order(tmp_path: Path) -> None:
    path = tmp_path / run_dir.METRICS
    for epochs in ((1, 2, 2), (1, 3, 2)):
        path.write_text("".join(json.dumps({"epoch": epoch}) + "\n" for epoch in epochs))
        with pytest.raises(InputError, match=f"line 3: epoch 2 after {epochs[1]}"):
            run_dir.read_lines(path)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    with run_dir.start(tmp_path, CONFIG, resume=False, force=False) as run:
        (tmp_path / "own.jsonl").write_text("[1]\nno JSON\n")
        run.drop_epochs_after(0)
    assert (tmp_path / "own.jsonl").read_text() == "[1]\nno JSON\n"


def test_resume_and_force_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--resume continues a run, --force deletes it"):
        run_dir.start(tmp_path / "run", CONFIG, resume=True, force=True)
    assert not (tmp_path / "run").exists()


def test_atomic_write_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SkelnasError, match=r"file/new: cannot be written \(Not a directory\)"):
        files.atomic_write(tmp_path / "file" / "new", "")


def test_outputs_are_checked_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for name, reason in (
        ("", "is a folder, expected a file"),
        ("file/new", "file is a file, expected a folder"),
        ("file/new/er", "file is a file, expected a folder"),
    ):
        with pytest.raises(UsageError, match=reason):
            files.check_output(tmp_path / name)
    with pytest.raises(UsageError, match="file is a file, expected a folder"):
        run_dir.check(tmp_path / "file" / "run", resume=False, force=False)
    files.check_output(tmp_path / "file")
    files.check_output(tmp_path / "new" / "folders" / "file")
    files.check_output(Path(os.devnull))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK)  # root may write anywhere
    for path in (tmp_path / "file", Path(os.devnull)):
        with pytest.raises(UsageError, match="cannot be"):
            files.check_output(path)


def test_an_atomic_write_makes_folders(tmp_path: Path) -> None:
    files.atomic_write(tmp_path / "new" / "folders" / "file", "text")
    assert (tmp_path / "new" / "folders" / "file").read_text() == "text"


def test_a_failed_atomic_write_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    files.atomic_write(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SkelnasError, match="No space left"):
        files.atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_atomic_write_follows_links_and_writes_to_pipes(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    files.atomic_write(tmp_path / "link", "new")
    assert (tmp_path / "real").read_text() == "new"
    assert (tmp_path / "link").is_symlink()

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(pipe.read_text)
        files.atomic_write(pipe, "through")
        assert reading.result() == "through"
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_atomic_write_replaces_a_link_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "link"
    path.symlink_to(path)
    files.atomic_write(path, "text")
    assert path.read_text() == "text"


def test_atomic_write_to_standard_output_that_is_a_pipe() -> None:
    write = (
        "from pathlib import Path; from skelnas.runtime.files import atomic_write\n"
        "atomic_write(Path('/dev/stdout'), 'through')"
    )
    piped = subprocess.run([sys.executable, "-c", write], capture_output=True, check=True)
    assert piped.stdout == b"through"


def test_seeds_differ_by_position_and_are_reproducible() -> None:
    positions = [(0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 0, 1)]
    seeds = [seed.random_seed(*position) for position in positions]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [seed.random_seed(*position) for position in positions]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_requests_a_stop_and_handlers_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with signals.stop_on_signal() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
    assert signal.getsignal(number) is before


def test_a_second_interrupt_is_immediate() -> None:
    with signals.stop_on_signal():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_json_is_sorted() -> None:
    assert list(json.loads(files.to_json({"b": 1, "a": 2}))) == ["a", "b"]
