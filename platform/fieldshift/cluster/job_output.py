"""The output of a job as its command printed it."""

from __future__ import annotations

from collections.abc import Callable


class JobOutput:
    """Passes on a job's output, which arrives in pieces, without the lines in which Ray repeats the whole entrypoint."""

    def __init__(self, pass_on: Callable[[str], object], job_id: str, entrypoint: str) -> None:
        self._pass_on = pass_on
        self._header = f"Running entrypoint for job {job_id}: {entrypoint}\n"
        self._waiting = ""

    def add(self, text: str) -> None:
        """Passes on a piece; what may be the beginning of Ray's lines waits for the next one."""
        if not self._header:
            self._send(text)
            return
        before, found, after = (self._waiting + text).partition(self._header)
        if found:
            self._header, self._waiting = "", ""
            self._send(before + after)
            return
        kept = self._beginning_in(before)
        self._waiting = before[len(before) - kept :]
        self._send(before[: len(before) - kept])

    def end(self) -> None:
        """Passes on what still waits."""
        self._send(self._waiting)
        self._waiting = ""

    def _send(self, text: str) -> None:
        if text:
            self._pass_on(text)

    def _beginning_in(self, text: str) -> int:
        """The length of the longest end of the text with which Ray's lines begin."""
        longest = min(len(text), len(self._header) - 1)
        return next((size for size in range(longest, 0, -1) if self._header.startswith(text[-size:])), 0)
