import numpy as np

from model.version.padding import padded


def test_shorter_rows_are_padded_on_the_right() -> None:
    rows = [np.array([5, 6, 7]), np.array([], np.int64), np.array([8])]
    assert padded(rows).tolist() == [[5, 6, 7], [0, 0, 0], [8, 0, 0]]
    assert padded(rows).dtype == np.int64


def test_there_is_a_column_where_all_rows_are_empty_or_there_is_none() -> None:
    assert padded([np.array([], np.int64)] * 2).tolist() == [[0], [0]]
    assert padded([]).shape == (0, 1)
