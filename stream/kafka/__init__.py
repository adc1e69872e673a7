"""The worker's Kafka clients (confluent-kafka): link to the group, transactions, questions, restore, topics."""
