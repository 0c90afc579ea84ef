"""Two of Prefect's servers on one PostgreSQL and one Redis: one is killed, and the runs go on.

Run it as `python -m bench.two_servers`. It needs redis-server and nginx (Debian: redis-server,
nginx-light) and the Python package of deployments/many-hosts/requirements.txt.

The settings and the proxy are those of deployments/many-hosts. A worker takes runs of some seconds
through the proxy, and a schedule makes new ones; meanwhile one server is killed (SIGKILL), later
the background services too, which are started again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from staging.orchestrator import Orchestrator
from staging.ports import choose_free

ROOT = Path(__file__).parents[1]
MANY_HOSTS = ROOT / "deployments" / "many-hosts"
QUEUE = "host-1"
RUNS, RUN_SECONDS, EVERY_SECONDS, PATIENCE_SECONDS = 6, 15, 15, 180


class Site:
    """All of it below one directory; processes by their names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = Orchestrator(directory / "prefect", platform=QUEUE, environment={})
        self.redis, self.one, self.two, self.proxy = choose_free(4)
        self.processes: dict[str, subprocess.Popen] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy}/api"

    def environment(self) -> Mapping[str, str]:
        """Of servers and services: as server.env says, with the addresses that it leaves out."""
        own = _read(self.directory / "prefect" / "environment.env")
        redis = f"redis://127.0.0.1:{self.redis}"
        return {
            **os.environ,
            **own,
            **_read(MANY_HOSTS / "server.env"),
            "PREFECT_REDIS_MESSAGING_URL": f"{redis}/0",
            "PREFECT_SERVER_DOCKET_URL": f"{redis}/1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "PREFECT_API_URL": self.url,
        }

    def start(self, name: str, *words: str | Path, **more: str) -> None:
        log = (self.directory / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [str(word) for word in words],
            env={**self.environment(), **more},
            cwd=self.directory,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()

    def start_server(self, name: str) -> None:
        program = Path(sys.executable).with_name("prefect")
        port = {"server-1": self.one, "server-2": self.two}[name]
        self.start(
            name, program, *f"server start --host 127.0.0.1 --port {port} --no-services".split()
        )

    def start_services(self) -> None:
        self.start(
            "services", Path(sys.executable).with_name("prefect"), "server", "services", "start"
        )

    def kill(self, name: str) -> None:
        child = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def begin(self) -> None:
        self.database.create()
        self.database.start_database()
        self.database._make_database()
        self.start("redis", "redis-server", "--port", str(self.redis), "--save", "")
        prefect = Path(sys.executable).with_name("prefect")
        subprocess.run(
            [prefect, "server", "database", "upgrade", "-y"], env=self.environment(), check=True
        )
        self.start_server("server-1")
        self.start_server("server-2")
        self.start_services()
        self._start_proxy()
        deadline = time.monotonic() + PATIENCE_SECONDS
        for port in (self.one, self.two, self.proxy):
            while not _port_answers(port):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"Starting: nothing answers at port {port}.")
                time.sleep(0.3)

    def _start_proxy(self) -> None:
        text = (MANY_HOSTS / "nginx.conf").read_text()
        text = text.replace("server-1:4200", f"127.0.0.1:{self.one}")
        text = text.replace("server-2:4200", f"127.0.0.1:{self.two}")
        # TLS is tried by tests/system/test_proxy.py.
        text = text.replace("listen 443 ssl http2", f"listen 127.0.0.1:{self.proxy}")
        lines = [line for line in text.splitlines() if "ssl_" not in line]
        places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        own = "".join(f"{place}_temp_path {self.directory}/{place};\n" for place in places)
        user = "user root;\n" if os.getuid() == 0 else ""
        site = "\n".join(lines)
        (self.directory / "nginx.conf").write_text(
            f"{user}pid {self.directory}/nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n{own}"
            f"{site}\n}}\n"
        )
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
        words = ("-p", self.directory, "-c", self.directory / "nginx.conf", "-e", "stderr")
        self.start("nginx", program, *words, "-g", "daemon off;")

    def answers(self, name: str) -> bool:
        return _port_answers({"server-1": self.one, "server-2": self.two}[name])

    def end(self) -> None:
        for name in tuple(self.processes):
            self.kill(name)
        self.database.destroy()


def _read(file: Path) -> dict[str, str]:
    lines = (line for line in file.read_text().splitlines() if line and line[0] != "#")
    return dict(line.split("=", 1) for line in lines)


def _port_answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


