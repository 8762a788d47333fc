"""The installed command in real pipes: stdout has the result only, and exit codes are right."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import h5py
import pytest
from typer.testing import CliRunner

from skelnas import cli
from skelnas.__main__ import main
from skelnas.errors import Interrupted
from skelnas.genotype import BUILT_IN

SKELNAS = Path(sys.executable).with_name("skelnas")
REAL = Path(__file__).parents[3] / "shared" / "data"
SEARCH = "--frames 6 --layers 3 --channels 2 --nodes 2 --epochs 1 --batch-size 6 --device cpu"
TRAIN = "--frames 6 --layers 3 --channels 2 --epochs 1 --batch-size 6 --device cpu"


def run(
    command: str, cwd: Path, stdin: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a shell command without a terminal; `skelnas` is the installed command."""
    path = f"{SKELNAS.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=cwd,
        input=stdin or "",
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **environment},
        timeout=300,
        check=False,
    )


def fails(command: str, cwd: Path, code: int, *words: str, stdin: str | None = None) -> None:
    """Check that a command fails with its exit code, one clear line and no traceback."""
    finished = run(command, cwd, stdin)
    assert finished.returncode == code, finished.stderr
    assert finished.stdout == ""
    assert "Traceback" not in finished.stderr
    for word in words:
        assert word in finished.stderr


