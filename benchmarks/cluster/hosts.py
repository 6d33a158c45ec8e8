"""Nodes of a Ray cluster in network namespaces: each is another machine to the others, with a cable that can be pulled.

Needs root and `ip` (iproute2). The network of all hosts is a bridge; this machine is their router, and its own address, where the
head and the storage listen, is reached through it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

PREFIX = f"hm{os.getpid() % 100_000}"


def can_make_hosts() -> bool:
    """Whether this process may make network namespaces."""
    return (
        os.geteuid() == 0 and shutil.which("ip") is not None and _ip("link", "add", f"{PREFIX}t", "type", "bridge", check=False)
    )


class Network:
    """The bridge that hosts hang on."""

    def __init__(self) -> None:
        _ip("link", "del", f"{PREFIX}t", check=False)
        self.subnet = f"10.77.{os.getpid() % 250}"
        self.address = f"{self.subnet}.1"
        """Of this machine, as the hosts see it."""
        _ip("link", "add", PREFIX, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", PREFIX)
        _ip("link", "set", PREFIX, "up")
        self._hosts = 0

    def host(self, head: str, *options: str, mounts: dict[str, str] | None = None) -> Host:
        """A host that runs a Ray node. Args: options: of `ray start`. mounts: its own small disks, folder -> size."""
        self._hosts += 1
        return Host(self._hosts, self, head, options, mounts or {})

    def close(self) -> None:
        """Remove it."""
        _ip("link", "del", PREFIX, check=False)


class Host:
    """A namespace with a Ray node."""

    def __init__(self, number: int, network: Network, head: str, options: tuple[str, ...], mounts: dict[str, str]) -> None:
        self.name, self._cable = f"{PREFIX}-{number}", f"{PREFIX}c{number}"
        self.address = f"{network.subnet}.{number + 1}"
        inside = ("-n", self.name)
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", self._cable, "master", PREFIX, "up")
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "route", "add", "default", "via", network.address)
        # `ip netns exec` has a mount namespace of its own: these disks are this host's only
        disks = "".join(f"mount -t tmpfs -o size={size} none {folder} && " for folder, size in mounts.items())
        start = [
            Path(sys.executable).with_name("ray"),
            "start",
            f"--address={head}",
            f"--node-ip-address={self.address}",
            "--block",
        ]
        command = disks + "exec " + " ".join(map(str, [*start, *options]))
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, "sh", "-c", command],
            env=os.environ | {"GLOO_SOCKET_IFNAME": "eth0"},  # all hosts have this machine's name, which leads elsewhere
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def root(self) -> psutil.Process:
        """The process that all others of the host come of."""
        return psutil.Process(self._process.pid)

    def cut(self) -> None:
        """Pull the cable."""
        _ip("link", "set", self._cable, "down")

    def join(self) -> None:
        """Put it in again."""
        _ip("link", "set", self._cable, "up")

    def close(self) -> None:
        """Remove what is left of it; its processes must have been killed."""
        self._process.wait(timeout=30)
        _ip("netns", "del", self.name, check=False)


def _ip(*words: str, check: bool = True) -> bool:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return not done.returncode
