"""Places where a store may lie: a folder, a file URI, a bucket on a real S3 server, and by fsspec."""

from __future__ import annotations

import pytest

KINDS = ["folder", "file", pytest.param("s3", marks=pytest.mark.slow), "memory"]
SECRET = "not-a-real-secret-0815"


@pytest.fixture(scope="session")
def bucket():
    """The address of an S3 server on loopback with a bucket "sweeps"."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    boto3 = pytest.importorskip("boto3")
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys).create_bucket(Bucket="sweeps")
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=KINDS)
def uri(request, tmp_path, monkeypatch):
    """A place of each kind, with credentials in the environment."""
    if request.param == "s3":
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("bucket"))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        return f"s3://sweeps/{tmp_path.name}"
    return {"folder": str(tmp_path), "file": f"file://{tmp_path}", "memory": f"memory://{tmp_path}"}[request.param]
