"""Every kind of fault. The function of a fault causes it, waits, undoes it, and returns when it began.

The supervisor starts failed processes again, so after a kill there is nothing to undo.
"""

from typing import Final

from stream.fault_points import Point
from tests.crash import damage
from tests.crash.faults import broker, deletions, group, process, promotions, state
from tests.crash.faults.common import Fault

IN_A_STEP: Final = (
    Point.POLLED,
    Point.COMPUTED,
    Point.BEGUN,
    Point.PRODUCED,
    Point.OFFSETS_SENT,
    Point.COMMITTED,
    Point.WRITTEN_PARTLY,
    Point.WRITTEN,
)
OF_A_VERSION: Final = (
    Point.MODEL_FETCHED,
    Point.MODEL_TRIED,
    Point.MODEL_LOADED,
    Point.MODEL_SWAPPED,
    Point.REFOLDED,
)
AT_START: Final = (Point.ASSIGNED, Point.OPENED, Point.RESTORED)

FAULTS: Final[tuple[Fault, ...]] = (
    Fault("SIGKILL", process.killed),
    *(Fault(f"SIGKILL at {point}", process.killed_at(point)) for point in IN_A_STEP),
    *(Fault(f"SIGKILL at {point}", process.killed_at_start(point), 6) for point in AT_START),
    Fault("SIGKILL at restoring", process.killed_while_restoring, 6),
    Fault("SIGKILL at aborted", process.killed_after_an_abort, 7),
    Fault("SIGKILL at gone", process.killed_while_leaving, 4),
    Fault("exception", process.raised),
    Fault("SIGTERM", process.terminated),
    Fault("SIGSTOP past the session", process.paused, 4),
    *(
        Fault(f"SIGSTOP past the session at {point}", process.paused_at(point), 4)
        for point in (Point.COMPUTED, Point.PRODUCED, Point.OFFSETS_SENT, Point.COMMITTED)
    ),
    *(
        Fault(f"SIGSTOP past the transaction at {point}", process.paused_past_the_transaction(point), 19)
        for point in (Point.PRODUCED, Point.OFFSETS_SENT)
    ),
    *(
        Fault(f"transaction times out at {point}", process.asleep_past_the_transaction(point), 19)
        for point in (Point.PRODUCED, Point.OFFSETS_SENT)
    ),
    Fault("slow step", process.slow_step, 12),
    Fault("slow step while another worker joins", process.slow_step_while_another_joins, 12),
    Fault("hold: a late EndTxn, then SIGKILL", process.killed_after_a_late_end, 10),
    Fault("broker SIGKILL", broker.killed((1, 5)), 15),
    Fault("broker SIGTERM", broker.terminated, 15),
    Fault("broker SIGSTOP", broker.paused, 6),
    Fault("broker gone for 25 s", broker.killed((25, 26)), 40),
    Fault("network cut", broker.cut((1, 4)), 5),
    Fault("network cut past the transaction", broker.cut((8, 12)), 16),
    Fault("connections reset", broker.reset),
    Fault("network delayed by 200 ms", broker.delayed, 7),
    Fault("network stalled", broker.stalled, 8),
    Fault("rebalance storm", group.storm, 10),
    Fault("another worker comes and goes", group.another_worker, 8),
    Fault("same worker name twice", group.same_name_twice, 5),
    Fault("two worker names, one state folder", group.same_folder_twice, 8),
    Fault("disk full", state.disk_full, 8),
    Fault("disk full at start", state.disk_full_at_start, 10),
    Fault("disk read-only at start", state.disk_read_only, 10),
    *(Fault(f"damaged {kind}", state.damaged(kind), 5) for kind in damage.Kind),
    Fault("state lost", state.lost, 5),
    Fault("state of an older day", state.older, 12),
    Fault("input deleted after it was read", deletions.deleted, 12),
    Fault("foreign transaction in the changelog", group.foreign_transaction, 8),
    Fault("full producer queue", group.full_queue, 10),
    Fault("promotion within a memory format", promotions.promoted(promotions.SAME_FORMAT), 8),
    Fault("promotion to another memory format", promotions.promoted(promotions.OTHER_FORMAT), 8),
    Fault("rollback", promotions.rolled_back, 14),
    Fault("five promotions at once", promotions.several, 14),
    *(Fault(f"SIGKILL at {point}", promotions.killed_at(point), 14) for point in OF_A_VERSION),
    Fault("SIGKILL while a version is tried", promotions.killed_while_tried, 14),
    Fault("SIGSTOP past the session at model-swapped", promotions.paused_at_the_swap, 12),
    Fault("promotion while the network is cut", promotions.while_cut_off, 14),
    Fault("promotion of a bad version", promotions.bad, 16),
    Fault("SIGKILL while a bad version is promoted", promotions.bad_while_starting, 16),
    Fault("registry away while a worker starts", promotions.registry_away, 16),
)
LONG: Final[tuple[Fault, ...]] = (
    Fault("broker gone for 3 minutes", broker.killed((180, 181)), 200),
    Fault("SIGSTOP for longer than deletions are kept", process.paused_past_deletions, 60),
)
"""In the first round of a run that is long enough."""
