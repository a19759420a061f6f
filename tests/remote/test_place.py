"""A folder at a URL: what arrives is what was sent, errors that pass are outlasted, others told."""

import base64
import errno
import hashlib
import os
from pathlib import Path

import pytest

from im_resources.published import sha256
from im_resources.remote import Place, RemoteError
from im_resources.remote import faults as faults_module
from im_resources.remote.faults import tried, without_secrets
from im_resources.remote.place import Entry, entry_of, same
from tests.remote.proxy import Fate, Proxy


def test_files_are_written_read_listed_and_deleted_by_their_exact_names(url: str) -> None:
    place = Place(url)
    assert place.listing() == {}
    assert place.read("a") is None
    odd = "a [1] *.json"
    for name in ("a/one", "ab/two", odd, "a/b/three"):
        place.write(name, name.encode())
    assert sorted(place.listing()) == sorted(["a/one", "ab/two", odd, "a/b/three"])
    assert sorted(place.listing("a")) == ["b/three", "one"]
    assert place.read(odd) == odd.encode()
    place.write("a/one", b"again")
    assert place.read("a/one") == b"again"
    place.delete_file("no such file")
    place.delete("no such folder")
    place.delete("a")
    place.delete_file(odd)
    assert sorted(place.listing()) == ["ab/two"]
    with pytest.raises(ValueError, match="never deleted"):
        place.delete("")


def test_what_is_sent_in_parts_is_known_by_the_stores_digest(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = 5 * 2**20  # the smallest that S3 takes
    monkeypatch.setattr("im_resources.remote.place.PART", part)
    path, place = tmp_path / "large", Place(s3)
    path.write_bytes(os.urandom(2 * part + 17))
    place.put(path, "large", sha256(path))
    entry = place.listing()["large"]
    assert entry.md5.endswith("-3")
    assert same(path, entry)
    assert place.get("large", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not same(path, entry)


def test_the_digest_that_gcs_gives_is_understood(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    # As gcsfs lists it: https://cloud.google.com/storage/docs/json_api/v1/objects
    md5 = base64.b64encode(hashlib.md5(b"content").digest()).decode()
    entry = entry_of({"size": "7", "md5Hash": md5, "etag": "CO=", "generation": "12"})
    assert entry.size == 7
    assert same(tmp_path / "file", entry)


def test_a_store_without_digests_is_read_back(tmp_path: Path) -> None:
    path, place = tmp_path / "file", Place(f"{tmp_path}/shared", patience=0)
    path.write_bytes(b"content")
    place.put(path, "file", sha256(path))
    with pytest.raises(RemoteError, match=r"cannot write .*/file: other bytes have arrived"):
        place.put(path, "file", "0" * 64)
    assert not same(path, Entry(7, "", ""))


@pytest.mark.parametrize("fate", [500, 503, 429, "reset", "stall"])
def test_an_error_that_passes_is_outlasted(
    s3: str, flaky: Proxy, tmp_path: Path, fate: Fate
) -> None:
    path, place = tmp_path / "file", Place(s3, patience=60)
    path.write_bytes(b"content")
    times = 1 if fate == "stall" else 3
    flaky.fails(times, fate)
    place.put(path, "file", sha256(path))
    flaky.fails(times, fate)
    assert place.read("file") == b"content"
    flaky.fails(times, fate)
    assert list(place.listing()) == ["file"]


def test_a_download_that_is_cut_off_is_made_again(s3: str, flaky: Proxy, tmp_path: Path) -> None:
    place = Place(s3, patience=60)
    place.write("file", b"content" * 1000)
    flaky.fails(2, "cut", "GET")
    assert place.get("file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"content" * 1000


def test_a_store_that_stays_down_is_told_in_one_line(s3: str, flaky: Proxy, tmp_path: Path) -> None:
    flaky.fails(10_000, 503)
    with pytest.raises(RemoteError) as error:
        Place(s3, patience=1).write("file", b"")
    told = str(error.value)
    assert told.startswith(f"cannot write {s3}/file: ")
    assert "for 0 s; see whether the store is up" in told or "for 1 s; see whether" in told
    assert "503" in told or "Not now" in told
    assert "\n" not in told


def test_what_no_retry_cures_is_told_at_once(s3: str, flaky: Proxy) -> None:
    place = Place(s3)  # with minutes of patience
    flaky.fails(10_000, 403)
    with pytest.raises(RemoteError, match=r"cannot write s3://.*/file: .*let these credentials"):
        place.write("file", b"")
    assert len(flaky.seen) == 1
    with pytest.raises(RemoteError, match=r"cannot list s3://.*let these credentials"):
        place.listing()
    flaky.fails(0, None)
    nowhere = Place("s3://no-such-bucket/files")
    for do in (lambda: nowhere.write("file", b""), nowhere.listing, lambda: nowhere.read("file")):
        with pytest.raises(RemoteError, match=r"s3://no-such-bucket.*there is no such bucket"):
            do()


def test_missing_credentials_name_the_variables(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RemoteError, match=r"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Place(s3).write("file", b"")


def test_no_message_holds_a_credential(
    s3: str, flaky: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import s3fs

    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    told = []
    # A store that repeats the secret in its answer, at once and after it was tried again.
    for fate in (400, 502):
        flaky.fails(10_000, fate)
        with pytest.raises(RemoteError, match=r"Signed with \*\*\*") as error:
            Place(s3, patience=1).write("file", b"")
        told.append(error.value)
    # A user and a password in the address of a store, which its library repeats.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://someone:hidden-word@127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RemoteError) as error:
        Place(s3, patience=1).write("file", b"")
    for one in (*told, error.value):
        # Nor does a traceback, which shows what an error was raised from.
        assert one.__cause__ is None
        assert one.__suppress_context__
    shown = f"{told} {error.value} {caplog.text}"
    assert secret not in shown
    assert "hidden-word" not in shown
    said = without_secrets("at http://me:mine@host; password=abc host=here")
    assert said == "at http://***@host; password=*** host=here"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free some space there"), (errno.EACCES, "give this user the right")],
)
def test_a_shared_folder_that_refuses_is_told_with_the_remedy(number: int, remedy: str) -> None:
    def refused() -> None:
        raise OSError(number, os.strerror(number), "/share/file")

    with pytest.raises(RemoteError, match=f"cannot write /share/file: .*; {remedy}"):
        tried("write /share/file", refused, 60)


def test_a_shared_folder_whose_server_restarts_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults_module, "FIRST_WAIT", 0.01)
    failures = [errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY]

    def restarting() -> str:
        if failures:
            raise OSError(failures[0], os.strerror(failures.pop(0)))
        return "done"

    assert tried("read /share/file", restarting, 60) == "done"


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("Install s3fs to access S3")

    with pytest.raises(RemoteError, match=r"Install s3fs.*pip install -e .\[cluster\]"):
        tried("read s3://b/a", missing, 60)
