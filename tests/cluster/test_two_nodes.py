"""Two machines that share nothing but the store: every job is done, and one that dies or is cut off costs seconds."""

from __future__ import annotations

import json
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
from nodes import FAR, NEAR, ROOT, TWO_MACHINES, inside, why_not
from pictures import draw
from places import SECRET
from sweeps import TINY, finish, start

from orchestrator.store import Store

REASON = why_not("ip", "pgrep", str(Path(sys.executable).with_name("ray")))
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

#: A model of images that lie on every machine by themselves.
PICTURES = """  - task: classification
    dataset: {name: imagefolder, path: pictures, size: 8}
    backbone: {name: smallcnn, width: 4}
    rule: [usf]
    finetune: {epochs: 2}
    attacks: [{name: fgsm, epsilon: 0.1}]
"""
#: Ten fine-tunes, nine of them of seconds, and their attacks.
GRID = TINY.replace("seeds: [0]", "seeds: [0, 1, 2]").replace("epochs: 2,", "epochs: 100,") + PICTURES
#: Columns that say when, where, on how much and how long, not what.
CLOCK = ["seconds", "finished_at", "device", "gpu_share"]
#: What each machine has: both share the work, or the head has no GPU and the worker, as declared, two.
SHARED = {"head": "--num-cpus 1", "worker": "--num-cpus 1"}
HEAD_WITHOUT_GPU = {"head": "--num-cpus 2 --num-gpus 0", "worker": "--num-cpus 2 --num-gpus 2"}
ON_GPUS = "defaults:\n  resources: {gpu: 1}\n"

SCRIPT = (
    TWO_MACHINES
    + """
export RAY_AUTH_MODE=token
mkdir ~/.ray && echo {token} >~/.ray/auth_token
python {root}/tests/cluster/pictures.py /tmp/data
{server}
bash {root}/cluster/start.sh head --node-ip-address {near} {head} --include-dashboard false
far 'mkdir ~/.ray && echo {token} >~/.ray/auth_token
    python {root}/tests/cluster/pictures.py /tmp/data
    exec bash {root}/cluster/start.sh worker {near} --node-ip-address {far} {worker} --block' &
node=$!
for _ in $(seq 120); do [ "$(ray status 2>/dev/null | grep -c ' node_')" = 2 ] && break; sleep 1; done
python {script} {folder}/grid.yaml --storage {storage} --data-root /tmp/data --address {near}:6379 &
sweep=$!
{strike}
wait $sweep
status=$?
{fetch}
echo "status $status"
"""
)

#: An S3 server of the near machine's, which both reach by its address, and what brings the bucket's files here.
SERVER = """
export AWS_ENDPOINT_URL=http://{near}:5000 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY={secret}
export AWS_DEFAULT_REGION=us-east-1
python -m moto.server --host {near} --port 5000 >{folder}/moto.log 2>&1 &
until python -c 'import boto3; boto3.client("s3").create_bucket(Bucket="sweeps")' 2>/dev/null; do sleep 0.2; done
"""
FETCH = """python -c 'from pyarrow import fs; fs.copy_files("s3://sweeps/x", "file://{folder}/store")'"""

STRIKE = """
timeout 1200 python {folder}/wait.py {folder}/store || echo "both nodes never began a fine-tune together"
date --utc +%Y-%m-%dT%H:%M:%S.%6N+00:00 >{folder}/struck
{strike}
"""
#: Returns when both nodes have just begun a fine-tune, which takes seconds: each node runs one job at a time.
WAIT = """
import datetime, json, pathlib, sys, time
while True:
    logs = [log.read_text() for log in pathlib.Path(sys.argv[1], "events").glob("*.jsonl")]
    events = [json.loads(line) for log in logs for line in log.splitlines() if line.endswith("}")]
    running = {}
    for event in events:
        if event["event"] == "job_started":
            running[event["job"]] = event
        else:
            running.pop(event.get("job"), None)
    now = datetime.datetime.now(datetime.UTC)
    ages = [(now - datetime.datetime.fromisoformat(event["at"])).total_seconds() for event in running.values()]
    fine_tunes = [event for event in running.values() if event["title"].startswith("finetune")]
    if len(fine_tunes) == len(running) == 2 and max(ages) < 2.5:
        break
    time.sleep(0.02)
"""

