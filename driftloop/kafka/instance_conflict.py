"""What a process does that another one of the same name has replaced: it says so, and waits until the other is gone.

Group membership and transactions go by ``DRIFTLOOP_INSTANCE_ID``, so that a process that restarts has its partitions
back at once. Of two that run with one name, each start would end the other, and supervisors would go on with that for
ever.
"""

import threading

import structlog
from kafka.errors import GroupAuthorizationFailedError

from driftloop.errors import BrokerUnavailable
from driftloop.kafka.client import admin_client
from driftloop.settings import KafkaSettings
from driftloop.telemetry.health import Health

log = structlog.get_logger(__name__)

CHECK_SECONDS = 2.0
COMPONENT = "instance"


def wait_while_replaced(
    kafka: KafkaSettings, group: str, instance: str, own_member_id: str, stop: threading.Event, health: Health
) -> None:
    """Return once no other process is the member of a group with a name, or if the broker does not tell.

    Args:
        kafka: How to reach the broker.
        group: The consumer group.
        instance: The name of the member, its ``group.instance.id``.
        own_member_id: The id that this process had as the member.
        stop: Ends the waiting.
        health: Is not ready meanwhile.
    """
    while not stop.is_set() and _is_another(kafka, group, instance, own_member_id):
        if COMPONENT not in health.unavailable:
            reason = (
                f"another process runs as {instance} in the group {group}, and has replaced this one: give each "
                "process of a service its own DRIFTLOOP_INSTANCE_ID"
            )
            log.error("consumer.instance_replaced", group=group, instance=instance, reason=reason)
            health.mark_unavailable(COMPONENT, f"{reason}; this one waits until the other has ended")
        health.heartbeat()
        stop.wait(CHECK_SECONDS)


def _is_another(kafka: KafkaSettings, group: str, instance: str, own_member_id: str) -> bool:
    try:
        with admin_client(kafka) as admin:
            description = admin.describe_groups([group])[group]
    except BrokerUnavailable as error:
        return not isinstance(error.__cause__, GroupAuthorizationFailedError)  # or else the broker is away: ask again
    members = description["members"] or ()
    return any(
        member["group_instance_id"] == instance and member["member_id"] not in ("", own_member_id) for member in members
    )
