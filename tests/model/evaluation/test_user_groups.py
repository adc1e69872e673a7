import numpy as np

from model.evaluation import user_groups


def test_every_user_is_in_one_part_by_history() -> None:
    length = np.array([0, 1, 9, 10, 199, 200, 5_000])
    parts = user_groups.by_history(length)
    assert {part.label: part.users.tolist() for part in parts} == {
        "0": [0],
        "1–9": [1, 2],
        "10–49": [3],
        "100–199": [4],
        "200–499": [5],
        "500+": [6],
    }
    assert [part.least for part in parts] == [0, 1, 10, 100, 200, 500]


def test_positions_are_quarters_of_a_segment_after_a_fold() -> None:
    """Segments of 8: lengths below 8 have no fold; 8 and 16 are just folded."""
    length = np.array([7, 8, 9, 10, 11, 14, 15, 16, 23])
    found = {part.label: length[part.users].tolist() for part in user_groups.by_position(length, 8)}
    assert found == {"0": [8, 16], "to ¼": [9, 10], "to ½": [11], "to ¾": [14], "to 1": [15, 23]}