class Client:
    def __init__(self, site: Site) -> None:
        told = site.environment()
        user, _, password = told["PREFECT_API_AUTH_STRING"].partition(":")
        authority = told.get("PREFECT_API_SSL_CERT_FILE")
        trusted = ssl.create_default_context(cafile=authority) if authority else True
        self._http = httpx.Client(
            base_url=site.url, auth=(user, password), timeout=30, verify=trusted
        )

    def post(self, path: str, **body: Any) -> Any:
        for _ in range(10):
            try:
                answer = self._http.post(path, json=body)
                if answer.status_code < 500:
                    answer.raise_for_status()
                    return answer.json()
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        raise RuntimeError(f"{path}: the servers do not answer.")

    def runs(self, deployment: str) -> list[dict]:
        mine = {"id": {"any_": [deployment]}}
        return self.post("/flow_runs/filter", deployments=mine)


def declare(client: Client, name: str, directory: Path, **more: Any) -> str:
    made = client.post(
        "/deployments/",
        name=name,
        flow_id=client.post("/flows/", name="linger")["id"],
        entrypoint="tests.system.lingering.linger",
        work_pool_name="two",
        work_queue_name=QUEUE,
        parameters={"directory": str(directory), "seconds": RUN_SECONDS},
        job_variables={"stream_output": False, "env": {"TOLD_BY_THE_POOL": "two"}},
        **more,
    )
    return made["id"]


def until(what: str, condition: Any) -> float:
    """Wait; give the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > PATIENCE_SECONDS:
            raise RuntimeError(f"{what}: not within {PATIENCE_SECONDS} s.")
        time.sleep(0.3)
    return time.monotonic() - begun


@contextlib.contextmanager
def a_site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="lifeboat-two-") as directory:
        site = Site(Path(directory))
        try:
            site.begin()
            yield site
        except BaseException:
            for log in Path(directory).glob("*.log"):
                print(f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-15:]))
            raise
        finally:
            site.end()


def trial(site: Site) -> None:
    client = Client(site)
    client.post("/work_pools/", name="two", type="process")
    by_hand = declare(client, "by-hand", site.directory)
    every = {"interval": EVERY_SECONDS, "anchor_date": "2026-01-01T00:00:00Z"}
    scheduled = declare(
        client,
        "scheduled",
        site.directory,
        schedules=[{"schedule": every, "active": True}],
        concurrency_limit=1,
        concurrency_options={"collision_strategy": "CANCEL_NEW"},
    )
    words = f"work --pool two --work-queue {QUEUE} --name two --poll-seconds 1".split()
    lifeboat = Path(sys.executable).with_name("lifeboat")
    site.start("worker", lifeboat, *words, PYTHONPATH=f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    for _ in range(RUNS):
        client.post(f"/deployments/{by_hand}/create_flow_run", state={"type": "SCHEDULED"})

    def states(deployment: str) -> Counter[str]:
        return Counter(run["state_name"] for run in client.runs(deployment))

    until("Runs begin", lambda: states(by_hand)["Running"] >= 3)
    print(f"by hand {dict(states(by_hand))}; server-1 is killed", flush=True)
    site.kill("server-1")
    seconds = until(
        "All runs end", lambda: sum(states(by_hand).values()) == states(by_hand)["Completed"]
    )
    print(f"by hand {dict(states(by_hand))} {seconds:.0f} s after it", flush=True)
    before = states(scheduled)["Completed"]
    seconds = until("The schedule", lambda: states(scheduled)["Completed"] >= before + 2)
    print(
        f"scheduled: two more Completed in {seconds:.0f} s: {dict(states(scheduled))}", flush=True
    )
    site.kill("services")
    print("the services are killed, and started again after 20 s", flush=True)
    time.sleep(20)
    site.start_services()
    before = states(scheduled)["Completed"]
    seconds = until("The schedule again", lambda: states(scheduled)["Completed"] >= before + 2)
    print(
        f"scheduled: two more Completed in {seconds:.0f} s: {dict(states(scheduled))}", flush=True
    )
    site.start_server("server-1")
    seconds = until("server-1 is back", lambda: site.answers("server-1"))
    print(f"server-1 answers again after {seconds:.0f} s", flush=True)
    events = client.post(
        "/events/filter", filter={"event": {"prefix": ["prefect.flow-run.Completed"]}}
    )
    print(f"events of completed runs that were kept: {events['total']}", flush=True)


def main() -> None:
    with a_site() as site:
        trial(site)


if __name__ == "__main__":
    main()
