"""What can be set of an endpoint: refused beside its field, set, shown, changed and removed, by those who may."""

import base64
import datetime
import hashlib
import json
from dataclasses import dataclass, field

import pytest
from conftest import fact
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from playwright.sync_api import expect
from world import ROOT

# Each language once, and each way to send a form once.
WAYS = [pytest.param("en", True, id="english"), pytest.param("es", False, id="spanish-without-script")]
LOCALES = {"en": "en-US", "es": "es-MX"}
SPANISH = dict(
    pair.strip().split("\n") for pair in (ROOT / "src/web/dashboard/es.txt").read_text().split("\n\n") if pair.strip()
)

# Fields of which one value is chosen, and fields whose values are not shown again.
CHOICES = {"Authentication", "Status"}
HIDDEN = {"Headers", "Password, token or client secret", "Private key of the certificate", "Your own signing secret"}

# Connections to it are refused.
NOBODY = "https://127.0.0.1:9"


@dataclass
class Pair:
    """A client certificate and its key."""

    name: str
    certificate: str = ""
    key: str = ""
    fingerprint: str = ""

    def __post_init__(self):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        made = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
            .not_valid_before(datetime.datetime(2020, 1, 1)).not_valid_after(datetime.datetime(2120, 1, 1))
            .sign(key, hashes.SHA256())
        )
        self.certificate = made.public_bytes(serialization.Encoding.PEM).decode()
        self.fingerprint = hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest()
        self.key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    @property
    def secret(self):
        return self.key.splitlines()[1]


FIRST, SECOND = Pair("first client"), Pair("second client")


@dataclass
class Attribute:
    """An attribute of an endpoint: what is typed by the label of its field, what is shown, and what the API has."""

    name: str
    # Its name on the endpoint's page.
    fact: str
    # What is refused, and the same as the API takes it.
    wrong: dict
    refused: object
    made: dict
    made_shown: list
    made_value: object
    changed: dict
    changed_shown: list
    changed_value: object
    removed: dict
    removed_shown: list = field(default_factory=list)
    removed_value: object = None
    # The field that is at fault, where it is called otherwise.
    at: str = ""
    # What no page shows.
    secrets: list = field(default_factory=list)
    # What a request carries after the change.
    sent: dict = field(default_factory=dict)
    host: str = ""


def setting(name, label, wrong, made, changed, refused=None, fact=None, **more):
    """An attribute of one field, whose page shows what the API has."""
    return Attribute(
        name=name, fact=fact or label, wrong={label: wrong}, refused=wrong if refused is None else refused,
        made={label: made}, made_shown=[made], made_value=made, changed={label: changed}, changed_shown=[changed],
        changed_value=changed, removed={label: ""}, **more,
    )


def number(name, label, wrong, made, changed):
    found = setting(name, label, str(wrong), str(made), str(changed), refused=wrong)
    found.made_value, found.changed_value = made, changed
    return found


def authentication(kind, typed, shown, value, wrong, refused, **more):
    """One way to authenticate, of which another value is given in its place."""
    return Attribute(
        name="authentication", fact="Authentication", wrong=wrong, refused=refused,
        made={"Authentication": kind} | typed, made_shown=shown, made_value={"type": kind} | value,
        removed={"Authentication": "none"}, **more,
    )


