"""Which model version has served a partition, from which input offset on: its own records say so."""

from state.changelog import Change
from state.codec import ONE_FORMAT, Mark, mark_key, mark_value
from stream.partition import Partition
from stream.recommender import Recommender


def marked(partition: Partition, recommender: Recommender, now_ms: int) -> list[Change]:
    """What a step with records of a partition writes about the version that serves it: nothing, as long as it is the
    version of the newest mark.

    Args:
        partition: as it is before the step.
        recommender: computes the step.
        now_ms: the time of day, epoch ms.
    """
    recorded, model = partition.recorded(), recommender.model
    changes: list[Change] = []
    newest = None if recorded.mark is None else recorded.mark[1]
    if newest is None or (newest.version, newest.promotion) != (model.reference, recommender.promotion):
        number = 0 if recorded.mark is None else recorded.mark[0] + 1
        mark = Mark(model.reference, recommender.promotion, model.memory_format, partition.next_offset, now_ms)
        changes.append((mark_key(number), mark_value(mark)))
    if recorded.one_format not in (None, model.memory_format):
        # A user whom this step folds will have no memory in that format.
        changes.append((ONE_FORMAT, None))
    return changes
