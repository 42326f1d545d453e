"""Requests that wait together are ranked together, by one thread."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd

from recbole_stream.errors import InputError
from recbole_stream.serving.recommender import Recommender
from recbole_stream.serving.schema import Answer, Busy, Limits, Question, Recommended

__all__ = ["Batcher"]

Lists = list[list[Recommended]]
Seen = Callable[[int, float], None]


@dataclass
class _Waiting:
    question: Question
    future: asyncio.Future[Lists]

    @property
    def size(self) -> int:
        """Histories."""
        return len(self.question.histories)

    @property
    def kind(self) -> Hashable:
        """Questions of one kind are ranked in one call: a larger k would search wider for the others, too."""
        own = self.question
        return own.k, own.exclude_seen, own.explain, own.candidates is None


class Batcher:
    """Answers questions that come at the same time with few calls of the model.

    A question waits at most ``limits.gather`` seconds for company, and for the calls before its own. All methods but
    the ranking itself run in the event loop.

    Attributes:
        recommender: which ranks.
        limits: of what may wait.
        pending: histories that wait or are ranked now.
    """

    def __init__(self, recommender: Recommender, limits: Limits, ranked: Seen = lambda histories, seconds: None):
        """``ranked`` is told of each call of the model: how many histories, how many seconds."""
        self.recommender, self.limits, self._ranked = recommender, limits, ranked
        self.pending = 0
        self._waiting: deque[_Waiting] = deque()
        self._news = asyncio.Event()  # something waits, or the end has come
        self._ended = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rank")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """To be called in the event loop, before the first question."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; what waits is answered first."""
        self._ended = True
        self._news.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    @property
    def alive(self) -> bool:
        """Whether questions are still answered."""
        return self._task is not None and not self._task.done()

    async def answer(self, question: Question) -> Answer:
        """What :meth:`Recommender.recommend` finds, as it would alone.

        Raises:
            InputError: the question passes a limit, or names what the model does not know.
            Busy: too much waits already, or the answer was not there in time.
        """
        question.check(self.limits)
        if not question.histories:
            raise InputError("There are no histories: send at least one.")
        unknown = self.recommender.numbers(question.histories)[1]
        count = len(question.histories)
        if self.pending and self.pending + count > self.limits.queue:
            raise Busy(f"{self.pending:,} histories wait already: try again later.")
        waiting = _Waiting(question, asyncio.get_running_loop().create_future())
        self.pending += count
        waiting.future.add_done_callback(lambda _: self._leave(count))
        self._waiting.append(waiting)
        self._news.set()
        try:
            async with asyncio.timeout(self.limits.patience):
                lists = await waiting.future
        except TimeoutError:
            raise Busy(f"The answer took longer than {self.limits.patience:g} seconds: try again later.") from None
        return Answer(recommendations=lists, unknown_items=unknown)

    def _leave(self, count: int) -> None:
        self.pending -= count

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := await self._collect():
            kinds: dict[Hashable, list[_Waiting]] = {}
            for waiting in batch:
                kinds.setdefault(waiting.kind, []).append(waiting)
            for group in kinds.values():
                group = [waiting for waiting in group if not waiting.future.done()]  # who gave up is not ranked
                if not group:
                    continue
                found = await loop.run_in_executor(self._thread, self._rank, [waiting.question for waiting in group])
                for waiting, result in zip(group, found):
                    if waiting.future.done():
                        continue
                    if isinstance(result, Exception):
                        waiting.future.set_exception(result)
                    else:
                        waiting.future.set_result(result)

    async def _collect(self) -> list[_Waiting]:
        """The next batch: at least one question, and those after it that fit and come in time; nothing at the end."""
        while not self._waiting:
            if self._ended:
                return []
            self._news.clear()
            await self._news.wait()
        if self.pending < self.limits.batch:
            await asyncio.sleep(self.limits.gather)
        batch, size = [], 0
        while self._waiting and (not batch or size + self._waiting[0].size <= self.limits.batch):
            batch.append(self._waiting.popleft())
            size += batch[-1].size
        return batch

    def _rank(self, questions: list[Question]) -> list[Lists | Exception]:
        """Answers of questions of one kind, in one call; where one of them cannot be answered, each by itself."""
        first = questions[0]
        histories = [history for question in questions for history in question.histories]
        pools = None if first.candidates is None else [pool for question in questions for pool in question.pools()]
        start = time.monotonic()
        try:
            table = self.recommender.recommend(histories, first.k, first.exclude_seen, pools, first.explain)
        except Exception as fault:
            if len(questions) == 1:
                return [fault]
            return [self._rank([question])[0] for question in questions]
        self._ranked(len(histories), time.monotonic() - start)
        lists = _lists(table, len(histories))
        ends = pd.Series([len(question.histories) for question in questions]).cumsum()
        return [lists[end - len(question.histories) : end] for question, end in zip(questions, ends)]


def _lists(table: pd.DataFrame, rows: int) -> Lists:
    lists: Lists = [[] for _ in range(rows)]
    whys = table["why"] if "why" in table else [None] * len(table)
    cells = (table["row"], table["rank"], table["item"], table["title"], table["score"], whys)
    for row, rank, item, title, score, why in zip(*cells):
        lists[row].append(Recommended(rank=rank, item=item, title=title, score=score, why=why))
    return lists