CREDENTIAL = "Password, token or client secret"
TOTAL = '{"data": {"total": {"$gte": %s}}}'
ATTRIBUTES = {
    "wildcards": Attribute(
        "events", "Event types", {"order.created": False}, [],
        {"order.*": True}, ["order.*"], ["order.*"],
        {"order.*": False, "*": True}, ["*"], ["*"],
        {"*": False, "order.created": True}, ["order.created"], ["order.created"],
    ),
    "channels": Attribute(
        "channels", "Channels", {"Channels": "north/south"}, ["north/south"],
        {"Channels": "north, store:7"}, ["north", "store:7"], ["north", "store:7"],
        {"Channels": "south"}, ["south"], ["south"], {"Channels": ""},
    ),
    "filter": Attribute(
        "filter", "Content filter", {"Content filter": '{"data": {"total": {"$regex": "1"}}}'},
        {"data": {"total": {"$regex": "1"}}},
        # Digits are kept as they were typed.
        {"Content filter": TOTAL % "100.50"}, ['"$gte": 100.50'], json.loads(TOTAL % "100.50"),
        {"Content filter": '{"event": "order.created"}'}, ['"event": "order.created"'], {"event": "order.created"},
        {"Content filter": ""},
    ),
    "headers": Attribute(
        "headers", "Headers", {"Headers": "Host: a-host-of-mine"}, {"Host": "a-host-of-mine"},
        {"Headers": "X-Api-Key: a-key-of-many-letters"}, ["X-Api-Key", "...ters"], {"X-Api-Key": "...ters"},
        # A mask keeps what is stored.
        {"Headers": "X-Api-Key: ...ters\nX-Shop: shop-9"}, ["X-Api-Key", "...ters", "X-Shop"],
        {"X-Api-Key": "...ters", "X-Shop": "..."}, {"Headers": ""},
        secrets=["a-host-of-mine", "a-key-of-many-letters", "shop-9"],
        sent={"X-Api-Key": "a-key-of-many-letters", "X-Shop": "shop-9"},
    ),
    "basic": authentication(
        "basic", {"User name (Basic)": "ana", CREDENTIAL: "a-first-password"}, ["Basic", "ana"], {"username": "ana"},
        {"Authentication": "basic", "User name (Basic)": "a:b", CREDENTIAL: "a-wrong-password"},
        {"type": "basic", "username": "a:b", "password": "a-wrong-password"},
        changed={"Authentication": "basic", "User name (Basic)": "eva", CREDENTIAL: "a-second-password"},
        changed_shown=["Basic", "eva"], changed_value={"type": "basic", "username": "eva"},
        secrets=["a-first-password", "a-wrong-password", "a-second-password"],
        sent={"Authorization": f"Basic {base64.b64encode(b'eva:a-second-password').decode()}"},
    ),
    "bearer": authentication(
        "bearer", {CREDENTIAL: "a-first-token"}, ["Bearer"], {},
        {"Authentication": "bearer", CREDENTIAL: ""}, {"type": "bearer", "token": ""},
        changed={"Authentication": "bearer", CREDENTIAL: "a-second-token"}, changed_shown=["Bearer"],
        changed_value={"type": "bearer"}, secrets=["a-first-token", "a-second-token"],
        sent={"Authorization": "Bearer a-second-token"},
    ),
    "oauth2": authentication(
        "oauth2",
        {"Token URL (OAuth 2)": f"{NOBODY}/token", "Client ID (OAuth 2)": "shop", CREDENTIAL: "a-first-secret",
         "Scope (OAuth 2, optional)": "hooks", "Audience (OAuth 2, optional)": "receivers"},
        ["OAuth 2", f"{NOBODY}/token", "shop", "hooks", "receivers"],
        {"token_url": f"{NOBODY}/token", "client_id": "shop", "scope": "hooks", "audience": "receivers"},
        {"Authentication": "oauth2", "Token URL (OAuth 2)": "somewhere", "Client ID (OAuth 2)": "shop",
         CREDENTIAL: "a-wrong-secret"},
        {"type": "oauth2", "token_url": "somewhere", "client_id": "shop", "client_secret": "a-wrong-secret"},
        changed={"Authentication": "oauth2", "Client ID (OAuth 2)": "till", "Scope (OAuth 2, optional)": "",
                 "Audience (OAuth 2, optional)": "", CREDENTIAL: "a-second-secret"},
        changed_shown=["OAuth 2", "till"],
        changed_value={"type": "oauth2", "token_url": f"{NOBODY}/token", "client_id": "till"},
        at="token_url", secrets=["a-first-secret", "a-wrong-secret", "a-second-secret"],
    ),
    "client certificate": Attribute(
        "client_certificate", "Client certificate",
        {"Client certificate": FIRST.certificate, "Private key of the certificate": SECOND.key},
        {"certificate": FIRST.certificate, "private_key": SECOND.key},
        {"Client certificate": FIRST.certificate, "Private key of the certificate": FIRST.key},
        ["CN=first client", FIRST.fingerprint],
        {"subject": "CN=first client", "fingerprint": FIRST.fingerprint, "not_after": "2120-01-01T00:00:00Z"},
        {"Client certificate": SECOND.certificate, "Private key of the certificate": SECOND.key},
        ["CN=second client", SECOND.fingerprint],
        {"subject": "CN=second client", "fingerprint": SECOND.fingerprint, "not_after": "2120-01-01T00:00:00Z"},
        {"yes": True}, secrets=[FIRST.secret, SECOND.secret], host=NOBODY,
    ),
    "rate limit": setting("rate_limit", "Rate limit", "100 a minute", "100/1m", "5/1s"),
    "attempts at once": number("max_in_flight", "Attempts at once", 0, 7, 9),
    "timeout": number("timeout_seconds", "Timeout in seconds", 121, 5, 120),
    "retry schedule": Attribute(
        "retry_schedule", "Retry schedule in seconds", {"Retry schedule in seconds": "10, 0"}, [10, 0],
        {"Retry schedule in seconds": "10, 60"}, ["10, 60"], [10, 60],
        {"Retry schedule in seconds": "0"}, ["No retry"], [], {"Retry schedule in seconds": ""},
    ),
    "metadata": Attribute(
        "metadata", "Metadata", {"Metadata": '{"shop": 7}'}, {"shop": 7},
        {"Metadata": '{"shop": "north"}'}, ["shop: north"], {"shop": "north"},
        {"Metadata": '{"till": "7"}'}, ["till: 7"], {"till": "7"}, {"Metadata": ""},
    ),
    "external id": setting("external_id", "External ID", "deliveries", "shop-7", "shop:7.b"),
}

