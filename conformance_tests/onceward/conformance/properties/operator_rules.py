"""What operators do to runs, and what listings show: rules that the machines of check-in and queue share."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import rule
from msgspec.structs import replace

from onceward.conformance.machine import picked, picks
from onceward.conformance.model.runs import Known
from onceward.conformance.properties.runs_machine import RUNS, RunsMachine, runs
from onceward.contracts import CheckOut, Ending, Purge, Rearm, Run, RunId, RunQuery, Status

ENDED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
#: Which runs a purge is for: the job, and the statuses.
SCOPES: tuple[tuple[str | None, frozenset[Status]], ...] = (
    (None, ENDED),
    ("orders", ENDED),
    (None, frozenset({Status.FAILED})),
    ("orders/a", frozenset({Status.SUCCEEDED, Status.CANCELLED})),
)


class OperatedMachine(RunsMachine):
    """G2, G4, G5, G14: operators force, re-arm and purge; listings and counts are right."""

    @rule(run=runs, guarded=st.booleans(), pick=picks)
    def force(self, run: RunId, guarded: bool, pick: int) -> None:
        """An operator takes a run from its holder, perhaps one of long ago."""
        tokens = [lease.token for lease in self.issued if lease.resource == run]
        self.take_away(run, picked(tokens, pick) if guarded else None)

    @rule(pick=picks)
    def force_late(self, pick: int) -> None:
        """An operator's decision about a lease comes when somebody else may have the run."""
        lease = picked(self.issued, pick)
        if lease is not None and isinstance(lease.resource, RunId):
            self.take_away(lease.resource, lease.token)

    def take_away(self, run: RunId, token: int | None) -> None:
        """A live lease is over at once, and fenced off; else nothing happens."""
        found, before = self.known.get(run), self.look(run)
        live = found is not None and found.live(self.now_ms) and token in (None, found.token)
        answer = self.ask(
            f"operator.force_unlock({run}, token={token})",
            lambda: self.runner.lifecycle.force_unlock(run, token=token),
        )
        after = self.look(run)
        if found is None or not live or before is None or after is None:
            same = answer is None and after == before
            self.expect("G4", same, lambda: f"nobody held it, but the answer was {answer} and it is now {after}")
            return
        self.expect("C2", answer == before.lease, lambda: f"forced off {before.lease}, the answer said {answer}")
        self.expect("G2", after.token > found.token, lambda: f"the token stayed at {after.token} when it was forced")
        self.newest[run] = after.token
        found.fence(after.token, self.now_ms)
        self.agrees(run, after)

    @rule(run=runs, stale=st.booleans())
    def rearm(self, run: RunId, stale: bool) -> None:
        """An operator re-arms a run, perhaps with a token of earlier."""
        found, before, early = self.known.get(run), self.look(run), self.wall()
        token = (found.token if found is not None else 1) - stale
        if token < 0:
            return
        answer = self.ask(
            f"operator.rearm({run}, token {token})",
            lambda: self.runner.lifecycle.rearm([Rearm(run=run, token=token)])[0],
        )
        fits = found is not None and found.token == token
        waits = fits and found is not None and found.status is Status.SCHEDULED and found.rearmed
        done = fits and found is not None and found.status.ended
        self.expect("C2", answer is bool(waits or done), lambda: f"the re-arm was answered {answer}")
        after = self.look(run)
        if done and found is not None and after is not None:
            found.revive(self.due_now(after, early))
            self.agrees(run, after)
        else:
            self.expect("G5", after == before, lambda: f"a re-arm without effect changed {before} into {after}")

    @rule(
        scope=st.sampled_from((SCOPES[0], *SCOPES)),
        seconds=st.sampled_from((0, 0, 1, 10)),
        stamp=st.sampled_from((None, None, "", RUNS[2].stamp)),
        limit=st.sampled_from((100, 100, 1)),
    )
    def purge(self, scope: tuple[str | None, frozenset[Status]], seconds: int, stamp: str | None, limit: int) -> None:
        """Ended runs that match go, whatever else there is stays."""
        job, statuses = scope
        age = timedelta(seconds=seconds) if self.exact else timedelta(hours=seconds)
        request = Purge(older_than=age, job=job, statuses=statuses, stamp=stamp, limit=limit)
        doomed = {
            found.id
            for found in self.known.values()
            if found.status in statuses
            and job in (None, found.id.job)
            and stamp in (None, found.id.stamp)
            and self._ended_ago(found) >= age
        }
        gone = self._purge(request)
        self.expect("G14", gone <= doomed, lambda: f"purged {gone}, asked for were only {doomed}")
        right = len(gone) == min(limit, len(doomed))
        self.expect("C2", right, lambda: f"{len(gone)} runs were purged of {doomed}, at most {limit}")

    @rule(keep=st.sampled_from((1, 1, 2)), job=st.sampled_from((None, "orders")))
    def purge_but_the_last(self, keep: int, job: str | None) -> None:
        """Of each job the latest to end stay."""
        ended = [found for found in self.known.values() if found.status.ended and job in (None, found.id.job)]
        gone = self._purge(Purge(older_than=timedelta(0), job=job, keep_last=keep))
        for each in sorted({found.id.job for found in ended}):
            of_job = [found for found in ended if found.id.job == each]
            left = [found for found in of_job if found.id not in gone]
            right = len(left) == min(keep, len(of_job))
            self.expect("G14", right, f"{len(left)} of {len(of_job)} ended runs of {each} are left, must be {keep}")
            latest = max((found.ended for found in of_job if found.id in gone), default=-1)
            fine = all(found.ended >= latest for found in left)
            self.expect("G14", fine, lambda e=each: f"of {e} a later one to end was purged: {gone}")  # type: ignore[misc]

    @rule(pick=picks)
    def late_after_purge(self, pick: int) -> None:
        """Everything that has ended is purged; then somebody checks out what may be gone."""
        self._purge(Purge(older_than=timedelta(0)))
        lease = picked(self.issued, pick)
        if lease is not None:
            request = CheckOut(lease=lease, ending=Ending.SUCCEEDED, request=self.request())
            self.checkouts.append(request)
            self.leave([request])

    def _ended_ago(self, found: Known) -> timedelta:
        return timedelta(milliseconds=self.now_ms - found.ended)

    def _purge(self, request: Purge) -> set[RunId]:
        """The runs that are gone; none of them was live, and the answer is their number."""
        shown = f"{request.job}, older_than={request.older_than}, keep_last={request.keep_last}, limit={request.limit}"
        answer = self.ask(f"operator.purge({shown})", lambda: self.runner.lifecycle.purge(request))
        gone = {run for run in self.known if self.look(run) is None}
        live = {run for run in gone if not self.known[run].status.ended}
        self.expect("G14", not live, lambda: f"purged while live: {live}")
        self.expect("C2", answer == len(gone), lambda: f"the purge answered {answer}, gone are {gone}")
        for run in gone:
            del self.known[run]
        return gone

    @rule(status=st.sampled_from(Status), pick=picks)
    def listing(self, status: Status, pick: int) -> None:
        """Listings and counts show what the model knows."""
        by_order = sorted(self.known.values(), key=lambda found: found.order)
        oldest = bool(pick % 2)
        expected = [found.id for found in (by_order if oldest else reversed(by_order)) if found.status is status]
        query = RunQuery(statuses=frozenset({status}), oldest_first=oldest)
        listed = self.ask(f"runs({status.value})", lambda: self.runner.lifecycle.runs(query))
        self.expect("C2", [run.id for run in listed] == expected, lambda: f"listed {listed}, must be {expected}")
        self._pages(query, expected, pick)
        self._lapsed_and_counts(by_order)

    def _pages(self, query: RunQuery, expected: list[RunId], pick: int) -> None:
        """Page after page gives the same runs, each once; and so do the queries for one job, key or stamp."""
        size, paged, last = 1 + pick % 2, list[RunId](), None
        while len(paged) <= len(expected):
            page = self._query(replace(query, limit=size, after=last))
            paged += [run.id for run in page]
            if len(page) < size:
                break
            last = page[-1].sequence
        self.expect("C2", paged == expected, lambda: f"in pages of {size}: {paged}, must be {expected}")
        one = RUNS[pick % len(RUNS)]
        alone = [run.id for run in self._query(replace(query, job=one.job, key=one.key, stamp=one.stamp))]
        self.expect("C2", alone == [one] * (one in expected), lambda: f"asked for {one}, listed {alone}")
        of_job = [run.id for run in self._query(replace(query, job=one.job))]
        right = of_job == [run for run in expected if run.job == one.job]
        self.expect("C2", right, lambda: f"asked for the job {one.job}, listed {of_job}")

    def _query(self, query: RunQuery) -> list[Run]:
        try:
            return list(self.runner.lifecycle.runs(query))
        except Exception as error:
            raise self.trial.blame(error, f"runs({query})") from error

    def _lapsed_and_counts(self, by_order: list[Known]) -> None:
        query = RunQuery(lapsed=True, oldest_first=True)
        late = [run.id for run in self.ask("runs(lapsed)", lambda: self.runner.lifecycle.runs(query))]
        lapsed = [found.id for found in by_order if found.lapsed(self.now_ms)]
        self.expect("C2", late == lapsed, lambda: f"listed as lapsed: {late}, must be {lapsed}")
        counts: dict[str, dict[Status, int]] = {}
        for found in by_order:
            of_job = counts.setdefault(found.id.job, {})
            of_job[found.status] = of_job.get(found.status, 0) + 1
        shown = self.ask("counts()", self.runner.lifecycle.counts)
        plain = {job: {s: n for s, n in of.items() if n} for job, of in shown.items() if any(of.values())}
        self.expect("C2", plain == counts, lambda: f"counted {plain}, must be {counts}")
