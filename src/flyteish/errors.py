"""The exception tree: what flyteish raises, and what a task may raise to steer its retries.

This module only names failures and formats them; it decides nothing about retries or placement
(``_core.rules`` does) and imports nothing of the project.

    FlyteishError
    ├── ConfigurationError(ValueError)      a setting, queue, pool or config file is wrong where it was written
    │   └── UnknownQueueError(LookupError)  a task names a queue that nobody configured
    ├── TaskDefinitionError(TypeError)      a function cannot become a task
    ├── InputTypeError(TypeError)           an argument is not of its declared type
    ├── OutputTypeError(TypeError)          a result is not of its declared type
    ├── SerializationError                  a value cannot be stored or carried to a worker
    ├── TaskNotImportableError              a worker cannot load the task's function
    ├── SecretMissingError                  nobody has the value of a secret that a task wants
    ├── NonRecoverableError                 raise it in a task: fails at once, whatever is left
    │   └── (subclass it freely)
    ├── ResourceExhaustedError              a queue is full or draining and refuses new work
    ├── RunSkippedError                     ``overlap="skip"``: an earlier run of the task is still active
    ├── ActionAbortedError                  the awaited action was aborted
    ├── ActionTimedOutError(TimeoutError)   an action's ``deadline`` passed
    ├── AttemptError                        an attempt ended without an exception of its own
    │   ├── TaskTimeoutError(TimeoutError)  ``max_runtime`` or ``max_queued_time`` exceeded
    │   ├── OOMError(MemoryError)           out of memory
    │   ├── ExitedBeforeReturningError      the worker exited without committing a result
    │   ├── WorkerCrashedError              the worker died on a signal or a non-zero exit
    │   ├── PreemptedError                  reclaimed with no budget left to go on
    │   └── SystemRetriesExhaustedError     infrastructure failed more often than ``system_retries``
    ├── RemoteTaskError                     a task's exception whose type is not imported here
    ├── CheckpointError                     a checkpoint could not be saved or read
    │   └── StaleAttemptError               the attempt was given up; it may not commit anything
    ├── BlobError                           a stored value cannot be written or read
    │   ├── BlobMissingError(LookupError)   no such content in the blob store
    │   └── BlobCorruptError                content does not match its checksum
    ├── StoreError                          the journal cannot be written or read
    │   ├── StoreLockedError                another controller is using this store
    │   ├── StoreCorruptError               the store's file is damaged
    │   └── StoreVersionError               the store was written by a newer flyteish
    ├── RunNotFoundError(LookupError)       no such run or action in the store
    └── SessionClosedError(RuntimeError)    the session was closed while work was pending
"""

from __future__ import annotations

__all__ = [
    "ActionAbortedError",
    "ActionTimedOutError",
    "AttemptError",
    "BlobCorruptError",
    "BlobError",
    "BlobMissingError",
    "CheckpointError",
    "ConfigurationError",
    "ExitedBeforeReturningError",
    "FlyteishError",
    "InputTypeError",
    "NonRecoverableError",
    "OOMError",
    "OutputTypeError",
    "PreemptedError",
    "RemoteTaskError",
    "ResourceExhaustedError",
    "RunNotFoundError",
    "RunSkippedError",
    "SerializationError",
    "SessionClosedError",
    "StaleAttemptError",
    "StoreCorruptError",
    "StoreError",
    "StoreLockedError",
    "StoreVersionError",
    "SystemRetriesExhaustedError",
    "TaskDefinitionError",
    "TaskNotImportableError",
    "TaskTimeoutError",
    "UnknownQueueError",
    "WorkerCrashedError",
]


class FlyteishError(Exception):
    """Base of every error that flyteish raises itself; a task's own exceptions are never wrapped in it."""


class ConfigurationError(FlyteishError, ValueError):
    """A setting is wrong. The message names the parameter, where it was written, the value and what is accepted."""


class UnknownQueueError(ConfigurationError, LookupError):
    """A task names a queue that is not configured. The message lists the known ones (spec: queues)."""


