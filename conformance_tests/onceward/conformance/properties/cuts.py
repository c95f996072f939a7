"""Every operation with its connection cut at every one of its messages: what comes out, and what sending again does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from onceward.conformance.faults.framing import DIALECTS
from onceward.conformance.faults.plan import AtIndex, Deliver, Fate, Way
from onceward.conformance.faults.proxy import Proxy
from onceward.conformance.faults.runners import LONG, opened
from onceward.conformance.property import Property
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import CouldNotRun
from onceward.contracts import (
    CheckIn,
    CheckOut,
    Claim,
    ConfigWrite,
    Interest,
    Lease,
    LockId,
    LockRequest,
    OutcomeUnknown,
    Progress,
    Purge,
    Rearm,
    Renewal,
    RunId,
    Runner,
    RunQuery,
    RunSpec,
    StoreUnavailable,
    Want,
)

#: In one round requests are lost and replies cut in half, in the next the other way round: drivers may take half a
#: second to get over each.
CUTS = (
    ((Way.REQUEST, Fate.LOSE), (Way.REPLY, Fate.RESET)),
    ((Way.REQUEST, Fate.RESET), (Way.REPLY, Fate.LOSE)),
)
#: An operation with more messages than this in one direction is no longer followed.
MOST = 12


@dataclass(frozen=True)
class Scene:
    """Things of one name, so that scenes do not meet; ``direct`` is a client that nobody disturbs."""

    direct: Runner
    name: str
    found: dict[str, Lease] = field(default_factory=dict)

    @property
    def run(self) -> RunId:
        """The run of the scene."""
        return RunId(self.name, "k")

    @property
    def lock(self) -> LockId:
        """The lock of the scene."""
        return LockId(self.name)

    def submitted(self) -> None:
        """The run waits."""
        self.direct.scheduler.submit([RunSpec(id=self.run, request="submitted")])

    def held(self) -> None:
        """The run is held."""
        answer = self.direct.executor.checkin(
            CheckIn(run=self.run, holder="h", lease=LONG, request=f"{self.name}.checkin")
        )
        assert answer.run.lease is not None  # a fresh run
        self.found["run"] = answer.run.lease

    def ended(self) -> None:
        """The run has succeeded."""
        self.held()
        self.direct.executor.checkout([CheckOut.succeeded(self.found["run"])])

    def locked(self) -> None:
        """The lock is held."""
        request = LockRequest(lock=self.lock, holder="h", lease=LONG, request=f"{self.name}.lock")
        answer = self.direct.executor.lock(request)
        assert answer.lease is not None  # a fresh lock
        self.found["lock"] = answer.lease

    def state(self) -> object:
        """All there is of the scene, without times and tokens: two scenes can be compared."""
        run = self.direct.executor.check(self.run)
        shape: tuple[object, ...] = ()
        if run is not None:
            endings = tuple(attempt.ending for attempt in run.attempts)
            shape = (run.status, run.attempt, run.failures, run.crashes, endings, run.cancel_requested, run.progress)
            shape = (*shape, run.lease is not None)
        locks = sorted(each.lease.holder for each in self.direct.lifecycle.locks() if each.lease.resource == self.lock)
        config = self.direct.scheduler.read_config(self.name)
        return shape, locks, None if config is None else (config.version, config.document)


def nothing(_: Scene) -> None:
    """The scene is empty."""


@dataclass(frozen=True)
class Act:
    """One operation.

    Attributes:
        before: what there is of the scene.
        call: the operation, as the same request each time; its answer, as far as two scenes have it in common.
        repeatable: sent again, it gives its first answer.
        writes: it changes something.
    """

    before: Callable[[Scene], None]
    call: Callable[[Runner, Scene], object]
    repeatable: bool = True
    writes: bool = True


def _checkin(runner: Runner, scene: Scene) -> object:
    request = CheckIn(run=scene.run, holder="h", lease=LONG, request=f"{scene.name}.r")
    answer = runner.executor.checkin(request)
    return answer.outcome, answer.run.attempt


def _claim(runner: Runner, scene: Scene) -> object:
    request = Claim(holder="h", lease=LONG, wants=(Want(job=scene.name),), request=f"{scene.name}.r")
    return [run.attempt for run in runner.executor.claim(request)]


def _checkout(runner: Runner, scene: Scene) -> object:
    return runner.executor.checkout([CheckOut(lease=scene.found["run"], ending=_SUCCEEDED, request="out")])


def _renew(runner: Runner, scene: Scene) -> object:
    renewal = Renewal(lease=scene.found["run"], progress=Progress(done=1, total=2))
    return runner.executor.renew([renewal])


def _lock(runner: Runner, scene: Scene) -> object:
    request = LockRequest(lock=scene.lock, holder="h", lease=LONG, request=f"{scene.name}.r")
    return runner.executor.lock(request).acquired


def _submit(runner: Runner, scene: Scene) -> object:
    return runner.scheduler.submit([RunSpec(id=scene.run, request=f"{scene.name}.r")])


def _write_config(runner: Runner, scene: Scene) -> object:
    write = ConfigWrite(name=scene.name, document={"a": 1}, expected_version=0, request=f"{scene.name}.r")
    written = runner.scheduler.write_config(write)
    return written is not None and written.version


def _reschedule(runner: Runner, scene: Scene) -> object:
    return runner.scheduler.reschedule(scene.run, run_at=scene.direct.lifecycle.now() + LONG)


def _rearm(runner: Runner, scene: Scene) -> object:
    return runner.lifecycle.rearm([Rearm(run=scene.run, token=scene.found["run"].token)])


def _purge(runner: Runner, scene: Scene) -> object:
    return runner.lifecycle.purge(Purge(older_than=timedelta(0), job=scene.name))


def _watch(runner: Runner, scene: Scene) -> object:
    with runner.scheduler.watch(Interest(locks=frozenset({scene.name}))) as watch:
        watch.wait(0.01)
    return True


def _read(call: Callable[[Runner, Scene], object]) -> Act:
    return Act(Scene.submitted, call, writes=False)


_SUCCEEDED = CheckOut.succeeded(Lease(resource=RunId("j", "k"), holder="h", token=1, request="r")).ending

ACTS: Mapping[str, Act] = {
    "checkin": Act(nothing, _checkin),
    "claim": Act(Scene.submitted, _claim),
    "checkout": Act(Scene.held, _checkout),
    "renew": Act(Scene.held, _renew),
    "lock": Act(nothing, _lock),
    "unlock": Act(Scene.locked, lambda runner, scene: runner.executor.unlock(scene.found["lock"])),
    "submit": Act(nothing, _submit),
    "cancel": Act(Scene.submitted, lambda runner, scene: runner.scheduler.cancel(scene.run)),
    "reschedule": Act(Scene.submitted, _reschedule),
    "write_config": Act(nothing, _write_config),
    "rearm": Act(Scene.ended, _rearm),
    "purge": Act(Scene.ended, _purge, repeatable=False),
    "force_unlock": Act(
        Scene.locked, lambda runner, scene: runner.lifecycle.force_unlock(scene.lock) is not None, repeatable=False
    ),
    "check": _read(lambda runner, scene: runner.executor.check(scene.run) is not None),
    "read_config": _read(lambda runner, scene: runner.scheduler.read_config(scene.name)),
    "configs": _read(lambda runner, scene: any(each.name == scene.name for each in runner.scheduler.configs())),
    "runs": _read(lambda runner, scene: len(runner.lifecycle.runs(RunQuery(job=scene.name)))),
    "counts": _read(lambda runner, scene: list(runner.lifecycle.counts(scene.name)[scene.name].values())),
    "locks": _read(
        lambda runner, scene: [each for each in runner.lifecycle.locks() if each.lease.resource == scene.lock]
    ),
    "now": _read(lambda runner, scene: runner.lifecycle.now() > scene.direct.lifecycle.now() - LONG),
    "watch": _read(_watch),
    "health": _read(lambda runner, scene: runner.lifecycle.health() is not None),
}


def cut_everywhere(trial: Trial) -> None:
    """One round: every operation, and the opening of the store, cut at every message."""
    server = trial.harness.server()
    if server is None:
        raise CouldNotRun("the store has no network address")
    direct = trial.harness.timed_runner()
    try:
        with Proxy((server.host, server.port), DIALECTS[server.dialect]) as proxy:
            runner = opened(trial.harness, direct, proxy.address)
            try:
                for number, (name, act) in enumerate(ACTS.items()):
                    _cut_act(trial, direct, runner, proxy, (f"{name}{number}", name, act))
            finally:
                proxy.plan = Deliver()
                runner.close()
            _cut_opening(trial, direct, proxy)
            trial.faults.update(proxy.faults)
    finally:
        direct.close()


def _places(trial: Trial, proxy: Proxy) -> Iterator[tuple[AtIndex, str]]:
    """Cuts at the first message, the second, and so on, until there is none; each is in force when it is told."""
    for way, fate in CUTS[trial.seed % 2]:
        for index in range(MOST):
            proxy.plan = plan = AtIndex(index, fate, way=way)
            yield plan, f"{way} {index} {'lost' if fate is Fate.LOSE else 'cut in half'}"
            if not plan.hit:
                break


def _cut_act(trial: Trial, direct: Runner, runner: Runner, proxy: Proxy, what: tuple[str, str, Act]) -> None:
    prefix, name, act = what
    twin = Scene(direct, f"{prefix}.twin")
    act.before(twin)
    expected = act.call(direct, twin)
    ended = twin.state()
    for place, (plan, described) in enumerate(_places(trial, proxy)):
        trial.begin_case()
        scene = Scene(direct, f"{prefix}.{place}")
        act.before(scene)
        before = scene.state()
        trial.say(f"{name}, {described}")
        said = _attempt(trial, lambda scene=scene: act.call(runner, scene), name)  # type: ignore[misc]
        proxy.plan = Deliver()
        if said == "unavailable":
            same = scene.state() == before
            trial.expect("O1", same, f"{name} was called unavailable, but has changed {before} to {scene.state()}")
        if said == "unknown":
            trial.expect("O1", plan.hit and act.writes, f"{name} was called unknown, though nothing was at stake")
        answer = act.call(runner, scene)
        trial.say(f"{name} again -> {answer}")
        if act.repeatable:
            trial.expect("G7", answer == expected, f"{name} sent again answers {answer}, once it would be {expected}")
        trial.expect(
            "G7", scene.state() == ended, f"{name} sent again leaves {scene.state()}, once it would be {ended}"
        )


def _cut_opening(trial: Trial, direct: Runner, proxy: Proxy) -> None:
    """A store that cannot be opened says that it is unavailable, and can be opened afterwards."""
    for _, described in _places(trial, proxy):
        trial.begin_case()
        trial.say(f"open, {described}")
        _attempt(trial, lambda: opened(trial.harness, direct, proxy.address).close(), "open")
        proxy.plan = Deliver()
        opened(trial.harness, direct, proxy.address).close()


def _attempt(trial: Trial, call: Callable[[], object], name: str) -> str:
    """What came out: ``answered``, ``unavailable`` or ``unknown``; any other error is wrong."""
    try:
        call()
    except StoreUnavailable as error:
        said, text = "unavailable", str(error)
    except OutcomeUnknown as error:
        said, text = "unknown", str(error)
    except Exception as error:
        trial.say(f"{name} -> {error!r}")
        raise trial.blame(error, name) from error
    else:
        said, text = "answered", ""
    trial.tally.add("G16")
    trial.say(f"{name} -> {said} {text}")
    return said


CUTS_EVERYWHERE = Property(
    id="messages.cuts",
    statement="A connection cut at any message of any operation is told as ours, and sending again is doing it once.",
    guarantees=("G7", "G16", "O1"),
    experiment=cut_everywhere,
    network=True,
)
