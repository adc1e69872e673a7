"""Java for the brokers of the tests. They start often and never run for long: what the second compiler gains comes too
late, and what it costs is most of the time of a start on a machine that is busy.
"""

from collections.abc import Mapping


def quick_java(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for Kafka's scripts, with the first compiler alone."""
    return {**environ, "KAFKA_OPTS": f"{environ.get('KAFKA_OPTS', '')} -XX:TieredStopAtLevel=1".strip()}