# What is typed at once: settings that have nothing to do with each other are one form, whose faults are told together.
PLAIN = ["channels", "rate limit", "attempts at once", "timeout", "retry schedule", "metadata", "external id"]
FORMS = {"plain": [ATTRIBUTES[name] for name in PLAIN]} | {
    name.replace(" ", "-"): [attribute] for name, attribute in ATTRIBUTES.items() if name not in PLAIN
}


@pytest.fixture(scope="module")
def account(server):
    """An account with three events, and room for an endpoint of each test."""
    account = server.account("The form of an endpoint")
    for total in (50, 150, 250):
        account.publish(data={"id": f"ord_{total}", "total": total})
    return account


class Form:
    """A page in one of the languages."""

    def __init__(self, page, language):
        self.page, self.language = page, language

    def say(self, english):
        return english if self.language == "en" else SPANISH.get(english, english)

    def heading(self, english):
        expect(self.page.get_by_role("heading", level=1)).to_have_text(self.say(english))

    def field(self, label):
        return self.page.get_by_label(self.say(label), exact=True)

    def fill(self, typed):
        for label, value in typed.items():
            if isinstance(value, bool):
                self.page.locator(f"input[type=checkbox][value='{label}']").set_checked(value)
            elif label in CHOICES:
                self.field(label).select_option(value)
            else:
                self.field(label).fill(value)

    def press(self, button):
        self.page.get_by_role("button", name=self.say(button), exact=True).click()

    def follow(self, link):
        self.page.get_by_role("link", name=self.say(link), exact=True).first.click()

    def new(self, home, url, *events):
        self.page.goto(f"{home}/endpoints/new")
        self.page.locator("#f-url").fill(url)
        self.fill({event: True for event in events})

    def refuses(self, name, detail):
        """What is wrong stands above the form, with a link to its field, and beside the field."""
        expect(self.page.locator(f"#f-{name}-error")).to_have_text(detail)
        expect(self.page.locator(f".faults a[href='#f-{name}']")).to_have_text(detail)
        at_fault = self.page.locator(f"#f-{name}")
        assert f"f-{name}-error" in at_fault.get_attribute("aria-describedby").split()

    def still_says(self, typed):
        for label, value in typed.items():
            if label not in HIDDEN and not isinstance(value, bool):
                expect(self.field(label)).to_have_value(value)

    def shows(self, name, texts):
        shown = fact(self.page, self.say(name))
        for text in texts:
            expect(shown).to_contain_text(self.say(text))
        if not texts:
            expect(shown.locator(".none")).to_have_count(1)

    def hides(self, secrets):
        content = self.page.content()
        for secret in secrets:
            assert secret not in content, self.page.url


@pytest.fixture
def form(browse):
    def open_for(cookie, language, script):
        return Form(browse(cookie, script=script, locale=LOCALES[language]), language)

    return open_for


def told(account, language, body):
    """What the API says of a new endpoint that it refuses, by the field of the form."""
    headers = {"Authorization": f"Bearer {account.key}", "Content-Type": "application/json"}
    headers["Accept-Language"] = language
    answer = account.server.request("POST", "/v1/webhooks", json.dumps(body), headers).expect(422)
    details = {}
    for fault in json.loads(answer.body)["errors"]:
        name, _, member = fault["source"]["pointer"].removeprefix("/data/attributes/").partition("/")
        details[member if name == "authentication" and member else name] = fault["detail"]
    return details


