"""The server that the browser looks at, its receivers, and what is in its database."""

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import re
import socket
import struct
import subprocess
import threading
import time
import urllib.parse
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("PROGRAM", str(ROOT / "target/debug/aldaba"))
PASSWORD = "correct horse battery"
COOKIE = "aldaba_session"

# How much is in the database of the account that is looked at.
LOADED = int(os.environ.get("LOADED", "100000"))

# What a receiver answers that means no good, and what is left of it when it is text.
HOSTILE = "</pre><script>document.title='hacked'</script><img src=x onerror=alert(1)>\"'&amp;"
HOSTILE_BYTES = HOSTILE.encode() + b" \x00\x07\x1b[31m\xc2\x9b \xff end"

EXAMPLE = {"id": "ord_1001", "total": 4200, "currency": "MXN", "customer": {"name": "Ana Pérez", "city": "Mérida"}}
SCHEMA = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"type": "string"}, "total": {"type": "integer"}, "note": {"type": "string"}},
}
CATALOG = {
    "order.created": "An order was placed and paid.",
    "order.shipped": "A parcel has left the warehouse.",
    "invoice.paid": "An invoice was settled.",
    "invoice.overdue": "An invoice is past its date.",
    "customer.moved": "A customer has a new address.",
    "stock.low": "There is little left of a product.",
    "refund.created": "Money goes back to a customer.",
}

# Generous: what is waited for is there in a moment, unless something is wrong.
PATIENCE = 30


def eventually(look, what):
    """Waits until `look` finds something."""
    end = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def one_time_code(key, steps_ahead=0):
    """The code that an authenticator app shows (RFC 6238)."""
    key = key.replace(" ", "")
    secret = base64.b32decode(key + "=" * (-len(key) % 8))
    step = int(time.time()) // 30 + steps_ahead
    digest = hmac.new(secret, struct.pack(">Q", step), hashlib.sha1).digest()
    at = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[at:at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06}"


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self):
        return self.body.decode()

    @property
    def data(self):
        return json.loads(self.body)["data"]

    @property
    def total(self):
        return json.loads(self.body)["meta"]["pagination"]["total"]

    def expect(self, status):
        assert self.status == status, f"{self.status}: {self.text[:600]}"
        return self


