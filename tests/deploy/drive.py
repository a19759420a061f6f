"""``python -m tests.deploy.drive FOLDER``: a deployment driven through a browser, once, by itself.

Signs in, looks at the assets, starts a backfill of the study with the UI's buttons, kills the
daemon while it runs, starts it again, and restores a backup; a screenshot of each in FOLDER. Needs
Chromium, and playwright, which is no dependency of the project: pip install playwright.
"""

import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.deploy.stack import PASSWORD, USER, SignedIn, Stack, deployment, missing
from tests.language_model.models import write_model
from tests.study import write_profile

CHROMIUM = "/usr/bin/chromium"
BACKFILLS = "{ partitionBackfillsOrError { ... on PartitionBackfills { results { status } } } }"
JOBS = "/locations/instruction_mining/jobs"


def main() -> None:
    """Drive a deployment of a tiny study; exits with an error at the first thing that is wrong."""
    from playwright.sync_api import sync_playwright

    if why := missing():
        raise SystemExit(why)
    shots = Path(sys.argv[1])
    shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="im-drive-") as name, sync_playwright() as playwright:
        folder = Path(name)
        profile = write_profile(folder, write_model(folder / "model"))
        with deployment(folder, profile) as stack:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            options: dict[str, Any] = {
                "ignore_https_errors": True,  # of the proxy's own authority, which Chromium has not
                "viewport": {"width": 1400, "height": 900},
            }
            status = browser.new_context(**options).request.get(stack.site).status
            assert status == 401, status
            page = browser.new_context(
                **options, http_credentials={"username": USER, "password": PASSWORD}
            ).new_page()
            page.set_default_timeout(120_000)
            drive(stack, page, shots)
            browser.close()


def drive(stack: Stack, page: Any, shots: Path) -> None:
    """What a person does, one step after the other."""
    ui = SignedIn(stack)

    def shot(name: str) -> None:
        page.wait_for_timeout(2_000)
        page.screenshot(path=shots / f"{name}.png")
        print(name, page.url, flush=True)

    page.goto(f"{stack.site}/asset-groups")
    page.get_by_text("candidates").first.wait_for()
    shot("1-signed-in")

    page.goto(f"{stack.site}{JOBS}/data")
    page.get_by_role("button", name="Materialize all").click()
    stack.wait(ui.runs, "the run that the button launched")
    assert ui.finished(*ui.runs()) == "SUCCESS"
    page.goto(f"{stack.site}{JOBS}/study")
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_role("button", name="All", exact=True).click()
    shot("2-partitions")
    page.get_by_role("button", name="Launch backfill").click()
    stack.wait(lambda: "STARTED" in ui.runs().values(), "a run of the backfill to start")
    stack.end("daemon", signal.SIGKILL)
    page.goto(f"{stack.site}/runs")
    page.get_by_text("study").first.wait_for()
    shot("3-daemon-killed")
    stack.start("daemon")
    stack.wait(lambda: over(ui), "the backfill to end")
    runs = ui.runs()
    assert set(runs.values()) == {"SUCCESS"}, runs
    page.reload()
    page.get_by_text("Success").first.wait_for()
    shot("4-backfill-over")

    backup = ("python", "-m", "im_resources.backup")
    made = stack.run("backup", *backup, "create", str(stack.folder / "backups"))
    assert made.returncode == 0, made.stderr
    for service in ("webserver", "daemon", "code"):
        stack.end(service)
    stack.psql("dagster", "TRUNCATE runs CASCADE; TRUNCATE event_logs")
    restored = stack.run("backup", *backup, "restore", made.stdout.strip())
    assert restored.returncode == 0, restored.stderr
    for service in ("code", "webserver", "daemon"):
        stack.start(service)
    page.goto(f"{stack.site}/assets/quality_rule")
    page.get_by_text("quality_rule").first.wait_for()
    shot("5-restored")
    assert ui.runs() == runs


def over(ui: SignedIn) -> bool:
    """Whether the backfill has ended well; fails when it ended otherwise."""
    ((backfill,),) = ui.ask(BACKFILLS)["partitionBackfillsOrError"].values()
    status: str = backfill["status"]
    assert not status.startswith(("FAILED", "CANCEL", "COMPLETED_FAILED")), status
    return status.startswith("COMPLETED")


if __name__ == "__main__":
    main()
