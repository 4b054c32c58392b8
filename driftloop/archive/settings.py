"""Settings of the archive: for how long it keeps predictions and outcomes, and who writes it."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from driftloop.settings_section import SettingsSection


def require_days_or_none(days: int | None) -> int | None:
    """Return a number of days, or ``None``.

    Raises:
        ValueError: It is less than 1.
    """
    if days is not None and days < 1:
        raise ValueError(f"{days} is no number of days to keep: set 1 or more, or leave it out to keep all for ever")
    return days


def _none_if_empty(days: Any) -> Any:
    return days or None if isinstance(days, str) else days


# Files for containers cannot leave a variable out, so an empty one counts as not set.
OptionalDays = Annotated[int | None, BeforeValidator(_none_if_empty), AfterValidator(require_days_or_none)]


class ArchiveSettings(SettingsSection):
    """For how many days the archive keeps its rows, counted from the day on which they reached their topic, in UTC."""

    prediction_retention_days: OptionalDays = Field(
        None,
        description="days after which archived predictions are deleted; if not set, they are kept for ever. At least "
        "DRIFTLOOP_QUALITY__MIN_DAYS, and more than a retrain's oldest day and the time until outcomes are known",
    )
    outcome_retention_days: OptionalDays = Field(
        None,
        description="days after which archived outcomes are deleted; if not set, they are kept for ever. At least "
        "DRIFTLOOP_QUALITY__MIN_DAYS, and usually as many as of predictions: neither is of use without the other",
    )

    def require_days(self, min_days: int) -> None:
        """Refuse to keep rows for fewer days than quality is measured on.

        Raises:
            ValueError: A number of days is too small; the message names the setting and the value to give.
        """
        for name in ("prediction", "outcome"):
            days = getattr(self, f"{name}_retention_days")
            if days is not None and days < min_days:
                raise ValueError(
                    f"{setting_name(name)}: {days} is less than the days that quality is measured on "
                    f"(DRIFTLOOP_QUALITY__MIN_DAYS): set {min_days} or more, or leave it out to keep all for ever"
                )


class DriftWorkerGroupSection(SettingsSection, extra="ignore"):
    """The part of the drift worker's section by which others find out how far the archive reaches."""

    group: str = Field(
        "drift_worker",
        description="consumer group of the drift workers, which share the partitions and commit what is archived",
    )


def setting_name(name: str) -> str:
    """Return the variable of the days for which predictions (``prediction``) or outcomes (``outcome``) are kept."""
    return f"DRIFTLOOP_ARCHIVE__{name.upper()}_RETENTION_DAYS"
