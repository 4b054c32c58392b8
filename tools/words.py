"""Check the project's text for words that `tools/wordlist.txt` rejects.

python -m tools.words
"""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDLIST = Path(__file__).with_name("wordlist.txt")
SUFFIXES = {".py", ".md", ".yaml", ".html", ".js", ".sh", ".tf", ".toml"}


def rejected() -> dict[str, str]:
    """Return the rejected words with what to write instead."""
    lines = [line for line in WORDLIST.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("\t") for line in lines)


def findings(text: str, words: dict[str, str]) -> list[tuple[int, str]]:
    """Return line numbers and rejected words in a text; a word inside an identifier counts too."""
    pattern = re.compile(rf"(?<![a-z])({'|'.join(map(re.escape, words))})(?![a-z])", re.IGNORECASE)
    return [
        (number, match[1].lower())
        for number, line in enumerate(text.splitlines(), 1)
        for match in pattern.finditer(line)
    ]


def main() -> None:
    """Print each finding; exit with 1 if there is one."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],  # noqa: S607  # git is a prerequisite
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    words, failed = rejected(), False
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in SUFFIXES and path.is_file():
            for number, word in findings(path.read_text(), words):
                print(f"{name}:{number}: {word!r}: write {words[word]}")
                failed = True
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
