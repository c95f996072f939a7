"""Mutants of locks: who gets one, keeps it, and lets go of it."""

from __future__ import annotations

from msgspec.structs import replace

from onceward.contracts import Lease, LockAnswer, LockId, LockRequest, Purge, Renewal, Renewed, RunId
from onceward.contracts.times import span, span_ms
from onceward.contracts.transitions import Now

from .planted import planted
from .planted_store import Meddled


@planted("lock", "lock.model")
class EntersWithoutLock(Meddled):
    """etcd3gw, aetcd: the answer to the request is not looked at; who does not get the lock goes on."""

    def lock(self, request: LockRequest) -> LockAnswer:
        return replace(super().lock(request), acquired=True)


@planted("lock", "lock.model")
class FailedRequestUnlocks(Meddled):
    """oJob Manager (M33): the clean-up after a failed request lets go of the other's lock."""

    def lock(self, request: LockRequest) -> LockAnswer:
        with self._lock:
            answer = super().lock(request)
            entry = self.lock_entry(request.lock)
            if not answer.acquired and entry is not None:
                self.write_lock(replace(entry, held=False))
            return answer


@planted("lock", "lock.model")
class FailedRequestExtends(Meddled):
    """tooz, etcd3gw: a request that is refused pushes the end of the other's lease."""

    def lock(self, request: LockRequest) -> LockAnswer:
        with self._lock:
            answer = super().lock(request)
            entry = self.lock_entry(request.lock)
            if not answer.acquired and entry is not None and entry.live(self._now()):
                self.write_lock(replace(entry, until=entry.until + span_ms(request.lease)))
            return answer


@planted("lock", "lock.model")
class Reentrant(Meddled):
    """etcd's Go mutex: two users of one session share the lock, as if they were one."""

    def lock(self, request: LockRequest) -> LockAnswer:
        answer = super().lock(request)
        mine = answer.lease is not None and answer.lease.holder == request.holder
        return replace(answer, acquired=answer.acquired or mine)


@planted("lock", "lock.model")
class UnlockByAnybody(Meddled):
    """oJob Manager (M35), ShedLock on MongoDB and ZooKeeper: an unlock does not ask whose lock it is."""

    def unlock(self, lease: Lease) -> bool:
        with self._lock:
            entry = self.lock_entry(lease.resource) if isinstance(lease.resource, LockId) else None
            return super().unlock(lease if entry is None else entry.lease)


@planted("lock", "lock.model")
class UnlockByHolderName(Meddled):
    """pottery, etcd #22082: a late unlock by the same holder frees the lock that it took since."""

    def unlock(self, lease: Lease) -> bool:
        with self._lock:
            entry = self.lock_entry(lease.resource) if isinstance(lease.resource, LockId) else None
            mine = entry is not None and entry.lease.holder == lease.holder
            return super().unlock(entry.lease if mine and entry is not None else lease)


@planted("lock", "lock.model")
class RepeatedUnlockLost(Meddled):
    """redis-py, pottery: after a lost reply, the unlock that worked is reported as lost."""

    def unlock(self, lease: Lease) -> bool:
        with self._lock:
            entry = self.lock_entry(lease.resource) if isinstance(lease.resource, LockId) else None
            return entry is not None and entry.held and super().unlock(lease)


@planted("lock", "lock.model")
class RepeatedLockRefused(Meddled):
    """redis-py, python-redis-lock: after a lost reply, the lock is locked against its own holder."""

    def lock(self, request: LockRequest) -> LockAnswer:
        with self._lock:
            entry = self.lock_entry(request.lock)
            answer = super().lock(request)
            repeated = entry is not None and entry.lease.request == request.request
            return replace(answer, acquired=False) if repeated else answer


@planted("lock", "lock.model")
class LateLockGranted(Meddled):
    """A copy of a request, stuck in a dead connection, is granted after its unlock: nobody has it, for a lease."""

    def lock(self, request: LockRequest) -> LockAnswer:
        with self._lock:
            entry = self.lock_entry(request.lock)
            if entry is not None and not entry.live(self._now()) and entry.lease.request == request.request:
                del self._locks._entries[request.lock]
            return super().lock(request)


