"""Promoted versions take over when they are right, in every worker at once, and never when they are not."""

import gc
import shutil
import threading
import time
import weakref

import pytest
from doubling import LOADERS, Doubler, champion_of, damage_array, export
from served import Client, served

from serving import app, models, swap, trial, verdicts
from serving.models import Models, Serving, load_champions
from serving.settings import Settings
from serving.swap import Watcher
from serving.trial import Trial


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(swap, "LEAD_S", 0.0)
    for version, value in (("1", 1.0), ("2", 2.0), ("3", 3.0)):
        models.publish(tmp_path, "mini", "recommend", version, export(tmp_path / "export", value))
    models.point_champion(tmp_path, "mini", "recommend", "1")
    return tmp_path


def no_room(verdict, folder):
    raise OSError(28, "No space left on device")


def fine(task, folder, requests):
    return Trial("", 0.0)


class Tried:
    """Finds a fault or none, and remembers what it was asked to try."""

    def __init__(self, fault=""):
        self.fault = fault
        self.versions = []
        self.requests = []

    def __call__(self, task, folder, requests):
        self.versions.append(folder.name)
        self.requests = list(requests)
        return Trial(self.fault, 0.0)


def worker(home, try_out=fine):
    serving = Serving(load_champions(home, "mini", LOADERS))
    return serving, Watcher(serving, home, LOADERS, try_out)


def see(*watchers):
    """What is promoted is tried at the first look and taken in at the second."""
    for _ in range(2):
        for watcher in watchers:
            watcher.look()


def version(serving):
    return serving.models.served["recommend"].version


def test_what_is_promoted_takes_over_and_goes_back(home):
    serving, watcher = worker(home)
    for promoted in ("2", "1", "3"):
        models.point_champion(home, "mini", "recommend", promoted)
        see(watcher)
        assert version(serving) == promoted
        assert serving.models.served["recommend"].answer({"index": 0}) == {"doubled": 2.0 * int(promoted)}


def test_a_version_is_tried_once_for_all_workers_and_all_take_it(home):
    try_out = Tried()
    workers = [worker(home, try_out) for _ in range(3)]
    models.point_champion(home, "mini", "recommend", "2")
    see(*(watcher for _, watcher in workers))
    assert [version(serving) for serving, _ in workers] == ["2", "2", "2"]
    assert try_out.versions == ["2"]


def test_all_workers_change_at_the_moment_that_the_verdict_names(home, monkeypatch):
    monkeypatch.setattr(swap, "LEAD_S", 0.6)
    changed = []

    class Noting(Serving):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "models" and value.served["recommend"].version == "2" and self not in [w for w, _ in changed]:
                changed.append((self, time.time()))

    workers = [Noting(load_champions(home, "mini", LOADERS)) for _ in range(3)]
    watchers = [Watcher(serving, home, LOADERS, fine) for serving in workers]
    models.point_champion(home, "mini", "recommend", "2")
    watchers[0].look()
    threads = [threading.Thread(target=watcher.look) for watcher in watchers]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    moments = [at for _, at in changed]
    since = verdicts.Verdict.read(models.folder_of(home, "mini", "recommend")).since
    assert len(moments) == 3
    assert since <= min(moments)
    assert max(moments) - min(moments) < 0.1


def test_what_fails_its_trial_never_serves_and_the_reason_is_told(home):
    serving, watcher = worker(home, Tried("it answers nonsense"))
    other, other_watcher = worker(home, Tried("it answers nonsense"))
    models.point_champion(home, "mini", "recommend", "2")
    see(watcher, other_watcher)
    for each in (serving, other):
        assert version(each) == "1"
        told = Client(app.build(each, Settings())).get("/metrics").text
        assert 'shopkeeper_model_refused{task="recommend",version="2"} 1.0' in told
    assert serving.models.refused["recommend"].fault == "it answers nonsense"


def test_a_refused_version_is_told_by_the_list_of_models():
    whole = Models("mini", {"recommend": served("recommend", None)})
    verdict = verdicts.Verdict(verdicts.Asked("8", 1), "golden request 0 is answered otherwise", "7")
    client = Client(app.build(Serving(whole.judged("recommend", verdict)), Settings()))
    told = client.get("/v1/models").json()
    assert [model["version"] for model in told["models"]] == ["7"]
    reason = "golden request 0 is answered otherwise"
    assert told["refused"] == [{"task": "recommend", "version": "8", "reason": reason}]


def test_a_refused_version_is_not_tried_again_until_it_is_promoted_again(home):
    try_out = Tried("broken")
    serving, watcher = worker(home, try_out)
    models.point_champion(home, "mini", "recommend", "2")
    see(watcher)
    see(watcher)
    assert try_out.versions == ["2"]
    try_out.fault = ""
    models.point_champion(home, "mini", "recommend", "2")
    see(watcher)
    assert (try_out.versions, version(serving), serving.models.refused) == (["2", "2"], "2", {})


def test_going_back_after_a_refusal_clears_it(home):
    serving, watcher = worker(home, Tried("broken"))
    models.point_champion(home, "mini", "recommend", "2")
    see(watcher)
    models.point_champion(home, "mini", "recommend", "1")
    watcher = Watcher(serving, home, LOADERS, fine)
    see(watcher)
    assert (version(serving), serving.models.refused) == ("1", {})


