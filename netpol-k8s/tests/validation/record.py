#!/usr/bin/env python3
"""Asks a kube-apiserver what it says about every NetworkPolicy in objects.yaml and writes the answers to a JSON file.

Nothing is stored in the cluster: every request is a dry run in the namespace "default". Each document is sent twice,
with fieldValidation=Strict and with fieldValidation=Warn.
"""

import argparse
import base64
import http.client
import itertools
import json
import os
import re
import ssl
import sys
import tempfile
import urllib.parse
from pathlib import Path

HERE = Path(__file__).resolve().parent
OBJECTS = HERE / "objects.yaml"
PATH = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
MAX_ANSWER = 16 * 1024 * 1024
# Codes that say nothing about the object: no permission, overload, a broken or starting server.
NO_VERDICT = {401, 403, 404, 408, 429, 502, 503, 504}

EXAMPLE = """\
example:
  export KUBECONFIG=$HOME/.kube/config
  ./record.py --check            # does this server answer as recorded in verdicts.json?
  ./record.py                    # record verdicts.json again
  ./record.py --legacy --check   # the same for a server started with --feature-gates=StrictIPCIDRValidation=false

exit status: 0 recorded, or nothing differs; 1 something differs; 2 it could not be done
"""
MAP_FIELD = re.compile(r"(^|\.)(matchLabels|labels|annotations)$")


class Failure(Exception):
    """Something that ends the program with a message."""


# --- objects.yaml ----------------------------------------------------------------------------------------------------

def read_documents(path):
    """The documents of the file: rules, title, body and the content type that the body is sent with.

    The text before the first separator is a comment about the file. Every document is what stands between two lines
    "---", and its first line is "# RULE... TITLE". A body that begins with "{" is sent as JSON, any other as YAML. The
    comment line is part of what is sent as YAML, so the line numbers in the server's messages count it as line 1.
    """
    parts = re.split(r"^---\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    documents, titles = [], set()
    for number, text in enumerate(parts[1:], 1):
        heading, _, rest = text.partition("\n")
        match = re.fullmatch(r"# ((?:(?:VAL|NP|CNP)-\d+ )+)(\S.*)", heading)
        if not match:
            raise Failure(f"{path.name}: document {number} does not begin with a line like '# VAL-16 a title': {heading!r}")
        title = match[2]
        if title in titles:
            raise Failure(f"{path.name}: document {number}: the title {title!r} is used twice")
        titles.add(title)
        is_json = rest.startswith("{")
        documents.append({
            "title": title,
            "rules": match[1].split(),
            "format": "json" if is_json else "yaml",
            "body": rest if is_json else text,
        })
    if not documents:
        raise Failure(f"{path.name}: no documents")
    return documents


def mentions_cidr(document):
    return re.search(r"ipBlock|cidr", document["body"]) is not None


# --- kubeconfig and connection ---------------------------------------------------------------------------------------

def read_kubeconfig():
    name = os.environ.get("KUBECONFIG", "")
    if not name:
        raise Failure("KUBECONFIG is not set; set it to the kubeconfig file of the server to ask")
    if os.pathsep in name:
        raise Failure("KUBECONFIG names several files; set it to one file")
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read the kubeconfig {name}: {error}") from error
    hint = "make a file for one cluster with: kubectl config view --raw --minify --flatten"

    def value(key):
        found = set(re.findall(rf"^[ \t-]*{re.escape(key)}:[ \t]*(\S+)[ \t]*$", text, re.MULTILINE))
        if len(found) > 1:
            raise Failure(f"{name}: more than one {key}; {hint}")
        return found.pop().strip("\"'") if found else None

    server = value("server")
    if server is None:
        raise Failure(f"{name}: no server found; {hint}")
    try:
        url = urllib.parse.urlsplit(server)
        if url.scheme != "https" or not url.hostname:
            raise Failure(f"{name}: not an https address: {server}")
        return {
            "server": server,
            "host": url.hostname,
            "port": url.port or 443,
            "prefix": url.path.rstrip("/"),
            "token": value("token"),
            "context": tls_context(value, name, hint),
        }
    except (ValueError, OSError, ssl.SSLError) as error:
        raise Failure(f"{name}: cannot use its address, certificates or key: {error}") from error


def tls_context(value, name, hint):
    authority = value("certificate-authority-data")
    if authority is None:
        raise Failure(f"{name}: no certificate-authority-data found; {hint}")
    context = ssl.create_default_context(cadata=base64.b64decode(authority).decode("ascii"))
    certificate, key = value("client-certificate-data"), value("client-key-data")
    if certificate and key:
        # The ssl module reads client certificates only from files; these are readable by this user alone.
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for text, file in ((certificate, "certificate"), (key, "key")):
                path = Path(folder) / file
                path.touch(mode=0o600)
                path.write_bytes(base64.b64decode(text))
                files.append(path)
            context.load_cert_chain(*files)
    elif value("token") is None:
        raise Failure(f"{name}: neither a token nor a client certificate found; {hint}")
    return context


class Server:
    def __init__(self, config, timeout):
        self.config = config
        self.connection = http.client.HTTPSConnection(
            config["host"], config["port"], timeout=timeout, context=config["context"])

    def ask(self, method, path, body=None, content_type=None):
        """Code, decoded JSON and warnings of one answer."""
        headers = {"Accept": "application/json", "User-Agent": "record.py"}
        if self.config["token"]:
            headers["Authorization"] = "Bearer " + self.config["token"]
        if content_type:
            headers["Content-Type"] = content_type
        try:
            self.connection.request(method, self.config["prefix"] + path, body=body, headers=headers)
            answer = self.connection.getresponse()
            data = answer.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"no answer from {self.config['server']}: {error or type(error).__name__}") from error
        if len(data) > MAX_ANSWER:
            raise Failure(f"{method} {path}: the answer is longer than {MAX_ANSWER} bytes")
        try:
            content = json.loads(data)
        except ValueError as error:
            raise Failure(f"{method} {path}: HTTP {answer.status}, and the answer is not JSON: {data[:200]!r}") from error
        return answer.status, content, [warning_text(w) for w in answer.headers.get_all("Warning") or []]

    def post(self, document, validation):
        code, content, warnings = self.ask(
            "POST", f"{document.get('path', PATH)}?dryRun=All&fieldValidation={validation}",
            document["body"].encode("utf-8"), "application/" + document["format"])
        if code in NO_VERDICT:
            raise Failure(f"{document['title']}: HTTP {code} is no verdict about the object: {content.get('message')}")
        return code, content, warnings


