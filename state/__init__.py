"""What is remembered about a user, and how it survives a crash.

Pure values and one RocksDB store per partition. Nothing here knows of Kafka, torch or a clock.
"""