@pytest.fixture(scope="module")
def folder(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache, a search and a model, all made by the command."""
    path = tmp_path_factory.mktemp("cli")
    (path / "c.h5").symlink_to(tiny_cache)
    finished = run(
        f"skelnas search c.h5 --out run {SEARCH} && "
        f"skelnas derive run | skelnas train c.h5 --genotype - --out model {TRAIN} --json",
        path,
    )
    assert finished.returncode == 0, finished.stderr
    (path / "printed").write_text(finished.stdout)
    assert "epoch 1/1" in finished.stderr
    assert "\x1b" not in finished.stderr
    return path


def test_search_and_train_print_where_the_result_is_and_how_good(folder: Path) -> None:
    line, _, document = (folder / "printed").read_text().partition("\n")
    assert re.fullmatch(
        r"run: epoch 1, train loss \d+\.\d{3}, train top-1 \d+\.\d%, validation loss \d+\.\d{3}",
        line,
    )
    (metrics,) = (folder / "model/metrics.jsonl").read_text().splitlines()
    printed = {"model": "model/model.safetensors", "metrics": json.loads(metrics)}
    assert json.loads(document) == printed
    program = "import json, sys; print(json.load(sys.stdin)['model'])"
    piped = run(f'skelnas resume model --json | python -c "{program}" | xargs ls', folder)
    assert piped.stdout == "model/model.safetensors\n", piped.stderr
    resumed = json.loads(run("skelnas resume run --json", folder).stdout)
    assert resumed["run"] == "run"
    assert resumed["metrics"]["epoch"] == 1


def test_derive_prints_only_the_genotype(folder: Path) -> None:
    finished = run("skelnas derive run", folder)
    assert json.loads(finished.stdout)["format"] == "skelnas-genotype"
    assert finished.stderr == ""
    assert run("skelnas derive run --out g.json --plot cells.svg", folder).stdout == ""
    assert run("skelnas derive run --out g.json --json", folder).stdout == finished.stdout
    assert (folder / "g.json").read_text() == finished.stdout
    assert (folder / "cells.svg").read_text().startswith("<?xml")


def test_report_writes_a_page_and_prints_its_path(folder: Path) -> None:
    finished = run("skelnas report run --out page.html && skelnas report model", folder)
    assert finished.returncode == 0
    assert finished.stdout == "page.html\nmodel/report.html\n"
    assert finished.stderr == ""
    printed = run("skelnas report model --json", folder).stdout
    assert json.loads(printed) == {"report": "model/report.html"}
    assert (folder / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert (folder / "model/report.html").is_file()


def test_evaluate_prints_a_table_or_json(folder: Path) -> None:
    table = run("skelnas evaluate c.h5 model --latency --threads 1", folder)
    assert table.returncode == 0
    for word in ("top-1", "always the largest class", "parameters", "MACs", "wave"):
        assert word in table.stdout
    assert ", 1 CPU thread " in table.stdout
    assert "top-5" not in table.stdout  # of few classes
    document = json.loads(run("skelnas evaluate c.h5 model --json", folder).stdout)
    assert document["clips"] == 12
    assert 0 <= document["top1"] <= document["top5"] <= 1
    assert document["flops"] == 2 * document["macs"]
    assert sum(map(sum, document["confusion"])) == 12


def test_the_confusion_matrix_is_a_table_with_names(folder: Path) -> None:
    finished = run("skelnas evaluate c.h5 model --confusion matrix.csv --json", folder)
    header, *rows = (folder / "matrix.csv").read_text().splitlines()
    assert header == "true class,still,wave,pair"
    expected = json.loads(finished.stdout)["confusion"]
    assert [[int(n) for n in row.split(",")[1:]] for row in rows] == expected


def test_score_files_are_compared_and_combined(folder: Path) -> None:
    finished = run(
        "skelnas evaluate c.h5 model --scores s.npz --json && "
        "skelnas evaluate c.h5 model --scores s.safetensors --compare s.npz --json && "
        "skelnas ensemble s.npz s.safetensors --weights 1,3 --scores both.npz --json && "
        "skelnas evaluate c.h5 model --compare both.npz && skelnas ensemble s.npz both.npz",
        folder,
    )
    assert finished.returncode == 0, finished.stderr
    alone, compared, together = map(json.loads, finished.stdout.splitlines()[:3])
    assert alone["comparison"] is None
    assert [row["difference"] for row in compared["comparison"]["classes"]] == [0, 0, 0]
    assert together["members"] == ["s.npz", "s.safetensors"]
    assert together["weights"] == [1, 3]
    for name in ("top1", "confusion", "classes", "clips", "protocol"):
        assert together[name] == alone[name] == compared[name]
    assert "B is both.npz" in finished.stdout
    assert "A - B" in finished.stdout


def test_what_was_computed_is_printed_though_a_file_cannot_be_written(folder: Path) -> None:
    (folder / "full.csv").symlink_to("/dev/full")
    command = "skelnas evaluate c.h5 model --json --scores a/new/s.npz --confusion full.csv"
    finished = run(command, folder)
    assert finished.returncode == 1
    assert "full.csv: cannot be written (No space left" in finished.stderr
    assert json.loads(finished.stdout)["clips"] == 12
    assert (folder / "a/new/s.npz").exists()
    derived = run("skelnas derive run --out full.csv", folder)
    assert derived.returncode == 1
    assert json.loads(derived.stdout)["format"] == "skelnas-genotype"
    (folder / "full.csv").unlink()


def test_a_closed_pipe_prints_no_error(folder: Path) -> None:
    finished = run("skelnas evaluate c.h5 model --json | head -c 1; true", folder)
    assert finished.stdout == "{"
    assert "Traceback" not in finished.stderr


def test_prepare_synthetic_and_inspect_as_json(tmp_path: Path) -> None:
    finished = run("skelnas prepare synthetic --clips 16 s.h5 --json", tmp_path)
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert report["clips"] == 16
    with h5py.File(tmp_path / "s.h5") as file:
        assert file.attrs["source"] == "synthetic"


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real recordings in ../shared/data")
@pytest.mark.parametrize(
    ("source", "data", "splits"),
    [
        ("ntu", "ntu-raw", {"xsub": [31, 2], "xview": [2, 31]}),
        ("kinetics", "kinetics-skeleton", {"official": [3, 5]}),
        ("nw-ucla", "nw-ucla", {"xview": [1020, 464]}),
    ],
)
def test_prepare_real_recordings(
    tmp_path: Path, source: str, data: str, splits: dict[str, list[int]]
) -> None:
    finished = run(f"skelnas prepare {source} {REAL / data} c.h5 --json", tmp_path)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)["splits"]
    assert {name: [part["train"], part["test"]] for name, part in found.items()} == splits


def test_a_broken_file_is_skipped_reported_and_sets_the_exit_code(tmp_path: Path) -> None:
    from skelnas.data.readers.synthetic import write_raw

    first, second = write_raw(tmp_path / "raw", num_clips=2)
    second.write_bytes(second.read_bytes()[:5000])
    finished = run("skelnas prepare ntu raw c.h5 --json", tmp_path)
    assert finished.returncode == 3
    assert json.loads(finished.stdout)["clips"] == 1
    assert second.name in finished.stderr
    listed = json.loads((tmp_path / "c.h5.report.json").read_text())["failed"]
    assert [Path(entry["file"]).name for entry in listed] == [second.name]
    fails("skelnas prepare ntu raw d.h5 --strict", tmp_path, 3, second.name)
    assert not (tmp_path / "d.h5").exists()
    assert first.exists()


def test_flags_override_environment_over_config_file_over_defaults(folder: Path) -> None:
    (folder / "s.toml").write_text(
        "epochs = 9\nlr = 0.3\n[search]\nepochs = 7\nbatch-size = 4\n[train]\ncrop = 0.5\n"
    )
    finished = run(
        "skelnas search c.h5 --out x --config s.toml --batch-size 2 --dry-run",
        folder,
        SKELNAS_SEARCH_LR="0.2",
        SKELNAS_SEARCH_BATCH_SIZE="3",
    )
    settings = json.loads(finished.stdout)
    assert (settings["epochs"], settings["lr"], settings["batch_size"]) == (7, 0.2, 2)
    assert settings["layers"] == 6
    assert not (folder / "x").exists()


def test_seeds_are_compared_and_one_is_picked(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text("[train]\nlayers = 3\nchannels = 2\nbatch-size = 6\n")
    command = f"skelnas search c.h5 --out {tmp_path}/out {SEARCH} --order first --repeats 2"
    command += f" --train-config {tmp_path}/short.toml"
    planned = json.loads(run(f"{command} --dry-run", folder).stdout)
    assert (planned["train"]["epochs"], planned["train"]["frames"]) == (30, 6)
    assert planned["search"]["hold_out"] == planned["train"]["hold_out"] == 0.2
    (tmp_path / "short.toml").write_text("epochs = 1\nlayers = 3\nchannels = 2\n")
    finished = run(command, folder)
    assert finished.returncode == 0, finished.stderr
    for word in ("held-out clips", "searched", "random", "mean", "deviation", "picked: seed "):
        assert word in finished.stdout
    derived = run(f"skelnas derive {tmp_path}/out", folder)
    assert json.loads(derived.stdout)["format"] == "skelnas-genotype"


def test_a_search_by_trainings_prints_its_table_and_continues(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text("recipe = 'paper'\nlr = 0.05\n")
    command = f"skelnas search c.h5 --out {tmp_path}/out {SEARCH} --method predict --genotypes 4"
    command += f" --train-config {tmp_path}/short.toml"
    planned = json.loads(run(f"{command} --dry-run", folder).stdout)
    assert (planned["search"]["genotypes"], planned["search"]["folds"]) == (4, 2)
    assert "order" not in planned["search"]
    assert (planned["train"]["lr"], planned["train"]["channels"]) == (0.05, 2)
    finished = run(f"{command} --json", folder)
    assert finished.returncode == 0, finished.stderr
    table = json.loads(finished.stdout)
    chosen = table["genotypes"][table["chosen"]]
    derived = run(f"skelnas derive {tmp_path}/out", folder)
    assert json.loads(derived.stdout) == chosen["genotype"]
    again = run(f"{command} --resume --jobs 2", folder)
    for word in ("predicted loss", "random genotypes: mean loss", f"{chosen['parameters']:,}"):
        assert word in again.stdout


BROKEN_GENOTYPE = json.dumps(BUILT_IN["ntu_cs112se30"].to_dict() | {"normal": [[["conv_9x9", 0]]]})
MISSING_NODE = json.dumps(BUILT_IN["ntu_cs112se30"].to_dict() | {"normal": [[["conv_3x3", 5]]]})


@pytest.mark.parametrize(
    ("command", "stdin", "code", "words"),
    [
        ("skelnas search c.h5 --out run", None, 2, ["run", "not empty", "--resume"]),
        ("skelnas search c.h5 --out new --protocol xview", None, 3, ["xview", "xsub"]),
        ("skelnas search nothing.h5 --out new", None, 3, ["nothing.h5"]),
        ("skelnas search text.h5 --out new", None, 3, ["text.h5"]),
        ("skelnas search schema.h5 --out new", None, 3, ["schema.h5", "version"]),
        ("skelnas search c.h5 --out new --epochs 0", None, 2, ["--epochs", "0"]),
        ("skelnas search c.h5 --out new --order third", None, 2, ["third", "second"]),
        (
            "skelnas search c.h5 --out new --space none,conv",
            None,
            2,
            ["--space", "'conv'", "darts"],
        ),
        ("skelnas search c.h5 --out new --device cuda", None, 4, ["cuda", "cpu"]),
        ("skelnas search c.h5 --out new --config none.toml", None, 3, ["none.toml"]),
        ("skelnas search c.h5 --out new --config bad.toml", None, 3, ["bad.toml", "epoch"]),
        ("skelnas derive model", None, 3, ["model", "not a search"]),
        ("skelnas derive run --epoch 9", None, 2, ["epoch 9", "0 to 1"]),
        ("skelnas search c.h5 --out new --train-config bad.toml", None, 2, ["--repeats"]),
        (
            "skelnas search c.h5 --out new --repeats 2 --train-config bad.toml",
            None,
            3,
            ["bad.toml", "'epoch'", "skelnas train --help"],
        ),
        (
            "skelnas search c.h5 --out new --repeats 2 --train-config seed.toml",
            None,
            2,
            ["seed.toml: hold-out is taken from the search"],
        ),
        (
            "skelnas search c.h5 --out new --repeats 2 --train-config cells.toml",
            None,
            2,
            ["cells.toml: genotype differs between trainings"],
        ),
        (
            "skelnas search c.h5 --out new --repeats 2 --train-config true.toml",
            None,
            3,
            ["true.toml: epochs = true, expected a number"],
        ),
        (
            "skelnas train c.h5 --out new --model hcn --config true.toml",
            None,
            3,
            ["true.toml: epochs = true, expected a number"],
        ),
        (
            "skelnas train c.h5 --out new --model hcn --config one.toml",
            None,
            3,
            ["one.toml: center = 1, expected true or false"],
        ),
        (
            "skelnas train c.h5 --out new --model hcn --config yes.toml",
            None,
            3,
            ["yes.toml: force = 'yes', expected true or false"],
        ),
        ("skelnas search c.h5 --out new --lr 1e300", None, 2, ["--lr 1e+300", "1e+18"]),
        ("skelnas search c.h5 --out new --layers 1001", None, 2, ["--layers 1001", "1000"]),
        ("skelnas search c.h5 --out new --repeats 0", None, 2, ["--repeats", "equal to 1"]),
        ("skelnas train c.h5 --out new --model hcn --folds 1", None, 2, ["--folds"]),
        (
            "WORLD_SIZE=2 RANK=0 skelnas train c.h5 --out new --model hcn --folds 2",
            None,
            2,
            ["--folds runs in one process", "--protocol fold1"],
        ),
        (
            "skelnas train c.h5 --out new --init missing",
            None,
            3,
            ["missing: there is no such file"],
        ),
        ("skelnas train c.h5 --out new --model hcn --freeze", None, 2, ["--init MODEL"]),
        ("skelnas train c.h5 --out new --model hcn --patience 3", None, 2, ["--hold-out 0.2"]),
        ("skelnas search c.h5 --out new --jobs 2", None, 2, ["--jobs 2", "--method predict"]),
        (
            "skelnas search c.h5 --out new --method predict --order first",
            None,
            2,
            ["--order first", "--method gradient"],
        ),
        (
            "skelnas search c.h5 --out new --method predict --repeats 2",
            None,
            2,
            ["--repeats is for --method gradient"],
        ),
        (
            "WORLD_SIZE=2 RANK=0 skelnas search c.h5 --out new --method predict",
            None,
            2,
            ["not divided among ranks", "--jobs"],
        ),
        (
            "skelnas search c.h5 --out new --method predict --train-config true.toml",
            None,
            2,
            ["true.toml: epochs is taken from the search"],
        ),
        ("skelnas derive run --clips 9", None, 2, ["--clips", "--select perturbation"]),
        ("skelnas derive run --plot cells.jpg", None, 2, ["cells.jpg", ".svg"]),
        ("skelnas derive run --plot p.svg --out ./p.svg", None, 2, ["p.svg", "two files"]),
        ("skelnas train c.h5 --genotype none.json --out new", None, 3, ["none.json"]),
        ("skelnas train c.h5 --genotype - --out new", "", 3, ["standard input"]),
        ("skelnas train c.h5 --genotype - --out new", "{", 3, ["not JSON"]),
        ("skelnas train c.h5 --genotype - --out new", BROKEN_GENOTYPE, 3, ["conv_9x9"]),
        ("skelnas train c.h5 --genotype - --out new", MISSING_NODE, 3, ["node 5", "0 to 1"]),
        ("skelnas evaluate c.h5 run", None, 3, ["run", "no trained model"]),
        ("skelnas evaluate c.h5 model --scores s.pkl", None, 2, ["s.pkl", ".npz"]),
        ("skelnas evaluate c.h5 model --scores c.h5/s.npz", None, 2, ["c.h5 is a file, expected"]),
        ("skelnas search c.h5 --out c.h5/run", None, 2, ["c.h5 is a file, expected a folder"]),
        ("skelnas evaluate c.h5 model --confusion c.jpg", None, 2, ["c.jpg", ".csv, .png"]),
        ("skelnas evaluate c.h5 model --compare none.npz", None, 3, ["none.npz", "--scores"]),
        ("skelnas evaluate c.h5 model --input-size 9", None, 2, ["--input-size 9", "224x224"]),
        ("skelnas predict run a.npy", None, 3, ["run", "no trained model"]),
        ("skelnas predict model none.npy empty", None, 3, ["none.npy", "empty: is a folder"]),
        ("skelnas predict model - none.npy", None, 2, ["- cannot be combined with files"]),
        ("skelnas predict model -", "[1]", 3, ["standard input, line 1", "5 joints of 3"]),
        ("skelnas predict model -", "", 3, ["standard input: no frames"]),
        ("skelnas predict model none.npy --plot p.jpg", None, 2, ["p.jpg", ".svg", ".gif"]),
        ("skelnas predict model a.npy b.npy --plot p.svg", None, 2, ["not 2 recordings"]),
        ("skelnas predict model - --plot p.svg", "", 2, ["not a stream"]),
        ("skelnas ensemble none.npz none.npz", None, 3, ["none.npz", "no such file"]),
        ("skelnas ensemble none.npz", None, 2, ["two or more files"]),
        ("skelnas ensemble a.npz b.npz --weights 1,x", None, 2, ["--weights 1,x", "1,0.6"]),
        ("skelnas report empty", None, 3, ["empty", "no config.json"]),
        ("skelnas report run --out run.pdf", None, 2, ["run.pdf: a report is an HTML", ".html;"]),
        ("skelnas prepare ntu empty new", None, 3, ["empty"]),
        ("skelnas prepare ntu nowhere new", None, 3, ["nowhere"]),
        ("skelnas prepare synthetic c.h5", None, 2, ["c.h5", "--force"]),
        ("skelnas demo --out run", None, 2, ["run", "not empty"]),
    ],
)
def test_bad_input_is_reported_in_one_line_and_changes_nothing(
    folder: Path, command: str, stdin: str | None, code: int, words: list[str]
) -> None:
    (folder / "text.h5").write_text("a letter to a friend")
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "bad.toml").write_text("epoch = 3")
    (folder / "seed.toml").write_text("[train]\nhold-out = 0.5\n")
    (folder / "cells.toml").write_text("genotype = 'random:0'")
    (folder / "true.toml").write_text("epochs = true")
    (folder / "one.toml").write_text("center = 1")
    (folder / "yes.toml").write_text("force = 'yes'")
    if not (folder / "schema.h5").exists():
        (folder / "schema.h5").write_bytes((folder / "c.h5").read_bytes())
        with h5py.File(folder / "schema.h5", "r+") as file:
            file.attrs["schema_version"] = 99
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    fails(command, folder, code, *words, stdin=stdin)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_ctrl_c_saves_and_prints_how_to_resume(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = f"search c.h5 --out {out} {SEARCH}".replace("--epochs 1", "--epochs 500").split()
    process = subprocess.Popen(
        [SKELNAS, *command],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    assert (out / "checkpoint.safetensors").exists()


def test_an_interrupted_resume_continues_by_the_same_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Interrupted("train stopped", hint="the same command with --resume continues")

    monkeypatch.setattr("skelnas.nas.resume.resume", stop)
    result = CliRunner().invoke(cli.app, ["resume", "run"])
    assert isinstance(result.exception, Interrupted)
    assert result.exception.hint == "the same command continues from here"


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_terminal_shows_a_live_view_that_is_cleared_at_the_end(
    folder: Path, tmp_path: Path
) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = f"search c.h5 --out {tmp_path}/run {SEARCH}".replace("--epochs 1", "--epochs 3")
    process = subprocess.Popen(
        [SKELNAS, *command.split()],
        cwd=folder,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "70", "TERM": "xterm"},
    )
    os.close(theirs)
    screen = b""
    with contextlib.suppress(OSError):  # Linux reports a closed terminal like this
        while part := os.read(ours, 65536):
            screen += part
    os.close(ours)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert stdout.startswith(f"{tmp_path}/run: epoch 3, train loss ".encode())
    text = screen.decode()
    assert re.search(r"search  epoch 3/3  step \d/3", text)
    assert "epoch 3/3  train_loss" in text
    before, after = text.split("epoch 3/3  train_loss")
    assert "\x1b[1A" in before + after  # the view was redrawn in place
    assert after.rstrip().endswith("prints the genotype")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_during_an_import_is_not_reported_as_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    def half_imported(**_: object) -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise AttributeError("module 'numpy' has no attribute 'matrix'") from None

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(cli, "app", half_imported)
    try:
        with pytest.raises(SystemExit) as ending:
            cli.main()
    finally:
        for restored, handler in before.items():
            signal.signal(restored, handler)
    assert ending.value.code == 130
    assert capsys.readouterr().err == "skelnas: interrupted\n"


def test_memory_that_runs_out_is_reported_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask_for_too_much(**_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cli, "app", ask_for_too_much)
    monkeypatch.setattr(cli, "_interrupt_on_signals", list)
    with pytest.raises(SystemExit) as ending:
        cli.main()
    assert ending.value.code == 4
    assert capsys.readouterr().err.startswith("skelnas: out of memory (MemoryError)\n  hint: ")


def test_ctrl_c_while_the_command_line_is_being_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class HalfImported(ModuleType):
        @property
        def main(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "skelnas.cli", HalfImported("skelnas.cli"))
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == 130
    assert capsys.readouterr().err == "skelnas: interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("words", ["derive run", "inspect c.h5", "layouts"])
def test_a_closed_stdout_is_reported(words: str, folder: Path) -> None:
    command = f"{SKELNAS} {words} >&-"
    closed = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True)
    assert closed.returncode == 1
    assert closed.stderr == "skelnas: cannot print the result: standard output is closed\n"


def test_a_killed_search_resumes(folder: Path, tmp_path: Path) -> None:
    flags = SEARCH.replace("--epochs 1", "--epochs 4")
    whole = run(f"skelnas search c.h5 --out {tmp_path}/whole {flags}", folder)
    assert whole.returncode == 0
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [SKELNAS, *f"search c.h5 --out {out} {flags}".split()],
        cwd=folder,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (out / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    resumed = run(f"skelnas search c.h5 --out {out} {flags} --resume", folder)
    assert resumed.returncode == 0, resumed.stderr
    for name in ("alphas.jsonl", "checkpoint.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_version_and_help_do_not_import_torch(tmp_path: Path) -> None:
    assert run("skelnas --version && skelnas -V", tmp_path).stdout == "0.1.0\n0.1.0\n"
    text = run("skelnas search --help", tmp_path, COLUMNS="80").stdout
    assert "Examples:\n  skelnas search" in text
    assert "  --epochs N              Passes over the half that trains the weights. [35]\n" in text


def test_no_color_and_width_are_obeyed(folder: Path) -> None:
    finished = run("skelnas evaluate c.h5 model", folder, NO_COLOR="1", COLUMNS="60")
    assert "\x1b" not in finished.stdout
    assert max(map(len, finished.stdout.splitlines())) <= 60


def test_debug_prints_the_traceback(folder: Path) -> None:
    finished = run("skelnas derive model", folder, SKELNAS_DEBUG="1")
    assert finished.returncode == 3
    assert "Traceback" in finished.stderr
