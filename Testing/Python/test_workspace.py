"""A result appears whole or not at all, finished steps are taken over, two runs keep apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ImmunoRadiomicsLib.errors import CancelledError, InputError
from ImmunoRadiomicsLib.workspace import Workspace, fingerprint


def fill(workspace: Workspace, text: str) -> None:
    (workspace.result / "analysis.json").write_text(text)


def test_the_result_appears_at_the_end_and_nothing_else_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Workspace(out) as workspace:
        fill(workspace, "first")
        assert not out.exists()
        workspace.publish()
    assert os.listdir(tmp_path) == ["out"]
    with Workspace(out) as workspace:
        fill(workspace, "second")
        assert (out / "analysis.json").read_text() == "first"
        workspace.publish()
    assert (out / "analysis.json").read_text() == "second"
    assert os.listdir(tmp_path) == ["out"]


def test_an_existing_empty_folder_is_taken(tmp_path: Path) -> None:
    with Workspace(tmp_path / "out") as workspace:
        (tmp_path / "out").mkdir()
        fill(workspace, "x")
        workspace.publish()
    assert os.listdir(tmp_path / "out") == ["analysis.json"]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(InputError, match="holds other files"):
        Workspace(tmp_path)
    with pytest.raises(InputError, match="this is a file"):
        Workspace(tmp_path / "thesis.docx")


def stopped_run(out: Path, error: Exception) -> None:
    with Workspace(out) as workspace:
        workspace.step("a", fingerprint("a"), lambda folder: (folder / "x").write_text("1"))
        fill(workspace, "half")
        raise error


def test_a_stopped_run_keeps_its_steps_and_shows_no_result(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CancelledError):
        stopped_run(out, CancelledError())
    assert not out.exists()
    calls: list[Path] = []
    with Workspace(out) as workspace:
        assert list(workspace.result.iterdir()) == []
        folder, reused = workspace.step("a", fingerprint("a"), calls.append)
        assert reused
        assert (folder / "x").read_text() == "1"
        _, reused = workspace.step("a", fingerprint("other"), calls.append)
        assert not reused
    assert len(calls) == 1


def test_a_half_step_is_made_again(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "x").write_text("half")
        raise CancelledError

    with Workspace(tmp_path / "out") as workspace:
        with pytest.raises(CancelledError):
            workspace.step("a", "key", fails)
        folder, reused = workspace.step("a", "key", lambda folder: (folder / "y").touch())
        assert not reused
        assert os.listdir(folder) == ["y"]


def test_refused_input_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        stopped_run(tmp_path / "out", InputError("wrong"))
    assert os.listdir(tmp_path) == []


def test_two_runs_on_one_folder_keep_apart(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import sys; from pathlib import Path; from ImmunoRadiomicsLib.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])) as w: print('holding', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "holding\n"
        with pytest.raises(InputError, match="another run"), Workspace(out):
            pass
        other.kill()
        other.wait()
    with Workspace(out) as workspace:
        assert workspace.result.is_dir()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_place_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"), Workspace(tmp_path / "out"):
        pass


def test_a_folder_that_holds_the_inputs_is_not_replaced(tmp_path: Path) -> None:
    result = tmp_path / "result"
    result.mkdir()
    (result / "analysis.json").touch()
    (tmp_path / "link").symlink_to(result)
    for out in (result, tmp_path / "link"):
        workspace = Workspace(out)
        workspace.check_inputs([tmp_path / "ct.nrrd", tmp_path / "result2" / "ct.nrrd"])
        with pytest.raises(InputError, match=r"ct\.nrrd"):
            workspace.check_inputs([result / "patient" / "ct.nrrd"])


def test_the_root_is_no_output_folder() -> None:
    with pytest.raises(InputError, match="root"):
        Workspace(Path("/"))


def test_the_earlier_result_comes_back_after_a_kill_between_the_renames(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Workspace(out) as workspace:
        fill(workspace, "first")
        workspace.publish()
    workspace = Workspace(out)
    workspace.cache.mkdir(parents=True)
    os.replace(out, workspace.folder / "previous")
    with pytest.raises(CancelledError), Workspace(out):
        raise CancelledError
    assert (out / "analysis.json").read_text() == "first"