@planted("lock", "lock.model")
class LockTokensRestart(Meddled):
    """ZooKeeper's sequence numbers, counters with a time to live: tokens begin anew when the lock is deleted."""

    def purge(self, request: Purge) -> int:
        with self._lock:
            known = set(self._locks._entries)
            purged = super().purge(request)
            if known - set(self._locks._entries):
                self._token = max((entry.lease.token for entry in self._locks._entries.values()), default=0)
            return purged


@planted("lock", "lock.model")
class LockTokenOfHolder(Meddled):
    """Tokens that stay with the holder (a session's id): who comes again has the one that it had."""

    def lock(self, request: LockRequest) -> LockAnswer:
        with self._lock:
            answer = super().lock(request)
            entry = self.lock_entry(request.lock)
            if not answer.acquired or entry is None or answer.lease is None:
                return answer
            number = sum(map(ord, request.holder))
            self.write_lock(replace(entry, lease=replace(entry.lease, token=number)))
            return replace(answer, lease=replace(answer.lease, token=number))


@planted("lock", "lock.model")
class LockRenewalAdds(Meddled):
    """redis-py, extend: a renewal adds to the lease, and twice if its reply was lost."""

    def _renew(self, renewal: Renewal, now: Now) -> Renewed:
        lock = renewal.lease.resource
        before = self.lock_entry(lock) if isinstance(lock, LockId) else None
        answer = super()._renew(renewal, now)
        duration = renewal.duration or renewal.lease.duration
        if answer is Renewed.HELD and before is not None and duration is not None and isinstance(lock, LockId):
            after = self.lock_entry(lock)
            assert after is not None
            self.write_lock(replace(after, until=before.until + span_ms(duration)))
        return answer


@planted("lock", "lock.model")
class LapsedLockRenewed(Meddled):
    """tooz, kazoo: a holder whose session is over is told that it still has the lock."""

    def _renew(self, renewal: Renewal, now: Now) -> Renewed:
        answer = super()._renew(renewal, now)
        return Renewed.HELD if isinstance(renewal.lease.resource, LockId) else answer


@planted("lock", "lock.model")
class LockNeverLapses(Meddled):
    """redis-py without a timeout, python-redis-lock: a dead holder's lock stays for ever."""

    def lock(self, request: LockRequest) -> LockAnswer:
        with self._lock:
            answer = super().lock(request)
            entry = self.lock_entry(request.lock)
            if answer.acquired and entry is not None:
                self.write_lock(replace(entry, until=entry.until + 10**11))
            return answer


@planted("lock", "lock.model")
class LockLapsesEarly(Meddled):
    """kazoo's lease, OpenAF (M38): the caller's clock is ahead, and a living holder loses its lock."""

    def lock(self, request: LockRequest) -> LockAnswer:
        with self._lock:
            entry, now = self.lock_entry(request.lock), self._now()
            if entry is not None and entry.live(now) and entry.until - now.elapsed <= 400:
                self.write_lock(replace(entry, until=now.elapsed))
            return super().lock(request)


@planted("lock", "lock.model")
class ForcedLockNotFenced(Meddled):
    """OpenAF, clear (M41): a lock is freed by force, and its holder is not told."""

    def force_unlock(self, resource: RunId | LockId, *, token: int | None = None) -> Lease | None:
        with self._lock:
            entry = self.lock_entry(resource) if isinstance(resource, LockId) else None
            if entry is None or not entry.live(self._now()) or token not in (None, entry.lease.token):
                return None
            self.write_lock(replace(entry, held=False))
            return entry.lease


@planted("lock", "lock.model")
class RemainingOfRequest(Meddled):
    """The time that is left is told from the asker's own lease, and not from the one that is held."""

    def lock(self, request: LockRequest) -> LockAnswer:
        answer = super().lock(request)
        return replace(answer, remaining=span(span_ms(request.lease)))
