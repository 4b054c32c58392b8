"""Kafka: topics, the consume loop, transactions, and how an event is encoded in a message."""