@pytest.mark.parametrize("language, script", WAYS)
@pytest.mark.parametrize("name", FORMS)
def test_what_can_be_set_is_refused_set_shown_changed_and_removed(world, form, account, name, language, script):
    attributes = FORMS[name]
    secrets = [secret for attribute in attributes for secret in attribute.secrets]
    it = form(account.owner, language, script)
    url = f"{attributes[0].host or world.receiver.url}/{name}-{language}"
    it.new(account.home, url, "order.created")
    for attribute in attributes:
        it.fill(attribute.wrong)
    it.press("Create endpoint")
    wrong = {attribute.name: attribute.refused for attribute in attributes}
    details = told(account, language, {"url": url, "events": ["order.created"]} | wrong)
    assert details.keys() == {attribute.at or attribute.name for attribute in attributes}
    for at, detail in details.items():
        it.refuses(at, detail)
    for attribute in attributes:
        it.still_says(attribute.wrong)
    it.hides(secrets)

    def are(shown, values):
        for attribute in attributes:
            it.shows(attribute.fact, shown(attribute))
        it.hides(secrets)
        known = account.read_endpoint(it.page.url.split("?")[0].rsplit("/", 1)[1])
        for attribute in attributes:
            assert known.get(attribute.name) == values(attribute)

    for attribute in attributes:
        it.fill(attribute.made)
    it.press("Create endpoint")
    it.heading("The endpoint is created")
    it.hides(secrets)
    it.follow("To the endpoint")
    are(lambda attribute: attribute.made_shown, lambda attribute: attribute.made_value)

    it.follow("Edit")
    it.hides(secrets)
    for attribute in attributes:
        it.fill(attribute.changed)
    it.press("Save")
    are(lambda attribute: attribute.changed_shown, lambda attribute: attribute.changed_value)
    for attribute in attributes:
        if attribute.sent:
            id = it.page.url.split("?")[0].rsplit("/", 1)[1]
            account.call("POST", f"/v1/webhooks/{id}/test").expect(200)
            headers, _ = world.receiver.came[url.removeprefix(world.receiver.url)][-1]
            lower = {name.lower(): value for name, value in headers.items()}
            assert {name: lower.get(name.lower()) for name in attribute.sent} == attribute.sent

    it.follow("Edit")
    for attribute in attributes:
        it.fill(attribute.removed)
    it.press("Save")
    are(lambda attribute: attribute.removed_shown, lambda attribute: attribute.removed_value)


@pytest.mark.parametrize("language, script", WAYS)
def test_a_filter_is_tried_before_anything_is_made_or_changed(world, form, account, language, script):
    it = form(account.owner, language, script)
    url = f"{world.receiver.url}/tried-{language}"
    preview = it.page.get_by_role("region", name=it.say("Preview of the filter"))
    matching = it.say("Of your newest {n} events {m} match.")
    before = account.call("GET", "/v1/webhooks").data
    it.new(account.home, url, "order.created")
    it.fill({"Content filter": TOTAL % 100, "Description": "Large ones"})
    it.press("Preview the filter")
    expect(preview).to_contain_text(matching.format(n=3, m=2))
    expect(preview.locator("tbody tr")).to_have_count(3)
    expect(preview.locator("tbody tr", has_text=it.say("Does not match"))).to_contain_text("/data/total/$gte")
    for label, value in [("Content filter", TOTAL % 100), ("Description", "Large ones")]:
        expect(it.field(label)).to_have_value(value)
    expect(it.page.locator("#f-url")).to_have_value(url)
    expect(it.page.locator("input[name=events]:checked")).to_have_count(1)

    it.fill({"Channels": "north"})
    it.press("Preview the filter")
    nothing = "There is no event to try it on: none of these types and channels is kept with its body."
    expect(preview).to_contain_text(it.say(nothing))
    it.fill({"Channels": "", "Content filter": "{"})
    it.press("Preview the filter")
    early = it.say("This is not JSON yet: it ends early, at line {line}, column {column}.").format(line=1, column=1)
    it.refuses("filter", early)
    expect(preview).to_have_count(0)
    assert account.call("GET", "/v1/webhooks").data == before, "a preview makes nothing"

    it.fill({"Content filter": TOTAL % 100})
    it.press("Create endpoint")
    it.follow("To the endpoint")
    id = it.page.url.rsplit("/", 1)[1]
    it.follow("Edit")
    it.fill({"Content filter": TOTAL % 200})
    it.press("Preview the filter")
    expect(preview).to_contain_text(matching.format(n=3, m=1))
    assert account.read_endpoint(id)["filter"] == json.loads(TOTAL % 100), "a preview changes nothing"
    it.press("Save")
    it.shows("Content filter", ['"$gte": 200'])


