"""Options from Python: by their names on the command line, converted and checked by the command's own parameters.

``--max-rejects 10`` is ``max_rejects=10``. There is no second list of options: names, types, defaults, the environment
(``BATCHSCORE_...``) and the settings file (``config=``) are those of the click command. The typed dictionaries are for people
and type checkers; a test holds them against the commands.
"""

from __future__ import annotations

import datetime
import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar

import click
from click.core import ParameterSource

from batchscore.cli.declaring import LocalPath
from batchscore.cli.options import LocalName
from batchscore.cli.output_options import Names
from batchscore.errors import UsageError
from batchscore.pairs import quoted_pair

PathLike = str | os.PathLike[str]
Texts = str | Iterable[str]
Pairs = str | Iterable[str] | Mapping[Any, Any]
"""``"A=B"``, several of them, or ``{"A": "B"}``."""
Function = TypeVar("Function", bound=Callable[..., Any])

COMMAND_ONLY: Mapping[str, str] = {
    "version": "it is batchscore.__version__",
    "help": "it is help(batchscore.score)",
    "show_config": "it prints and ends the command",
    "json": "the result is an object",
    "log_format": "messages go to logging.getLogger('batchscore')",
    "verbose": "messages go to logging.getLogger('batchscore'), whose level is yours to set",
}
"""Options that only a command has, each with the reason."""
_OF_NAMES = {"label_map", "label_name", "rename"}
"""Options whose pairs are two names, which may stand in quotes; the others are a name and a number."""


class _ReadingOptions(TypedDict, total=False):
    """Options that say how a CSV file is written, and where the texts and labels are."""

    text_column: str | None
    text_pair_column: str | None
    missing_pair: Literal["skip", "empty"] | None
    label_column: str | None
    label_columns: str | Sequence[str] | None
    delimiter: str | None
    quotechar: str | None
    escapechar: str | None
    encoding: str | None
    skip_lines: int | None
    header_lines: int | None
    no_header: bool
    column_names: str | Sequence[str] | None
    sheet: str | None
    long_text: Literal["head", "head-tail", "windows"] | None
    force: bool
    quiet: bool


class ScoreOptions(_ReadingOptions, total=False):
    """The options of ``batchscore score``; what is None, or left out, is as the command has it without the option."""

    revision: str | None
    trust: PathLike | Sequence[PathLike] | None
    id_column: str | None
    no_labels: bool
    label_map: Pairs | None
    threshold: float | Pairs | None
    below: Literal["next", "abstain"] | None
    accept: str | None
    accept_on: PathLike | None
    accept_confidence: float | str | None
    keep_columns: str | Sequence[str] | None
    drop_columns: str | Sequence[str] | None
    probabilities: Literal["all", "top", "none"] | None
    rename: Pairs | None
    partition_by: str | None
    append_to: PathLike | None
    tolerance: float | None
    format: str | None
    output_format: str | None
    device: str | None
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] | None
    backend: str | None
    max_batch_tokens: int | str | None
    max_rejects: int | str | None
    max_row_bytes: int | None
    max_columns: int | None
    max_expansion: int | None
    fail_below: Pairs | None
    fail_above: Pairs | None
    baseline: PathLike | None
    reuse: PathLike | None
    audit: str | None
    slice_column: Texts | None
    no_text: bool
    engine: str | None
    workers: int | str | None
    wait_for_workers: float | None
    compile: Literal["auto", "on", "off"] | None
    prefix: str | None
    config: PathLike | None
    date: str | datetime.date | None
    limit: int | None
    skip_empty: bool
    verify: bool
    verify_inputs: bool
    metrics_file: PathLike | None
    dry_run: bool


