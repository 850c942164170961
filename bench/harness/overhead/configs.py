"""
Configuration files of nginx and HAProxy. Pure.

The proxies get one process and one thread each, connections that stay open on both sides, no
access log, and else their defaults.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from grp import getgrgid
from pathlib import Path
from pwd import getpwuid

# Their default of 1000 requests a connection would add a new connection now and then.
_MANY = 1_000_000_000
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def backend_config(
    folder: Path, addresses: Sequence[str], stand_in: str, *, port: int, open_files: int
) -> str:
    """
    nginx as the worker: answers from the files in *folder*, takes uploads, and lets `stand_in` hold
    what must wait.

    Args:
        addresses: Each with a port: where it listens.
        stand_in: Address and port of the program in `backend`.
        port: One of its own that takes part in no measurement: it answers an upload once nginx
            has read that to its end, with the bytes it had.
    """
    listen = "\n".join(f"    listen {address} backlog=4096;" for address in addresses)
    return f"""{_head(folder, open_files, processes=2)}
  open_file_cache max=100;
  default_type application/octet-stream;
  keepalive_requests {_MANY};
  client_max_body_size 0;
  client_body_buffer_size 4m;
  upstream received {{ server 127.0.0.1:{port}; keepalive 64; keepalive_requests {_MANY}; }}
  server {{
{listen}
    root {folder};
    location = /health {{ return 200 '{{"status":"ok"}}'; }}
    location = /upload {{
      proxy_pass http://received;
      proxy_http_version 1.1;
      proxy_method GET;
      proxy_pass_request_body off;
      proxy_set_header Connection "";
      proxy_set_header Content-Length "";
      proxy_set_header X-Received $request_length;
    }}
    location = /slow {{
      proxy_pass http://{stand_in};
      proxy_http_version 1.1;
      proxy_read_timeout 1h;
    }}
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 $http_x_received; }}
  }}
}}
"""


def nginx_config(folder: Path, port: int, workers: Sequence[str], *, open_files: int) -> str:
    """
    nginx as a reverse proxy.

    Args:
        workers: Each an address with a port.
    """
    servers = "\n".join(f"    server {worker};" for worker in workers)
    return f"""{_head(folder, open_files, processes=1)}
  keepalive_requests {_MANY};
  client_max_body_size 0;
  upstream workers {{
    least_conn;
{servers}
    keepalive 1024;
    keepalive_requests {_MANY};
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://workers;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_read_timeout 1h;
    }}
  }}
}}
"""


def haproxy_config(port: int, workers: Sequence[str], *, connections: int) -> str:
    """
    HAProxy as a reverse proxy, with health checks as often as the router's.

    Args:
        workers: Each an address with a port.
        connections: Clients that it takes at once (count). It closes idle connections to workers
            when a fifth of its descriptors are used, unless told otherwise.
    """
    servers = "\n".join(
        f"  server w{number} {worker} check inter 10s" for number, worker in enumerate(workers)
    )
    return f"""global
  nbthread 1
  maxconn {connections}
  tune.pool-low-fd-ratio 99
  tune.pool-high-fd-ratio 100
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend clients
  bind 127.0.0.1:{port} backlog 4096
  default_backend workers
backend workers
  balance leastconn
  option httpchk GET /health
{servers}
"""


def _head(folder: Path, open_files: int, *, processes: int) -> str:
    temporary = "\n".join(f"  {name}_temp_path {folder}/{name};" for name in _TEMPORARY)
    return f"""{_user()}daemon off;
worker_processes {processes};
worker_rlimit_nofile {open_files};
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections {open_files}; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
{temporary}"""


def _user() -> str:
    # Started by root it would change to a user that may not read the folder.
    if os.geteuid():
        return ""
    return f"user {getpwuid(0).pw_name} {getgrgid(0).gr_name};\n"