@pytest.mark.parametrize("language, script", WAYS)
def test_an_own_secret_is_shown_once_and_asked_for_again_where_a_form_is_shown_again(
    world, form, account, language, script
):
    it = form(account.owner, language, script)
    own = [f"a-secret-of-{name}-receivers-{language}-4711" for name in ("our", "their")]
    hint = it.page.locator("#f-secret-hint")
    again = it.say("Type your own secret again: it is not shown. If this field stays empty, a new secret is made.")
    url = f"{world.receiver.url}/own-secret-{language}"
    it.new(account.home, url, "order.created")
    it.fill({"Your own signing secret": "too-short"})
    it.press("Create endpoint")
    wrong = {"url": url, "events": ["order.created"], "secret": "too-short"}
    it.refuses("secret", told(account, language, wrong)["secret"])
    expect(hint).to_have_text(again)
    it.hides(["too-short"])
    it.fill({"Your own signing secret": own[0]})
    it.press("Preview the filter")
    expect(hint).to_have_text(again)
    it.hides(own)

    it.fill({"Your own signing secret": own[0]})
    it.press("Create endpoint")
    expect(it.field("Signing secret")).to_have_value(own[0])
    it.follow("To the endpoint")
    it.shows("Signing secret", [f"...{own[0][-4:]}"])
    it.hides(own)
    endpoint = it.page.url
    # An endpoint has another secret by a rotation, and another status by its own button.
    it.follow("Edit")
    expect(it.page.locator("#f-url")).to_be_visible()
    expect(it.page.locator("#f-secret, #f-status")).to_have_count(0)
    it.page.goto(f"{endpoint}/rotate")
    it.fill({"Your own signing secret": own[0]})
    it.press("Rotate secret")
    expect(it.page.locator("#f-secret-error")).not_to_be_empty()
    it.hides(own)
    it.fill({"Your own signing secret": own[1]})
    it.press("Rotate secret")
    expect(it.field("New signing secret")).to_have_value(own[1])
    it.page.goto(f"{endpoint}/edit")
    it.hides(own)


@pytest.mark.parametrize("language, script", WAYS)
def test_an_endpoint_can_be_made_paused(world, form, account, language, script):
    it = form(account.owner, language, script)
    url = f"{world.receiver.url}/made-paused-{language}"
    it.new(account.home, url, "order.created")
    it.fill({"Status": "disabled"})
    # Only a form that was tampered with asks for another one.
    it.page.locator("#f-status option[value=disabled]").evaluate("(option) => { option.value = 'asleep'; }")
    it.press("Create endpoint")
    wrong = {"url": url, "events": ["order.created"], "status": "asleep"}
    it.refuses("status", told(account, language, wrong)["status"])
    it.fill({"Status": "disabled"})
    it.press("Create endpoint")
    it.follow("To the endpoint")
    it.shows("Status", ["Paused"])
    expect(it.page.get_by_role("button", name=it.say("Resume endpoint"))).to_be_visible()


def test_what_is_stored_for_an_address_is_given_again_for_another_one(world, form, account):
    it = form(account.owner, "en", True)
    id = account.endpoint(f"{world.receiver.url}/here", headers={"X-Api-Key": "a-key-of-many-letters"},
                          authentication={"type": "bearer", "token": "a-token-of-ours"})
    it.page.goto(f"{account.home}/endpoints/{id}/edit")
    it.page.locator("#f-url").fill(f"{world.well}/there")
    it.press("Save")
    for name in ("headers", "authentication"):
        expect(it.page.locator(f"#f-{name}-error")).not_to_be_empty()
    assert account.read_endpoint(id)["url"] == f"{world.receiver.url}/here"
    it.fill({"Headers": "X-Api-Key: a-key-of-many-letters", "Authentication": "bearer", CREDENTIAL: "a-token-of-ours"})
    it.press("Save")
    expect(it.page.get_by_role("heading", level=1)).to_have_text(f"{world.well}/there")