def test_promoting_what_serves_already_tries_nothing(home):
    try_out = Tried()
    _, watcher = worker(home, try_out)
    models.point_champion(home, "mini", "recommend", "1")
    see(watcher)
    assert try_out.versions == []


def test_the_first_version_of_a_task_takes_over_too(home):
    serving, watcher = worker(home)
    assert "demand" in serving.models.absent
    champion_of(home, export(home / "export", task="demand"), task="demand")
    see(watcher)
    assert serving.models.served["demand"].version == "1"
    assert "demand" not in serving.models.absent


def test_a_version_is_tried_with_what_the_one_before_was_asked(home):
    try_out = Tried()
    serving, watcher = worker(home, try_out)
    for index in range(2):
        serving.models.served["recommend"].answer({"index": index})
    models.point_champion(home, "mini", "recommend", "2")
    see(watcher)
    assert try_out.requests == [{"index": 0}, {"index": 1}]
    assert list(serving.models.served["recommend"].recent) == try_out.requests


def test_while_another_worker_tries_nobody_else_does(home):
    try_out = Tried()
    _, watcher = worker(home, try_out)
    models.point_champion(home, "mini", "recommend", "2")
    with swap._lock(models.folder_of(home, "mini", "recommend") / ".trial.lock") as is_held:
        assert is_held
        watcher.look()
    assert try_out.versions == []


def test_a_start_after_a_refusal_serves_what_served_before(home):
    _, watcher = worker(home, Tried("broken"))
    models.point_champion(home, "mini", "recommend", "2")
    see(watcher)
    serving, _ = worker(home)
    assert version(serving) == "1"
    assert serving.models.refused["recommend"].fault == "broken"


def test_a_start_with_a_damaged_version_serves_the_one_before(home):
    _, watcher = worker(home)
    models.point_champion(home, "mini", "recommend", "2")
    see(watcher)
    damage_array(models.champion(home, "mini", "recommend"))
    serving, _ = worker(home)
    assert version(serving) == "1"
    assert "differs from its checksum" in serving.models.refused["recommend"].fault


def test_what_was_promoted_while_nobody_served_is_tried_at_the_start(home):
    worker(home)
    models.point_champion(home, "mini", "recommend", "3")
    damage_array(models.champion(home, "mini", "recommend"))
    serving, _ = worker(home)
    assert version(serving) == "1"
    assert serving.models.refused["recommend"].asked.version == "3"


def test_a_version_that_is_gone_when_it_is_to_serve_leaves_the_old_one(home):
    serving, watcher = worker(home)
    models.point_champion(home, "mini", "recommend", "2")
    watcher.look()
    shutil.rmtree(models.champion(home, "mini", "recommend"))
    watcher.look()
    assert version(serving) == "1"
    assert "this worker cannot load" in serving.models.refused["recommend"].fault


def test_a_disk_without_room_leaves_the_old_version_and_is_tried_again(home, monkeypatch):
    try_out = Tried()
    serving, watcher = worker(home, try_out)
    models.point_champion(home, "mini", "recommend", "2")
    with monkeypatch.context() as patch:
        patch.setattr(verdicts.Verdict, "write", no_room)
        with pytest.raises(OSError, match="No space"):
            watcher.look()
    assert version(serving) == "1"
    see(watcher)
    assert version(serving) == "2"


def test_a_version_that_is_replaced_leaves_no_memory_behind(home):
    serving, watcher = worker(home)
    gone = weakref.ref(serving.models.served["recommend"].scorer)
    models.point_champion(home, "mini", "recommend", "2")
    gc.disable()
    try:
        see(watcher)
        assert gone() is None
    finally:
        gc.enable()


def test_a_trial_in_a_process_of_its_own_finds_what_is_damaged(home):
    folder = models.folder_of(home, "mini", "recommend") / "2"
    damage_array(folder)
    assert "differs from its checksum" in trial.tried("recommend", folder, []).fault


def test_a_trial_that_dies_is_a_fault(home, monkeypatch):
    monkeypatch.setattr(trial.sys, "executable", "/bin/false")
    folder = models.folder_of(home, "mini", "recommend") / "2"
    assert "ended with 1" in trial.tried("recommend", folder, []).fault


def test_a_trial_that_takes_too_long_is_a_fault(home, monkeypatch):
    monkeypatch.setattr(trial, "LONGEST_S", 0.05)
    folder = models.folder_of(home, "mini", "recommend") / "2"
    assert "longer than 0.05 s" in trial.tried("recommend", folder, []).fault


class Fails(Doubler):
    def answer(self, request):
        if request["index"] == 1:
            raise KeyError("colour")
        return super().answer(request)


class NotANumber(Doubler):
    def answer(self, request):
        return super().answer(request) if request["index"] != 1 else {"scores": [{"score": float("nan")}]}


@pytest.mark.parametrize(
    ("scorer", "fault"), [(Doubler, ""), (Fails, "a request of late fails: KeyError"), (NotANumber, "a number that is")]
)
def test_a_trial_asks_what_was_asked_of_late(home, monkeypatch, scorer, fault):
    monkeypatch.setattr(trial, "LOADERS", {"recommend": scorer})
    folder = models.folder_of(home, "mini", "recommend") / "2"
    found = trial.main("recommend", folder, [{"index": 0}, {"index": 1}]).fault
    assert bool(found) == bool(fault)
    assert fault in found