class EvaluateOptions(TypedDict, total=False):
    """The options of ``batchscore evaluate``; what is None, or left out, is as the command has it without the option."""

    label_column: str | None
    label_columns: str | Sequence[str] | None
    id_column: str | None
    run_id_column: str | None
    file_column: str | None
    row_column: str | None
    first_row: int | None
    label_map: Pairs | None
    conflicts: Literal["refuse", "first", "last"] | None
    format: str | None
    delimiter: str | None
    quotechar: str | None
    escapechar: str | None
    encoding: str | None
    sheet: str | None
    skip_lines: int | None
    header_lines: int | None
    no_header: bool
    column_names: str | Sequence[str] | None
    fail_below: Pairs | None
    fail_above: Pairs | None
    baseline: PathLike | None
    slice_column: Texts | None
    tolerance: float | None
    no_text: bool
    config: PathLike | None
    force: bool
    quiet: bool


class TrainOptions(_ReadingOptions, total=False):
    """The options of ``batchscore-train``; what is None, or left out, is as the command has it without the option."""

    eval_data: Any
    base_model: PathLike | None
    revision: str | None
    recipe: Literal["full", "head"] | None
    limit: int | None
    seed: int | None
    epochs: float | None
    learning_rate: float | None
    batch_size: int | None
    early_stopping: int | None
    class_weights: Literal["none", "balanced"] | None
    hard_labels: bool
    train_layers: int | None
    gradient_accumulation: int | None
    gradient_checkpointing: bool
    precision: Literal["auto", "fp32", "bf16"] | None
    tune: bool
    learning_curve: bool
    unlabelled: PathLike | None
    minutes: float | None
    teacher: PathLike | Sequence[PathLike] | None
    teacher_temperature: float | None
    student_layers: int | None
    max_length: int | None
    task: Literal["auto", "single-label", "multi-label", "regression"] | None
    threshold: float | Literal["auto"] | None
    label_name: Pairs | None
    pooling: Literal["first", "mean"] | None
    group_column: str | None
    corrections: PathLike | None
    check_labels: bool
    resume: bool
    sign: PathLike | None
    push_to_hub: str | None


# ------------------------------------------------------------------------------------------------ names and values


def spellings(command: click.Command) -> dict[str, click.Parameter]:
    """Each parameter by its name in Python: ``--max-rejects`` is ``max_rejects``, of two names the first."""
    return {_spelling(param): param for param in command.params}


def _spelling(param: click.Parameter) -> str:
    long = (name for name in param.opts if name.startswith("--"))
    return next(long, param.name or "").strip("-").replace("-", "_")


def values_of(
    command: click.Command, taken: Mapping[str, Any], options: Mapping[str, Any], function: str
) -> dict[str, Any]:
    """The values that the command's function gets, by click's names.

    ``taken`` are the arguments that the Python ``function`` has besides ``options``.

    Raises:
        TypeError: an option that does not exist; the message names the nearest.
        UsageError: a value that the option does not take.
        ModelError: a settings file that cannot be read.
    """
    params = spellings(command)
    for name in options:
        if name in COMMAND_ONLY or name in taken or name not in params:
            raise TypeError(f"{function}() has no option {name!r}{_hint(name, params, taken)}")
    given = {
        str(params[name].name): _given(name, params[name], value)
        for name, value in {**options, **taken}.items()
        if value is not None
    }
    try:
        return _FromPython(command.name, params=command.params, given=given).make_context(function, []).params
    except click.UsageError as error:
        raise _refused(error) from None


class _FromPython(click.Command):
    """A command whose arguments were given as values."""

    def __init__(self, name: str | None, *, params: list[click.Parameter], given: Mapping[str, Any]) -> None:
        super().__init__(name, params=params, add_help_option=False)
        self._given = given

    def make_parser(self, ctx: click.Context) -> Any:
        """A parser that finds the values."""
        parser = super().make_parser(ctx)
        parser.parse_args = lambda args: (dict(self._given), args, [])  # type: ignore[method-assign]
        return parser


