"""Several things at once, with the plain error of the one that fails first."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")
K = TypeVar("K")


async def both(one: Coroutine[Any, Any, A], other: Coroutine[Any, Any, B]) -> tuple[A, B]:
    try:
        async with asyncio.TaskGroup() as tasks:
            first, second = tasks.create_task(one), tasks.create_task(other)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group
    return first.result(), second.result()


async def all_of(of: Mapping[K, Coroutine[Any, Any, A]]) -> dict[K, A]:
    try:
        async with asyncio.TaskGroup() as tasks:
            running = {key: tasks.create_task(each) for key, each in of.items()}
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group
    return {key: task.result() for key, task in running.items()}
