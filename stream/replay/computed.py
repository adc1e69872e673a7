"""What a step makes of a poll without the records that the model fails on, which a worker makes dead letters."""

from collections.abc import Callable, Mapping

from model.errors import ModelFailed
from stream.decode import Polled
from stream.errors import StepAborted
from stream.failing_records import failing_records
from stream.ports import Outgoing
from stream.step import Step


def computed(
    step: Step, polled: Callable[[frozenset[int]], Polled], now_ms: int
) -> tuple[Outgoing, Mapping[int, ModelFailed]]:
    """Compute a poll of one partition.

    Args:
        polled: makes the poll without the records that have these offsets.
        now_ms: the time of the poll, epoch ms.

    Returns:
        What the step makes, and the offsets that the model failed on.

    Raises:
        StepAborted: the model fails on the poll, but on no record of it alone.
    """
    failing: dict[int, ModelFailed] = {}
    while True:
        poll = polled(frozenset(failing))
        try:
            return step.compute(poll, "", now_ms), failing
        except ModelFailed as error:
            found = failing_records(step, poll, lambda: False)
            if not found:
                raise StepAborted(
                    f"the model failed on {poll.records} interactions together, and on none of them alone: {error}"
                ) from error
            failing |= {offset: why for (_, offset), why in found.items()}
