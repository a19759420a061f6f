"""A deployment's services, as processes: who gets in, what survives, and a backup restored."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from im_resources.warehouse import Warehouse
from tests.deploy.stack import (
    JSON,
    NEW_SEEDS,
    PASSWORD,
    USER,
    SignedIn,
    Stack,
    deployment,
    missing,
    write_automated,
)
from tests.webserver import ASSETS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
SEEDS = [f"seed-{number:03d}" for number in range(8)]
VERSION = b'{"query": "{ version }"}'


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("deployment")
    with deployment(folder, write_automated(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def ui(stack: Stack) -> SignedIn:
    return SignedIn(stack)


@pytest.fixture(scope="module")
def first_run(ui: SignedIn) -> str:
    """A finished run of the whole study."""
    assert ui.finished(ui.launch_job("data")) == "SUCCESS"
    run = ui.launch_job("study", SEEDS)
    assert ui.finished(run) == "SUCCESS"
    return run


def test_nobody_gets_in_without_the_password(stack: Stack) -> None:
    assert stack.request(user=None) == (401, "")
    assert stack.request("/graphql", VERSION, JSON, user=None) == (401, "")
    assert stack.request(user=(USER, "another password"))[0] == 401
    assert stack.request(user=("nobody", PASSWORD))[0] == 401
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
    assert stack.request("/graphql", headers=upgrade, user=None)[0] == 401


def test_who_has_the_password_gets_the_ui(stack: Stack) -> None:
    status, page = stack.request()
    assert (status, "nextExport" in page) == (200, True)
    status, answer = stack.request("/graphql", VERSION, {"Origin": stack.site, **JSON})
    assert (status, answer) == (200, '{"data":{"version":"1.13.27"}}')


def test_a_page_of_another_site_acts_on_nothing_even_where_somebody_signed_in(
    stack: Stack,
) -> None:
    # A browser that signed in sends the password along with what any page asks for.
    foreign = {"Origin": "https://evil.example", **JSON}
    assert stack.request("/graphql", VERSION, foreign)[0] == 403
    assert stack.request("/graphql", VERSION, {"Content-Type": "text/plain"})[0] == 403
    assert stack.request("/graphql?query=%7Bversion%7D")[0] == 403
    assert stack.request(headers={"Host": "evil.example"})[0] == 421
    assert stack.request("/graphql", VERSION, {"Host": "evil.example", **JSON})[0] == 421


def test_the_password_is_kept_nowhere(stack: Stack) -> None:
    secret = (stack.folder / "run" / "secrets" / "PGPASSWORD").read_text(encoding="utf-8")
    files = [p for p in stack.folder.rglob("*") if p.is_file() and "secrets" not in p.parts]
    assert files
    for path in files:
        content = path.read_bytes()
        assert PASSWORD.encode() not in content, path
        assert secret.encode() not in content, path


def test_what_lands_is_taken_in_and_refitted_on(stack: Stack, ui: SignedIn, first_run: str) -> None:
    assert stack.fitted() == len(SEEDS)
    before = stack.warehouse.read_table("finetuned_adapters").set_index("trial_id").seconds
    stack.land("food", "more.jsonl")
    stack.wait(lambda: not list(stack.landing.glob("*/*")), "the file to leave the folder")
    stack.wait(lambda: len(ui.runs("data")) == 2, "the run that takes it in")
    landed, *_ = ui.runs("data")
    assert ui.finished(landed) == "SUCCESS"
    ledger = stack.warehouse.read_table("landed_files")
    assert ledger[["target", "name", "status", "usable"]].values.tolist() == [
        ["food", "more.jsonl", "admitted", 12]
    ]
    seeds = stack.warehouse.read_table("mixture_seeds")
    assert seeds["refit"].sum() == NEW_SEEDS
    stack.wait(lambda: len(ui.runs("study")) == 2, "the refit")
    refit, *_ = ui.runs("study")
    assert ui.finished(refit) == "SUCCESS"
    assert stack.fitted() == len(SEEDS) + NEW_SEEDS
    # What was trained before was found, not trained again.
    after = stack.warehouse.read_table("finetuned_adapters").set_index("trial_id").seconds
    assert len(after) == len(SEEDS) + NEW_SEEDS
    assert after[before.index].equals(before)


def test_a_killed_daemon_costs_no_run(stack: Stack, ui: SignedIn, first_run: str) -> None:
    going_on = ui.launch_job("study", SEEDS[:2])
    stack.wait(lambda: ui.status(going_on) == "STARTED", "the run to start")
    stack.end("daemon", how=signal.SIGKILL)
    waiting = ui.launch_job("data")
    assert ui.finished(going_on) == "SUCCESS"  # it lives in the code location
    assert ui.status(waiting) == "QUEUED"
    stack.start("daemon")
    assert ui.finished(waiting) == "SUCCESS"


def test_a_killed_code_location_blocks_nothing(stack: Stack, ui: SignedIn, first_run: str) -> None:
    going_on = ui.launch_job("study", SEEDS[:2])
    stack.wait((stack.volumes / "logs" / "running" / going_on).exists, "the run to begin")
    stack.end("code", how=signal.SIGKILL)
    assert ui.status(going_on) == "STARTED"  # as far as anybody knows
    stack.start("code")
    assert ui.finished(going_on) == "FAILURE"
    stack.wait(lambda: ui.ask(ASSETS)["assetNodes"], "the webserver to find the code location")
    assert ui.finished(ui.launch_job("study", SEEDS[:1])) == "SUCCESS"


def test_a_backup_brings_everything_back(stack: Stack, ui: SignedIn, first_run: str) -> None:
    home = stack.volumes / "home" / "tiny"
    runs = ui.at_rest()
    before = tables(stack.warehouse)
    backups = stack.folder / "backups"
    # Made while a run is going on, which adds no rows that are not there.
    going_on = ui.launch_job("study", SEEDS)
    stack.wait(lambda: ui.status(going_on) == "STARTED", "the run to start")
    made = stack.run("backup", "python", "-m", "im_resources.backup", "create", str(backups))
    assert made.returncode == 0, made.stderr
    (backup,) = backups.iterdir()

    restore = ("python", "-m", "im_resources.backup", "restore", str(backup))
    refused = stack.run("backup", *restore)
    assert (refused.returncode, "is in use" in refused.stderr) == (1, True), refused.stderr

    stack.end("webserver", "daemon", "code")
    shutil.rmtree(home)
    stack.psql("dagster", "TRUNCATE runs CASCADE; TRUNCATE event_logs")
    restored = stack.run("backup", *restore)
    assert restored.returncode == 0, restored.stderr
    stack.start("code")
    stack.start("webserver", "daemon")

    after = ui.runs()
    assert {run: after[run] for run in runs} == runs
    assert after[going_on] == "FAILURE"  # its process is not in a backup
    found = tables(stack.warehouse)
    assert found.keys() == before.keys()
    for name, table in before.items():
        pd.testing.assert_frame_equal(found[name], table, obj=name)
    assert ui.events(first_run)
    # Adapters are there, too: the study again, and nothing is trained.
    again = ui.launch_job("study", SEEDS[:2])
    assert ui.finished(again) == "SUCCESS"
    seconds = pd.concat(
        [before["finetuned_adapters"], tables(stack.warehouse)["finetuned_adapters"]]
    )
    assert seconds.groupby("trial_id").seconds.nunique().eq(1).all()


def test_a_damaged_backup_is_refused(stack: Stack, first_run: str, tmp_path: Path) -> None:
    made = stack.run("backup", "python", "-m", "im_resources.backup", "create", str(tmp_path))
    assert made.returncode == 0, made.stderr
    backup = Path(made.stdout.strip())
    (backup / "study" / "quality_rule.json").write_text("{}", encoding="utf-8")
    for command in ("verify", "restore"):
        done = stack.run("backup", "python", "-m", "im_resources.backup", command, str(backup))
        assert done.returncode == 1
        assert "quality_rule.json is not what was backed up" in done.stderr


def tables(store: Warehouse) -> dict[str, pd.DataFrame]:
    """All tables, in an order of their own content."""
    names = store.query(
        "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'main'"
    )
    found = {}
    for name in names["name"]:
        table = store.read_table(name)
        found[name] = table.sort_values(
            list(table.columns), key=lambda c: c.astype(str)
        ).reset_index(drop=True)
    return found
