"""What knows confluent-kafka on the worker's side: the link to the group, transactions, questions, restore, topics."""
