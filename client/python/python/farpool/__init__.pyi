from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from multiprocessing import TimeoutError as TimeoutError
from multiprocessing.pool import ThreadPool as ThreadPool
from os import PathLike
from types import GenericAlias, ModuleType, TracebackType
from typing import Any, Generic, NamedTuple, TypeVar, final

_S = TypeVar("_S")
_T = TypeVar("_T")

__all__ = [
    "Pool",
    "AsyncResult",
    "IMapIterator",
    "attach",
    "Detach",
    "DetachedJob",
    "DetachedStatus",
    "Shared",
    "Error",
    "WorkerDied",
    "TimedOut",
    "AgentLost",
    "Cancelled",
    "PayloadTooLarge",
    "InitializerFailed",
    "Unavailable",
    "TimeoutError",
    "slot",
    "ThreadPool",
]
__version__: str

def slot() -> int | None: ...
class Shared(Generic[_T]):
    def __init__(self, session: Any, value: _T) -> None: ...
    def __del__(self) -> None: ...
    def __class_getitem__(cls, item: Any) -> GenericAlias: ...

def attach(name: str, address: str | None = None) -> DetachedJob[Any]: ...

class Pool:
    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any | None = None,
        *,
        address: str | None = None,
        env: Mapping[str, str] | None = None,
        name: str = "",
        require: Mapping[str, str] | None = None,
        initializer_timeout: float | None = 600,
        preload: Iterable[str] = (),
        py_modules: Iterable[ModuleType | str | PathLike[str]] = (),
        working_dir: str | PathLike[str] | None = None,
        logging: bool = False,
    ) -> None: ...
    def apply(
        self,
        func: Callable[..., _T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        *,
        timeout: float | None = None,
        retries: int = 2,
        priority: int = 0,
        require: Mapping[str, str] | None = None,
    ) -> _T: ...
    def apply_async(
        self,
        func: Callable[..., _T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[_T], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int = 2,
        priority: int = 0,
        require: Mapping[str, str] | None = None,
    ) -> AsyncResult[_T]: ...
    def map(
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int = 2,
        priority: int = 0,
        require: Mapping[str, str] | None = None,
        progress: bool = False,
    ) -> list[_T]: ...
    def map_async(
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int | None = None,
        callback: Callable[[list[_T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int = 2,
        priority: int = 0,
        require: Mapping[str, str] | None = None,
        progress: bool = False,
    ) -> AsyncResult[list[_T]]: ...
    def starmap(
        self,
        func: Callable[..., _T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int = 2,
        priority: int = 0,
        require: Mapping[str, str] | None = None,
        progress: bool = False,
    ) -> list[_T]: ...
    def starmap_async(
        self,
        func: Callable[..., _T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[_T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int = 2,
        priority: int = 0,
        require: Mapping[str, str] | None = None,
        progress: bool = False,
    ) -> AsyncResult[list[_T]]: ...
    def imap(
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int = 2,
        priority: int = 0,
        require: Mapping[str, str] | None = None,
        progress: bool = False,
        buffersize: int | None = None,
    ) -> IMapIterator[_T]: ...
    def imap_unordered(
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int = 2,
        priority: int = 0,
        require: Mapping[str, str] | None = None,
        progress: bool = False,
        buffersize: int | None = None,
    ) -> IMapIterator[_T]: ...
    def share(self, value: _T) -> Shared[_T]: ...
    def detach(self, name: str) -> Detach: ...
    def close(self) -> None: ...
    def terminate(self) -> None: ...
    def join(self) -> None: ...
    def __enter__(self) -> Pool: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None: ...
    def __del__(self, _warn: Any = ..., RUN: str = ...) -> None: ...

@final
class AsyncResult(Generic[_T]):
    def get(self, timeout: float | None = None) -> _T: ...
    def wait(self, timeout: float | None = None) -> None: ...
    def ready(self) -> bool: ...
    def successful(self) -> bool: ...
    def cancel(self) -> None: ...
    def __class_getitem__(cls, item: Any) -> GenericAlias: ...

@final
class IMapIterator(Iterator[_T]):
    def next(self, timeout: float | None = None) -> _T: ...
    def __next__(self) -> _T: ...
    def __iter__(self) -> IMapIterator[_T]: ...
    def __class_getitem__(cls, item: Any) -> GenericAlias: ...

class Detach:
    def __init__(self, pool: Pool, name: str) -> None: ...
    def map(
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int = 2,
        priority: int = 0,
        require: Mapping[str, str] | None = None,
    ) -> DetachedJob[_T]: ...
    def starmap(
        self,
        func: Callable[..., _T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int = 2,
        priority: int = 0,
        require: Mapping[str, str] | None = None,
    ) -> DetachedJob[_T]: ...
    def apply(
        self,
        func: Callable[..., _T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        *,
        timeout: float | None = None,
        retries: int = 2,
        priority: int = 0,
        require: Mapping[str, str] | None = None,
    ) -> DetachedJob[_T]: ...

@final
class DetachedJob(Generic[_T]):
    @property
    def name(self) -> str: ...
    def status(self) -> DetachedStatus: ...
    def get(self) -> list[_T]: ...
    def __iter__(self) -> Iterator[_T]: ...
    def cancel(self) -> None: ...
    def discard(self) -> None: ...
    def __class_getitem__(cls, item: Any) -> GenericAlias: ...

class DetachedStatus(NamedTuple):
    state: str
    items: int
    done: int
    failed: int
    detached_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None

class Error(Exception):
    item: int | None
    host: str | None
    pid: int | None
    attempts: int
    stderr: str | None

class WorkerDied(Error):
    exitcode: int | None

class TimedOut(Error, TimeoutError): ...
class AgentLost(Error): ...
class Cancelled(Error): ...
class PayloadTooLarge(Error): ...
class InitializerFailed(Error): ...
class Unavailable(Error): ...
