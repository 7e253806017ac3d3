"""Stand-ins for HashiCorp Vault, Azure Key Vault, Entra ID and the metadata service, which take what the services' own
documentation of their interfaces says and nothing else. What was asked in another way is in `wrong`.

Vault: developer.hashicorp.com/vault/api-docs (auth/approle, auth/kubernetes, secret/kv/kv-v2, secret/transit).
Key Vault: learn.microsoft.com/rest/api/keyvault, version 7.4. Wrapping is RSA-OAEP-256 by the openssl program.
"""

import base64
import http.server
import json
import os
import secrets
import ssl
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path


class Service:
    """A server with a handler of requests: `answer(method, path, headers, body)` gives a status and an object."""

    def __init__(self, tls=None):
        self.wrong, self.asked, self.down = [], [], False
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                service.asked.append((self.command, self.path))
                if service.down:
                    self.close_connection = True
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, answer = service.answer(self.command, self.path, headers, body)
                if status == 400:
                    service.wrong.append((self.command, self.path, {n: v for n, v in headers.items() if "token" not in n}, body[:200]))
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = handle_one

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "server.pem", tls / "server.key")
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Vault(Service):
    """With AppRole at `auth/machines`, Kubernetes at `auth/kubernetes`, key-value 2 at `secret`, transit at `transit`."""

    def __init__(self, namespace="team/prod"):
        self.namespace, self.sealed, self.policy = namespace, False, True
        self.role_id, self.secret_id, self.jwt = "role-1", "secret-" + secrets.token_hex(8), "jwt-" + secrets.token_hex(8)
        self.tokens, self.lease, self.values, self.transit = set(), 3600, {}, {}
        super().__init__()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def answer(self, method, path, headers, body):
        denied = 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
        if headers.get("x-vault-request") != "true" or headers.get("x-vault-namespace") != self.namespace:
            return 400, {"errors": ["bad headers"]}
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        token = headers.get("x-vault-token")
        if path.startswith("/v1/auth/"):
            if method != "POST" or token is not None or headers.get("content-type") != "application/json":
                return 400, {"errors": ["a login is a POST of JSON without a token"]}
            logins = {
                "/v1/auth/machines/login": {"role_id": self.role_id, "secret_id": self.secret_id},
                "/v1/auth/kubernetes/login": {"role": "sallyport", "jwt": self.jwt},
            }
            given = json.loads(body)
            if path not in logins or set(given) != set(logins[path]):
                return 400, {"errors": ["no such login"]}
            if given != logins[path]:
                return 403, {"errors": ["invalid role or secret ID"]}
            made = "hvs." + secrets.token_urlsafe(24)
            self.tokens.add(made)
            auth = {"client_token": made, "accessor": "a", "policies": ["default"], "lease_duration": self.lease, "renewable": True}
            return 200, {"request_id": "1", "lease_id": "", "renewable": False, "lease_duration": 0, "data": None, "auth": auth}
        if token not in self.tokens or not self.policy:
            return denied
        if path.startswith("/v1/secret/data/") and method == "GET" and not body:
            found = self.values.get(path.removeprefix("/v1/secret/data/"))
            if found is None:
                return 404, {"errors": []}
            return 200, {"data": {"data": found, "metadata": {"version": 1, "deletion_time": "", "destroyed": False}}, "lease_duration": 0}
        if path.startswith("/v1/transit/") and method == "POST":
            _, _, _, what, name = path.split("/")
            given = json.loads(body)
            if name != "sallyport":
                return 404, {"errors": ["encryption key not found"]}
            if what == "encrypt" and set(given) == {"plaintext"}:
                base64.b64decode(given["plaintext"], validate=True)
                made = "vault:v1:" + base64.b64encode(os.urandom(44)).decode()
                self.transit[made] = given["plaintext"]
                return 200, {"data": {"ciphertext": made, "key_version": 1}}
            if what == "decrypt" and set(given) == {"ciphertext"}:
                if given["ciphertext"] not in self.transit:
                    return 400, {"errors": ["cipher: message authentication failed"]}
                return 200, {"data": {"plaintext": self.transit[given["ciphertext"]]}}
        return 400, {"errors": ["unsupported operation"]}


