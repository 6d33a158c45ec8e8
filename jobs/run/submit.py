"""`hardmine submit`: runs a config as a job on a Ray cluster, follows its log, and returns its exit code.

It uploads a folder with the code of the five packages and the resolved config. Data, outputs and keys stay where they
are: the nodes read s3:// with their own keys. A job that is submitted again resumes from its commits.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.errors import EXIT_CLUSTER, EXIT_STOPPED, ClusterError, ConfigError, one_paragraph
from cluster.session.progress import Progress
from cluster.session.session import QUIET
from cluster.storage.store import is_s3
from jobs.config.config import Config, load_config
from jobs.config.data import SOURCES
from jobs.run.job_folder import CONFIG_NAME, stage_job

COMMAND = f"-m jobs run {CONFIG_NAME}"
VARIABLES = QUIET | {"COLUMNS": "120"}
"""Environment of the job and its workers, never with a key. Tables in a log are as wide as COLUMNS."""
CONNECT_S, ANSWER_S = 10.0, 60.0
POLL_S, SLOW_POLL_S, SLOW_FROM_CHARS = 2.0, 15.0, 1_000_000
"""Each fetch returns the whole log, so a long one is fetched less often."""
PATIENCE_S = 180.0
"""How long to wait for a dashboard that stopped answering."""


def submit_run(config: Path, overrides: Sequence[str], *, address: str, wait: bool = True) -> int:
    """Run `config` on the cluster whose dashboard is at `address`; returns the run's exit code, 0 at once without `wait`.

    Raises:
        ConfigError: the config or the address is wrong, or another machine would have to read a local path.
        ClusterError: nothing answers, the token is refused, or the dashboard is gone for `PATIENCE_S` seconds.
    """
    settings = load_config(config, overrides)
    loopback = is_loopback(address)
    if not loopback:
        refuse_local_paths(settings, f"the cluster at {address} is another machine")
    progress = Progress()
    with _client_environment(loopback):
        client = _connect(address)
        local = loopback and _nodes_are_local(address)
        if loopback and not local:
            refuse_local_paths(settings, f"{address} leads to a cluster on other machines (a tunnel or port-forward?)")
        job = _submit(client, settings, local=local, address=address)
        at = f"{job} --address {address}"
        progress.say(f"submitted {settings.name} as {job}; stop it with `hardmine submit --stop {at}`")
        if not wait:
            return 0
        try:
            details = _follow(client, job, address)
        except KeyboardInterrupt:
            stop = f"its log: `ray job logs --follow {at}`; stop it: `hardmine submit --stop {at}`"
            progress.say(f"no longer following {job}, which continues; {stop}")
            return EXIT_STOPPED
    code = exit_code(str(details.status), details.driver_exit_code)
    progress.say(_last_words(job, details, code, settings))
    return code


@dataclass(frozen=True)
class JobLine:
    """A job of a cluster, for a list."""

    id: str
    name: str
    status: str
    started: float
    """Seconds since 1970; 0: it has not."""


def list_jobs(address: str) -> list[JobLine]:
    """The jobs that `submit` sent to a cluster, newest first. Raises ClusterError: nothing answers, or the token is refused."""
    with _client_environment(is_loopback(address)):
        client = _connect(address)
        with _answering(address):
            jobs = [job for job in client.list_jobs() if COMMAND in (job.entrypoint or "")]
    lines = [
        JobLine(
            str(job.submission_id), str((job.metadata or {}).get("job_name", "")), str(job.status), (job.start_time or 0) / 1000
        )
        for job in jobs
    ]
    return sorted(lines, key=lambda line: -line.started)


def stop_job(job: str, *, address: str) -> bool:
    """End a job; False: it had ended. What it committed is kept. Raises ClusterError: no good answer, or no such job."""
    with _client_environment(is_loopback(address)):
        client = _connect(address)
        with _answering(address):
            return bool(client.stop_job(job))


def is_loopback(address: str) -> bool:
    """Whether `address` names this machine. Raises ConfigError: it is not the address of a Ray dashboard."""
    url = urlsplit(address)
    if url.username or url.password:
        raise ConfigError(
            "--address must not hold a name or a password; Ray's token is read from RAY_AUTH_TOKEN, "
            "RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        )
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(f"--address: expected the cluster's dashboard, such as http://HEAD:8265, found {address!r}")
    try:
        return ipaddress.ip_address(url.hostname).is_loopback
    except ValueError:
        return url.hostname == "localhost"


def refuse_local_paths(config: Config, why: str) -> None:
    """Raises ConfigError: `config` names local paths, which no node of a remote cluster can read."""
    paths = {f"{data.section}.{name}": getattr(data, name) for data in config.datasets for name in SOURCES}
    paths["output"] = config.output
    # a hub name is neither on S3 nor local
    paths |= {key: model for key, model in config.models.items() if model is not None and model.startswith(("/", ".", "~"))}
    local = [f"{name} = {value}" for name, value in paths.items() if value is not None and not is_s3(value)]
    if local:
        raise ConfigError(
            f"{why}, and its nodes cannot read {', '.join(local)}; copy the data to s3:// and use that address, "
            f"e.g. output=s3://bucket/runs"
        )


def exit_code(status: str, driver_exit_code: int | None) -> int:
    """The run's exit code (0 to 3) if the job returned one; 3 if it was stopped, killed or never started."""
    if status == "SUCCEEDED":
        return 0
    if status == "FAILED" and driver_exit_code in (1, 2, 3):
        return driver_exit_code
    return EXIT_CLUSTER


