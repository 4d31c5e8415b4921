"""What is wrong with a configuration, said so that it can be mended: where, which key, what to write instead."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from types import UnionType
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from provisiond.settings.location import KeyPath

_MOST_SHOWN: Final = 10


def describe(error: ValidationError, schema: type[BaseModel], place: Callable[[KeyPath], str]) -> str:
    """One line a problem.

    Args:
        error: what validation found.
        schema: the model that was validated.
        place: where the value of a key came from, such as `/etc/provisiond/provisiond.toml:12`.
    """
    problems = error.errors(include_url=False)
    return join_problems([f"{place(_path_of(problem))}: {_explain(problem, schema)}" for problem in problems])


def join_problems(problems: Sequence[str]) -> str:
    """One line a problem, of many the first ten."""
    more = [f"… and {len(problems) - _MOST_SHOWN} more"] if len(problems) > _MOST_SHOWN else []
    return "\n".join([*problems[:_MOST_SHOWN], *more])


def dotted(path: KeyPath) -> str:
    """`broker.listeners[0].bind`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "inflight"?`, or nothing."""
    others = [other for other in known if other != word]  # the same word is of another type: "1" for 1
    close = difflib.get_close_matches(word, others, n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


class Misplaced(ValueError):
    """What a check of a whole table found in one of its values.

    Args:
        message: what is wrong.
        path: of the value, from that table.
    """

    def __init__(self, message: str, path: KeyPath) -> None:
        super().__init__(message)
        self.path = path


def _path_of(problem: ErrorDetails) -> KeyPath:
    error = problem.get("ctx", {}).get("error")
    return problem["loc"] + (error.path if isinstance(error, Misplaced) else ())


def _explain(problem: ErrorDetails, schema: type[BaseModel]) -> str:
    path = _path_of(problem)
    where = dotted(path) or "the configuration"
    match problem["type"]:
        case "extra_forbidden":
            return _explain_unknown(path, schema)
        case "missing":
            return f"{where} is missing"
        case "model_type" | "model_attributes_type":
            return f"{where} is a table; write [{where}] and its keys below"
        case "tuple_type":
            return f"{where} is a list; write it in brackets"
        case "literal_error" | "enum":
            expected = problem["ctx"]["expected"]
            known = expected.replace(" or ", ", ").replace("'", "").split(", ")
            return f"{where} = {problem['input']!r:.60} is not {expected}{did_you_mean(str(problem['input']), known)}"
        case "string_pattern_mismatch":
            return f"{where} = {problem['input']!r:.80} has characters that it may not have, or is too long or empty"
        case "value_error":
            return f"{where}: {problem['ctx']['error']}"
        case _:
            message = problem["msg"][:1].lower() + problem["msg"][1:]
            return f"{where} = {problem['input']!r:.60}: {message}"


def _explain_unknown(path: KeyPath, schema: type[BaseModel]) -> str:
    key, table = str(path[-1]), path[:-1]
    where = f"[{dotted(table)}] " if table else ""
    suggestion = did_you_mean(key, _keys_of(_model_at(schema, table)))
    if not suggestion:
        homes = [dotted(home) or "the top" for home, known in _tables(schema, ()) if key in known]
        suggestion = f"; it belongs in [{homes[0]}]" if homes else "; remove it, or see `provisiond config example`"
    return f'{where}"{key}" is not a setting{suggestion}'


def _tables(schema: type[BaseModel], path: KeyPath) -> Iterable[tuple[KeyPath, list[str]]]:
    yield path, _keys_of(schema)
    for name, field in schema.model_fields.items():
        if (inner := _model_in(field.annotation)) is not None:
            yield from _tables(inner, (*path, field.alias or name))


def _keys_of(schema: type[BaseModel] | None) -> list[str]:
    return [] if schema is None else [field.alias or name for name, field in schema.model_fields.items()]


def _model_at(schema: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    model: type[BaseModel] | None = schema
    for key in path:
        if isinstance(key, int) or model is None:
            continue
        annotations = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        model = _model_in(annotations.get(key))
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, by itself or in a tuple."""
    if isinstance(annotation, type) and not isinstance(annotation, UnionType) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)