def _refused(error: click.UsageError) -> UsageError:
    """The error about a value, by the option's name in Python, and whence it is if the call does not have it."""
    param = error.param if isinstance(error, click.BadParameter) else None
    if param is None or error.ctx is None:
        return UsageError(error.format_message())
    where = {
        ParameterSource.ENVIRONMENT: " (from the environment)",
        ParameterSource.DEFAULT_MAP: " (from the settings file)",
    }
    source = error.ctx.get_parameter_source(str(param.name))
    return UsageError(f"{_spelling(param)}{where.get(source, '') if source else ''}: {error.message}")


def _hint(name: str, params: Iterable[str], taken: Iterable[str]) -> str:
    if name in COMMAND_ONLY:
        return f": {COMMAND_ONLY[name]}."
    known = set(params) - set(COMMAND_ONLY) - set(taken)
    close = difflib.get_close_matches(name.replace("-", "_"), known, 1)
    return f". Did you mean {close[0]!r}?" if close else f". There are: {', '.join(sorted(known))}."


def _given(name: str, param: click.Parameter, value: Any) -> Any:
    """A Python value as the command line would be given it."""
    if isinstance(param, click.Option) and param.is_flag:
        if value in (True, False):
            return bool(value)
        raise UsageError(f"{name} is True or False, not {_kind(value)}.")
    if not (param.multiple or param.nargs == -1):
        if isinstance(param.type, Names) and not isinstance(value, str):
            return tuple(_text(name, param, each) for each in value)
        return _text(name, param, value)
    if isinstance(value, Mapping):
        return tuple(_pair(name, param, *pair) for pair in value.items())
    several = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
    return tuple(_text(name, param, each) for each in several)


def _pair(name: str, param: click.Parameter, given: Any, meaning: Any) -> str:
    """``A=B``; names are put in quotes, so that they may hold a ``=``."""
    pair = (_text(name, param, given), "" if meaning is None else _text(name, param, meaning))
    if not _is_mapped(param):
        raise UsageError(f"{name} takes no dictionary.")
    return quoted_pair(*pair) if name in _OF_NAMES else "=".join(pair)


def _text(name: str, param: click.Parameter, value: Any) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = value.isoformat()
    if isinstance(value, bool) and not _is_mapped(param):  # a given label may be True
        raise UsageError(f"{name} is {value}, and takes a value.")
    if not isinstance(value, str) and (isinstance(value, bytes | Iterable) or value is None):
        raise UsageError(f"{name} takes one value, not {_kind(value)}.")
    is_path = isinstance(param.type, LocalName | LocalPath)
    return local_path(value) if is_path else str(value)


def _is_mapped(param: click.Parameter) -> bool:
    """Whether values are pairs, ``A=B``."""
    return "=" in (param.metavar or "")


def local_path(value: PathLike) -> str:
    """A path as text, with a leading ``~`` as a shell expands it."""
    return os.path.expanduser(os.fspath(value))  # noqa: PTH111 - "./x" and "x/" stay what they are


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


# ----------------------------------------------------------------------------------------------------- what help says


def documented(command: click.Command, options: type) -> Callable[[Function], Function]:
    """Give a function the options of a command in its signature, for completion, and their help in its docstring."""
    kinds = {name: getattr(kind, "__forward_arg__", kind) for name, kind in options.__annotations__.items()}
    params = {name: param for name, param in spellings(command).items() if name in kinds}

    def document(function: Function) -> Function:
        own = inspect.signature(function)
        fixed = [param for param in own.parameters.values() if param.kind is not param.VAR_KEYWORD]
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kinds[name])
            for name in params
        ]
        function.__signature__ = own.replace(parameters=[*fixed, *more])  # type: ignore[attr-defined]
        lines = [f"    {name}: {getattr(param, 'help', '')}" for name, param in params.items()]
        said = inspect.getdoc(function) or ""
        function.__doc__ = "\n".join([said, "", "Options, by their names on the command line:", *lines])
        return function

    return document
