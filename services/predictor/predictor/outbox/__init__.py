"""The durable outbox of events and the relay that publishes them to Kafka."""
