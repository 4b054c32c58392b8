"""Images and containers with podman, configured as compose does."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx

from tests.support import report
from tests.support.report import log

ROOT = Path(__file__).resolve().parents[2]
POLL_INTERVAL_SECONDS = 0.5  # of health checks
DOCKERFILES = {
    **{name: f"services/{name}/Dockerfile" for name in ("predictor", "drift_worker", "trainer", "producer")},
    "mlflow": "compose/mlflow/Dockerfile",
}

T = TypeVar("T")


class ImageTestFailed(Exception):
    """A step of the image test has failed; the message says which one."""


def find_program(name: str) -> str:
    """Return the path of a program.

    Raises:
        ImageTestFailed: It is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise ImageTestFailed(f"{name} is not installed")
    return path


def podman(*arguments: str, seconds: float = 900) -> str:
    """Run podman; return its standard output.

    Raises:
        ImageTestFailed: The command has failed.
    """
    result = subprocess.run(
        [find_program("podman"), *arguments], capture_output=True, text=True, check=False, timeout=seconds
    )
    if result.returncode:
        raise ImageTestFailed(f"podman {' '.join(arguments)}: {result.stdout[-2000:]}{result.stderr[-3000:]}")
    return result.stdout.strip()


def image_name(name: str) -> str:
    """Return the name of a service's image, as in compose."""
    return f"localhost/driftloop-{name.replace('_', '-')}:dev"


def create_base_images(folder: Path) -> list[str]:
    """Create base images from a Debian in a folder and from the local uv, unless they exist.

    They replace the images that cannot be pulled without a registry.

    Returns:
        The build arguments that select them.
    """
    ca_file = folder / "etc" / "ssl" / "certs" / "ca-certificates.crt"
    if not image_exists("stand-in:python"):
        shutil.copyfile("/etc/ssl/certs/ca-certificates.crt", ca_file)  # for the package mirror
        (folder / "usr" / "bin" / "python").unlink(missing_ok=True)
        (folder / "usr" / "bin" / "python").symlink_to("python3")
        import_image(folder, "stand-in:python", "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")
    if not image_exists("stand-in:uv"):
        with tempfile.TemporaryDirectory() as folder_of_uv:
            shutil.copy(shutil.which("uv") or ROOT / ".uv" / "bin" / "uv", f"{folder_of_uv}/uv")
            import_image(Path(folder_of_uv), "stand-in:uv")
    return ["--build-arg", "PYTHON=localhost/stand-in:python", "--build-arg", "UV=localhost/stand-in:uv"]


def image_exists(name: str) -> bool:
    """Return whether a local image exists."""
    command = [find_program("podman"), "image", "exists", f"localhost/{name}"]
    return not subprocess.run(command, check=False).returncode


def import_image(folder: Path, name: str, *changes: str) -> None:
    """Create an image from a folder."""
    search_path = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin"
    options = [word for change in (search_path, *changes) for word in ("--change", change)]
    with subprocess.Popen([find_program("tar"), "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            [find_program("podman"), "import", "-q", *options, "-", f"localhost/{name}"], stdin=tar.stdout, check=True
        )


def build_images(names: list[str], arguments: list[str]) -> None:
    """Build the images with this revision as their label."""
    revision = subprocess.run(
        [find_program("git"), "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in names:
        started_at = time.monotonic()
        podman(
            *("build", "--quiet", "--format", "docker", "--network", "host", *arguments),
            *("--build-arg", f"REVISION={revision.strip()}", "--build-arg", "VERSION=0.1.0"),
            *("-f", str(ROOT / DOCKERFILES[name]), "-t", image_name(name), str(ROOT)),
        )
        log(f"{name} built in {time.monotonic() - started_at:.0f} s")


def measure_sizes(base: str) -> dict[str, float]:
    """Return the megabytes of each image without its base; print them, with those of the layer of its own code."""
    base_size = int(podman("image", "inspect", base, "--format", "{{.Size}}"))
    table = report.create_table("Images, in MB", "image", "without base", "own code")
    figures = {}
    for name in DOCKERFILES:
        size = int(podman("image", "inspect", image_name(name), "--format", "{{.Size}}")) - base_size
        history = json.loads(podman("history", "--format", "json", image_name(name)))
        code_size = sum(layer["size"] for layer in history if "wheels" in layer["CreatedBy"])
        figures[f"{name}_mb"] = size / 1e6
        table.add_row(name, f"{size / 1e6:,.0f}", f"{code_size / 1e6:,.1f}" if code_size else "")
    report.console.print(table)
    return figures


@contextmanager
def running_container(name: str, image: str, *options: str, command: tuple[str, ...] = ()) -> Iterator[str]:
    """Run a container for the duration of the block, with the restrictions of compose."""
    container = f"driftloop-try-{name}"
    podman("rm", "--force", "--ignore", container)
    podman(
        *("run", "--detach", "--name", container, "--init", "--cap-drop", "all"),
        *("--security-opt", "no-new-privileges", *options, image, *command),
    )
    try:
        yield container
    finally:
        with suppress(ImageTestFailed):
            podman("rm", "--force", "--ignore", "--time", "30", container)


def last_lines(name: str) -> str:
    """Return the last lines of a container's output and logs."""
    result = subprocess.run(
        [find_program("podman"), "logs", "--tail", "20", name], capture_output=True, text=True, check=False
    )
    return result.stdout + result.stderr


def wait_until_healthy(name: str, seconds: float = 60) -> float:
    """Wait until the image's health check succeeds; return the seconds that this took."""
    started_at = time.monotonic()
    while subprocess.run(
        [find_program("podman"), "healthcheck", "run", name], capture_output=True, check=False
    ).returncode:
        if time.monotonic() - started_at > seconds:
            raise ImageTestFailed(f"{name} does not become healthy: {last_lines(name)}")
        time.sleep(POLL_INTERVAL_SECONDS)
    return time.monotonic() - started_at


def stop_container(name: str) -> float:
    """Send SIGTERM and wait; return the seconds until the end.

    Raises:
        ImageTestFailed: The container had to be killed or has failed.
    """
    started_at = time.monotonic()
    podman("stop", "--time", "30", name)
    seconds = time.monotonic() - started_at
    code = podman("inspect", name, "--format", "{{.State.ExitCode}}")
    if code != "0":
        raise ImageTestFailed(f"{name} ended with exit code {code}: {last_lines(name)}")
    return seconds


def run_to_end(image: str, *options: str, command: tuple[str, ...]) -> str:
    """Run a container to its end; return its output."""
    return podman("run", "--rm", "--network", "host", *options, image, *command)


def environment_options(variables: Mapping[str, str]) -> list[str]:
    """Return podman's options for environment variables."""
    return [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]


def secret_options(*names: str, folder: Path) -> list[str]:
    """Return podman's options for secrets, mounted as in compose."""
    files = {"ca": "ca.crt"}
    return [
        word for name in names for word in ("-v", f"{folder / files.get(name, f'{name}.pem')}:/run/secrets/{name}:ro")
    ]


def get_status(url: str) -> int:
    """Return the status of a response; 0 if there is none."""
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.HTTPError:
        return 0


def wait_for(find: Callable[[], T | None], seconds: float = 120) -> T:
    """Poll until ``find`` returns a value; return it.

    Raises:
        ImageTestFailed: It returns None until the timeout.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (value := find()) is not None:
            return value
        time.sleep(POLL_INTERVAL_SECONDS)
    raise ImageTestFailed(f"timed out after {seconds:g} s")