class TaskDefinitionError(FlyteishError, TypeError):
    """A function cannot become a task as it is written."""


class InputTypeError(FlyteishError, TypeError):
    """An argument is not of the type its parameter declares. Fails at once: no retry can mend it."""


class OutputTypeError(FlyteishError, TypeError):
    """A task returned something other than it declares. Fails at once: no retry can mend it."""


class SerializationError(FlyteishError):
    """A value cannot be encoded; the message names task, parameter, type and why. Fails at once."""


class TaskNotImportableError(FlyteishError):
    """A worker process cannot import the task's function, nor can it be carried by value."""


class NonRecoverableError(FlyteishError):
    """Raise it (or a subclass) in a task to fail at once, whatever retries are left.

    It is not retried by parents either: an action that fails with it makes its parent fail the same
    way when the parent lets it travel up (spec: attempts).
    """


class ResourceExhaustedError(FlyteishError):
    """A queue holds as much work as its ``depth`` allows, or is draining, and refuses more."""


class SecretMissingError(FlyteishError):
    """Nobody has the value of a secret that a task wants; the message says where it is looked up."""


class RunSkippedError(FlyteishError):
    """The run was not started: the queue's ``overlap="skip"`` found an earlier run of the task active."""


class ActionAbortedError(FlyteishError):
    """The action that was awaited has been aborted (by a person, or because its run ended)."""


class ActionTimedOutError(FlyteishError, TimeoutError):
    """The action's ``deadline`` passed; it counts waiting, back-off and preemptions since submission."""


class AttemptError(FlyteishError):
    """An attempt ended in a way that left no exception of the task's own."""


class TaskTimeoutError(AttemptError, TimeoutError):
    """``max_runtime`` or ``max_queued_time`` of an attempt was exceeded; pays from ``retries``."""


class OOMError(AttemptError, MemoryError):
    """The attempt was killed for running out of memory; pays from ``retries``."""


class ExitedBeforeReturningError(AttemptError):
    """The worker exited with code 0 before a result was committed; pays from ``retries``."""


class WorkerCrashedError(AttemptError):
    """The worker exited with a non-zero code or died on a crash signal; pays from ``retries``."""


class PreemptedError(AttemptError):
    """The attempt was preempted and the budget that preemptions are charged to is spent."""


class SystemRetriesExhaustedError(AttemptError):
    """Infrastructure failed more often within one user attempt than ``system_retries`` allows."""


class RemoteTaskError(FlyteishError):
    """Stands in for an exception raised in a worker whose type this process has not imported.

    ``remote_type`` is the original's qualified name; ``args`` are the original's where they could be carried.
    """

    def __init__(self, *args: object, remote_type: str = "") -> None:
        super().__init__(*args)
        self.remote_type = remote_type

    def __str__(self) -> str:
        text = super().__str__()
        return f"{self.remote_type}: {text}" if self.remote_type else text


class CheckpointError(FlyteishError):
    """A checkpoint could not be saved or read. An unreadable store is never taken for "no checkpoint"."""


class StaleAttemptError(CheckpointError):
    """This attempt was given up and replaced; results and checkpoints of it are refused (fencing)."""


class BlobError(FlyteishError):
    """The blob store cannot be written or read (full disk, permissions); the message names the path."""


class BlobMissingError(BlobError, LookupError):
    """The blob store has no content at this address."""


class BlobCorruptError(BlobError):
    """Stored content does not match the checksum in its address (torn write, bit rot)."""


class StoreError(FlyteishError):
    """The journal cannot be written or read (full disk, permissions); the message names file and cure."""


class StoreLockedError(StoreError):
    """Another live controller owns this store; the message names its process id."""


class StoreCorruptError(StoreError):
    """The store's file is damaged; the message names the file and how to set it aside."""


class StoreVersionError(StoreError):
    """The store was written by a newer flyteish than this one; nothing was changed."""


class RunNotFoundError(FlyteishError, LookupError):
    """The store knows no such run or action; near names are suggested."""


class SessionClosedError(FlyteishError, RuntimeError):
    """The session was closed, or its controller stopped, while this work was pending."""