def warning_text(header):
    """The text of one Warning header: 299 - "text", where the text is UTF-8 and \\ and " are escaped."""
    header = header.encode("latin-1").decode("utf-8")
    match = re.fullmatch(r'299 - "(.*)"', header)
    if not match:
        raise Failure(f"unexpected form of a Warning header: {header}")
    return re.sub(r"\\(.)", r"\1", match[1])


# --- one verdict -----------------------------------------------------------------------------------------------------

def verdict(document, code, content):
    if code < 300:
        return {"code": code, "accepted": True, "causes": []}
    message = content.get("message", "")
    details = content.get("details") or {}
    causes = [{key: cause.get(key, "") for key in ("field", "reason", "message")} for cause in details.get("causes") or []]
    message, causes = sort_map_entries(message, causes)
    # A place in the server's source, and the first bytes of the request as hexadecimal digits.
    message = re.sub(r' in scheme "[^"]*"$', ' in scheme "..."', message)
    message = re.sub(r" \((?:[0-9a-f]{2})+(?: \.\.\.)?\)$", " (...)", message)
    generated = details.get("name", "")
    if generated and "generateName" in document["body"] and generated not in document["body"]:
        # The server has made up the last five characters, and others the next time.
        message = message.replace(generated, generated[:-5] + "?????")
        for cause in causes:
            cause["message"] = cause["message"].replace(generated, generated[:-5] + "?????")
    return {"code": code, "accepted": False, "message": message, "causes": causes}


def sort_map_entries(message, causes):
    """The server walks maps in random order. Sort what it says about the entries of one map by the value that it quotes."""
    if len(causes) < 2:
        return message, causes
    before, result = listed(causes), []
    for (_, is_map), group in itertools.groupby(causes, lambda c: (c["field"], MAP_FIELD.search(c["field"]) is not None)):
        result += sorted(group, key=lambda c: quoted_value(c["message"])) if is_map else group
    if not message.endswith(before):
        raise Failure(f"the message does not end with its causes: {message}")
    return message[:len(message) - len(before)] + listed(result), result


def quoted_value(message):
    """A sort key that leaves the causes about one value in the server's order, and those about the whole map at the end."""
    match = re.match(r'Invalid value: ("(?:[^"\\]|\\.)*")', message)
    return (0, match[1]) if match else (1, "")