def test_an_external_id_that_another_endpoint_has_is_refused(world, form, account):
    it = form(account.owner, "en", True)
    account.endpoint(f"{world.receiver.url}/named", external_id="the-only-one")
    it.new(account.home, f"{world.receiver.url}/unnamed", "order.created")
    it.fill({"External ID": "the-only-one"})
    it.press("Create endpoint")
    expect(it.page.locator("#f-external_id-error")).not_to_be_empty()


# All that can be set, and what the page shows of it.
EVERYTHING = {
    "events": ["order.*"], "channels": ["north"], "filter": {"data": {"total": 1}}, "rate_limit": "5/1s",
    "headers": {"X-Api-Key": "a-key-of-many-letters"}, "max_in_flight": 7, "timeout_seconds": 5, "retry_schedule": [],
    "authentication": {"type": "basic", "username": "ana", "password": "a-word-of-hers"}, "metadata": {"shop": "north"},
    "client_certificate": {"certificate": FIRST.certificate, "private_key": FIRST.key}, "external_id": "read-only",
    "secret": "a-secret-of-many-letters-4711", "status": "disabled",
}
EVERYTHING_SHOWN = {
    "Status": ["Paused"], "Event types": ["order.*"], "Channels": ["north"], "Content filter": ['"total": 1'],
    "Rate limit": ["5/1s"], "Headers": ["X-Api-Key: ...ters"], "Attempts at once": ["7"], "Timeout in seconds": ["5"],
    "Retry schedule in seconds": ["No retry"], "Authentication": ["Basic", "ana"], "Metadata": ["shop: north"],
    "Client certificate": ["CN=first client", FIRST.fingerprint], "External ID": ["read-only"],
    "Signing secret": ["...4711"],
}
EVERYTHING_HIDDEN = ["a-key-of-many-letters", "a-word-of-hers", FIRST.secret, EVERYTHING["secret"]]


@pytest.mark.parametrize("language, script", WAYS)
@pytest.mark.parametrize("reader", ["viewer", "portal"])
def test_who_may_only_read_sees_all_that_is_set_and_can_change_nothing(server, form, fresh, reader, language, script):
    made = {"url": f"{NOBODY}/read"} | EVERYTHING
    id = fresh.call("POST", "/v1/webhooks", made).expect(201).data["id"]
    cookie = fresh.user("viewer") if reader == "viewer" else ""
    home = fresh.home if reader == "viewer" else fresh.portal(permissions=["webhooks:read"])
    it = form(cookie, language, script)
    it.page.goto(f"{home}/endpoints/{id}")
    for name, texts in EVERYTHING_SHOWN.items():
        it.shows(name, texts)
    it.hides(EVERYTHING_HIDDEN)
    expect(it.page.locator("main form[method=post], main a[href$='/edit'], main a[href$='/rotate']")).to_have_count(0)
    mark = it.page.locator("input[name=csrf]")
    mark = mark.first.input_value() if mark.count() else ""
    before = fresh.read_endpoint(id)
    for path in (f"/endpoints/{id}/edit", "/endpoints/new"):
        assert it.page.goto(home + path).status == 403, path
        typed = {"csrf": mark, "url": f"{NOBODY}/changed", "events": "order.created"}
        assert server.send(home + path, typed, cookie).status == 403, path
    assert fresh.read_endpoint(id) == before and len(fresh.call("GET", "/v1/webhooks").data) == 1


@pytest.mark.parametrize("language, script", WAYS)
def test_who_cannot_see_the_catalog_types_the_names(world, form, account, language, script):
    it = form("", language, script)
    permissions = ["webhooks:read", "webhooks:create", "webhooks:update"]
    it.new(account.portal(permissions=permissions), f"{world.receiver.url}/typed-{language}")
    expect(it.page.locator("input[name=events][value='order.created']")).to_have_count(0)
    it.fill({"Other event types": "invoice.*, no.such.type"})
    it.press("Create endpoint")
    expect(it.page.locator("#f-events-error")).to_contain_text("no.such.type")
    # What was typed can be chosen now.
    expect(it.page.locator("input[value='invoice.*']")).to_be_checked()
    it.fill({"no.such.type": False})
    it.press("Create endpoint")
    it.follow("To the endpoint")
    it.shows("Event types", ["invoice.*"])
