"""The git revision of the code that a version was trained by."""

from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.usecase import UseCase

if TYPE_CHECKING:
    import git

DIRTY = "-dirty"  # as of git describe --dirty: the revision does not have all of the code
UNCHECKED = "-unchecked"  # git refuses to compare files and revision, for instance in another user's repository


def of_use_case(use_case: UseCase) -> str:
    """Return the revision of the repository that a use case's folder is in; see :func:`of_folder`.

    The pipeline of a use case that is in no repository is in no revision either: the trainer's own is dirty for it.
    """
    if revision := of_folder(use_case.dvc_file.parent):
        return revision
    code = of_folder(Path(__file__).parent)
    return code if not code or code.endswith(DIRTY) else f"{code}{DIRTY}"


def of_folder(folder: Path) -> str:
    """Return the revision of the repository that a folder is in; an empty text without a repository or git.

    It ends with ``-dirty`` if the repository has files that are changed, or that are neither committed nor ignored.
    """
    try:
        import git  # noqa: PLC0415  # it cannot be imported if the git command is missing
    except ImportError:
        return ""
    try:
        repository = git.Repo(folder, search_parent_directories=True)
        revision = repository.head.commit.hexsha
    except (git.InvalidGitRepositoryError, git.NoSuchPathError, ValueError):
        return ""
    return f"{revision}{_suffix(repository)}"


def _suffix(repository: "git.Repo") -> str:
    import git  # noqa: PLC0415  # see of_folder

    try:
        return DIRTY if repository.is_dirty(untracked_files=True) else ""
    except git.GitCommandError:
        return UNCHECKED
