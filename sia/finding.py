"""What a check found, in one line, with its cure."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, ParamSpec

Level = Literal["ok", "warning", "problem"]
Given = ParamSpec("Given")


@dataclass(frozen=True)
class Finding:
    """A warning may be lived with, a problem stops a study; both name a cure."""

    level: Level
    said: str
    cure: str = ""
    check: str = ""


def ok(said: str) -> Finding:
    return Finding("ok", said)


def warning(said: str, cure: str) -> Finding:
    return Finding("warning", said, cure)


def problem(said: str, cure: str) -> Finding:
    return Finding("problem", said, cure)


def check(name: str) -> Callable[[Callable[Given, Finding]], Callable[Given, Finding]]:
    """Give a function's finding this name; an exception that it did not expect becomes a warning."""

    def decorate(function: Callable[Given, Finding]) -> Callable[Given, Finding]:
        @functools.wraps(function)
        def safe(*given: Given.args, **named: Given.kwargs) -> Finding:
            try:
                found = function(*given, **named)
            except Exception as error:
                reason = f"{type(error).__name__}: {one_line(str(error))}"
                found = warning(f"could not be checked: {reason}", "look into it by hand; nothing else depends on it")
            return replace(found, check=name)

        return safe

    return decorate


def one_line(text: str) -> str:
    return " ".join(text.split())[:300]
