"""Callbacks: options that may be secrets are refused before they are written down; one that fails ends no sweep."""

from __future__ import annotations

import io
import pickle

import pytest
from gridfiles import BASE, written
from ray import tune
from ray.tune.callback import CallbackList
from rich.console import Console

from orchestrator.commands.cli import main
from orchestrator.engine.trackers import Tracker
from orchestrator.gridfile.callbacks import secrets

SECRETS = [
    "api_key",
    "apiKey",
    "API-KEY",
    "wandb.api_key",
    "tracking_token",
    "password",
    "passwd",
    "db_pwd",
    "passphrase",
    "client_secret",
    "AWS_SECRET_ACCESS_KEY",
    "credentials",
    "auth",
    "authorization",
    "bearer",
    "session_cookie",
    "ssh_keys",
    "sas",
]
HARMLESS = ["project", "api_key_file", "token_path", "experiment_key", "author", "authority", "tokenizer", "keyword"]


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", ["hunter2", 4711, ["x", "hunter2"]])
def test_a_name_tells_a_secret(name, value):
    outer, _, inner = name.partition(".")
    assert set(secrets(outer, {inner: value} if inner else value)) == {name}


@pytest.mark.parametrize("name", HARMLESS)
def test_other_names_tell_none(name):
    assert list(secrets(name, "hunter2")) == []


def test_a_secret_is_found_below_lists_and_under_a_secret_name_whatever_is_there():
    assert list(secrets("settings", [{"a": 1}, {"auth": {"user": "me", "word": "hunter2"}}])) == [
        "settings.auth.user",
        "settings.auth.word",
    ]
    assert list(secrets("api_key", None)) == list(secrets("log_auth", False)) == list(secrets("token", "")) == []


@pytest.mark.parametrize("address", ["https://me:hunter2@host/x", "postgresql://hunter2@host", "mysql+pymysql://a:b@h"])
def test_a_user_in_an_address_is_one(address):
    assert list(secrets("tracking_uri", address)) == ["tracking_uri"]
    assert list(secrets("tracking_uri", "https://host/x@y")) == []


class Away(tune.Callback):
    """A tracker whose server is away."""

    def __init__(self):
        self.events = []

    def setup(self, **info):
        self.events.append(("setup", info))

    def on_trial_complete(self, iteration, trials, trial, **info):
        self.events.append(("on_trial_complete", trial))
        raise ConnectionError("no [route] to host")


def test_a_tracker_that_fails_is_told_once_and_ends_nothing():
    away, sink = Away(), io.StringIO()
    tracker = Tracker(away, Console(file=sink, markup=False, width=200))
    tracker.setup(name="sweep")
    trials = CallbackList([tracker])
    for trial in "ab":
        trials.on_trial_start(iteration=1, trials=[], trial=trial)
        trials.on_trial_complete(iteration=1, trials=[], trial=trial)
    assert away.events == [("setup", {"name": "sweep"}), ("on_trial_complete", "a"), ("on_trial_complete", "b")]
    assert sink.getvalue() == "Away: ConnectionError: no [route] to host; the sweep goes on without it\n"
    assert vars(pickle.loads(pickle.dumps(tracker))) == {}


@pytest.mark.usefixtures("planned_here")
@pytest.mark.parametrize("by_file", [True, False])
def test_a_sweep_with_one_writes_nothing_and_repeats_nothing(tmp_path, capsys, by_file):
    text = BASE | {"callbacks": [{"name": "wandb", "api_key": "hunter2"}]} if by_file else BASE
    sets = [] if by_file else ["--set", "callbacks=[{name: wandb, api_key: hunter2}]"]
    words = ["sweep", str(written(tmp_path, text)), "--storage", str(tmp_path / "store"), *sets]
    assert main(words) == 2
    told = capsys.readouterr()
    assert "WANDB_API_KEY" in told.err + told.out
    assert "hunter2" not in told.err + told.out
    assert not (tmp_path / "store").exists()
