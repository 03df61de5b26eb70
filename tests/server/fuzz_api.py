#!/usr/bin/env python3
"""Requests made from contrib/openapi.yaml by schemathesis, right and wrong ones, against a fixture on the host target.

    tests/server/fuzz_api.py [--requests N] [--seed N]

Fails when an answer is a 5xx or not what the file says, when the server ends, when a slot or page stays taken, or when a good request
gets other ids during it or afterwards.
"""
import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import yaml
from serving import MODELS, ROOT, Server, compile_model

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method,allow_header_conformance"
GOOD = {"prompt": "Once upon", "max_tokens": 24, "temperature": 1, "seed": 11, "ignore_eos": True, "return_token_ids": True}
CONTEXT = 512
SHORT_EXAMPLES = 6  # of each operation; beside them some 6 000 systematic ones of the coverage phase, which are cheap to make


def fitted(spec):
    """The file with bounds of this server in place of those of any: else nearly all requests would be for other models, or too long."""
    s = spec["components"]["schemas"]
    s["Common"]["properties"]["model"] = {"enum": ["qwen3", None]}
    for name in ("TokenizeRequest", "DetokenizeRequest"):
        s[name]["properties"]["model"] = {"enum": ["qwen3", None]}
    openai = s["OpenAi"]["properties"]
    openai["n"]["maximum"] = 4
    for name in ("max_tokens", "max_completion_tokens", "n_predict"):
        openai[name]["maximum"] = 40
    s["ResponsesRequest"]["allOf"][-1]["properties"]["max_output_tokens"]["maximum"] = 40
    s["Common"]["properties"]["stop_token_ids"]["items"]["maximum"] = 600
    s["Common"]["properties"]["min_tokens"]["maximum"] = 40
    return spec


class Witness(threading.Thread):
    """A client whose requests are good; its answers must not change."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.stop, self.answers, self.failure = server, threading.Event(), 0, None
        self.want = self.ids()

    def ids(self):
        status, body, _ = self.server.call("/v1/completions", GOOD)
        assert status == 200, (status, body)
        return body["choices"][0]["token_ids"]

    def run(self):
        try:
            while not self.stop.wait(0.05):
                got = self.ids()
                assert got == self.want, (got, self.want)
                self.answers += 1
        except Exception as e:  # told by check()
            self.failure = e

    def check(self):
        self.stop.set()
        self.join()
        assert self.failure is None, self.failure
        assert self.ids() == self.want


def schemathesis(server, spec, seed, examples):
    command = [sys.executable, "-m", "schemathesis.cli", "run", str(spec), "--url", server.url, "--seed", str(seed), "--phases", "coverage,fuzzing", "-n", str(examples),
               "--checks", CHECKS, "--no-shrink", "--continue-on-failure", "--warnings", "off", "--suppress-health-check", "all"]
    r = subprocess.run(command, cwd=spec.parent, capture_output=True, text=True,
                       env=dict(os.environ, SCHEMATHESIS_HOOKS="fuzz_hooks", PYTHONPATH=str(pathlib.Path(__file__).parent)))
    assert server.process.poll() is None, f"the server ended with {server.process.returncode}\n{r.stdout[-6000:]}"
    assert r.returncode == 0, r.stdout[-12000:] + r.stderr[-2000:]


def counted(log):
    """(path, status) of each request so far, from the server's own log."""
    lines = [json.loads(line) for line in log.read_text().split("\n") if line.startswith("{")]
    return collections.Counter((r["path"], r["status"]) for r in lines if r.get("event") == "request")


def at_rest(server):
    end = time.monotonic() + 30
    while server.metric("adallm:num_requests_running") or server.metric("adallm:num_requests_waiting"):
        assert time.monotonic() < end, "a slot stays taken:\n" + server.call("/stats")[1]
        time.sleep(0.05)
    assert server.metric("adallm:kv_pages") == 0


def fuzz(ada, folder, requests, seed=1, report=print):
    log, spec = folder / "requests.log", folder / "openapi.json"
    spec.write_text(json.dumps(fitted(yaml.safe_load((ROOT / "contrib" / "openapi.yaml").read_text()))))
    server = Server(ada, "--max-model-len", CONTEXT, "--max-num-seqs", "8", log=log)
    try:
        witness = Witness(server)
        witness.start()
        begin, n, examples = time.monotonic(), 0, SHORT_EXAMPLES
        while n < requests:
            schemathesis(server, spec, seed, examples)
            n, seed, examples = counted(log).total(), seed + 1, 100
            report(f"{n} requests, {time.monotonic() - begin:.0f} s")
        witness.check()
        at_rest(server)
        statuses = counted(log)
        assert not [s for s in statuses if s[1] >= 500], statuses
        assert sum(n for s, n in statuses.items() if s[1] == 200) > statuses.total() / 20, statuses
        server.stop()
        return statuses, witness.answers
    finally:
        server.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        statuses, good = fuzz(compile_model(MODELS / "qwen3", folder / "qwen3.ada"), folder, args.requests, args.seed)
    for path in sorted({p for p, _ in statuses}):
        print(f"{path:24}", *(f"{s}: {n}" for (p, s), n in sorted(statuses.items()) if p == path))
    print(f"{statuses.total()} requests, {good} good ones among them with the same ids")


if __name__ == "__main__":
    main()