def _last_words(job: str, details: Any, code: int, config: Config) -> str:
    if code == 0:
        return f"{job} has finished {config.name}: {config.root}"
    if code != EXIT_CLUSTER:
        return f"{job} ended with exit code {code}; its last lines above say why"
    why = f"failed ({one_paragraph(details.message or 'Ray gives no reason')[:400]})"
    if str(details.status) == "STOPPED":
        why = "was stopped"
    elif details.driver_exit_code == EXIT_CLUSTER:
        why = "failed; its last lines above say why"
    keys = "; S3 keys are never sent with a job: the nodes need their own (instance role, service account, or Secret)"
    return f"{job} {why}. What is committed is kept: submit the same config again to resume{keys if is_s3(config.output) else ''}"


@contextmanager
def _client_environment(loopback: bool) -> Iterator[None]:
    """Set the variables of Ray's client so that --address decides; restores them afterwards.

    RAY_ADDRESS and RAY_API_SERVER_ADDRESS would override --address. A cluster asks for a token as soon as `ray start`
    finds one, but the jobs client sends one only with RAY_AUTH_MODE=token, which is set here if there is a token to send.
    """
    own = loopback and (Path.home() / ".ray" / "auth_token").exists()
    has_token = own or "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    before = {name: os.environ.pop(name, None) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE")}
    os.environ["RAY_AUTH_MODE"] = before["RAY_AUTH_MODE"] or ("token" if has_token else "disabled")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _answering(address: str) -> Iterator[None]:
    """Raises ClusterError: a request to the dashboard failed."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"the cluster at {address} wants a token ({str(error).splitlines()[0]}); set RAY_AUTH_MODE="
            f"token, and RAY_AUTH_TOKEN to its token or RAY_AUTH_TOKEN_PATH to a file with it; on KubeRay "
            f"it is in the Secret with the name of the cluster"
        ) from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:  # requests' errors are OSErrors
        cause: BaseException = error
        while cause.__context__ is not None:  # Ray only says "failed to connect"; the innermost error says why
            cause = cause.__context__
        raise ClusterError(
            f"no good answer from a Ray dashboard at {address} ({type(cause).__name__}: "
            f"{one_paragraph(str(cause))[:300]}); check the address, that the cluster runs, and that its "
            f"port 8265 can be reached from here (ray dashboard, ssh -L, kubectl port-forward)"
        ) from error


def _connect(address: str) -> Any:
    """A client of the dashboard whose requests all time out. Raises ClusterError: no dashboard answers."""
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, **({"timeout": (CONNECT_S, ANSWER_S)} | options))

    for name in ("_private.runtime_env.packaging", "dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk"):
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)  # each sets its own level to INFO
    with _answering(address):
        return Client(address)


def _nodes_are_local(address: str) -> bool:
    """Whether all nodes run on this machine: a loopback address may be the end of a tunnel."""
    from ray.util.state import list_nodes
    from ray.util.state.exception import RayStateApiException

    try:
        nodes = list_nodes(address=address, timeout=int(ANSWER_S), raise_on_missing_output=False)
    except RayStateApiException:  # another version of Ray has other fields: trust the address
        return True
    return all(_is_own(node.node_ip) for node in nodes if node.state == "ALIVE")


def _is_own(ip: str) -> bool:
    """Whether `ip` is an address of this machine: only such an address can be bound."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((ip, 0))
    except OSError:
        return False
    return True


def _submit(client: Any, config: Config, *, local: bool, address: str) -> str:
    """Package and submit; returns the job's id, which Ray chooses: a second try with a fixed one would be refused."""
    python = shlex.quote(sys.executable) if local else "python"
    with tempfile.TemporaryDirectory(prefix="hardmine-job-") as folder:
        stage_job(config, Path(folder), address=address)
        with _answering(address):
            environment = {"working_dir": folder, "env_vars": VARIABLES}
            return str(
                client.submit_job(entrypoint=f"{python} {COMMAND}", runtime_env=environment, metadata={"job_name": config.name})
            )


def _follow(client: Any, job: str, address: str) -> Any:
    """Print the job's log as it grows until the job has ended; returns Ray's details of it.

    It polls: Ray's own follower may end while the job still runs (ray#51601), and a log that cannot be read is no
    reason to stop following.

    Raises:
        ClusterError: the dashboard did not answer for `PATIENCE_S`.
    """
    shown, answered = 0, time.monotonic()
    while True:
        try:
            with _answering(address):
                details = client.get_job_info(job)
            answered = time.monotonic()
        except ClusterError as error:
            if time.monotonic() - answered > PATIENCE_S:
                raise ClusterError(f"lost contact with {job}, which may still run: {error}") from error
        else:
            shown += _print_log(client, job, shown, address)
            if details.status.is_terminal():
                return details
        time.sleep(POLL_S if shown < SLOW_FROM_CHARS else SLOW_POLL_S)


def _print_log(client: Any, job: str, shown: int, address: str) -> int:
    try:
        with _answering(address):
            new = str(client.get_job_logs(job))[shown:]
    except ClusterError:
        return 0
    sys.stdout.write(new)
    sys.stdout.flush()
    return len(new)
