"""The interactions topic as files: which part of it, and the folder of Parquet that it becomes."""
