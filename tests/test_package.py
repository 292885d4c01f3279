"""The wheel and the sdist: `holo` from the wheel alone, in a folder that is not the project's."""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def alone(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel; the other packages are those of the tests."""
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder, with_pip=False)
    (packages,) = [p for p in folder.rglob("site-packages") if "lib64" not in p.parts]
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # A folder named in a .pth is searched, but its own .pth files, such as that of an editable
    # install of holo, are not read.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(python: Path, folder: Path, *words: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HOLO_", "PYTHON"))}
    ran = subprocess.run(
        [python, *words],
        cwd=folder,
        env=kept | {"PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_wheel_trains_and_generates_where_nothing_of_the_project_is(
    alone: Path, tmp_path: Path
) -> None:
    where = run(alone, tmp_path, "-c", "import holo_cli; print(holo_cli.__file__)")
    assert str(alone.parents[1]) in where
    holo = ("-m", "holo_cli")
    few = ("--max-bytes", "30000", "--vocab-size", "400", "-q")
    run(alone, tmp_path, *holo, "prepare", "stories", *few)
    small = ("--data", "stories", "--preset", "tiny", "--steps", "2", "--set", "model.context=32")
    run(alone, tmp_path, *holo, "train", "--model", "vanilla", *small, "-q")
    (checkpoint,) = (tmp_path / "checkpoints").glob("*_last*")
    assert run(alone, tmp_path, *holo, "generate", "-c", str(checkpoint), "--max-new-tokens", "4")


def test_the_wheel_holds_every_file_of_the_package_and_the_presets(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "holo_cli", "configs"], cwd=ROOT, capture_output=True, text=True
    )
    if tracked.returncode or not tracked.stdout:
        pytest.skip("needs git and a clone: the list of files is git's")
    wanted = {
        f"holo_cli/{name}" if name.startswith("configs/") else name
        for name in tracked.stdout.split("\n")
        if name
    }
    assert wanted <= packed, sorted(wanted - packed)
    assert {name.split("/")[0] for name in packed} == {"holo_cli", f"{dist_info(packed)}"}


def dist_info(packed: set[str]) -> str:
    return next(name.split("/")[0] for name in packed if ".dist-info/" in name)


def test_the_sdist_holds_what_tests_and_documentation_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("README.md", "README_KO.md", "CHANGELOG.md", "LICENSE", "Makefile", "CITATION.cff",
                 "constraints.txt", "docs/README.md", "tests/test_package.py"):  # fmt: skip
        assert name in packed, name


def test_what_holo_and_its_tests_need_is_pinned_with_hashes() -> None:
    """The extras that `make test` installs, with the readers of files that `holo export` wrote."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = data["project"]
    extras = project["optional-dependencies"]
    wanted = [*data["build-system"]["requires"], *project["dependencies"]]
    wanted += [*extras["dev"], *extras["hf"], *extras["gguf"]]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = {
        re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower(): re.findall(r"sha256:\w{64}\b", pin)
        for pin in re.split(r"\n(?=\w)", lines)[1:]
    }
    for requirement in wanted:
        name = re.sub(r"[-_.]+", "-", re.split(r"[<>=;\[ ]", requirement)[0]).lower()
        assert pins.get(name), requirement
    for name, hashes in pins.items():
        assert len(hashes) == len(set(hashes)), f"{name}: a hash is there twice"


def test_the_citation_and_the_workflow_are_valid_and_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]["text"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    used = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert {"run": ".ci/run"} in used
    matrix = workflow["jobs"]["others"]["strategy"]["matrix"]
    assert {"macos-latest", "windows-latest"} == set(matrix["os"])


def test_the_image_copies_what_the_build_needs() -> None:
    """What the Dockerfile copies exists and is let through by .dockerignore."""
    let_through = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists(), name
                assert any(Path(name).match(kept.removeprefix("!")) for kept in let_through[1:])
