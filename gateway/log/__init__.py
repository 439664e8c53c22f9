"""The log that records come from and go to: embedded, or Kafka."""
