"""A Hub on 127.0.0.1: enough of the Hub's HTTP interface for real `push_to_hub` and `from_pretrained` calls.

Repositories of models and of data sets live in memory with their whole history. Clients run as subprocesses with
`HF_ENDPOINT` set: the environment is read once. Xet and LFS never come up: `preupload` answers "regular" to every file.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

USER = "tester"
WHOAMI = {"type": "user", "name": USER, "orgs": [], "auth": {"type": "access_token"}}
DATE = "2026-01-01T00:00:00.000Z"


class HubError(Exception):
    def __init__(self, status, code, **headers):
        super().__init__(code)
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": code, **headers}


class Repository:
    def __init__(self, private=False):
        self.private = private
        first = hashlib.sha1(b"").hexdigest()
        self.commits, self.branches, self.tags = {first: {}}, {"main": first}, {}  # commit -> {path: content}

    def resolve(self, revision):
        commit = revision if revision in self.commits else (self.branches | self.tags).get(revision)
        if commit is None:
            raise HubError(404, "RevisionNotFound")
        return commit

    def files(self, revision="main"):
        return self.commits[self.resolve(revision)]

    def commit(self, branch, operations):
        files = dict(self.files(self.branches.get(branch)))  # a tag or a commit takes no commits
        for key, value in ((operation["key"], operation["value"]) for operation in operations):
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "deletedFile":
                files.pop(value["path"])
            elif key != "header":  # lfsFile, copyFile, ...
                raise HubError(400, f"Unsupported operation {key}")
        oid = hashlib.sha1(f"{self.branches[branch]} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        return oid


def blob_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def listing(files):
    return [{"type": "file", "path": p, "size": len(c), "oid": blob_id(c)} for p, c in sorted(files.items())]


class LoopbackHub:
    """The server, as a context manager; `url` is the `HF_ENDPOINT`, and `unknown` logs requests without a route."""

    def __init__(self):
        self.repositories, self.unknown, self.lock = {}, [], threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    # One method per route: (request body, groups of the route's pattern) -> answer, or (status, answer, headers).

    def create(self, body):
        repo_id = f"{body.get('organization') or USER}/{body['name']}"
        if body.get("type", "model") != "model":
            raise HubError(400, "OnlyModels")
        status = 409 if repo_id in self.repositories else 200
        self.repositories.setdefault(repo_id, Repository(body.get("private") or body.get("visibility") == "private"))
        return status, {"url": f"{self.url}/{repo_id}", "name": repo_id}, {}

    def repository(self, repo_id):
        if repo_id not in self.repositories:
            raise HubError(404, "RepoNotFound")
        return self.repositories[repo_id]

    def preupload(self, body, repo_id, revision):
        oids = {path: blob_id(content) for path, content in self.repository(repo_id).files(revision).items()}
        fixed = {"uploadMode": "regular", "shouldIgnore": False}
        return {"files": [{**fixed, "path": f["path"], "oid": oids.get(f["path"])} for f in body["files"]]}

    def commit(self, body, repo_id, revision):
        oid = self.repository(repo_id).commit(revision, body)
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{repo_id}/commit/{oid}"}

    def tag(self, body, repo_id, revision):
        return self._point(self.repository(repo_id), "tags", body["tag"], revision)

    def branch(self, body, repo_id, name):
        return self._point(self.repository(repo_id), "branches", name, body.get("startingPoint") or "main")

    def _point(self, repository, kind, name, revision):
        status = 409 if name in getattr(repository, kind) else 200
        getattr(repository, kind).setdefault(name, repository.resolve(revision))
        return status, {}, {}

    def info(self, body, repo_id, revision="main"):
        repository = self.repository(repo_id)
        siblings = [{"rfilename": path} for path in sorted(repository.files(revision))]
        answer = {"_id": "0", "id": repo_id, "modelId": repo_id, "sha": repository.resolve(revision), "tags": []}
        return answer | {"siblings": siblings, "private": repository.private, "lastModified": DATE, "createdAt": DATE}

    def tree(self, body, repo_id, revision, folder=""):
        files = self.repository(repo_id).files(revision)
        found = {path: content for path, content in files.items() if f"/{path}".startswith(folder)}
        if folder and not found:
            raise HubError(404, "EntryNotFound")
        return listing(found)

    def paths_info(self, body, repo_id, revision):
        files = self.repository(repo_id).files(revision)
        return listing({path: files[path] for path in body["paths"] if path in files})

    def commits(self, body, repo_id, revision):
        repository = self.repository(repo_id)
        about = {"title": "commit", "message": "", "date": DATE, "authors": [{"user": USER}]}
        ids = list(repository.commits)
        return [{"id": oid, **about} for oid in reversed(ids[: ids.index(repository.resolve(revision)) + 1])]

    def refs(self, body, repo_id):
        repository = self.repository(repo_id)
        named = {"branches": ("heads", repository.branches), "tags": ("tags", repository.tags)}
        return {
            kind: [{"name": name, "ref": f"refs/{path}/{name}", "targetCommit": oid} for name, oid in found.items()]
            for kind, (path, found) in named.items()
        } | {"converts": []}

    def resolve(self, body, repo_id, revision, path):
        headers = {"X-Repo-Commit": self.repository(repo_id).resolve(revision)}
        content = self.repository(repo_id).files(revision).get(path)
        if content is None:
            raise HubError(404, "EntryNotFound", **headers)
        return 200, content, {**headers, "ETag": f'"{blob_id(content)}"'}


ID, REV = r"/api/(?:models|datasets)/([^/]+/[^/]+)", r"/([^/]+)"
ROUTES = {
    "GET /api/whoami-v2": lambda hub, body: WHOAMI,
    "POST /api/validate-yaml": lambda hub, body: {"errors": [], "warnings": []},
    "POST /api/repos/create": LoopbackHub.create,
    f"POST {ID}/preupload{REV}": LoopbackHub.preupload,
    f"POST {ID}/commit{REV}": LoopbackHub.commit,
    f"POST {ID}/tag{REV}": LoopbackHub.tag,
    f"POST {ID}/branch{REV}": LoopbackHub.branch,
    f"POST {ID}/paths-info{REV}": LoopbackHub.paths_info,
    f"GET {ID}": LoopbackHub.info,
    f"GET {ID}/revision{REV}": LoopbackHub.info,
    f"GET {ID}/tree{REV}(/.+)?": LoopbackHub.tree,
    f"GET {ID}/commits{REV}": LoopbackHub.commits,
    f"GET {ID}/refs": LoopbackHub.refs,
    f"(?:GET|HEAD) /(?:datasets/)?([^/]+/[^/]+)/resolve{REV}/(.+)": LoopbackHub.resolve,
}


class Handler(BaseHTTPRequestHandler):
    """Turns HTTP into calls of the hub's methods."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{self.command} {urlsplit(self.path).path}"
        try:
            with self.hub.lock:
                status, content, headers = self._route(request, raw)
        except HubError as error:
            status, content, headers = error.status, {"error": str(error)}, error.headers
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        if status == 200 and (part := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")):
            first, last = map(int, part.groups())
            headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
            status, content = 206, content[first : last + 1]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass

    def _route(self, request, raw):
        for pattern, method in ROUTES.items():
            if found := re.fullmatch(pattern, request):
                if request.startswith(("POST /api/r", "POST /api/m")) and "Authorization" not in self.headers:
                    raise HubError(401, "Unauthorized")
                answer = method(self.hub, self._body(raw), *(unquote(group) for group in found.groups() if group))
                return answer if isinstance(answer, tuple) else (200, answer, {})
        self.hub.unknown.append(request)
        raise HubError(404, "NoSuchRoute")

    def _body(self, raw):
        kind = self.headers.get("Content-Type", "")
        if "x-www-form-urlencoded" in kind:
            return parse_qs(raw.decode())
        if "ndjson" in kind:
            return [json.loads(line) for line in raw.splitlines()]
        return json.loads(raw) if raw else {}
