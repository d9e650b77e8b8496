"""The compiled half of the package."""

from collections.abc import Callable, Iterator, Sequence
from types import GenericAlias
from typing import Any, final

__all__ = [
    "__version__",
    "Session",
    "Task",
    "Options",
    "Progress",
    "AsyncResult",
    "IMapIterator",
    "DetachedJob",
    "Outcomes",
    "SharedHandle",
    "SharedMemory",
    "attach",
    "open",
    "end_threads",
    "encode_value",
    "decode_value",
    "find_shared",
    "slot",
    "serve",
]
__version__: str

@final
class Task:
    """A packed function, ready to send."""

    def __new__(
        cls, function: bytes, label: str, by_value: Callable[..., bytes] | None, published: set[str]
    ) -> Task: ...

@final
class Options:
    """The options of a call."""

    def __new__(
        cls,
        chunksize: int | None,
        timeout: float | None,
        retries: int,
        priority: int,
        require: Sequence[tuple[str, str]],
        progress: Progress | None = None,
        common: tuple[Sequence[Any], int] | None = None,
    ) -> Options: ...

@final
class SharedHandle:
    """Keeps a shared value at the pool's hosts."""

    def close(self) -> None: ...

@final
class SharedMemory:
    """A part of a shared value."""

@final
class Progress:
    """Counts the items of one call that have finished."""

    def __new__(cls) -> Progress: ...
    def count(self) -> int: ...
    def is_over(self) -> bool: ...

@final
class Session:
    """An open pool."""

    def apply(self, task: Task, value: Any, options: Options) -> Any: ...
    def map(self, verb: str, task: Task, values: Iterator[Any], options: Options) -> list[Any]: ...
    def start(
        self,
        verb: str,
        task: Task,
        values: Iterator[Any],
        pool: Any,
        single: bool,
        options: Options,
        callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
    ) -> AsyncResult: ...
    def imap(
        self,
        verb: str,
        task: Task,
        values: Iterator[Any],
        sized: bool,
        pool: Any,
        ordered: bool,
        options: Options,
        buffersize: int | None = None,
    ) -> IMapIterator: ...
    def share(self, pickled: bytes, buffers: list[Any]) -> tuple[bytes, SharedHandle]: ...
    def detach(self, name: str, task: Task, values: Iterator[Any], options: Options) -> DetachedJob: ...
    def close(self, now: bool) -> None: ...
    def wait_closed(self, timeout: float | None = None) -> bool: ...
    def wait_for_callbacks(self) -> None: ...
    def processes(self) -> int: ...
    def worker_pids(self) -> list[int]: ...
    def check(self) -> None: ...
    def is_here(self) -> bool: ...
    def open_jobs(self) -> list[int]: ...

@final
class AsyncResult:
    """The outcome of `apply_async`, `map_async` or `starmap_async`."""

    def get(self, timeout: float | None = None) -> Any: ...
    def wait(self, timeout: float | None = None) -> None: ...
    def ready(self) -> bool: ...
    def successful(self) -> bool: ...
    def cancel(self) -> None: ...
    @property
    def _job(self) -> int: ...
    def __class_getitem__(cls, item: Any) -> GenericAlias: ...

@final
class IMapIterator:
    """An iterator over results."""

    def next(self, timeout: float | None = None) -> Any: ...
    def __next__(self) -> Any: ...
    def __iter__(self) -> IMapIterator: ...
    @property
    def _job(self) -> int: ...
    def __class_getitem__(cls, item: Any) -> GenericAlias: ...

@final
class DetachedJob:
    """A handle to a job that a coordinator keeps."""

    @property
    def name(self) -> str: ...
    def status(self) -> Any: ...
    def get(self) -> list[Any]: ...
    def __iter__(self) -> Outcomes: ...
    def cancel(self) -> None: ...
    def discard(self) -> None: ...
    def __class_getitem__(cls, item: Any) -> GenericAlias: ...

@final
class Outcomes:
    """The outcomes of a detached job as an iterator."""

    def __iter__(self) -> Outcomes: ...
    def __next__(self) -> Any: ...

def attach(address: str, name: str) -> DetachedJob: ...
def end_threads(patience: float) -> None: ...
def open(
    *,
    processes: int,
    address: str | None,
    file: str,
    arguments: Sequence[str],
    stays: bool,
    environment: Sequence[tuple[str, str]],
    initializer: bytes,
    initargs: bytes,
    initializer_timeout: float | None,
    max_chunks_per_child: int,
    name: str,
    require: Sequence[tuple[str, str]],
    logging: bool = False,
    payload_limit: int = ...,
) -> Session: ...
def encode_value(value: Any, by_value: Callable[..., bytes] | None = None) -> bytes: ...
def decode_value(bytes: bytes) -> Any: ...
def find_shared(key: bytes, load: Callable[..., Any]) -> Any: ...
def slot() -> int | None: ...
def serve() -> None: ...
