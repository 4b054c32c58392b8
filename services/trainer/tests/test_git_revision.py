"""The git revision that a version's run names."""

import dataclasses
from pathlib import Path

import git
import pytest

from tests.support.synthetic_usecase import make_use_case
from trainer.retrain import git_revision


@pytest.fixture
def repository(tmp_path: Path) -> git.Repo:
    """A repository with one committed file."""
    repository = git.Repo.init(tmp_path)
    (tmp_path / "usecase.py").write_text("1")
    repository.index.add(["usecase.py"])
    author = git.Actor("somebody", "somebody@example.com")
    repository.index.commit("first", author=author, committer=author)
    return repository


def test_revision_of_committed_files_is_the_commit(repository: git.Repo, tmp_path: Path) -> None:
    assert git_revision.of_folder(tmp_path) == repository.head.commit.hexsha


def test_revision_is_dirty_if_a_file_is_changed_or_new(repository: git.Repo, tmp_path: Path) -> None:
    dirty = f"{repository.head.commit.hexsha}-dirty"
    (tmp_path / "usecase.py").write_text("2")
    assert git_revision.of_folder(tmp_path) == dirty
    repository.git.checkout("--", "usecase.py")
    folder = tmp_path / "usecases" / "loans"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    assert git_revision.of_folder(folder) == dirty
    (tmp_path / ".gitignore").write_text("usecases\n.gitignore\n")
    assert git_revision.of_folder(tmp_path) == repository.head.commit.hexsha


def test_revision_is_unchecked_if_git_refuses_to_compare(
    repository: git.Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise git.GitCommandError("diff", 128)

    monkeypatch.setattr(git.Repo, "is_dirty", refuse)
    assert git_revision.of_folder(tmp_path) == f"{repository.head.commit.hexsha}-unchecked"


def test_use_case_in_no_repository_has_the_codes_revision_as_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_case = dataclasses.replace(make_use_case(), dvc_file=tmp_path / "usecases" / "m.dvc")
    assert git_revision.of_folder(use_case.dvc_file.parent) == ""
    monkeypatch.setattr(git_revision, "of_folder", lambda folder: "" if tmp_path in folder.parents else "abc")
    assert git_revision.of_use_case(use_case) == "abc-dirty"
