"""The frame of a service that consumes events: its pages beside its loop, until SIGTERM."""

import signal
from collections.abc import Collection
from threading import Event

from fastapi import FastAPI
from kafka import KafkaConsumer

from driftloop.consuming import Handler, Loop
from driftloop.producing import Publisher
from driftloop.settings import DeadLetters, Server
from driftloop.telemetry import Health, served


def consume(
    consumer: KafkaConsumer,
    topics: Collection[str],
    handler: Handler,
    *,
    publisher: Publisher,
    limits: DeadLetters,
    health: Health,
    app: FastAPI,
    server: Server,
) -> None:
    """Runs the loop in this thread, which must be the main one, and serves ``app`` beside it.

    Returns on SIGTERM or SIGINT; raises what the loop raises. Either way the consumer and the publisher are closed.
    """
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with served(app, server.host, server.port):
            loop = Loop(consumer, topics, handler, publisher, limits, health)
            health.started()
            loop.run(stop)
    finally:
        try:
            consumer.close(autocommit=False)
        finally:
            publisher.close()
