"""Downloads, from a server of this test's own."""

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


def publish(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str) -> None:
    monkeypatch.setitem(imagenet.PUBLISHED, "googlenet", imagenet.Download(f"{url}/googlenet.pth", sha256))


def resolve(spec: ModelSpec) -> weights.Weights:
    return weights.resolve("imagenet", spec, lambda: pytest.fail("nothing is to be trained"), Recipe())


def test_what_was_published_is_fetched_once(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "published" / "googlenet.pth"
    publish(monkeypatch, server, hashlib.sha256(file.read_bytes()).hexdigest())
    found = resolve(GOOGLENET)
    assert (found.spec.classes, found.info.origin) == (5, "imported")
    file.unlink()
    assert resolve(GOOGLENET).path == found.path


def test_other_bytes_are_refused_and_not_kept(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, server, "0" * 64)
    with pytest.raises(UsageError, match=rf"/googlenet.pth has the SHA-256 \w+, not 0+; .*{server}/googlenet.pth"):
        imagenet.fetch(GOOGLENET)
    with pytest.raises(UsageError, match="has the SHA-256"):
        imagenet.fetch(GOOGLENET)


def test_offline_the_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "http://127.0.0.1:1", "0" * 64)
    with pytest.raises(UsageError) as caught:
        imagenet.fetch(GOOGLENET)
    assert str(caught.value) == (
        "cannot download googlenet.pth ([Errno 111] Connection refused); fetch it by hand and give"
        " --weights torchvision:FILE (http://127.0.0.1:1/googlenet.pth)"
    )


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        (ModelSpec(alpha=0.75, resolution=160), "mobilenet/mobilenet_7_5_160_tf.h5)"),
        (ModelSpec(alpha=0.3), "0.25, 0.5, 0.75 and 1.0 at 128, 160, 192 and 224: fetch it by hand"),
    ],
)
def test_mobilenet_is_to_be_fetched_by_hand(spec: ModelSpec, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        imagenet.fetch(spec)
    assert caught.value.remedy.endswith(remedy)


def test_the_published_names_carry_their_checksums() -> None:
    for download in imagenet.PUBLISHED.values():
        assert len(download.sha256) == 64
        assert download.sha256[:8] in download.url
