"""``python -m tests.deploy.drive FOLDER``: a deployment driven through a browser, once, by itself.

Signs in, fits the first rule with the UI's buttons, lands a file, kills the daemon in the middle of
the refit that follows, starts it again, and restores a backup; a screenshot of each in FOLDER.
Needs Chromium, and playwright, which is no dependency of the project: pip install playwright.
"""

import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.deploy.stack import (
    NEW_SEEDS,
    PASSWORD,
    USER,
    SignedIn,
    Stack,
    deployment,
    missing,
    write_automated,
)

CHROMIUM = "/usr/bin/chromium"
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
        with deployment(folder, write_automated(folder)) as stack:
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

    def shot(name: str, path: str, text: str) -> None:
        page.goto(f"{stack.site}{path}")
        page.get_by_text(text).first.wait_for()
        page.wait_for_timeout(3_000)  # what the page asks for after it is drawn
        page.screenshot(path=shots / f"{name}.png")
        print(name, page.url, flush=True)

    shot("1-signed-in", "/asset-groups", "candidates")
    first_fit(stack, ui, page)
    shot("2-first-rule", "/assets/quality_rule?view=events", "quality_rule")
    first = stack.fitted()

    stack.land("food", "more.jsonl")
    stack.wait(lambda: len(ui.runs("data")) == 2, "the run that takes the file in")
    landed, *_ = ui.runs("data")
    assert ui.finished(landed) == "SUCCESS"
    shot("3-landed", "/assets/landed_files?view=events", "landed_files")
    stack.wait(lambda: len(ui.runs("study")) == 2, "the refit")
    refit, *_ = ui.runs("study")
    stack.wait(lambda: ui.status(refit) == "STARTED", "the refit to start")
    stack.end("daemon", how=signal.SIGKILL)
    shot("4-refit-without-daemon", "/runs", "study")
    assert ui.finished(refit) == "SUCCESS"  # it lives in the code location
    stack.start("daemon")
    assert stack.fitted() == first + NEW_SEEDS
    stack.wait(lambda: next(iter(ui.runs())) != refit, "the report, by the conditions")
    runs = ui.at_rest()
    assert set(runs.values()) == {"SUCCESS"}, runs
    shot("5-runs", "/runs", "study_report")
    shot("6-refitted-rule", "/assets/quality_rule?view=events", "quality_rule")
    shot("7-automation", "/automation", "refit_sensor")

    backup = ("python", "-m", "im_resources.backup")
    made = stack.run("backup", *backup, "create", str(stack.folder / "backups"))
    assert made.returncode == 0, made.stderr
    stack.end("webserver", "daemon", "code")
    stack.psql("dagster", "TRUNCATE runs CASCADE; TRUNCATE event_logs")
    restored = stack.run("backup", *backup, "restore", made.stdout.strip())
    assert restored.returncode == 0, restored.stderr
    stack.start("code")
    stack.start("webserver", "daemon")
    shot("8-restored", "/runs", "study_report")
    after = ui.at_rest()
    assert {run: after[run] for run in runs} == runs
    assert stack.fitted() == first + NEW_SEEDS


def first_fit(stack: Stack, ui: SignedIn, page: Any) -> None:
    """The job ``data``, then the job ``study`` over all mixtures, with the buttons of the UI."""
    page.goto(f"{stack.site}{JOBS}/data")
    page.get_by_role("button", name="Materialize all").click()
    stack.wait(lambda: ui.runs("data"), "the run that the button launched")
    assert ui.finished(*ui.runs("data")) == "SUCCESS"
    page.goto(f"{stack.site}{JOBS}/study")
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("button", name="Launch backfill").click()
    stack.wait(lambda: ui.runs("study"), "the backfill's run")
    assert ui.finished(*ui.runs("study")) == "SUCCESS"


if __name__ == "__main__":
    main()
