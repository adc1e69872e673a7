"""Event logs, networks, training, versions, evaluation: what predicts. No Kafka, no RocksDB, no environment."""
