"""A version's reference, without the columns that the worker's privacy settings do not allow to compare."""

from collections.abc import Mapping
from typing import NamedTuple

from driftloop.privacy import FeaturePolicy
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import Reference, load_reference


class ComparableReference(NamedTuple):
    """A reference, and what tells it from events."""

    reference: Reference
    """Its profile is without the columns that are treated otherwise in events."""
    privacy_differences: Mapping[str, str]
    """Why columns cannot be compared, by name."""

    @property
    def privacy_note(self) -> str:
        """The differences in words; empty without any."""
        return "; ".join(f"{column} is not compared: {why}" for column, why in self.privacy_differences.items())


def load_comparable_reference(
    store: ObjectStore, model: str, version: str, run_id: str, policy: FeaturePolicy
) -> ComparableReference:
    """Load the reference of a version.

    Args:
        store: Where references are.
        model: The model's name.
        version: The version's number.
        run_id: The run that logged it; empty if it is not known.
        policy: How features of events are treated.

    Raises:
        ReferenceUnavailable: It is missing or cannot be read.
        StorageUnavailable: The bucket does not answer.
    """
    reference = load_reference(store, model, version, run_id)
    differences = policy.differences(reference.profile.privacy)
    if not differences:
        return ComparableReference(reference, {})
    return ComparableReference(reference._replace(profile=reference.profile.without_columns(differences)), differences)
