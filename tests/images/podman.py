"""Images and containers by podman, run as compose runs them."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support import report
from tests.support.report import tell

ROOT = Path(__file__).resolve().parents[2]
LOOK_SECONDS = 0.5  # between two health checks
IMAGES = {
    **{name: f"services/{name}/Dockerfile" for name in ("predictor", "drift_worker", "trainer", "producer")},
    "mlflow": "compose/mlflow/Dockerfile",
}


class Failed(Exception):
    """Says which step did not do what it should."""


def program(name: str) -> str:
    """The path of a program. Raises :class:`Failed`."""
    found = shutil.which(name)
    if found is None:
        raise Failed(f"{name} is missing")
    return found


def podman(*words: str, seconds: float = 900) -> str:
    """Runs podman; returns what it printed. Raises :class:`Failed`."""
    done = subprocess.run([program("podman"), *words], capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode:
        raise Failed(f"podman {' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stdout.strip()


def image(name: str) -> str:
    """An image's name, as compose has it."""
    return f"localhost/driftloop-{name.replace('_', '-')}:dev"


def stand_in(folder: Path) -> list[str]:
    """Makes base images of a Debian in a folder and of the uv at hand, where they are not there yet.

    Returns the build's arguments.
    """
    authorities = folder / "etc" / "ssl" / "certs" / "ca-certificates.crt"
    if not there("stand-in:python"):
        shutil.copyfile("/etc/ssl/certs/ca-certificates.crt", authorities)  # of whoever is asked for packages
        (folder / "usr" / "bin" / "python").unlink(missing_ok=True)
        (folder / "usr" / "bin" / "python").symlink_to("python3")
        imported(folder, "stand-in:python", "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")
    if not there("stand-in:uv"):
        with tempfile.TemporaryDirectory() as alone:
            shutil.copy(shutil.which("uv") or ROOT / ".uv" / "bin" / "uv", f"{alone}/uv")
            imported(Path(alone), "stand-in:uv")
    return ["--build-arg", "PYTHON=localhost/stand-in:python", "--build-arg", "UV=localhost/stand-in:uv"]


def there(name: str) -> bool:
    """Whether there is an image of ours."""
    known = [program("podman"), "image", "exists", f"localhost/{name}"]
    return not subprocess.run(known, check=False).returncode


def imported(folder: Path, name: str, *changes: str) -> None:
    """Makes an image of a folder."""
    path = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin"
    options = [word for change in (path, *changes) for word in ("--change", change)]
    with subprocess.Popen([program("tar"), "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            [program("podman"), "import", "-q", *options, "-", f"localhost/{name}"], stdin=tar.stdout, check=True
        )


def build(names: list[str], arguments: list[str]) -> None:
    """Builds the images."""
    revision = subprocess.run(
        [program("git"), "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in names:
        began = time.monotonic()
        podman(
            *("build", "--quiet", "--format", "docker", "--network", "host", *arguments),
            *("--build-arg", f"REVISION={revision.strip()}", "--build-arg", "VERSION=0.1.0"),
            *("-f", str(ROOT / IMAGES[name]), "-t", image(name), str(ROOT)),
        )
        tell(f"{name} built in {time.monotonic() - began:.0f} s")


def sizes(base: str) -> dict[str, float]:
    """Megabytes of each image beside its base, and of its last layer, which is what a new revision brings."""
    of_base = int(podman("image", "inspect", base, "--format", "{{.Size}}"))
    shown = report.table("Images, in MB", "image", "beside the base", "of which its own code")
    figures = {}
    for name in IMAGES:
        whole = int(podman("image", "inspect", image(name), "--format", "{{.Size}}")) - of_base
        history = json.loads(podman("history", "--format", "json", image(name)))
        own = sum(layer["size"] for layer in history if "wheels" in layer["CreatedBy"])
        figures[f"{name}_mb"] = whole / 1e6
        shown.add_row(name, f"{whole / 1e6:,.0f}", f"{own / 1e6:,.1f}" if own else "")
    report.console.print(shown)
    return figures


@contextmanager
def container(name: str, of: str, *options: str, command: tuple[str, ...] = ()) -> Iterator[str]:
    """A container that runs for as long as the block does, bound as compose binds it."""
    full = f"driftloop-try-{name}"
    podman("rm", "--force", "--ignore", full)
    podman(
        *("run", "--detach", "--name", full, "--init", "--cap-drop", "all"),
        *("--security-opt", "no-new-privileges", *options, of, *command),
    )
    try:
        yield full
    finally:
        with suppress(Failed):
            podman("rm", "--force", "--ignore", "--time", "30", full)


def last_lines(name: str) -> str:
    """What a container said last: services log to standard error."""
    done = subprocess.run(
        [program("podman"), "logs", "--tail", "20", name], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def healthy(name: str, seconds: float = 60) -> float:
    """Waits until the image's own health check succeeds; returns how long that took."""
    began = time.monotonic()
    while subprocess.run([program("podman"), "healthcheck", "run", name], capture_output=True, check=False).returncode:
        if time.monotonic() - began > seconds:
            raise Failed(f"{name} does not get healthy: {last_lines(name)}")
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - began


def stopped(name: str) -> float:
    """Sends SIGTERM and waits; returns the seconds that the end took. Raises where it did not end by itself."""
    began = time.monotonic()
    podman("stop", "--time", "30", name)
    seconds = time.monotonic() - began
    code = podman("inspect", name, "--format", "{{.State.ExitCode}}")
    if code != "0":
        raise Failed(f"{name} ended with {code}: {last_lines(name)}")
    return seconds


def once(of: str, *options: str, command: tuple[str, ...]) -> str:
    """Runs a container to its end; returns what it printed."""
    return podman("run", "--rm", "--network", "host", *options, of, *command)


def environment(variables: Mapping[str, str]) -> list[str]:
    """Variables as podman's options."""
    return [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]


def secrets(*names: str, folder: Path) -> list[str]:
    """Files as compose mounts them."""
    files = {"ca": "ca.crt"}
    return [
        word for name in names for word in ("-v", f"{folder / files.get(name, f'{name}.pem')}:/run/secrets/{name}:ro")
    ]
