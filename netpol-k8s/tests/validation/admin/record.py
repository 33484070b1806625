#!/usr/bin/env python3
"""Asks a kube-apiserver what it says about every cluster-wide policy in objects.yaml, under the definitions of each release and
channel of the network-policy-api project, and writes the answers to JSON files.

The definitions are not kept here: they come from the project's Go module, through the Go tool, or from --source. They are put
in place of those that the server has, so use a server that is for this alone. Policies are sent as dry runs.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import record  # noqa: E402

MODULE = "sigs.k8s.io/network-policy-api"
GROUP = "policy.networking.k8s.io"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
# Output, and its definitions: release, folder, plural. An object of another kind is not asked about.
RECORDINGS = {
    "standard.json": [("v0.2.0", "config/crd/standard", "clusternetworkpolicies"),
                      ("v0.1.7", "config/crd/standard", "adminnetworkpolicies"),
                      ("v0.1.7", "config/crd/standard", "baselineadminnetworkpolicies")],
    "experimental.json": [("v0.2.0", "config/crd/experimental", "clusternetworkpolicies"),
                          ("v0.1.7", "config/crd/experimental", "adminnetworkpolicies"),
                          ("v0.1.7", "config/crd/experimental", "baselineadminnetworkpolicies")],
    "old.json": [("v0.1.1", "config/crd", "adminnetworkpolicies"),
                 ("v0.1.1", "config/crd", "baselineadminnetworkpolicies")],
}
EXAMPLE = """\
example:
  export KUBECONFIG=/path/to/kubeconfig
  ./record.py --check                        # does this server answer as recorded?
  ./record.py                                # record again
  ./record.py --source /path/to/checkouts    # with the definitions in /path/to/checkouts/v0.2.0/config/crd/...

exit status: 0 recorded, or nothing differs; 1 something differs; 2 it could not be done
"""


def source(release, folder):
    """Where the project's files of a release are."""
    if folder:
        return Path(folder) / release
    with tempfile.TemporaryDirectory() as empty:
        try:
            answer = subprocess.run(["go", "mod", "download", "-json", f"{MODULE}@{release}"], cwd=empty,
                                    capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            detail = getattr(error, "stdout", "") or getattr(error, "stderr", "") or error
            raise record.Failure(f"cannot get {MODULE} {release}: {detail}; use --source") from error
    return Path(json.loads(answer.stdout)["Dir"])


def install(server, files):
    """Puts definitions in place of all that the server has of the group."""
    code, listed, _ = server.ask("GET", CRDS)
    if code != 200:
        raise record.Failure(f"GET {CRDS}: HTTP {code}: {listed.get('message')}")
    old = [crd["metadata"]["name"] for crd in listed["items"] if crd["spec"]["group"] == GROUP]
    for name in old:
        server.ask("DELETE", f"{CRDS}/{name}")
    for name in old:
        wait(lambda: server.ask("GET", f"{CRDS}/{name}")[0] == 404, f"{name} to go")
    for file in files:
        code, answer, _ = server.ask("POST", CRDS, file.read_bytes(), "application/yaml")
        if code != 201:
            raise record.Failure(f"{file}: HTTP {code}: {answer.get('message')}")
        name = answer["metadata"]["name"]
        path = f"/apis/{GROUP}/{answer['spec']['versions'][0]['name']}/{answer['spec']['names']['plural']}"
        wait(lambda: server.ask("GET", path)[0] == 200, f"{name} to be served")


def wait(done, what):
    for _ in range(200):
        try:
            if done():
                return
        except record.Failure:
            pass
        time.sleep(0.1)
    raise record.Failure(f"waited in vain for {what}")


def documents_for(kinds, documents):
    """The documents of these kinds, with the path that each is sent to."""
    result = []
    for document in documents:
        version = re.search(r"^apiVersion: (\S+)", document["body"], re.MULTILINE)[1]
        plural = re.search(r"^kind: (\S+)", document["body"], re.MULTILINE)[1].lower().removesuffix("y") + "ies"
        if plural in kinds and version == f"{GROUP}/{kinds[plural]}":
            result.append(document | {"path": f"/apis/{version}/{plural}"})
    return result


def recorded(server, documents):
    """The answers, without what is said twice, and in an order of our own: the server goes through maps in random order."""
    entries = record.record(server, documents)
    for entry in entries:
        entry.pop("stored", None)
        for verdict in (entry["strict"], entry["warn"]):
            verdict["causes"].sort(key=lambda cause: (cause["field"], cause["reason"], cause["message"]))
            if verdict["causes"]:
                del verdict["message"]
            for cause in verdict["causes"]:
                cause["message"] = shortened(cause["message"])
            verdict.get("warnings", []).sort()
    return entries


def shortened(text):
    return text if len(text) <= 200 else text[:200] + "..."


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; compare with what is recorded")
    parser.add_argument("--source", metavar="DIR", help="a folder with a checkout of the project for each release")
    parser.add_argument("--timeout", type=float, default=10, metavar="SECONDS", help="for each request (default: 10)")
    options = parser.parse_args()
    documents = record.read_documents(HERE / "objects.yaml")
    server = record.Server(record.read_kubeconfig(), options.timeout)
    code, version, _ = server.ask("GET", "/version")
    if code != 200 or "gitVersion" not in version:
        raise record.Failure(f"GET /version: HTTP {code}: {version.get('message')}")
    differences = 0
    for name, definitions in RECORDINGS.items():
        files = [source(release, options.source) / folder / f"{GROUP}_{plural}.yaml"
                 for release, folder, plural in definitions]
        install(server, files)
        kinds = {plural: "v1alpha2" if plural.startswith("cluster") else "v1alpha1" for _, _, plural in definitions}
        asked = documents_for(kinds, documents)
        releases = {plural: release for release, _, plural in definitions}
        result = {"server": {"gitVersion": version["gitVersion"], "definitions": releases},
                  "documents": recorded(server, asked)}
        accepted = sum(entry["strict"]["accepted"] for entry in result["documents"])
        print(f"{name}: {len(asked)} documents, {accepted} accepted and {len(asked) - accepted} rejected in strict mode by "
              f"{version['gitVersion']}")
        if options.check:
            differences += record.compare(HERE / name, result)
        else:
            record.write(HERE / name, result)
    if options.check:
        print(f"{differences} differences" if differences else "no difference")
    return 1 if differences else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except record.Failure as failure:
        print(f"record.py: {failure}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
