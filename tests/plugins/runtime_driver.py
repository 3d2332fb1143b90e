# SPDX-License-Identifier: Apache-2.0
"""A runtime for storms, run as a program inside a node: many chains at once, and some of them killed on the way.

stdin:  {"parallel": n, "verb": "ADD" | "DEL", "path": {executable: path}, "env": {...}, "jobs": [job, ...]}
job:    {"id": container id, "netns": path, "confs": [configuration, ...], "kill_after": seconds or null}
stdout: [{"result": the last plugin's JSON or null, "killed": bool, "error": text, "seconds": n}, ...] as the jobs

As with libcni, a plugin that is killed is waited for until its standard error is closed, which its IPAM child holds
open: the child lives on and may reserve an address after its parent's death.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

ORDER: dict[str, int] = {"ADD": 1, "DEL": -1}


def call(request: dict[str, Any], job: dict[str, Any], conf: dict[str, Any], deadline: float | None) -> tuple[int, str]:
    """Exit status and stdout of one plugin, which is killed when `deadline` passes."""
    env = {**request["env"], "CNI_COMMAND": request["verb"], "CNI_CONTAINERID": job["id"], "CNI_NETNS": job["netns"]}
    pipe = subprocess.PIPE
    argv = [request["path"][conf["type"]]]
    child = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env)
    timer = threading.Timer(max(0, deadline - time.monotonic()), child.kill) if deadline is not None else None
    if timer:
        timer.start()
    stdout, _ = child.communicate(json.dumps(conf))
    if timer:
        timer.cancel()
    return child.returncode, stdout


def timed(request: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    return {**serve(request, job), "seconds": time.monotonic() - began}


def serve(request: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    deadline = None if job.get("kill_after") is None else time.monotonic() + job["kill_after"]
    result: Any = None
    for conf in job["confs"][:: ORDER[request["verb"]]]:
        if deadline is not None and time.monotonic() > deadline:
            return {"result": None, "killed": True, "error": ""}
        status, stdout = call(request, job, {**conf, **({"prevResult": result} if result else {})}, deadline)
        if status:
            return {"result": None, "killed": status < 0, "error": stdout}
        result = json.loads(stdout) if stdout else None
    return {"result": result, "killed": False, "error": ""}


def main() -> None:
    request = json.load(sys.stdin)
    with ThreadPoolExecutor(request["parallel"]) as pool:
        json.dump(list(pool.map(lambda job: timed(request, job), request["jobs"])), sys.stdout)


if __name__ == "__main__":
    main()
