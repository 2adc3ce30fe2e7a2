"""Whose config files count: the user's and root's, as git's safe.directory has it, and no further up than a project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cg_cli.settings import files
from cg_cli.settings.resolve import resolve_settings, resolve_with_sources

NOBODY = 65534


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A cg.yaml of the user's in a folder above the current one."""
    path = tmp_path / "shared" / "cg.yaml"
    (tmp_path / "shared" / "work").mkdir(parents=True)
    path.write_text("max-frames: 20\nshow-dir: /tmp/elsewhere\n")
    path.chmod(0o644)
    monkeypatch.chdir(tmp_path / "shared" / "work")
    return path


@pytest.fixture
def disown(monkeypatch):
    """Make a file somebody else's."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        else:
            other = os.geteuid() + 1
            monkeypatch.setattr(os, "geteuid", lambda: other)

    return give


def effective() -> int:
    return resolve_settings({}).max_frames


def test_the_user_s_own_counts(project):
    assert effective() == 20 and files.skipped_files() == []


def test_somebody_else_s_does_not_and_is_said_once(project, disown, cg):
    project.parent.chmod(0o1777)
    disown(project)
    assert effective() != 20 and resolve_settings({}).show_dir is None
    code, out, err = cg("config")
    assert code == 0 and "/tmp/elsewhere" not in out and err.count("\n") == 1
    assert err.startswith(f"cg: warning: project config {project} is left out: it belongs to ")
    assert len(resolve_with_sources([]).skipped) == 1
    code, out, err = cg("config", "--config", str(project))  # who names it wants it
    assert code == 0 and "/tmp/elsewhere" in out
    assert cg("ask", "missing.mp4", "--quiet", "--preset", "papper")[2].count("warning") == 0
    from cg_cli import doctor

    assert any("is left out" in line for line in doctor._settings().values())


def test_a_link_that_somebody_else_put_there_does_not_count(project, disown, tmp_path):
    own = tmp_path / "own.yaml"
    project.rename(own)
    project.symlink_to(own)
    assert effective() == 20
    if os.geteuid() == 0:
        disown(project)
        assert effective() != 20 and "belongs to" in files.skipped_files()[0]


@pytest.mark.parametrize(("mode", "counts"), [(0o600, True), (0o644, True), (0o646, False), (0o666, False)])
def test_what_others_may_write_does_not_count(project, mode, counts):
    project.chmod(mode)
    assert (effective() == 20) == counts
    assert (
        all("others may write it (chmod go-w)" in line for line in files.skipped_files())
        and bool(files.skipped_files()) != counts
    )


@pytest.mark.parametrize("private", [True, False])
def test_a_group_counts_only_where_it_is_the_user_alone(project, monkeypatch, private):
    project.chmod(0o664)
    monkeypatch.setattr(files, "_is_private_group", lambda gid: private)
    assert (effective() == 20) == private


def test_a_private_group_has_the_user_s_name_and_no_other_member(monkeypatch):
    import grp
    import pwd
    from types import SimpleNamespace

    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="ann", pw_gid=1000))
    for name, members, gid, private in (
        ("ann", [], 1000, True), ("ann", ["ann"], 1000, True), ("ann", ["bob"], 1000, False),
        ("users", [], 1000, False), ("ann", [], 100, False),
    ):  # fmt: skip
        group = SimpleNamespace(gr_name=name, gr_mem=members)
        monkeypatch.setattr(grp, "getgrgid", lambda gid, group=group: group)
        assert files._is_private_group(gid) == private


def test_a_folder_where_anybody_may_replace_it_does_not_count(project):
    project.parent.chmod(0o1777)
    assert effective() == 20
    project.parent.chmod(0o777)
    assert effective() != 20 and "others may replace it" in files.skipped_files()[0]


def test_the_user_config_is_checked_as_well(tmp_path, monkeypatch, disown):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = files.user_file()
    path.parent.mkdir()
    path.write_text("max-frames: 20\n")
    assert effective() == 20
    disown(path)
    assert effective() != 20 and files.skipped_files()[0].startswith("user config")


@pytest.mark.parametrize("marker", [".git", "home"])
def test_the_search_stops_at_the_repository_and_at_home(project, monkeypatch, marker):
    work = project.parent / "work"
    (work / "deep" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(work / "deep" / "deeper")
    assert effective() == 20
    if marker == ".git":
        (work / ".git").mkdir()
    else:
        monkeypatch.setenv("HOME", str(work))
    assert effective() != 20 and files.skipped_files() == []
    (work / "cg.yaml").write_text("max-frames: 30\n")  # the folder itself is a part of the project
    (work / "cg.yaml").chmod(0o644)
    assert effective() == 30
