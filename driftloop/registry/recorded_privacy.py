"""The privacy settings that a version's reference was made with, as tags of the version in the registry.

The tags have digests: of the treatment of each feature, and of the hash key, which nobody can read from them.
"""

from collections.abc import Mapping

from driftloop.privacy import FEATURES_SETTING, HASH_KEY_SETTING, FeaturePolicy

TAG_FEATURES = "privacy_features_digest"
TAG_HASH_KEY = "privacy_hash_key_id"


def privacy_tags(policy: FeaturePolicy) -> dict[str, str]:
    """Return the tags of a version whose reference was made with a policy; none if all features were kept."""
    tags = {TAG_FEATURES: policy.digest} if policy.features else {}
    return tags | ({TAG_HASH_KEY: policy.hash_key_id} if policy.hash_key_id else {})


def describe_difference(tags: Mapping[str, str], policy: FeaturePolicy) -> str | None:
    """Return in words why events under a policy cannot be compared with a version's reference.

    Args:
        tags: The tags of the version.
        policy: How features of events are treated.

    Returns:
        The difference, or ``None`` if there is none.
    """
    recorded = tags.get(TAG_FEATURES)
    if recorded != (policy.digest if policy.features else None):
        made = "without private features" if recorded is None else "with other treatments of features"
        return f"its reference was made {made}, unlike {FEATURES_SETTING}: columns that differ are not compared"
    if tags.get(TAG_HASH_KEY) != policy.hash_key_id:
        return f"its reference was made with another key than {HASH_KEY_SETTING}: hashed columns are not compared"
    return None
