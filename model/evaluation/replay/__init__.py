"""What a replay is worth: simple lists to compare with, metrics of the ranks, and the report.

Nothing here knows Kafka, RocksDB or a model. It reads the files that a replay wrote (docs/replay-report.md).
"""
