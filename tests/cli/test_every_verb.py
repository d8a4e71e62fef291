"""Every verb in a process of its own, against a queue that idles and one that others work on."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import jobq
from jobq.job import JobRecord
from tests.cli.conftest import ROOT, TIME_LIMIT_S, all_verbs, environment, run
from tests.crash.conftest import Say

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def idle_queue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("idle") / "queue"
    jobq.open(path, durability="unsafe").close()
    return path


@pytest.fixture(scope="module")
def busy_queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A queue that three processes work on: they are there, and sound, from first to last."""
    path = tmp_path_factory.mktemp("busy") / "queue"
    jobq.open(path, durability="unsafe").close()
    crowd = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.cli.crowd", str(path), role],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for role in ("enqueue", "work", "meddle")
    ]
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
    yield path
    for process in crowd:
        assert process.poll() is None, "one of the crowd has ended early"
        process.terminate()
    rounds = [int(process.communicate(timeout=TIME_LIMIT_S)[0]) for process in crowd]
    assert [process.returncode for process in crowd] == [0, 0, 0]
    assert min(rounds) > 0
    with jobq.open(path) as svc:
        assert svc.check().problems == ()


# That verbs work on a queue of their own is what all other tests of the command line show.
@pytest.fixture(params=["idle_queue", "busy_queue"])
def queue(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def jq(queue: Path, *args: str, status: int = 0, stdin: str = "") -> str:
    """What `jobq` prints, in a process of its own."""
    ended = run("--db", queue, *args, stdin=stdin.encode())
    assert ended.returncode == status, ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()
    return ended.stdout.decode()


def job(queue: Path, job_id: str) -> JobRecord:
    with jobq.open(queue, create=False) as svc:
        return svc.get(job_id)


def mine(queue: Path, *options: str, topic: str = "mine") -> str:
    """A job that nobody else touches."""
    return jq(queue, "jobs", "enqueue", topic, '{"to": "ann"}', "--name", "mine", *options).strip()


def init(queue: Path) -> None:
    assert "already" in jq(queue, "init")


def stats(queue: Path) -> None:
    mine(queue)
    told = json.loads(jq(queue, "stats", "--json"))
    one = json.loads(jq(queue, "stats", "mine", "--json"))

    assert sum(topic["ready"] for topic in told["topics"]) == told["totals"]["ready"] > 0
    assert [topic["name"] for topic in one["topics"]] == ["mine"]
    assert "total" in jq(queue, "stats")


def topics_list(queue: Path) -> None:
    mine(queue)
    names = [json.loads(line)["name"] for line in jq(queue, "topics", "--json").splitlines()]

    assert "mine" in names
    assert names == sorted(names)
    assert "mine" in jq(queue, "topics")
    assert "mine" in jq(queue, "topics", "list")


def check(queue: Path) -> None:
    assert json.loads(jq(queue, "check", "--json"))["ok"]
    assert "no problem found" in jq(queue, "check", "--repair")


def bench(queue: Path) -> None:
    told = json.loads(jq(queue, "bench", str(queue.parent), "--seconds", "0.1", "--json"))
    assert [one["batch"] for one in told["lives"]] == [1, 10, 100, 1000]


def topics_configure(queue: Path) -> None:
    args = ("topics", "configure", "set", "--max-done", "3", "--rate", "100/1m", "--json")
    assert json.loads(jq(queue, *args)) == {"max_done": 3, "rate": [100, 60.0]}


def topics_limits(queue: Path) -> None:
    mine(queue, topic="limited")
    jq(queue, "topics", "configure", "limited", "--max-jobs", "9")
    told = json.loads(jq(queue, "topics", "limits", "limited", "--json"))
    assert (told["jobs"], told["settings"]) == (1, {"max_jobs": 9})
    assert "1 of 9" in jq(queue, "topics", "limits", "limited")


def topics_release(queue: Path) -> None:
    with jobq.open(queue, create=False) as svc:
        svc.configure("lingers", concurrency=2)
        svc.enqueue("lingers")
        svc.reserve("lingers", timeout=5)
        assert svc.select(topic="lingers").cancel().changed == 1
        assert jq(queue, "topics", "release", "lingers") == "released: 1 place\n"


def topics_pause(queue: Path) -> None:
    mine(queue, topic="paused")
    assert jq(queue, "topics", "pause", "paused") == "paused paused\n"
    jq(queue, "work", "paused", "--drain", "--exec", "false")
    with jobq.open(queue, create=False) as svc:
        assert svc.stats("paused").topics[0].ready == 1


def topics_resume(queue: Path) -> None:
    mine(queue, topic="on")
    jq(queue, "topics", "pause", "on")
    assert jq(queue, "topics", "resume", "on") == "on resumed\n"
    assert jq(queue, "work", "on", "--drain", "--quiet", "--exec", "true") == ""
    with jobq.open(queue, create=False) as svc:
        assert svc.stats("on").topics[0].done == 1


def topics_drain(queue: Path) -> None:
    mine(queue, topic="drains")
    jq(queue, "topics", "drain", "drains", "--timeout", "10ms", status=1)
    jq(queue, "jobs", "enqueue", "drains", status=1)
    jq(queue, "work", "drains", "--drain", "--quiet", "--exec", "true")
    assert jq(queue, "topics", "drain", "drains") == "drains drained\n"


def groups_list(queue: Path) -> None:
    mine(queue, "--group", "ann", topic="grouped")
    told = json.loads(jq(queue, "groups", "list", "grouped", "--json"))
    assert (told["group"], told["ready"]) == ("ann", 1)
    assert "ann" in jq(queue, "groups", "list", "grouped")


def groups_release(queue: Path) -> None:
    mine(queue, "--group", "bob", topic="released")
    assert jq(queue, "groups", "release", "released", "bob") == "bob released\n"
    jq(queue, "groups", "release", "released", "eve", status=3)


def keys_list(queue: Path) -> None:
    job_id = mine(queue, "--unique", "a key")
    lines = [json.loads(line) for line in jq(queue, "keys", "list", "--json").splitlines()]
    assert {"key": "a key", "job_id": job_id, "until": None} in lines
    assert "a key" in jq(queue, "keys", "list")


def keys_release(queue: Path) -> None:
    first = mine(queue, "--unique", "once")
    assert mine(queue, "--unique", "once") == first
    assert jq(queue, "keys", "release", "once") == "once released\n"
    assert mine(queue, "--unique", "once") != first


def purge(queue: Path) -> None:
    job_ids = [mine(queue, topic="to purge") for _ in range(2)]
    jq(queue, "purge", "to purge", status=2)
    assert jq(queue, "purge", "to purge", "--yes") == "purged: 2 jobs\n"
    assert jq(queue, "jobs", "show", job_ids[0], status=3) == ""


def export(queue: Path) -> None:
    job_id = mine(queue)
    lines = [json.loads(line) for line in jq(queue, "export").splitlines()]

    exported = [line["id"] for line in lines if line["kind"] == "job"]

    assert lines[-1] == {"kind": "end", "jobs": len(exported)}
    assert job_id in exported


def backup(queue: Path) -> None:
    job_id = mine(queue)
    file = queue.parent / f"backup-{job_id}"
    told = json.loads(jq(queue, "backup", str(file), "--json"))
    assert told["path"] == str(file)
    assert told["jobs"] > 0
    jq(queue, "backup", str(file), status=1)


def restore(queue: Path) -> None:
    job_id = mine(queue)
    file, path = queue.parent / f"to-restore-{job_id}", queue.parent / f"restored-{job_id}"
    jq(queue, "backup", str(file))
    assert "restored" in jq(queue, "restore", str(file), str(path))
    assert job(path, job_id).id == job_id
    jq(path, "restore", str(file), status=1)
    jq(path, "restore", str(file), "--replace", status=2)
    assert "restored" in jq(path, "restore", str(file), "--replace", "--yes")


def compact(queue: Path) -> None:
    job_id = mine(queue)
    file, path = queue.parent / f"to-compact-{job_id}", queue.parent / f"compacted-{job_id}"
    jq(queue, "backup", str(file))
    jq(queue, "restore", str(file), str(path))
    assert "compacted" in jq(path, "compact")
    with jobq.open(queue):
        jq(queue, "compact", status=5)


def doctor(queue: Path) -> None:
    assert json.loads(jq(queue, "doctor", "--deep", "--json"))["ok"]
    assert "all is well" in jq(queue, "doctor")


def import_(queue: Path) -> None:
    job_id = mine(queue)
    exported = jq(queue, "export")
    jq(queue, "jobs", "delete", job_id)
    told = jq(queue, "import", stdin=exported)

    assert re.fullmatch(r"imported \d+ jobs?, [\d,]+ were there already\n", told)
    assert job(queue, job_id).payload == {"to": "ann"}


def work(queue: Path) -> None:
    good, bad = (mine(queue, "--min-backoff", "1h", topic="work") for _ in range(2))
    printed = jq(
        queue,
        *["work", "work", "--drain", "-n", "2", "--exec", "sh", "-c"],
        f'cat; [ "$JOBQ_ID" = {good} ]',
    )

    assert printed.count('{"to": "ann"}') == 2
    assert (job(queue, good).status, job(queue, bad).status) == ("done", "delayed")
    assert job(queue, bad).error == "exit status 1"
    jq(queue, "jobs", "cancel", bad)


def jobs_list(queue: Path) -> None:
    job_id = mine(queue)
    lines = jq(queue, "jobs", "list", "--limit", "0").splitlines()
    told = [
        json.loads(line) for line in jq(queue, "jobs", "list", "-n", "0", "--json").splitlines()
    ]
    named = jq(queue, "jobs", "list", "--name", "mine", "-t", "mine", "-s", "ready", "-n", "0")

    assert all(re.match(UUID, line) for line in lines[1:])
    assert job_id in {line[:36] for line in lines}
    assert [one["id"] for one in told] == sorted(one["id"] for one in told)
    assert job_id in named


def jobs_show(queue: Path) -> None:
    job_id = mine(queue)
    assert json.loads(jq(queue, "jobs", "show", job_id[9:], "--json"))["payload"] == {"to": "ann"}
    assert jq(queue, "jobs", "show", job_id).startswith(f"id           {job_id}\n")


def jobs_logs(queue: Path) -> None:
    job_id = mine(queue, topic="logs")
    jq(queue, "work", "logs", "--drain", "--quiet", "--exec", "echo", "hello")
    assert json.loads(jq(queue, "jobs", "logs", job_id, "--json"))["text"] == "hello"
    assert jq(queue, "jobs", "logs", job_id, "--follow").endswith("  hello\n")


def jobs_wait(queue: Path) -> None:
    job_id = mine(queue, topic="awaited")
    jq(queue, "jobs", "wait", job_id, "--timeout", "10ms", status=1)
    jq(queue, "work", "awaited", "--drain", "--quiet", "--result", "json", "--exec", "cat")
    assert jq(queue, "jobs", "wait", job_id) == f"{job_id} done\n"
    assert json.loads(jq(queue, "jobs", "wait", job_id, "--json"))["result"] == {"to": "ann"}


def jobs_enqueue(queue: Path) -> None:
    printed = jq(
        queue, "jobs", "enqueue", "lines", "--lines", stdin="\n".join(map(str, range(3000)))
    )
    job_ids = printed.split()

    assert len(set(job_ids)) == 3000
    assert job_ids == sorted(job_ids)
    assert job(queue, job_ids[-1]).payload == 2999
    assert jq(queue, "purge", "lines", "--yes") == "purged: 3,000 jobs\n"


def jobs_edit(queue: Path) -> None:
    job_id = mine(queue)
    jq(queue, "jobs", "edit", job_id, "--weight", "5", "--topic", "moved")
    assert (job(queue, job_id).weight, job(queue, job_id).topic) == (5, "moved")


def jobs_move(queue: Path) -> None:
    first, second = (mine(queue, topic="from") for _ in range(2))
    assert jq(queue, "jobs", "move", first, "--to", "there") == f"{first} moved to there\n"
    assert jq(queue, "jobs", "move", "-t", "from", "--to", "there", "--yes") == (
        "moved to there: 1 job\n"
    )
    assert job(queue, second).topic == "there"


def jobs_cancel(queue: Path) -> None:
    first, second, third = (mine(queue, topic="cancel") for _ in range(3))
    assert jq(queue, "jobs", "cancel", first[-16:]) == f"{first} canceled\n"
    jq(queue, "jobs", "cancel", "-t", "cancel", status=2)
    jq(queue, "jobs", "cancel", "-t", "cancel", "--dry-run")
    assert jq(queue, "jobs", "cancel", "-t", "cancel", "--yes") == "canceled: 2 jobs\n"
    assert {str(job(queue, one).status) for one in (first, second, third)} == {"canceled"}


def jobs_retry(queue: Path) -> None:
    job_id = mine(queue, topic="retry")
    jq(queue, "jobs", "retry", job_id, status=1)
    jq(queue, "jobs", "cancel", job_id)
    assert jq(queue, "jobs", "retry", "--topic", "retry", "--yes") == "ready: 1 job\n"
    assert job(queue, job_id).resets == 1


def jobs_delete(queue: Path) -> None:
    first, second = (mine(queue, topic="delete") for _ in range(2))
    assert jq(queue, "jobs", "delete", first) == f"{first} deleted\n"
    assert jq(queue, "jobs", "delete", "-t", "delete", "--yes") == "deleted: 1 job\n"
    jq(queue, "jobs", "delete", second, status=3)


def rejected(queue: Path, topic: str) -> str:
    """A dead letter that nobody else touches."""
    job_id = mine(queue, topic=topic)
    with jobq.open(queue, create=False) as svc:
        (held,) = svc.reserve(topic, timeout=5)
        held.cancel("rejected", "no such user")
    return job_id


def dead_list(queue: Path) -> None:
    job_id = rejected(queue, "dead-list")
    listed = jq(queue, "dead", "list", "-t", "dead-list", "--with-error", "such user", "--json")
    assert json.loads(listed)["id"] == job_id
    assert "rejected: no such user" in jq(queue, "dead", "list", "-t", "dead-list")


def dead_retry(queue: Path) -> None:
    job_id = rejected(queue, "dead-retry")
    args = ("dead", "retry", "-t", "dead-retry", "--rate", "1000")
    jq(queue, *args, status=2)
    assert jq(queue, *args, "--yes") == "ready: 1 job\n"
    assert job(queue, job_id).resets == 1


def dead_purge(queue: Path) -> None:
    job_id = rejected(queue, "dead-purge")
    args = ("dead", "purge", "-t", "dead-purge", "--reason", "rejected")
    jq(queue, *args, "--dry-run")
    assert jq(queue, *args, "--yes") == "purged: 1 job\n"
    jq(queue, "jobs", "show", job_id, status=3)


VERBS: dict[str, Callable[[Path], None]] = {
    "init": init,
    "stats": stats,
    "topics list": topics_list,
    "topics configure": topics_configure,
    "topics limits": topics_limits,
    "topics release": topics_release,
    "topics pause": topics_pause,
    "topics resume": topics_resume,
    "topics drain": topics_drain,
    "groups list": groups_list,
    "groups release": groups_release,
    "keys list": keys_list,
    "keys release": keys_release,
    "backup": backup,
    "restore": restore,
    "compact": compact,
    "check": check,
    "doctor": doctor,
    "bench": bench,
    "purge": purge,
    "export": export,
    "import": import_,
    "work": work,
    "jobs list": jobs_list,
    "jobs show": jobs_show,
    "jobs logs": jobs_logs,
    "jobs wait": jobs_wait,
    "jobs enqueue": jobs_enqueue,
    "jobs edit": jobs_edit,
    "jobs move": jobs_move,
    "jobs cancel": jobs_cancel,
    "jobs retry": jobs_retry,
    "jobs delete": jobs_delete,
    "dead list": dead_list,
    "dead retry": dead_retry,
    "dead purge": dead_purge,
}


SAMPLE = 6
"""Verbs of the short form, by chance. The crowd takes what there is of a machine, in each of the
processes that run tests beside one another: so that is one test, and not one for each verb."""


def test_some_verbs_work_in_a_process_of_their_own(busy_queue: Path, seed: int, say: Say) -> None:
    for verb in random.Random(seed).sample(list(VERBS), SAMPLE):
        say(verb)
        VERBS[verb](busy_queue)


@pytest.mark.storm
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_works_in_a_process_of_its_own(queue: Path, verb: str) -> None:
    VERBS[verb](queue)


def test_no_verb_is_missing_here() -> None:
    assert set(all_verbs()) == set(VERBS)
