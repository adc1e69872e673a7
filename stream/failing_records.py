"""The model asked for many at once and, where it fails on them together, in ever smaller parts: which of them it fails
on, and the rest's answers.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from model.errors import ModelFailed

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


def in_parts(
    ask: Callable[[Sequence[Asked]], Sequence[Answer]], asked: Sequence[Asked]
) -> tuple[list[tuple[Asked, Answer]], list[tuple[Asked, ModelFailed]]]:
    """What is answered, and what is failed on, each in the order of `asked`.

    Args:
        ask: one answer for each, in their order; raises ModelFailed. What it answers must not depend on who is asked
            for together.
    """
    try:
        return list(zip(asked, ask(asked), strict=True)), []
    except ModelFailed as error:
        failed = ModelFailed(str(error))  # without its traceback, which holds what was asked
    if len(asked) == 1:
        return [], [(asked[0], failed)]
    middle = len(asked) // 2
    first, second = in_parts(ask, asked[:middle]), in_parts(ask, asked[middle:])
    return first[0] + second[0], first[1] + second[1]
