"""The checks of the gate. Each gives one `Check`, whose figure says what was measured."""