class Tokens(Service):
    """Entra ID's token endpoint and the metadata service of a virtual machine."""

    def __init__(self):
        self.secret, self.assertion, self.given = secrets.token_hex(8), "federated-" + secrets.token_hex(8), set()
        super().__init__()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def give(self, **more):
        token = "eyJ0." + secrets.token_urlsafe(24)
        self.given.add(token)
        return 200, {"token_type": "Bearer", "access_token": token, **more}

    def answer(self, method, path, headers, body):
        url = urllib.parse.urlsplit(path)
        if url.path == "/metadata/identity/oauth2/token":
            asked = urllib.parse.parse_qs(url.query)
            good = headers.get("metadata") == "true" and asked == {"api-version": ["2018-02-01"], "resource": ["https://vault.azure.net"]}
            if method != "GET" or not good or "x-forwarded-for" in headers:
                return 400, {"error": "invalid_request", "error_description": "bad"}
            return self.give(expires_in="3599", expires_on=str(int(time.time()) + 3599), resource="https://vault.azure.net")
        form = {name: values[0] for name, values in urllib.parse.parse_qs(body.decode(), strict_parsing=True).items()}
        base = {"grant_type": "client_credentials", "client_id": "app-1", "scope": "https://vault.azure.net/.default"}
        if url.path != "/tenant-1/oauth2/v2.0/token" or headers.get("content-type") != "application/x-www-form-urlencoded":
            return 400, {"error": "invalid_request", "error_description": "AADSTS900144"}
        kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        if form == {**base, "client_secret": self.secret} or form == {**base, "client_assertion_type": kind, "client_assertion": self.assertion}:
            return self.give(expires_in=3599, ext_expires_in=3599)
        if {name: form.get(name) for name in base} != base:
            return 400, {"error": "invalid_request", "error_description": "AADSTS90014"}
        return 401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}


class KeyVault(Service):
    """A vault with secrets and one RSA key, `wrapping`, of two versions; tokens are those that `tokens` gave."""

    def __init__(self, tokens, tls, folder):
        self.tokens, self.folder, self.values, self.allowed = tokens, Path(folder), {}, True
        self.folder.mkdir(parents=True, exist_ok=True)
        self.versions = []
        self.new_version()
        super().__init__(tls)

    @property
    def name(self):
        return f"localhost:{self.port}"

    def new_version(self):
        version = secrets.token_hex(16)
        subprocess.run(["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out",
                        self.folder / f"{version}.pem"], check=True, capture_output=True)
        self.versions.append(version)

    def openssl(self, what, version, data):
        command = ["openssl", "pkeyutl", what, "-inkey", self.folder / f"{version}.pem", "-pkeyopt", "rsa_padding_mode:oaep",
                   "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256"]
        done = subprocess.run(command, input=data, capture_output=True)
        return done.stdout if done.returncode == 0 else None

    def answer(self, method, path, headers, body):
        url = urllib.parse.urlsplit(path)
        if url.query != "api-version=7.4":
            return 400, {"error": {"code": "BadParameter", "message": "the api-version is missing"}}
        if headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens.given:
            return 401, {"error": {"code": "Unauthorized", "message": "AKV10000: Request is missing a Bearer or PoP token."}}
        if not self.allowed:
            return 403, {"error": {"code": "Forbidden", "message": "Caller is not authorized to perform action on resource."}}
        parts = url.path.strip("/").split("/")
        if method == "GET" and parts[0] == "secrets" and len(parts) in (2, 3):
            found = self.values.get("/".join(parts[1:]))
            if found is None:
                return 404, {"error": {"code": "SecretNotFound", "message": "A secret with (name/id) was not found."}}
            return 200, {"value": found, "id": f"https://{self.name}{url.path}", "attributes": {"enabled": True}}
        if parts[:2] == ["keys", "wrapping"]:
            if method == "GET" and len(parts) == 2:
                return 200, {"key": {"kid": f"https://{self.name}/keys/wrapping/{self.versions[-1]}", "kty": "RSA"}, "attributes": {"enabled": True}}
            if method == "POST" and len(parts) == 4 and parts[2] in self.versions and parts[3] in ("wrapkey", "unwrapkey"):
                given = json.loads(body)
                if set(given) != {"alg", "value"} or given["alg"] != "RSA-OAEP-256" or "=" in given["value"]:
                    return 400, {"error": {"code": "BadParameter", "message": "bad body"}}
                value = base64.urlsafe_b64decode(given["value"] + "=" * (-len(given["value"]) % 4))
                made = self.openssl("-encrypt" if parts[3] == "wrapkey" else "-decrypt", parts[2], value)
                if made is None:
                    return 400, {"error": {"code": "BadParameter", "message": "the parameter is incorrect"}}
                kid = f"https://{self.name}/keys/wrapping/{parts[2]}"
                return 200, {"kid": kid, "value": base64.urlsafe_b64encode(made).decode().rstrip("=")}
        if parts[0] == "keys":
            return 404, {"error": {"code": "KeyNotFound", "message": "A key with (name/id) was not found."}}
        return 400, {"error": {"code": "BadParameter", "message": "unsupported"}}
