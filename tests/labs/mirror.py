"""A mirror on this machine, which answers as it is told."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Answer:
    """How a mirror answers one request."""

    body: bytes = b""
    status: int = 200
    cut: bool = False
    ranges: bool = True


@dataclass
class Mirror:
    """A server on this machine that answers each request for a file with the next answer for it.

    The last answer stays; a file without any is not found. ``asked`` keeps each request's path and range.
    """

    url: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def next_answer(self, name: str, wanted: str | None) -> Answer:
        """Return how to answer a request for ``name``."""
        self.asked.append((name, wanted))
        answers = self.answers.get(name, [Answer(status=404)])
        return answers.pop(0) if len(answers) > 1 else answers[0]
