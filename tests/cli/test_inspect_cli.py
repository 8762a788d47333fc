"""`skelnas inspect` and the flags of `skelnas prepare` run in real pipes."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest
from test_cli import REAL, fails, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspect")
    made = run("skelnas prepare synthetic --clips 16 c.h5 --float16 --compress", path)
    assert made.returncode == 0, made.stderr
    return path


def test_inspect_prints_a_table_and_verifies_checksums(folder: Path) -> None:
    finished = run("skelnas inspect c.h5 --verify", folder)
    assert finished.returncode == 0, finished.stderr
    for word in ("16 clips", "synthetic", "body_rule: denoise", "float16 gzip", "xsub", "xview"):
        assert word in finished.stdout
    assert finished.stderr == "c.h5 is intact: all 16 clips match their checksums\n"


def test_inspect_prints_json(folder: Path) -> None:
    facts = json.loads(run("skelnas inspect c.h5 --json", folder).stdout)
    assert (facts["clips"], facts["source"], facts["storage"]) == (16, "synthetic", "float16 gzip")
    assert "damage" not in facts
    facts = json.loads(run("skelnas inspect c.h5 --json --verify", folder).stdout)
    assert facts["damage"] == []


def test_a_damaged_cache_sets_the_exit_code(folder: Path) -> None:
    (folder / "bad.h5").write_bytes((folder / "c.h5").read_bytes())
    with h5py.File(folder / "bad.h5", "a") as file:
        for start in file["clips/start"]:
            file["poses"][start, 0, 0] += 1
    finished = run("skelnas inspect bad.h5 --verify --json", folder)
    assert finished.returncode == 3
    assert len(json.loads(finished.stdout)["damage"]) == 16
    assert finished.stderr.count("checksum differs") == 16
    assert "bad.h5 is damaged" in finished.stderr


@pytest.mark.parametrize("name", ["clip.png", "clip.gif"])
def test_clips_are_drawn(folder: Path, name: str) -> None:
    with h5py.File(folder / "c.h5") as file:
        clip = file["clips/name"].asstr()[3]
    finished = run(f"skelnas inspect c.h5 --clip {clip} --plot {name} --poses 3", folder)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""
    assert (folder / name).read_bytes()[:4] in (b"\x89PNG", b"GIF8")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("skelnas inspect c.h5 --clip one", 2, ["--plot"]),
        ("skelnas inspect c.h5 --plot one.png", 2, ["--clip"]),
        ("skelnas inspect c.h5 --clip one --plot one.jpg", 2, ["one.jpg", ".png or .gif"]),
        ("skelnas inspect c.h5 --clip one --plot one.png", 3, ["'one'", "hint: there are S"]),
        ("skelnas inspect nowhere.h5", 3, ["nowhere.h5", "No such file"]),
    ],
)
def test_invalid_requests_are_refused(
    folder: Path, command: str, code: int, words: list[str]
) -> None:
    fails(command, folder, code, *words)


def test_prepare_stops_at_too_many_broken_files(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for action in range(1, 5):
        (tmp_path / "raw" / f"S001C001P001R001A{action:03}.skeleton").write_text("broken")
    command = "skelnas prepare ntu raw c.h5 --max-failed 2"
    fails(command, tmp_path, 3, "more than 2 broken files", "A003.skeleton: line 1")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("source", "data", "clip"),
    [
        ("ntu", "ntu-raw", "S001C001P001R001A055"),
        ("kinetics", "kinetics-skeleton", "__lt03EF4ao"),
        ("nw-ucla", "nw-ucla", "a01_s01_e00_v01"),
    ],
)
def test_real_recordings(tmp_path: Path, source: str, data: str, clip: str) -> None:
    if not (REAL / data).is_dir():
        pytest.skip(f"no recordings in {REAL / data}")
    finished = run(
        f"skelnas prepare {source} {REAL / data} c.h5 --resume && skelnas inspect c.h5 --verify && "
        f"skelnas inspect c.h5 --clip {clip} --plot clip.png",
        tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "clip.png").stat().st_size > 10_000