class Receiver:
    """Answers by path, and remembers what came."""

    def __init__(self):
        self.came = defaultdict(list)
        self.answers = {"/hostile": (500, HOSTILE_BYTES, {}), "/busy": (503, b"later", {"Retry-After": "3600"})}
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                receiver.came[self.path].append((dict(self.headers), body))
                status, text, headers = receiver.answers.get(self.path, (200, b'{"thanks": true}', {}))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Server:
    """`aldaba serve` with a database of its own."""

    def __init__(self, folder, **settings):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("ALDABA_")}
        self.environment |= {
            "ALDABA_DATABASE_URL": f"sqlite://{self.folder}/aldaba.db",
            "ALDABA_ENVIRONMENT": "development",
            "ALDABA_LOG__LEVEL": "warn",
        }
        for bucket in (
            "webhooks_list webhooks_read webhooks_write webhooks_test deliveries_list deliveries_read deliveries_export "
            "deliveries_retry events_create events_read events_storage event_types_read event_types_write accounts_read accounts_write "
            "api_keys_read api_keys_write audit_read users_read users_write portal_links webhooks_preview rate_limited_login"
        ).split():
            self.environment[f"ALDABA_RATE_LIMITS__{bucket.upper()}"] = "off"
        self.environment |= {f"ALDABA_{name}": value for name, value in settings.items()}
        self.children = []
        self.operator_key = self.run("keys", "create")
        self.base = self.start("serve", "--listen", "127.0.0.1:0", says=r"listening on (\S+)", log="serve.log")
        self.host = self.base.removeprefix("http://")

    def run(self, *arguments, given=None):
        """A command to its end: what it prints."""
        done = subprocess.run(
            [PROGRAM, *arguments], env=self.environment, cwd=self.folder, input=given, text=True, capture_output=True
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout.strip()

    def start(self, *arguments, says, log):
        """A command that goes on: what it says first."""
        out = self.folder / log
        with out.open("wb") as file:
            child = subprocess.Popen(
                [PROGRAM, *arguments], env=self.environment, cwd=self.folder, stdout=file, stderr=subprocess.STDOUT
            )
        self.children.append(child)

        def said():
            assert child.poll() is None, out.read_text()
            return re.search(says, out.read_text())

        return eventually(said, f"{arguments} to begin").group(1)

    def listen(self, status):
        """`aldaba listen`: its address."""
        port = free_port()
        child = subprocess.Popen(
            [PROGRAM, "listen", "--listen", f"127.0.0.1:{port}", "--status", str(status)],
            env=self.environment, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        self.children.append(child)

        def answers():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        eventually(answers, "the receiver to listen")
        return f"http://127.0.0.1:{port}"

    def stop(self):
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def call(self, method, path, body=None, key=None):
        """A call of the API; by the operator where no key is given."""
        headers = {"Authorization": f"Bearer {key or self.operator_key}"}
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/x-ndjson"
        elif body is not None:
            headers["Content-Type"], body = "application/json", json.dumps(body)
        return self.request(method, path, body, headers)

    def open(self, path, cookie="", **headers):
        """A page, as a browser without a window would ask for it."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("GET", path, None, {"Accept": "text/html", "Cookie": f"{COOKIE}={cookie}"} | named)

    def send(self, path, form, cookie="", **headers):
        """A form that is sent."""
        kind = {"Accept": "text/html", "Content-Type": "application/x-www-form-urlencoded"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = urllib.parse.urlencode(form, doseq=True)
        return self.request("POST", path, body, kind | {"Cookie": f"{COOKIE}={cookie}"} | named)

    def sign_in(self, email, password=PASSWORD, code=""):
        """The cookie of a new session."""
        return session(self.send("/sign-in", {"email": email, "password": password, "code": code}).expect(303))

    def join(self, url, password=PASSWORD):
        """Takes an invitation: the cookie of the session."""
        path = urllib.parse.urlsplit(url).path
        return session(self.send(path, {"password": password, "again": password}).expect(303))

    def account(self, name):
        return Account(self, name)


def session(answer):
    for line in answer.headers.get_all("set-cookie", []):
        name, _, value = line.split(";")[0].partition("=")
        if name == COOKIE and value:
            return value
    raise AssertionError(f"no session in {answer.headers}")


class Account:
    """An account with an owner who is signed in and a key that may do everything."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.id = server.call("POST", "/v1/accounts", {"name": name}).expect(201).data["id"]
        made = server.call("POST", f"/v1/accounts/{self.id}/api-keys", {"name": "the tests", "permissions": ["*"]})
        self.key_id, self.key = made.expect(201).data["id"], made.data["attributes"]["key"]
        self.home = f"/accounts/{self.id}"
        self.owner_email = self.address("owner")
        self.owner = self.user("owner")

    def address(self, name):
        return f"{name}@{self.id[:8]}{self.id[24:]}.example.com"

    def invite(self, role, name=None):
        """Somebody who has not set a password: their id and the address of their invitation."""
        body = {"email": self.address(name or role), "role": role}
        made = self.call("POST", f"/v1/accounts/{self.id}/users", body).expect(201).data
        return made["id"], made["attributes"]["invitation_url"]

    def user(self, role, name=None):
        """Somebody with this role: the cookie of their session."""
        return self.server.join(self.invite(role, name)[1])

    def call(self, method, path, body=None):
        return self.server.call(method, path, body, self.key)

    def endpoint(self, url, *events, **more):
        body = {"url": url, "events": list(events or ["order.created"]), **more}
        return self.call("POST", "/v1/webhooks", body).expect(201).data["id"]

    def read_endpoint(self, id):
        return self.call("GET", f"/v1/webhooks/{id}").expect(200).data["attributes"]

    def pause(self, id):
        self.call("PUT", f"/v1/webhooks/{id}", {"status": "disabled"}).expect(200)

    def publish(self, event="order.created", data=None):
        """Publishes one: its id."""
        return self.call("POST", "/v1/events", {"event": event, "data": data or EXAMPLE}).expect(202).data["id"]

    def publish_many(self, event, count, data=None):
        line = json.dumps({"event": event, "data": data or EXAMPLE}) + "\n"
        self.call("POST", "/v1/events/batch", (line * count).encode()).expect(202)

    def count(self, **filters):
        return self.call("GET", f"/v1/webhooks/deliveries?per_page=1&{urllib.parse.urlencode(filters)}").expect(200).total

    def delivery(self, **filters):
        """The newest delivery of this kind, once there is one: its id."""
        path = f"/v1/webhooks/deliveries?per_page=1&{urllib.parse.urlencode(filters)}"

        def newest():
            found = self.call("GET", path).expect(200).data
            return found and found[0]["id"]

        return eventually(newest, f"a delivery with {filters}")

    def portal(self, **wishes):
        """A portal link: its path."""
        body = {"permissions": ["webhooks:read", "webhooks:create", "webhooks:update", "webhooks:delete",
                                "event_types:read", "events:read"]} | wishes
        made = self.server.call("POST", f"/v1/accounts/{self.id}/portal-links", body).expect(201)
        return urllib.parse.urlsplit(made.data["attributes"]["url"]).path


class World:
    """One server with a busy account, in which there is something of everything."""

    def __init__(self, folder):
        self.receiver = Receiver()
        self.server = Server(folder, WEBHOOKS__RETRY_SCHEDULE="1s")
        self.well = self.server.listen(200)
        self.broken = self.server.listen(500)
        for name, about in CATALOG.items():
            body = {"name": name, "description": about, "example": EXAMPLE}
            if name == "order.created":
                body["schema"] = SCHEMA
            self.server.call("POST", "/v1/event-types", body).expect(201)
        self.server.run("users", "create", "ops@example.com", "--operator", "--password-stdin", given=PASSWORD)
        self.operator = self.server.sign_in("ops@example.com")
        self.acme = self.server.account("Acme Shipping")
        self.cookies = {
            "owner": self.acme.owner,
            "developer": self.acme.user("developer"),
            "viewer": self.acme.user("viewer"),
            "operator": self.operator,
        }
        self.load()

    def load(self):
        acme, url = self.acme, self.receiver.url
        orders = ["order.created", "order.shipped", "invoice.paid"]
        warehouse = acme.endpoint(f"{self.well}/warehouse", *orders, description="Warehouse in Monterrey")
        billing = acme.endpoint(f"{self.broken}/billing", "invoice.overdue", description="Billing")
        hostile = acme.endpoint(f"{url}/hostile", "refund.created", description=f"Refunds {HOSTILE}")
        busy = acme.endpoint(f"{url}/busy", "stock.low", ordering="none")
        gone = acme.endpoint(f"http://127.0.0.1:{free_port()}/old", "customer.moved", description="The old shop")
        paused = acme.endpoint(f"{self.well}/paused", "order.shipped", "customer.moved", description="Paused for now")
        acme.pause(paused)
        acme.publish("order.created")
        acme.publish_many("invoice.overdue", 6)
        for n in range(4):
            acme.publish("refund.created", {"id": f"ref_{n}", "note": HOSTILE, "control": "\u0000\u0007\u001b[31m"})
        acme.publish_many("stock.low", 5)
        acme.publish_many("customer.moved", 30)

        kinds = ["order.created"] * 60 + ["order.shipped"] * 25 + ["invoice.paid"] * 15
        left = LOADED - acme.count(endpoint_id=warehouse)
        batches = []
        for at in range(0, left, 1000):
            lines = [json.dumps({"event": kinds[n % 100], "data": EXAMPLE | {"id": f"ord_{n}"}})
                     for n in range(at, min(at + 1000, left))]
            batches.append("\n".join(lines).encode())
        with ThreadPoolExecutor(4) as pool:
            for answer in pool.map(lambda batch: acme.call("POST", "/v1/events/batch", batch), batches):
                answer.expect(202)

        whole = LOADED
        end = time.monotonic() + 300
        while acme.count(endpoint_id=warehouse, status="success") < whole:
            assert time.monotonic() < end, "the deliveries were not made in time"
            time.sleep(0.2)
        eventually(lambda: acme.count(endpoint_id=billing, status="failed") == 6, "deliveries that failed")
        eventually(lambda: acme.count(endpoint_id=hostile, status="failed") == 4, "hostile answers")
        eventually(lambda: acme.count(endpoint_id=busy, status="retrying") == 5, "deliveries that are tried again")
        eventually(lambda: acme.read_endpoint(gone)["status"] == "auto_disabled", "an endpoint that was given up")

        event = acme.call("GET", "/v1/events?per_page=1").expect(200).data[0]["id"]
        replay = acme.call("POST", f"/v1/webhooks/{paused}/replay",
                           {"from": "2026-01-01T00:00:00Z", "status": "missed"}).expect(202).data["id"]
        user, invitation = acme.invite("viewer", "new.colleague")
        acme.portal(brand="Example Pay", expires_in=86_400)
        link = acme.call("GET", f"/v1/accounts/{acme.id}/portal-links").expect(200).data[0]["id"]
        # What every page needs for its address.
        self.names = {
            "account": acme.id, "warehouse": warehouse, "billing": billing, "hostile": hostile, "gone": gone,
            "paused": paused, "event": event, "replay": replay, "key": acme.key_id, "user": user, "link": link,
            "invitation": urllib.parse.urlsplit(invitation).path.rsplit("/", 1)[1],
            "success": acme.delivery(endpoint_id=warehouse, status="success"),
            "failed": acme.delivery(endpoint_id=billing, status="failed"),
            "retrying": acme.delivery(endpoint_id=busy, status="retrying"),
            "pending": acme.delivery(endpoint_id=gone, status="pending,retrying"),
            "hostile_delivery": acme.delivery(endpoint_id=hostile, status="failed"),
        }

    def stop(self):
        self.server.stop()
        self.receiver.stop()
