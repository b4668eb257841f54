"""Downloads of published checkpoints, from a local server."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from mbbench import weights
from mbbench.errors import UsageError
from mbbench.models import build, randomize
from mbbench.spec import ModelSpec
from mbbench.weights import imagenet
from mbbench.weights.recipe import Recipe

GOOGLENET = ModelSpec(family="googlenet", resolution=64)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "published"
    folder.mkdir()
    module = build(ModelSpec(family="googlenet", classes=5))
    randomize(module, seed=0)
    torch.save(module.state_dict(), folder / "googlenet.pth")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def set_published(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str) -> None:
    monkeypatch.setitem(imagenet.PUBLISHED, "googlenet", imagenet.Download(f"{url}/googlenet.pth", sha256))


def resolve(spec: ModelSpec) -> weights.Weights:
    return weights.resolve("imagenet", spec, lambda: pytest.fail("training data was requested"), Recipe())


def test_a_published_checkpoint_is_downloaded_once(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "published" / "googlenet.pth"
    set_published(monkeypatch, server, hashlib.sha256(file.read_bytes()).hexdigest())
    resolved = resolve(GOOGLENET)
    assert (resolved.spec.classes, resolved.info.origin) == (5, "imported")
    file.unlink()
    assert resolve(GOOGLENET).path == resolved.path


def test_a_wrong_checksum_is_refused_and_the_file_is_not_kept(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_published(monkeypatch, server, "0" * 64)
    with pytest.raises(UsageError, match=rf"SHA-256 of googlenet.pth is \w+ instead of 0+; .*{server}/googlenet.pth"):
        imagenet.fetch(GOOGLENET)
    with pytest.raises(UsageError, match="the SHA-256 of googlenet"):
        imagenet.fetch(GOOGLENET)


def test_a_failed_download_names_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    set_published(monkeypatch, "http://127.0.0.1:1", "0" * 64)
    with pytest.raises(UsageError) as caught:
        imagenet.fetch(GOOGLENET)
    assert str(caught.value) == (
        "cannot download googlenet.pth ([Errno 111] Connection refused); download http://127.0.0.1:1/googlenet.pth"
        " by hand and give --weights torchvision:FILE"
    )


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        (ModelSpec(alpha=0.75, resolution=160), "/mobilenet_7_5_160_tf.h5 by hand and give --weights keras:FILE"),
        (ModelSpec(alpha=0.3), "resolution 128, 160, 192 or 224, and download its file by hand"),
    ],
)
def test_mobilenet_must_be_downloaded_by_hand(spec: ModelSpec, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        imagenet.fetch(spec)
    assert caught.value.remedy.endswith(remedy)


def test_the_names_of_published_files_contain_their_checksums() -> None:
    for download in imagenet.PUBLISHED.values():
        assert len(download.sha256) == 64
        assert download.sha256[:8] in download.url
