"""What every Stack keeps, on real processes and real containers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress

import psutil
import pytest

from lifeboat.core.errors import (
    CommandFailed,
    PermanentError,
    PreconditionError,
    RecoveryError,
)
from lifeboat.settings import find_compose
from lifeboat.tools.stacks import ComposeStack, ProcessStack, ServiceState

PROGRAMS = {
    # It works for a moment first: CPU time is told in hundredths of a second.
    "good": "import time; sum(range(5_000_000)); print('good is up', flush=True); time.sleep(600)",
    "parent": (
        "import subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], "
        "start_new_session=True); time.sleep(600)"
    ),
    "deaf": (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('deaf is up', flush=True); time.sleep(600)"
    ),
    "broken": "print('no configuration here', flush=True); raise SystemExit(3)",
}

# The same in Perl, which is all that Debian's base image has.
CONTAINERS = {
    "good": (
        "$|=1; my $x = 'x' x 5_000_000; $i++ while $i < 5_000_000; print \"good is up\\n\";"
        " sleep 600"
    ),
    "parent": "$|=1; if (fork) { sleep 600 } else { sleep 600 }",
    "deaf": "$|=1; $SIG{TERM} = 'IGNORE'; print \"deaf is up\\n\"; sleep 600 while 1",
    "broken": '$|=1; print "no configuration here\\n"; exit 3',
}


def process_stack(directory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "work").mkdir()
    lines = [
        "[supervisord]",
        "pidfile=%(here)s/supervisord.pid",
        "logfile=%(here)s/supervisord.log",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        "[inet_http_server]",
        f"port=127.0.0.1:{port}",
        "username=lifeboat",
        "password=canary-42",
    ]
    for name, code in PROGRAMS.items():
        (directory / f"{name}.py").write_text(code)
        lines += [
            f"[program:{name}]",
            f"command={sys.executable} %(here)s/%(program_name)s.py",
            "directory=%(here)s/work",
            'environment=COLOUR="blue",SIZE="10"',
            "autostart=false",
            "autorestart=false",
            "startsecs=1",
            "startretries=0",
            "stopwaitsecs=1",
            "redirect_stderr=true",
            "stdout_logfile=%(here)s/%(program_name)s.log",
        ]
    config = directory / "supervisord.conf"
    config.write_text("\n".join(lines) + "\n")
    return ProcessStack(config)


def compose_stack(directory):
    lines = [f"name: contract-{uuid.uuid4().hex[:8]}", "services:"]
    for name, code in CONTAINERS.items():
        lines += [
            f"  {name}:",
            "    image: debian:trixie-slim",
            "    working_dir: /work",
            "    environment: {COLOUR: '${COLOUR}', SIZE: 10}",
            "    stop_grace_period: 1s",
            "    network_mode: none",
            # As a process with id 1 it would not even notice being asked to end.
            "    init: true",
            f"    command: [perl, -e, {json.dumps(code.replace('$', '$$'))}]",
        ]
    (directory / "production.env").write_text("COLOUR=blue\n")
    file = directory / "docker-compose.prod.yml"
    file.write_text("\n".join(lines) + "\n")
    return ComposeStack(file, env_file=directory / "production.env", program=find_compose())


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(process_stack, id="processes"),
        pytest.param(compose_stack, id="containers"),
    ],
)
def stack(request, tmp_path_factory):
    if request.param is compose_stack:
        request.getfixturevalue("docker_host")
    made = request.param(tmp_path_factory.mktemp("stack"))
    yield made
    made.down()
    if request.param is compose_stack:
        remove_containers(made)


def remove_containers(stack):
    subprocess.run(
        [find_compose() or "docker-compose", *stack._options(), "down", "--volumes"],
        check=True,
        capture_output=True,
    )


def by_name(stack):
    return {service.name: service for service in stack.status()}


def test_nothing_runs_at_first(stack):
    stack.down()
    assert [s.name for s in stack.status()] == list(PROGRAMS)
    assert {s.state for s in stack.status()} == {ServiceState.STOPPED}
    stack.stop(["good"])  # already so: no error


def test_up_starts_what_was_asked_for_and_nothing_else(stack):
    before = time.time()
    stack.up(["good"])
    good = by_name(stack)["good"]
    assert good.state is ServiceState.RUNNING
    assert psutil.pid_exists(good.pid)
    assert before - 2 <= good.started_at <= time.time() + 1
    assert good.memory_bytes > 1_000_000
    assert good.cpu_seconds > 0
    assert by_name(stack)["deaf"].state is ServiceState.STOPPED
    stack.up(["good"])
    assert by_name(stack)["good"].pid == good.pid


def test_stop_leaves_no_process(stack):
    stack.up(["good", "parent"])
    parent = psutil.Process(by_name(stack)["parent"].pid)
    child = _soon(lambda: parent.children())[0]
    stack.stop(["parent"])
    assert by_name(stack)["parent"].state is ServiceState.STOPPED
    assert by_name(stack)["good"].state is ServiceState.RUNNING
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_stop_kills_what_does_not_listen(stack):
    stack.up(["deaf"])
    _soon(lambda: "deaf is up" in stack.logs("deaf"))
    began = time.monotonic()
    stack.stop(["deaf"])
    assert by_name(stack)["deaf"].pid is None
    assert time.monotonic() - began < 10


def test_restart_gives_a_new_process(stack):
    stack.up(["good"])
    first = by_name(stack)["good"].pid
    stack.restart(["good"])
    assert by_name(stack)["good"].pid not in (None, first)


def test_a_service_that_ends_at_once_is_named_with_its_reason_and_the_others_start(stack):
    stack.up(["deaf"])
    stack.stop(["deaf", "good"])
    with pytest.raises(PermanentError, match=r"1 service.*broken.*no configuration here"):
        stack.start(["broken", "good"])
    assert by_name(stack)["good"].state is ServiceState.RUNNING
    assert by_name(stack)["broken"].state is ServiceState.FAILED


def test_a_killed_service_is_seen(stack):
    stack.up(["good"])
    os.kill(by_name(stack)["good"].pid, signal.SIGKILL)
    _soon(lambda: by_name(stack)["good"].state is ServiceState.FAILED)
    stack.start(["good"])
    assert by_name(stack)["good"].state is ServiceState.RUNNING


def test_an_unknown_name_touches_nothing(stack):
    stack.up(["good"])
    for act in (stack.start, stack.stop, stack.restart, stack.up):
        with pytest.raises(PreconditionError, match=r"no service nonsense.*good"):
            act(["good", "nonsense"])
    assert by_name(stack)["good"].state is ServiceState.RUNNING
    with pytest.raises(PreconditionError):
        stack.logs("nonsense")


def test_logs_are_there_after_the_end(stack):
    stack.up(["good"])
    _soon(lambda: "good is up" in stack.logs("good"))
    stack.down()
    assert stack.logs("good", 1) == "good is up"


def test_run_in_runs_beside_the_service(stack):
    stack.up(["good"])
    said = stack.run_in("good", ["sh", "-c", "echo $COLOUR $SIZE; basename $(pwd)"])
    assert said.split() == ["blue", "10", "work"]
    assert stack.run_in("good", ["cat"], input=b"by standard input") == "by standard input"
    with pytest.raises(CommandFailed, match="exit code 7"):
        stack.run_in("good", ["sh", "-c", "exit 7"])


def test_prepare_starts_nothing(stack):
    stack.down()
    stack.prepare()
    stack.prepare(["good"])
    assert not any(s.pid for s in stack.status())
    with pytest.raises(PreconditionError, match="no service nonsense"):
        stack.prepare(["nonsense"])


def test_down_ends_everything(stack):
    stack.up(["good", "parent", "deaf"])
    pids = [s.pid for s in stack.status() if s.pid]
    stack.down()
    # How a service ended may still be told: one that was killed did not stop by itself.
    assert {s.state for s in stack.status()} <= {ServiceState.STOPPED, ServiceState.FAILED}
    assert not any(s.pid for s in stack.status())
    assert not any(psutil.pid_exists(pid) for pid in pids)
    stack.down()  # already so


def test_services_left_by_a_killed_supervisor_are_seen_and_not_doubled(stack):
    if not isinstance(stack, ProcessStack):
        pytest.skip("the engine keeps its containers")
    stack.up(["good"])
    orphan = psutil.Process(by_name(stack)["good"].pid)
    orphan.parent().kill()
    _soon(lambda: by_name(stack)["good"].state is ServiceState.FAILED)
    assert "nothing watches" in by_name(stack)["good"].detail
    stack.up(["good"])
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert by_name(stack)["good"].state is ServiceState.RUNNING


@pytest.mark.parametrize("make", [process_stack, compose_stack], ids=["processes", "containers"])
def test_one_that_ends_again_and_again_is_failing(make, tmp_path, request):
    """By its state alone it is starting, for ever."""
    if make is compose_stack:
        request.getfixturevalue("docker_host")
    stack = make(tmp_path)
    for file, old, new in (
        ("supervisord.conf", "startretries=0", "startretries=4"),
        ("docker-compose.prod.yml", "  broken:\n", "  broken:\n    restart: always\n"),
    ):
        if (tmp_path / file).exists():
            (tmp_path / file).write_text((tmp_path / file).read_text().replace(old, new))

    def start():
        with suppress(RecoveryError):
            stack.up(["good", "broken"])

    starting = threading.Thread(target=start)
    starting.start()
    try:
        _soon(lambda: by_name(stack)["broken"].failing)
        assert not by_name(stack)["good"].failing
    finally:
        starting.join()
        stack.down()
        if make is compose_stack:
            remove_containers(stack)


def test_no_definition_is_a_precondition(tmp_path):
    with pytest.raises(PreconditionError, match="no supervisor configuration"):
        ProcessStack(tmp_path / "supervisord.conf").status()
    with pytest.raises(PreconditionError, match=r"no .*docker-compose.prod.yml"):
        ComposeStack(tmp_path / "docker-compose.prod.yml").status()


def _soon(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")