#: The sweep as it was while Tune saved a checkpoint at each trial's end, in the driver's own temporary folder.
SAVING = f"""
import runpy
from ray import tune
if __name__ == "__main__":
    config = tune.CheckpointConfig
    tune.CheckpointConfig = lambda checkpoint_at_end: config(checkpoint_at_end=True)
    runpy.run_path("{ROOT}/orchestrator/sweep.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The table of a sweep on one node that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "grid.yaml").write_text(GRID)
    draw(folder / "data")
    words = ["--storage", folder / "store", "--data-root", folder / "data"]
    status, output = finish(start("orchestrator/sweep.py", folder / "grid.yaml", *words))
    assert status == 0, output
    return table(folder / "store")


def table(storage):
    frame = Store(str(storage)).results().drop(columns=CLOCK)
    return frame.sort_values("cell").reset_index(drop=True)


def run(folder, size, grid=GRID, strike="", script=ROOT / "orchestrator/sweep.py", bucket=False):
    """Run the grid on both machines and return what was printed; the store's files are in FOLDER/store."""
    (folder / "grid.yaml").write_text(grid)
    (folder / "wait.py").write_text(WAIT)
    places = {"folder": folder, "root": ROOT, "near": NEAR, "far": FAR, "script": script}
    places |= size | {
        "token": "0123456789abcdef" * 4,
        "secret": SECRET,
        "storage": "s3://sweeps/x" if bucket else folder / "store",
    }
    places["server"], places["fetch"] = (part.format(**places) if bucket else "" for part in (SERVER, FETCH))
    places["strike"] = strike and STRIKE.format(**places | {"strike": strike})
    return inside(SCRIPT.format(**places), folder, folder)


def events(storage):
    lines = [line for log in sorted((storage / "events").glob("*.jsonl")) for line in log.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def disturbances(storage):
    """Words about all that did not go well in a sweep."""
    told = events(storage)
    wrong = [f"{event['event']}: {event}" for event in told if event["event"] == "job_failed" or "death" in event]
    starts = Counter(event["title"] for event in told if event["event"] == "job_started")
    wrong += [f"{title} was started {count} times" for title, count in starts.items() if count > 1]
    return wrong + [f"failure of {name}" for name in Store(str(storage)).names("failures", ".parquet")]


@pytest.mark.parametrize("bucket", [False, True], ids=["folder", "bucket"])
def test_a_worker_does_every_job_of_a_head_without_gpus(undisturbed, tmp_path, bucket):
    if bucket:
        pytest.importorskip("moto.server")
    output = run(tmp_path, HEAD_WITHOUT_GPU, GRID.replace("experiments:", f"{ON_GPUS}experiments:"), bucket=bucket)
    assert output.rstrip().endswith("status 0"), output
    assert disturbances(tmp_path / "store") == []
    assert table(tmp_path / "store").equals(undisturbed)
    done = [event for event in events(tmp_path / "store") if event["event"] == "job_finished"]
    assert {event["host"] for event in done} == {"far"}
    assert {event["gpu"] for event in events(tmp_path / "store") if event["event"] == "job_started"} == {1.0}


def test_the_test_can_fail(tmp_path):
    (tmp_path / "saving.py").write_text(SAVING)
    grid = TINY.replace("rule: [bp, usf, brsf]", "rule: [usf]").replace("experiments:", f"{ON_GPUS}experiments:")
    output = run(tmp_path, HEAD_WITHOUT_GPU, grid, script=tmp_path / "saving.py")
    assert disturbances(tmp_path / "store"), output


@pytest.mark.parametrize(
    "strike", ["pkill -KILL -P $node; kill -KILL $node", "ip link set near0 down"], ids=["killed", "cut off"]
)
def test_a_lost_node_costs_no_cell_and_its_jobs_run_elsewhere(undisturbed, tmp_path, strike):
    output = run(tmp_path, SHARED, strike=strike)
    assert output.rstrip().endswith("status 0"), output
    assert table(tmp_path / "store").equals(undisturbed)
    assert not Store(str(tmp_path / "store")).names("failures", ".parquet")
    # How long depends on the machine; a node that is never missed would hold the sweep for ever.
    seconds = _until_elsewhere(tmp_path)
    print(f"{seconds:.1f} s until what ran on the lost node ran elsewhere")


def _until_elsewhere(folder):
    """Seconds from the strike until the last job that ran on the far node then has started again or ended."""
    struck = datetime.fromisoformat((folder / "struck").read_text().strip())
    running, again = set(), {}
    for event in events(folder / "store"):
        at = datetime.fromisoformat(event["at"])
        if event["event"] == "job_started" and at <= struck:
            running.add(event["job"])
        elif event["event"] == "job_finished" and at <= struck:
            running.discard(event["job"])
        elif event["event"] in ("job_started", "job_settled") and event["job"] in running:
            # Settled: the node that was cut off had ended the job on the store that both share.
            again[event["job"]] = (at - struck).total_seconds()
    assert again, "no job was lost: the strike came between two jobs"
    return max(again.values())
