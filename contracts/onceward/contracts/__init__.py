"""The contracts that every runner keeps: pure records and abstract classes, no I/O and no driver."""

from onceward.contracts.clock import Clock
from onceward.contracts.errors import (
    InvalidRequest,
    LeaseLost,
    LockNotAcquired,
    OncewardError,
    OutcomeUnknown,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
    WaitTimeout,
)
from onceward.contracts.executor import Executor
from onceward.contracts.lifecycle import Health, Lifecycle
from onceward.contracts.payload import Json, canonical, content_key, parse
from onceward.contracts.records import (
    Attempt,
    ConfigDoc,
    Ending,
    Failure,
    Lease,
    LockId,
    LockState,
    Progress,
    Run,
    RunId,
    Status,
)
from onceward.contracts.requests import (
    Admission,
    Cancelled,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    ConfigWrite,
    Interest,
    LockAnswer,
    LockRequest,
    OnAbandoned,
    OnFailed,
    Purge,
    Rearm,
    Renewal,
    Renewed,
    RunQuery,
    RunSpec,
    Want,
    new_holder,
    new_request,
)
from onceward.contracts.runner import Runner, RunnerType, Store
from onceward.contracts.scheduler import Scheduler, Watch
from onceward.contracts.traits import DueClock, Failover, LeaseClock, Traits

__all__ = [
    "Admission", "Attempt", "Cancelled", "CheckIn", "CheckInOutcome", "CheckOut", "Claim", "Clock", "ConfigDoc",
    "ConfigWrite", "DueClock", "Ending", "Executor", "Failover", "Failure", "Health", "Interest", "InvalidRequest",
    "Json", "Lease", "LeaseClock", "LeaseLost", "Lifecycle", "LockAnswer", "LockId", "LockNotAcquired", "LockRequest",
    "LockState", "OnAbandoned", "OnFailed", "OncewardError", "OutcomeUnknown", "Progress", "Purge", "Rearm",
    "Renewal", "Renewed", "Run", "RunId", "RunQuery", "RunSpec", "Runner", "RunnerType", "Scheduler", "Status",
    "Store", "StoreError", "StoreMisconfigured", "StoreUnavailable", "Traits", "WaitTimeout", "Want", "Watch",
    "canonical", "content_key", "new_holder", "new_request", "parse",
]
