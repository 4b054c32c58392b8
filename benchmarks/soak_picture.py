"""A picture of a soak: four small panels over time."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak_trends import Sample
from tests.support.load_client import Interval

COLORS = ("#1f6f8b", "#d1495b", "#edae49", "#66a182", "#8d99ae", "#2e4057", "#b07aa1", "#9c755f")
LATE_COLOR = "#f3e3e3"


def draw_picture(
    samples: Sequence[Sample], intervals: Sequence[Interval], beyond: tuple[float, float] | None, title: str, file: Path
) -> None:
    """Draw lag, latency, memory and disk.

    Args:
        samples: Of the whole time, in order.
        intervals: Responses of the whole time, in order.
        beyond: The times between which the load was beyond the limit.
        title: One line about the load.
        file: The picture, whose name's end says its format.
    """
    import matplotlib as mpl  # noqa: PLC0415  # takes seconds, and is not needed without a picture

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    begin = samples[0].time
    held = [sample for sample in samples if sample.resources]
    figure, panels = plt.subplots(2, 2, figsize=(11, 6.5), layout="constrained", sharex=True)
    lag, latency, memory, disk = panels.flat

    def draw(panel: Any, times: Sequence[float], series: Mapping[str, Sequence[float]], unit: str, title: str) -> None:
        minutes = [(time - begin) / 60 for time in times]
        for (name, values), color in zip(series.items(), COLORS, strict=False):
            panel.plot(minutes, values, color=color, linewidth=1.2, label=name)
        panel.set(ylabel=unit, ylim=(0, None))
        panel.set_title(title, fontsize=10)
        panel.legend(frameon=False, fontsize=8, loc="upper left")
        if beyond is not None:
            panel.axvspan(*((time - begin) / 60 for time in beyond), color=LATE_COLOR, zorder=0)

    def of_samples(value: Callable[[Sample], float]) -> list[float]:
        return [value(sample) for sample in samples]

    waiting = {
        "published, not read by the drift worker": of_samples(lambda sample: sample.unread_events),
        "answered, not published": of_samples(lambda sample: sample.outbox_events),
    }
    draw(lag, [sample.time for sample in samples], waiting, "events", "lag")
    answered = [interval for interval in intervals if interval.milliseconds]
    percentiles = {
        f"p{percent}": [float(np.percentile(each.milliseconds, percent)) for each in answered] for percent in (50, 99)
    }
    draw(latency, [interval.end for interval in answered], percentiles, "ms", "latency of predictions")
    held_at = [sample.time for sample in held]
    memory_mb = {name: [sample.resources[name].memory_mb for sample in held] for name in held[0].resources}
    draw(memory, held_at, memory_mb, "MB", "memory with all child processes")
    disk_mb = {name: [sample.disk_mb[name] for sample in held] for name in held[0].disk_mb}
    draw(disk, held_at, disk_mb, "MB", "disk")
    for panel in (memory, disk):
        panel.set(xlabel="minutes")
    figure.suptitle(title, fontsize=11)
    figure.savefig(file, dpi=110)
