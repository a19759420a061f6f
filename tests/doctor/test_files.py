"""The doctor on the place of the files: it tries everything, leaves nothing, says what to do."""

from pathlib import Path

import pytest

from im_assets.doctor.files import examined, files
from im_resources.remote import Place
from tests.remote.proxy import Proxy


def test_a_place_that_does_all_is_ok_and_as_it_was(s3: str, tmp_path: Path) -> None:
    for url in (s3, str(tmp_path)):
        found = examined(url)
        assert (found.level, found.what) == ("ok", f"{url}: can be written, read, listed and "
                                             "deleted")  # fmt: skip
        assert Place(url).listing() == {}


def test_a_missing_bucket_and_a_missing_folder_say_what_to_do(s3: str, tmp_path: Path) -> None:
    found = examined("s3://no-such-bucket/files")
    assert found.level == "error"
    assert "there is no such bucket" in found.what
    assert found.remedy.startswith("create it")
    found = examined(str(tmp_path / "share"))
    assert (found.level, "mount the shared folder" in found.remedy) == ("error", True)
    assert not (tmp_path / "share").exists()


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_a_right_that_is_missing_is_named(s3: str, flaky: Proxy, method: str) -> None:
    flaky.fails(10_000, 403, method)
    found = examined(s3)
    assert found.level == "error"
    assert "let these credentials read, write, list and delete there" in found.remedy
    assert "tests-secret" not in f"{found.what} {found.remedy}"


def test_a_deployment_without_files_says_nothing_and_a_wrong_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IM_DEPLOYMENT", raising=False)
    assert list(files()) == []
    path = tmp_path / "mine.yaml"
    monkeypatch.setenv("IM_DEPLOYMENT", str(path))
    path.write_text(f"name: mine\nfiles: {tmp_path}\n", encoding="utf-8")
    assert [finding.level for finding in files()] == ["ok"]
    path.write_text("name: mine\nfiles: s3://a:b@c/d\n", encoding="utf-8")
    [finding] = files()
    assert finding.level == "error"
    assert "a:b@" not in finding.what