def listed(causes):
    """How the server writes several causes in its message: each text once."""
    texts = list(dict.fromkeys(f"{cause['field']}: {cause['message']}" for cause in causes))
    return "[" + ", ".join(texts) + "]" if len(texts) > 1 else texts[0]


def record(server, documents):
    result = []
    for document in documents:
        strict_code, strict, _ = server.post(document, "Strict")
        warn_code, warn, warnings = server.post(document, "Warn")
        entry = {key: document[key] for key in ("title", "rules", "format")}
        entry["strict"] = verdict(document, strict_code, strict)
        entry["warn"] = verdict(document, warn_code, warn)
        entry["warn"]["warnings"] = warnings
        if entry["warn"]["accepted"]:
            entry["stored"] = warn["spec"]
        result.append(entry)
    return result


def check_gate(server, legacy):
    """Is the server the one that the options say? 10.0.0.1/8 tells: only a server without strict CIDR validation takes it."""
    probe = {
        "title": "probe", "format": "json",
        "body": json.dumps({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "record-py-probe"},
            "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}]},
        }),
    }
    code, content, _ = server.post(probe, "Strict")
    if code not in (201, 422):
        raise Failure(f"the server answered HTTP {code} to a plain NetworkPolicy: {content.get('message')}")
    if legacy and code == 422:
        raise Failure("this server validates CIDRs strictly; --legacy needs one started with "
                      "--feature-gates=StrictIPCIDRValidation=false")
    if not legacy and code == 201:
        raise Failure("this server does not validate CIDRs strictly (default since Kubernetes 1.36); use --legacy for it")


# --- files and comparison --------------------------------------------------------------------------------------------

def write(path, content):
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    temporary = path.with_suffix(".new")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise Failure(f"cannot write {path}: {error}") from error


def compare(path, new):
    """Print how the recorded file differs; the number of differences."""
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        recorded = {entry["title"]: entry for entry in old["documents"]}
        version = old["server"]["gitVersion"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(f"cannot read {path}: {error!r}; record it first") from error
    if version != new["server"]["gitVersion"]:
        print(f"note: recorded from {version}, this server is {new['server']['gitVersion']}")
    answered = {entry["title"]: entry for entry in new["documents"]}
    differences = 0
    for title, entry in answered.items():
        if title not in recorded:
            problem = "not recorded yet"
        elif entry != recorded[title]:
            keys = [key for key in sorted(entry.keys() | recorded[title].keys()) if entry.get(key) != recorded[title].get(key)]
            problem = "differs in " + ", ".join(keys)
        else:
            continue
        differences += 1
        print(f"{title}: {problem}")
    for title in recorded.keys() - answered.keys():
        differences += 1
        print(f"{title}: recorded, but no longer among the objects")
    if not differences and list(recorded) != list(answered):
        differences += 1
        print("the documents stand in another order")
    return differences


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; compare with what is recorded")
    parser.add_argument("--legacy", action="store_true",
                        help="the server runs without strict CIDR validation: ask only about the documents that mention a "
                             "CIDR, and use verdicts-legacy-cidr.json")
    parser.add_argument("--timeout", type=float, default=10, metavar="SECONDS", help="for each request (default: 10)")
    options = parser.parse_args()
    if not 0 < options.timeout <= 3600:
        parser.error("--timeout must be more than 0 and at most 3600")

    documents = read_documents(OBJECTS)
    if options.legacy:
        documents = [document for document in documents if mentions_cidr(document)]
    output = HERE / ("verdicts-legacy-cidr.json" if options.legacy else "verdicts.json")

    server = Server(read_kubeconfig(), options.timeout)
    code, version, _ = server.ask("GET", "/version")
    if code != 200 or "gitVersion" not in version:
        raise Failure(f"GET /version: HTTP {code}: {version.get('message')}")
    check_gate(server, options.legacy)
    result = {
        "server": {"gitVersion": version["gitVersion"], "strictIPCIDRValidation": not options.legacy},
        "documents": record(server, documents),
    }
    accepted = sum(entry["strict"]["accepted"] for entry in result["documents"])
    print(f"{len(documents)} documents, {accepted} accepted and {len(documents) - accepted} rejected in strict mode by "
          f"{version['gitVersion']}")
    if options.check:
        differences = compare(output, result)
        print(f"{output.name}: {f'{differences} differences' if differences else 'no difference'}")
        return 1 if differences else 0
    write(output, result)
    print(f"wrote {output.name}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"record.py: {failure}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
